"""The composition: three independent choices, and the parts to make each of them.

Examples in docstrings go on from the lines in ``help(fewstep)``.
"""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.core.alternatives import Alternatives as Alternatives
    from fewstep.core.alternatives import Values as Values
    from fewstep.core.auxiliary import Auxiliary as Auxiliary
    from fewstep.core.decay import Decay as Decay
    from fewstep.core.executors import Executor as Executor
    from fewstep.core.executors import Loop as Loop
    from fewstep.core.executors import Vmap as Vmap
    from fewstep.core.gradients import Differentiate as Differentiate
    from fewstep.core.gradients import MetaStep as MetaStep
    from fewstep.core.learner import Learner as Learner
    from fewstep.core.loss import Loss as Loss
    from fewstep.core.loss import Reduction as Reduction
    from fewstep.core.loss import classification as classification
    from fewstep.core.loss import normal_regression as normal_regression
    from fewstep.core.loss import regression as regression
    from fewstep.core.meta_gradient import Amortised as Amortised
    from fewstep.core.meta_gradient import Backprop as Backprop
    from fewstep.core.meta_gradient import Chaser as Chaser
    from fewstep.core.meta_gradient import Difference as Difference
    from fewstep.core.meta_gradient import Fading as Fading
    from fewstep.core.meta_gradient import FirstOrder as FirstOrder
    from fewstep.core.meta_gradient import Implicit as Implicit
    from fewstep.core.meta_gradient import Laplace as Laplace
    from fewstep.core.meta_gradient import Mixture as Mixture
    from fewstep.core.meta_gradient import MultiStep as MultiStep
    from fewstep.core.meta_gradient.base import MetaGradient as MetaGradient
    from fewstep.core.method import Method as Method
    from fewstep.core.network.choice import Choice as Choice
    from fewstep.core.network.contextual import Contextual as Contextual
    from fewstep.core.network.heads import MemoryHead as MemoryHead
    from fewstep.core.network.slots import Slot as Slot
    from fewstep.core.network.slots import slots as slots
    from fewstep.core.noise import Draws as Draws
    from fewstep.core.noise import generator as generator
    from fewstep.core.regularisers import L2 as L2
    from fewstep.core.regularisers import Orthogonality as Orthogonality
    from fewstep.core.regularisers import Regulariser as Regulariser
    from fewstep.core.rule import LSTM as LSTM
    from fewstep.core.rule import SGD as SGD
    from fewstep.core.rule import SVGD as SVGD
    from fewstep.core.rule import Adam as Adam
    from fewstep.core.rule import Chain as Chain
    from fewstep.core.rule import Clip as Clip
    from fewstep.core.rule import Curvature as Curvature
    from fewstep.core.rule import LearnedRates as LearnedRates
    from fewstep.core.rule import Masked as Masked
    from fewstep.core.rule import PerStep as PerStep
    from fewstep.core.rule import clipped as clipped
    from fewstep.core.rule.base import Rule as Rule
    from fewstep.core.slope import exact as exact
    from fewstep.core.slope import stopped as stopped
    from fewstep.core.stages import Decode as Decode
    from fewstep.core.stages import Descend as Descend
    from fewstep.core.stages import Stage as Stage
    from fewstep.core.stages import skip_empty as skip_empty
    from fewstep.core.start import BOUNDED as BOUNDED
    from fewstep.core.start import OFFICIAL as OFFICIAL
    from fewstep.core.start import PAPER as PAPER
    from fewstep.core.start import Attending as Attending
    from fewstep.core.start import Blend as Blend
    from fewstep.core.start import ClassPrior as ClassPrior
    from fewstep.core.start import Conditioning as Conditioning
    from fewstep.core.start import Encoded as Encoded
    from fewstep.core.start import FittedHead as FittedHead
    from fewstep.core.start import Formulation as Formulation
    from fewstep.core.start import Gaussian as Gaussian
    from fewstep.core.start import Generator as Generator
    from fewstep.core.start import Memory as Memory
    from fewstep.core.start import NetworkGenerator as NetworkGenerator
    from fewstep.core.start import NormalWeights as NormalWeights
    from fewstep.core.start import Predicted as Predicted
    from fewstep.core.start import Prototypes as Prototypes
    from fewstep.core.start import Ridge as Ridge
    from fewstep.core.start import Shared as Shared
    from fewstep.core.start import Shifted as Shifted
    from fewstep.core.start import Zeros as Zeros
    from fewstep.core.start import conditioned_layers as conditioned_layers
    from fewstep.core.start.base import Start as Start
    from fewstep.core.types import AnyTask as AnyTask
    from fewstep.core.types import Batch as Batch
    from fewstep.core.types import Estimate as Estimate
    from fewstep.core.types import KnownTask as KnownTask
    from fewstep.core.types import Params as Params
    from fewstep.core.types import Point as Point
    from fewstep.core.types import Task as Task
else:
    __getattr__, __dir__, __all__ = lazily(__name__)
