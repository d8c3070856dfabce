"""Losses per row, and how rows become a scalar."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewstep.core.normal import log_density

Reduction = Literal["mean", "sum"]


def cross_entropy(prediction: Float[Tensor, "rows ways"], y: Float[Tensor, "rows ways"]) -> Float[Tensor, " rows"]:
    """Softmax cross-entropy in nats, ``−Σ_n y_n log softmax(prediction)_n``, one number a row."""
    return -(y * torch.log_softmax(prediction, dim=-1)).sum(-1)


def squared_error(
    prediction: Float[Tensor, "rows outputs"], y: Float[Tensor, "rows outputs"]
) -> Float[Tensor, " rows"]:
    """Squared error averaged over outputs, one number a row."""
    return (prediction - y).square().mean(-1)


def accuracy(prediction: Float[Tensor, "rows ways"], y: Float[Tensor, "rows ways"]) -> Float[Tensor, " rows"]:
    """1 where the largest logit is the labelled class, else 0."""
    return (prediction.argmax(-1) == y.argmax(-1)).to(prediction.dtype)


def reduce_rows(
    values: Float[Tensor, " rows"], weight: Float[Tensor, " rows"], reduction: Reduction
) -> Float[Tensor, ""]:
    """Weighted sum or mean over rows; rows of weight zero (padding) count for nothing."""
    total = (values * weight).sum()
    return total if reduction == "sum" else total / weight.sum()


def as_targets(prediction: Float[Tensor, "*rows outputs"]) -> tuple[Tensor, None]:
    """A prediction that is one of targets, and says nothing of how sure it is."""
    return prediction, None


@dataclass(frozen=True)
class Loss:
    """A loss per row, and its reductions.

    Args:
        rows: loss of each row.
        support: how support rows become the inner loss. The LEO paper (Eq. 5) and its authors' code sum; most MAML
            implementations average. An inner rate for one is not an inner rate for the other.
        score: a second, readable measure per query row (accuracy, squared error) and its name.
        answer: what is said in the end to whoever asks for predictions, of a classifier that gives several side by
            side: one number for each way. The score takes either.
        readout: how a prediction ``[..., numbers]`` of a regression reads: as the mean ``[..., outputs]`` of targets,
            and as their deviation about it, which is None where the prediction does not say.

    Example:
        >>> absolute = Loss(lambda prediction, y: (prediction - y).abs().mean(-1), support="sum")
        >>> absolute.rows(torch.tensor([[1.0], [5.0]]), torch.zeros(2, 1))
        tensor([1., 5.])
        >>> method = maml(line, rate=0.1, loss=absolute)
    """

    rows: Callable[[Tensor, Tensor], Tensor]
    support: Reduction = "mean"
    score: Callable[[Tensor, Tensor], Tensor] = accuracy
    score_name: str = "accuracy"
    answer: Callable[[Tensor], Tensor] | None = None
    readout: Callable[[Tensor], tuple[Tensor, Tensor | None]] = as_targets


def classification(support: Reduction = "mean") -> Loss:
    """Softmax cross-entropy, scored by accuracy.

    Example:
        >>> classification().rows(torch.zeros(1, 4), torch.eye(4)[:1])  # four classes and no idea: log 4
        tensor([1.3863])
    """
    return Loss(cross_entropy, support, accuracy, "accuracy")


def regression(support: Reduction = "mean") -> Loss:
    """Squared error, scored by itself.

    Example:
        >>> regression().rows(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([4.])
    """
    return Loss(squared_error, support, squared_error, "mse")


def normal_regression(support: Reduction = "mean", floor: float = 0.1) -> Loss:
    """Negative log-likelihood in nats of targets whose mean and deviation are predicted; scored by the squared error.

    Half of the numbers of a row are means μ, the other half s: ``−Σ ln N(y; μ, σ²)`` over the outputs, with
    ``σ = f + (1 − f) softplus(s)`` (Garnelo et al. 2018, as their program has it).

    Args:
        support: how support rows become the inner loss.
        floor: f in (0, 1), below which no deviation falls, in units of y: without one a few targets that are hit
            exactly make the likelihood infinite.

    Raises:
        ValueError: for another floor.

    Example:
        >>> loss = normal_regression()
        >>> mean, deviation = loss.readout(torch.tensor([[3.0, 0.0]]))  # of one output
        >>> mean, deviation.round(decimals=2)
        (tensor([[3.]]), tensor([[0.7200]]))
    """
    if not 0 < floor < 1:
        raise ValueError(f"normal_regression: floor is a deviation between 0 and 1, got {floor}.")

    return Loss(partial(_surprise, floor), support, _error_of_mean, "mse", readout=partial(_mean_and_deviation, floor))


def _mean_and_deviation(floor: float, prediction: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = prediction.chunk(2, -1)
    return mean, floor + (1 - floor) * F.softplus(raw)


def _surprise(floor: float, prediction: Tensor, y: Tensor) -> Tensor:
    return -log_density(y, *_mean_and_deviation(floor, prediction)).sum(-1)


def _error_of_mean(prediction: Tensor, y: Tensor) -> Tensor:
    return squared_error(prediction.chunk(2, -1)[0], y)
