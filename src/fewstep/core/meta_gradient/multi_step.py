"""A loss after every inner step."""

from collections.abc import Sequence
from functools import partial

import torch

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.descent import only_descent
from fewstep.core.meta_gradient.outer_loss import query_loss
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import exact
from fewstep.core.types import AnyTask, Estimate, Point


class MultiStep(MetaGradient):
    """The meta-gradient of query losses after every inner step, weighted (Antoniou et al. 2019, multi-step loss).

    ``∇ Σ_k v_k L_Q(φ_k)`` over the steps k = 1 … K, with every derivative. Codes are judged by the mean weights that
    they decode into.

    Args:
        weights: v_1 … v_K. The authors begin with 1/K each and let all but the last fade within the first epochs;
            here they are constant.

    Raises:
        ValueError: for no weights.

    Example:
        >>> learner = Learner(line, Shared(), [Descend(SGD(0.25), 2)], loss=regression())  # w/2, then w/4
        >>> Method(learner, MultiStep([0.5, 0.5])).objective(parabola, None).objective.item()  # (1/4 + 1/16)/2
        0.15625
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights:
            raise ValueError("MultiStep: give one weight for each inner step, got none.")
        self.weights = tuple(weights)

    def untrained(self, learner: Learner) -> set[str]:
        """No parameter.

        Raises:
            ValueError: when the learner has not exactly one ``Descend``, with a step for each weight and no other.
        """
        stage, _, _ = only_descent(learner, "MultiStep")
        if stage.steps != len(self.weights):
            raise ValueError(
                f"MultiStep: {len(self.weights)} weights were given for {stage.steps} inner steps; give one weight for "
                "each step."
            )
        if stage.moves > stage.steps:
            raise ValueError(
                "MultiStep: the descent ends with a step on the pull alone, which has no weight; give its Descend "
                "proximal='every'."
            )
        return set()

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """The weighted losses, plus penalties; logged are loss and score after the last step."""
        passed: list[Point] = []
        _, penalties = learner.adapt(task.support, exact, noise, map_tasks, passed.append)
        _, _, decoded = only_descent(learner, "MultiStep")
        losses = list(penalties.values())  # each of one task, or with a task axis
        for weight, point in zip(self.weights, passed[1:], strict=True):
            weights = point if decoded else map_tasks(learner.start.decode)(point, None)
            loss, metrics = map_tasks(partial(query_loss, learner))(weights, task.query, None, entry(noise, "query"))
            losses.append(weight * loss)
        return Estimate(
            torch.stack(losses).sum(0), metrics | {name: penalty.detach() for name, penalty in penalties.items()}
        )
