"""Networks that stay stateless under function transforms, and those of the first stage, which never meet them."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.networks.backbone import Backbone as Backbone
    from fewstep.networks.contextual import Concatenated as Concatenated
    from fewstep.networks.contextual import FeatureWise as FeatureWise
    from fewstep.networks.conv_net import ConvNet as ConvNet
    from fewstep.networks.cosine import Cosine as Cosine
    from fewstep.networks.distances import Distances as Distances
    from fewstep.networks.ensemble import Ensemble as Ensemble
    from fewstep.networks.forecaster import Forecaster as Forecaster
    from fewstep.networks.four_blocks import Conv4 as Conv4
    from fewstep.networks.four_blocks import conv4 as conv4
    from fewstep.networks.heads import Generated as Generated
    from fewstep.networks.matching import Matching as Matching
    from fewstep.networks.norms import BatchNorm as BatchNorm
    from fewstep.networks.norms import StepwiseBatchNorm as StepwiseBatchNorm
    from fewstep.networks.norms import without_norms as without_norms
    from fewstep.networks.particles import Particle as Particle
    from fewstep.networks.perceptron import mlp as mlp
    from fewstep.networks.propagating import Propagating as Propagating
    from fewstep.networks.relating import Relating as Relating
    from fewstep.networks.residual import Centred as Centred
    from fewstep.networks.residual import Residual as Residual
    from fewstep.networks.resnet9 import ResNet9 as ResNet9
    from fewstep.networks.resnet12 import ResNet12 as ResNet12
    from fewstep.networks.snail import Snail as Snail
    from fewstep.networks.transforms import transformed as transformed
    from fewstep.networks.unit_length import UnitLength as UnitLength
    from fewstep.networks.wide_resnet import WideResNet as WideResNet
else:
    __getattr__, __dir__, __all__ = lazily(__name__)
