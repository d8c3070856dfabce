"""Estimators that differentiate the query loss through adaptation, wholly or to first order."""

from functools import partial

import torch

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.outer_loss import query_loss, with_penalties, with_support
from fewstep.core.network.heads import asking_whole
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import Slope, exact
from fewstep.core.types import AnyTask, Batch, Estimate, KnownTask, Penalties, Point, Statistics, require_statistics


class Backprop(MetaGradient):
    """The meta-gradient with every derivative of the inner loop: MAML's, and LEO's.

    ``∇ [L_Q(φ(θ)) + penalties]`` (Finn et al. 2017, Eq. 1; Rusu et al. 2019, Eq. 6). Of a start with a posterior
    (``Start.infer``) it is that of the variational bound: the rows of the loss are then seen by the start.

    Args:
        statistics: what the query is batch-normalised by in meta-training, see ``Learner.predict``; not "running".
        support_rows: the loss is the mean over the support's rows too, as a head answers them together with the query
            (TPN), or as any network answers them (neural processes).

    Example:
        >>> learner = Learner(line, Shared(), [Descend(SGD(0.25), 1)], loss=regression())  # w' = w/2 on the loss w²
        >>> Method(learner, Backprop()).objective(parabola, None).objective.backward()
        >>> line.weight.grad  # d(w/2)²/dw at w = 1
        tensor([[0.5000]])
    """

    slope: Slope = staticmethod(exact)

    def __init__(self, statistics: Statistics = "query", support_rows: bool = False) -> None:
        require_statistics(statistics, "Backprop")
        if statistics == "running":
            raise ValueError('Backprop: running statistics are of testing; train by "query", "support" or "joined".')
        self.statistics, self.support_rows = statistics, support_rows

    def untrained(self, learner: Learner) -> set[str]:
        """What a start holds for a posterior that this estimator does not ask for.

        Raises:
            ValueError: when support rows are to be judged, and the network does not answer them with the query.
        """
        if self.support_rows:
            asking_whole(learner.network, torch.ones(0))
        return super().untrained(learner)

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """Mean query loss at the adapted point, plus penalties."""
        classes = task.classes if isinstance(task, KnownTask) else None
        targets = self._judged(task) if learner.start.infers else None
        point, penalties = learner.adapt(task.support, self.slope, noise, map_tasks, classes=classes, targets=targets)
        outer = map_tasks(partial(self._outer, learner))
        estimate: Estimate = outer(point, penalties, task.support, task.query, entry(noise, "query"))
        return estimate

    def _judged(self, task: AnyTask) -> Batch:
        return with_support(task.support, task.query) if self.support_rows else task.query

    def asked(self, learner: Learner, task: AnyTask) -> Batch:
        """Support rows too, where they count and no head gives them with the query."""
        whole = self.support_rows and asking_whole(learner.network, task.query.weight)
        return task.query if whole else self._judged(task)

    def _outer(
        self, learner: Learner, point: Point, penalties: Penalties, support: Batch, query: Batch, noise: Noise
    ) -> Estimate:
        loss, metrics = query_loss(learner, point, query, support, noise, self.statistics, self.support_rows)
        return with_penalties(loss, metrics, penalties)
