"""The way that is still left to go as a meta-gradient."""

from functools import partial

import torch
from torch import Tensor

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.descent import only_descent
from fewstep.core.meta_gradient.outer_loss import query_loss, with_penalties
from fewstep.core.network.choice import Choice, chooses
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import exact, stopped
from fewstep.core.stages import Descend
from fewstep.core.tree import stopped_square, zip_map
from fewstep.core.types import AnyTask, Batch, Estimate, Params, Point


class Chaser(MetaGradient):
    """The distance that an adaptation would still go if it saw the query too: the chaser loss of Bayesian MAML.

    ``∇ ‖φ_K(θ) − stop(φ')‖²``, where φ_K is where adaptation ends, and φ' where a leader comes to that starts there and
    descends the inner loss of support and query together (Kim et al. 2018, section 3.2). Every derivative of the steps
    to φ_K is taken, and none of the leader's. The query's labels have no other part in it.

    :class:`Difference` is the same expression between the start and φ_K, with a half.

    Args:
        leader: what the leader does, such as ``Descend(rule, 1)`` with the rule of the learner.
        measured: the values whose distance counts, names or a predicate on names; all when omitted.

    Example:
        >>> rule = SGD(0.25)  # halves w: w = 1, then φ_1 = 1/2, and the leader comes to 1/4
        >>> learner = Learner(line, Shared(), [Descend(rule, 1)], loss=regression())
        >>> Method(learner, Chaser(Descend(rule, 1))).objective(parabola, None).objective.backward()
        >>> line.weight.grad  # 2 (1/2 − 1/4) times the 1/2 by which φ_1 changes with w
        tensor([[0.2500]])
    """

    def __init__(self, leader: Descend, measured: Choice | None = None) -> None:
        self.leader, self.measured = leader, measured

    def untrained(self, learner: Learner) -> set[str]:
        """No parameter.

        Raises:
            ValueError: when the learner has not exactly one ``Descend``, or one without a step, or when the leader
                takes none.
        """
        stage, _, _ = only_descent(learner, "Chaser")
        if not stage.steps or not self.leader.steps:
            whom = "the learner's Descend" if self.leader.steps else "the leader"
            raise ValueError(f"Chaser: give {whom} one step or more (got 0), without which there is nothing to chase.")
        return set()

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """The squared distance, plus penalties; logged are loss and score of the query at φ_K."""
        passed: list[Point] = []
        point, penalties = learner.adapt(task.support, exact, noise, map_tasks, passed.append)
        follower, (_, _, decoded) = passed[-1], only_descent(learner, "Chaser")
        with torch.no_grad():
            rows = map_tasks(partial(_together, learner))(task.support, task.query)
            leader = learner.resume(follower, [self.leader], rows, stopped, map_tasks=map_tasks, decoded=decoded)
            _, metrics = map_tasks(partial(query_loss, learner))(point, task.query, None, entry(noise, "query"))
        square = map_tasks(self._square)(follower.value, leader.value)
        return with_penalties(square, metrics | {"distance": square.detach().sqrt()}, penalties)

    def _square(self, follower: Params, leader: Params) -> Tensor:
        counted = {name: tensor for name, tensor in follower.items() if chooses(self.measured, name)}
        squares = zip_map(lambda a, b: stopped_square(a, b).sum(), counted, leader)
        return torch.stack(list(squares.values())).sum()


def _together(learner: Learner, support: Batch, query: Batch) -> Batch:
    """The rows of both, embedded together."""
    return learner.embed(Batch(*(torch.cat(pair) for pair in zip(support, query, strict=True))))
