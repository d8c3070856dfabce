"""Networks that stay stateless under function transforms."""

from fewstep.networks.conv4 import Conv4, conv4
from fewstep.networks.heads import Generated
from fewstep.networks.mlp import mlp
from fewstep.networks.norms import BatchNorm, without_norms
from fewstep.networks.resnet12 import ResNet12

__all__ = ["BatchNorm", "Conv4", "Generated", "ResNet12", "conv4", "mlp", "without_norms"]
