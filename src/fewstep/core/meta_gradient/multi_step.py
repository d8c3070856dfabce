"""A loss after every inner step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.descent import only_descent
from fewstep.core.meta_gradient.outer_loss import query_loss
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import Slope, exact, scaled
from fewstep.core.types import AnyTask, Estimate, Point


@dataclass(frozen=True)
class Fading:
    """Weights of inner steps that begin alike and leave the last alone: those of MAML++'s multi-step loss.

    In epoch e of training, ``v_k = max(1/K − e/(KE), 0.03/K)`` for k < K, and v_K what they leave of 1; from epoch E on
    the last step alone has weight 1.

    Args:
        steps: K.
        fades: E; with 0 the others are gone from the beginning.
        epochs: of training, parts of equal length in which weights are constant.

    Example:
        >>> Fading(steps=5, fades=15)(torch.tensor(0.05))  # in epoch 5 of 100
        tensor([0.1333, 0.1333, 0.1333, 0.1333, 0.4667])
    """

    steps: int
    fades: int
    epochs: int = 100

    def __call__(self, progress: Tensor) -> Tensor:
        """The weights; of a progress from 0 to 1."""
        epoch = (progress * self.epochs + 1e-3).floor()  # where a step begins an epoch, rounding may put it before
        share = (1 - epoch / max(self.fades, 1)).clamp(min=0.03) / self.steps
        share = torch.where(epoch < self.fades, share, 0.0)
        last = torch.arange(self.steps, device=progress.device) == self.steps - 1
        return torch.where(last, 1 - (self.steps - 1) * share, share)


class MultiStep(MetaGradient):
    """The meta-gradient of query losses after every inner step, weighted (Antoniou et al. 2019, multi-step loss).

    ``∇ Σ_k v_k L_Q(φ_k)`` over the steps k = 1 … K, with every derivative. Codes are judged by the mean weights that
    they decode into.

    Args:
        weights: v_1 … v_K; or what makes such a tensor of how far training has come, ``learner.progress``.
            :class:`Fading` is what the authors do.
        first_order_until: the progress until which second derivatives are left out; None: never.

    Raises:
        ValueError: for no weights.

    Example:
        >>> learner = Learner(line, Shared(), [Descend(SGD(0.25), 2)], loss=regression())  # w/2, then w/4
        >>> Method(learner, MultiStep([0.5, 0.5])).objective(parabola, None).objective.item()  # (1/4 + 1/16)/2
        0.15625
    """

    def __init__(
        self, weights: Sequence[float] | Callable[[Tensor], Tensor], first_order_until: float | None = None
    ) -> None:
        if not callable(weights) and not weights:
            raise ValueError("MultiStep: give one weight for each inner step, got none.")
        self.weights = weights if callable(weights) else tuple(weights)
        self.first_order_until = first_order_until

    def weights_at(self, progress: Tensor) -> Sequence[float] | tuple[Tensor, ...]:
        """v_1 … v_K."""
        return self.weights(progress).unbind() if callable(self.weights) else self.weights

    def untrained(self, learner: Learner) -> set[str]:
        """No parameter.

        Raises:
            ValueError: when the learner has not exactly one ``Descend``, with a step for each weight and no other.
        """
        stage, _, _ = only_descent(learner, "MultiStep")
        count = len(self.weights_at(learner.progress))
        if stage.steps != count:
            raise ValueError(
                f"MultiStep: {count} weights were given for {stage.steps} inner steps; give one weight for each step."
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
        slope: Slope = exact
        if self.first_order_until is not None:
            slope = partial(scaled, (learner.progress >= self.first_order_until).to(learner.progress.dtype))
        _, penalties = learner.adapt(task.support, slope, noise, map_tasks, passed.append)
        _, _, decoded = only_descent(learner, "MultiStep")
        losses = list(penalties.values())  # each of one task, or with a task axis
        for weight, point in zip(self.weights_at(learner.progress), passed[1:], strict=True):
            weights = point if decoded else map_tasks(learner.start.decode)(point, None)
            loss, metrics = map_tasks(partial(query_loss, learner))(weights, task.query, None, entry(noise, "query"))
            losses.append(weight * loss)
        return Estimate(
            torch.stack(losses).sum(0), metrics | {name: penalty.detach() for name, penalty in penalties.items()}
        )
