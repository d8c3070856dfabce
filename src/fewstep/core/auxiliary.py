"""An auxiliary loss: what the outer loop learns from beside tasks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewstep.core.learner import Learner
from fewstep.core.noise import generator
from fewstep.core.types import Batch


def always(done: float) -> float:
    """Probability 1, however far training has come."""
    return 1.0


@dataclass(frozen=True)
class Auxiliary:
    """A loss with data of its own, from which the outer loop learns beside the tasks.

    Either added to the meta-objective, ``L + λ A(θ)``; or, without a λ, descended by a step of its own, which an
    optimiser with moments of its own takes before the meta-step. In both cases with probability p at each meta-step.

    Whether it takes part in a meta-step, and on which rows, comes from a random stream that is that step's alone: a
    training that goes on sees what it would have seen. ``Method.objective`` does not have it: the trainer takes care.

    Attributes:
        loss: a scalar, of the learner and of a batch.
        batches: draws the rows of one meta-step from the stream that it is given, on the CPU or where they are wanted.
        weight: λ; None: a step of its own.
        probability: p, a function of how much of the meta-steps is done, in [0, 1).
        own: what the loss needs beside the learner, such as a classifier of base classes: trained with it, and kept in
            no model. None: nothing.
        name: under which the loss is logged, averaged over the meta-steps that it took part in.

    Raises:
        ValueError: for a weight that is not finite.

    Example:
        >>> from fewstep.data import RandomRows
        >>> named = nn.Linear(8, 5)  # five classes, of eight features
        >>> def loss(learner, batch):
        ...     return nn.functional.cross_entropy(named(learner.features(batch)), batch.y)
        >>> beside = Auxiliary(loss, RandomRows(classes, rows=6), weight=0.5, own=named)
        >>> method = replace(protonet(nn.Sequential(nn.Linear(8, 8), Generated())), auxiliaries=[beside])
    """

    loss: Callable[[Learner, Batch], Tensor]
    batches: Callable[[torch.Generator], Batch]
    weight: float | None = None
    probability: Callable[[float], float] = always
    own: nn.Module | None = None
    name: str = "auxiliary"

    def __post_init__(self) -> None:
        if self.weight is not None and not abs(self.weight) < float("inf"):
            raise ValueError(f"Auxiliary: the weight must be finite, or None for a step of its own; got {self.weight}.")

    def rows(self, seed: int, step: int, done: float) -> Batch | None:
        """The rows of a meta-step; None where it does not take part.

        Args:
            seed: of the training.
            step: which meta-step.
            done: the share of the meta-steps before it.
        """
        source = generator(seed, step, f"auxiliary/{self.name}")
        if torch.rand((), generator=source, dtype=torch.float64).item() >= self.probability(done):
            return None
        return self.batches(source)
