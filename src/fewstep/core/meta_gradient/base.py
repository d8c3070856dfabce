"""How the outer loop learns from an adaptation: the protocol of a meta-gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fewstep.core.executors import Executor, direct
from fewstep.core.noise import Noise
from fewstep.core.types import AnyTask, Batch, Estimate, Statistics

if TYPE_CHECKING:
    from fewstep.core.learner import Learner


class MetaGradient(ABC):
    """How the outer loop learns from an adaptation.

    The one rule: the objective of the returned estimate is a scalar whose ordinary autograd gradient is the
    meta-gradient estimate. Trainer and optimiser never know which estimator ran.

    Example:
        >>> class FitSupport(MetaGradient):
        ...     def __call__(self, learner, task, noise, map_tasks=None):
        ...         return Estimate(learner.support_loss(learner.adapt(task.support)[0], task.support), {})
        >>> learner = maml(line, rate=0.25, loss=regression()).learner
        >>> Method(learner, FitSupport()).objective(parabola, None).objective.item()  # w² at w/2
        0.25
    """

    statistics: Statistics = "query"
    """What it batch-normalises queries by in meta-training, and evaluation unless told otherwise."""

    copies: int | None = None
    """How many independent adaptations of a task it compares: the noise that ``Method`` draws for it is then
    ``{"copies": noise}``, whose tensors have an axis of them before all others of a task."""

    def untrained(self, learner: Learner) -> set[str]:
        """Meta-parameters that this estimator would leave without a gradient, by name.

        Raises:
            ValueError: when it cannot learn from such a learner at all.
        """
        return {name for name, _ in learner.named_parameters() if name.startswith("start.posterior")}

    def asked(self, learner: Learner, task: AnyTask) -> Batch:
        """The rows that it asks the adapted network for: those of the query, if nothing else is said."""
        return task.query

    @abstractmethod
    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """Adapt to ``task`` and judge the result; ``map_tasks`` maps the pieces when steps are mapped one by one."""
