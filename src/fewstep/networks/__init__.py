"""Networks that stay stateless under function transforms."""

from fewstep.networks.conv4 import Conv4
from fewstep.networks.heads import Generated
from fewstep.networks.mlp import mlp
from fewstep.networks.norms import BatchNorm, without_norms

__all__ = ["BatchNorm", "Conv4", "Generated", "mlp", "without_norms"]
