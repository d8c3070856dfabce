"""Simple classifiers with their settings: baselines that can be chosen, kept in a file and predicted with."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from fewstep.core.types import Batch
from fewstep.data.features.normalise import l2_normalise
from fewstep.evaluation.baselines import logistic_regression, nearest_mean, ridge

Rule: TypeAlias = Literal["class means", "ridge", "logistic regression"]


@final
@dataclass(frozen=True, eq=False)
class Simple:
    """A classifier that learns from a task's own examples alone, with all that there is to say about it.

    It is a :data:`~fewstep.evaluation.baselines.Baseline`: ``simple(support, query)`` are predictions. With a centre c
    rows become ``(x − c)/‖x − c‖`` first; one that lies on c stays zero, as near to every class as to none.

    Attributes:
        rule: class means, ridge regression onto one-hot labels, or multinomial logistic regression on rows of length 1.
        penalty: ridge: λ, in the squared unit of x; logistic regression: 1/C. Class means have none.
        centre: c ``[features]``, such as the mean of the meta-training classes; ``"support"``, the weighted mean of
            each task's own support; None: rows are taken as they are.
        normalise: scale rows to length 1 before anything else, as the stored features of recipes are.

    Raises:
        ValueError: for another rule, or a penalty that is not positive and finite.

    Example:
        >>> Simple("ridge", penalty=0.3, centre="support")(clusters.support, clusters.query).shape
        torch.Size([4, 15, 3])
    """

    rule: Rule = "class means"
    penalty: float = 1.0
    centre: Float[Tensor, " features"] | Literal["support"] | None = None
    normalise: bool = False

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"Simple: rule must be one of {', '.join(get_args(Rule))}; got {self.rule!r}.")
        if not 0 < self.penalty < float("inf"):
            raise ValueError(f"Simple: the penalty must be positive and finite, got {self.penalty}.")

    def __call__(self, support: Batch, query: Batch) -> Float[Tensor, "tasks rows ways"]:
        """Predictions of the query rows, the largest of which counts; its labels and weights are not read.

        Args:
            support: a batch of tasks, ``x`` ``[tasks, rows, *features]``, ``y`` one-hot.
            query: likewise.

        Raises:
            ValueError: when a task has a class without a support row of positive weight, or the centre has another
                width than a row.
        """
        support, query = self._seen(support, query)
        if self.rule == "class means":
            return nearest_mean(support, query)
        if self.rule == "ridge":
            return ridge(support, query, self.penalty)
        return logistic_regression(support, query, 1 / self.penalty)

    def _seen(self, support: Batch, query: Batch) -> tuple[Batch, Batch]:
        if self.normalise:
            support, query = (side._replace(x=l2_normalise(side.x.flatten(2))) for side in (support, query))
        if self.centre is None:
            return support, query
        x = support.x.flatten(2)
        if isinstance(self.centre, Tensor):
            if self.centre.shape != x.shape[2:]:
                wanted, given = self.centre.numel(), x.shape[2]
                raise ValueError(f"{self}: rows have {given} features, but the centre has {wanted}: give rows like it.")
            centre = self.centre.to(x)
        else:
            share = support.weight / support.weight.sum(1, keepdim=True)
            centre = share[:, None].to(x) @ x
        first, second = (side._replace(x=_directions(side.x.flatten(2), centre)) for side in (support, query))
        return first, second

    def __str__(self) -> str:
        centred = "" if self.centre is None else f", centred{' by the support' if self.centre == 'support' else ''}"
        penalty = "" if self.rule == "class means" else f", penalty {self.penalty:g}"
        return f"{self.rule}{centred}{penalty}"


def _directions(x: Tensor, centre: Tensor) -> Tensor:
    """``(x − c)/‖x − c‖``, and zero where x is c but for rounding, of which a direction would be made."""
    moved = x - centre
    length, size = (vector_norm(rows, dim=-1, keepdim=True) for rows in (moved, centre))
    return torch.where(length > 16 * torch.finfo(x.dtype).eps * size, moved / length, 0.0)
