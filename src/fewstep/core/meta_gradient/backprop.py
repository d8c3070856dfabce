"""Estimators that differentiate the query loss through adaptation, wholly or to first order."""

from functools import partial

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.outer_loss import query_loss
from fewstep.core.noise import Noise
from fewstep.core.slope import Slope, exact
from fewstep.core.types import Batch, Estimate, Penalties, Point, Task


class Backprop(MetaGradient):
    """``∇ [L_Q(φ(θ)) + penalties]`` with every derivative of the inner loop (Finn et al. 2017, Eq. 1; LEO, Eq. 6).

    Args:
        support_statistics: normalise the query by the support's batch statistics, see ``Learner.predict``.
    """

    slope: Slope = staticmethod(exact)

    def __init__(self, support_statistics: bool = False) -> None:
        self.support_statistics = support_statistics

    def __call__(self, learner: Learner, task: Task, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """Mean query loss at the adapted point, plus penalties."""
        point, penalties = learner.adapt(task.support, self.slope, noise, map_tasks)
        query_noise = None if noise is None else noise["query"]
        judge = map_tasks(partial(self._judge, learner))
        estimate: Estimate = judge(point, penalties, task.support, task.query, query_noise)
        return estimate

    def _judge(
        self, learner: Learner, point: Point, penalties: Penalties, support: Batch, query: Batch, noise: Noise
    ) -> Estimate:
        loss, metrics = query_loss(learner, point, query, support if self.support_statistics else None, noise)
        metrics |= {name: penalty.detach() for name, penalty in penalties.items()}
        return Estimate(loss + sum(penalties.values()), metrics)
