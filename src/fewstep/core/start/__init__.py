"""Where a task's adaptation begins."""

from fewstep.core.start.attending import Attending
from fewstep.core.start.blend import Blend
from fewstep.core.start.class_prior import ClassPrior
from fewstep.core.start.conditioning import Conditioning, conditioned_layers
from fewstep.core.start.encoded import Encoded
from fewstep.core.start.fitted_head import FittedHead
from fewstep.core.start.gaussian import Gaussian
from fewstep.core.start.generator import BOUNDED, OFFICIAL, PAPER, Formulation, Generator, Relation
from fewstep.core.start.memory import Memory
from fewstep.core.start.network_generator import NetworkGenerator
from fewstep.core.start.normal_weights import NormalWeights
from fewstep.core.start.predicted import Predicted
from fewstep.core.start.prototypes import Prototypes
from fewstep.core.start.ridge import Ridge
from fewstep.core.start.shared import Shared
from fewstep.core.start.shifted import Shifted
from fewstep.core.start.zeros import Zeros

__all__ = [
    "BOUNDED",
    "OFFICIAL",
    "PAPER",
    "Attending",
    "Blend",
    "ClassPrior",
    "Conditioning",
    "Encoded",
    "FittedHead",
    "Formulation",
    "Gaussian",
    "Generator",
    "Memory",
    "NetworkGenerator",
    "NormalWeights",
    "Predicted",
    "Prototypes",
    "Relation",
    "Ridge",
    "Shared",
    "Shifted",
    "Zeros",
    "conditioned_layers",
]
