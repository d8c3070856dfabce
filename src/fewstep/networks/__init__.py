"""Networks that stay stateless under function transforms, and those of the first stage, which never meet them."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.networks.backbone import Backbone
    from fewstep.networks.conv_net import ConvNet
    from fewstep.networks.ensemble import Ensemble
    from fewstep.networks.forecaster import Forecaster
    from fewstep.networks.four_blocks import Conv4, conv4
    from fewstep.networks.heads import Generated
    from fewstep.networks.norms import BatchNorm, without_norms
    from fewstep.networks.perceptron import mlp
    from fewstep.networks.resnet9 import ResNet9
    from fewstep.networks.resnet12 import ResNet12
    from fewstep.networks.unit_length import UnitLength
    from fewstep.networks.wide_resnet import WideResNet
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Backbone",
    "BatchNorm",
    "Conv4",
    "ConvNet",
    "Ensemble",
    "Forecaster",
    "Generated",
    "ResNet9",
    "ResNet12",
    "UnitLength",
    "WideResNet",
    "conv4",
    "mlp",
    "without_norms",
]
