"""The difference between the ends of adaptation as a meta-gradient."""

from functools import partial

import torch
from torch import Tensor

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.descent import only_descent
from fewstep.core.meta_gradient.outer_loss import query_loss, with_penalties
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import stopped
from fewstep.core.tree import stopped_square, zip_map
from fewstep.core.types import AnyTask, Estimate, Params, Point


class Difference(MetaGradient):
    """The difference between the ends of adaptation as the meta-gradient: Reptile's.

    ``θ − φ_K``: a plain outer step of rate ε moves the start a part ε of the way to where adaptation ended.
    The objective is ``½ ‖θ − stop(φ_K)‖²`` (Nichol, Achiam and Schulman 2018, Algorithm 2). LEO's encoder penalty is
    the same expression for codes. The query is only looked at to log how well it is answered.

    Meta-parameters that the starting value is not made of stay untrained, so a learner that has any is refused.

    Example:
        >>> learner = Learner(line, Shared(), [Descend(SGD(0.25), 2)], loss=regression())  # halves w twice
        >>> Method(learner, Difference()).objective(parabola, None).objective.backward()
        >>> line.weight.grad  # w − w/4 at w = 1
        tensor([[0.7500]])
    """

    def untrained(self, learner: Learner) -> set[str]:
        """All but the start's value.

        Raises:
            ValueError: when the learner has not exactly one ``Descend``, or one without a step.
        """
        stage, _, decoded = only_descent(learner, "Difference")
        if not stage.steps:
            raise ValueError(
                "Difference: without an inner step adaptation ends where it starts, and nothing is learned; "
                "give the learner's Descend one step or more (got 0)."
            )
        names = {name for name, _ in learner.named_parameters()}
        trained = learner.start.start_parameters(learner.network)
        if decoded:  # the descent begins at what a whole start has made
            trained |= {name for name in names if name.startswith("start.")}
        return names - trained

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """Half of the squared distance between start and end, plus penalties."""
        passed: list[Point] = []
        point, penalties = learner.adapt(task.support, stopped, noise, map_tasks, passed.append)
        with torch.no_grad():
            _, metrics = map_tasks(partial(query_loss, learner))(point, task.query, None, entry(noise, "query"))
        half = map_tasks(_half_square)(passed[0].value, passed[-1].value)
        return with_penalties(half, metrics | {"distance": (2 * half.detach()).sqrt()}, penalties)


def _half_square(start: Params, end: Params) -> Tensor:
    """``½ ‖θ − stop(φ_K)‖²``."""
    squares = zip_map(lambda a, b: stopped_square(a, b).sum(), start, end)
    return 0.5 * torch.stack(list(squares.values())).sum()
