"""The composition: three independent choices, and the parts to make each of them.

Examples in docstrings go on from the lines in ``help(fewstep)``.
"""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.core.executors import Executor, Loop, Vmap
    from fewstep.core.gradients import Differentiate, MetaStep
    from fewstep.core.learner import Learner
    from fewstep.core.loss import Loss, Reduction, classification, regression
    from fewstep.core.meta_gradient import Backprop, Difference, FirstOrder, Implicit, Mixture, MultiStep
    from fewstep.core.meta_gradient.base import MetaGradient
    from fewstep.core.method import Method
    from fewstep.core.network.slots import Slot, slots
    from fewstep.core.noise import Draws, generator
    from fewstep.core.regularisers import L2, Orthogonality, Regulariser
    from fewstep.core.rule import LSTM, SGD, Adam, Chain, Clip, Curvature, LearnedRates, PerStep, clipped
    from fewstep.core.rule.base import Rule
    from fewstep.core.slope import exact, stopped
    from fewstep.core.stages import Decode, Descend, Stage, skip_empty
    from fewstep.core.start import (
        BOUNDED,
        OFFICIAL,
        PAPER,
        Formulation,
        Generator,
        NetworkGenerator,
        Prototypes,
        Shared,
    )
    from fewstep.core.start.base import Start
    from fewstep.core.types import Batch, Estimate, Params, Point, Task
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "BOUNDED",
    "L2",
    "LSTM",
    "OFFICIAL",
    "PAPER",
    "SGD",
    "Adam",
    "Backprop",
    "Batch",
    "Chain",
    "Clip",
    "Curvature",
    "Decode",
    "Descend",
    "Difference",
    "Differentiate",
    "Draws",
    "Estimate",
    "Executor",
    "FirstOrder",
    "Formulation",
    "Generator",
    "Implicit",
    "LearnedRates",
    "Learner",
    "Loop",
    "Loss",
    "MetaGradient",
    "MetaStep",
    "Method",
    "Mixture",
    "MultiStep",
    "NetworkGenerator",
    "Orthogonality",
    "Params",
    "PerStep",
    "Point",
    "Prototypes",
    "Reduction",
    "Regulariser",
    "Rule",
    "Shared",
    "Slot",
    "Stage",
    "Start",
    "Task",
    "Vmap",
    "classification",
    "clipped",
    "exact",
    "generator",
    "regression",
    "skip_empty",
    "slots",
    "stopped",
]
