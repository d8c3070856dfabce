"""Softmax weights of known classes, for what is made of them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewstep.data.dataset import Dataset


def softmax_weights(dataset: Dataset, rows: int, penalty: float) -> Float[Tensor, "classes features"]:
    """The classifier of all classes of a dataset, without a bias: ``argmin_W mean_i CE(y_i, W x_i) + ½ λ ‖W‖²``.

    Found by L-BFGS, in float64; it is unique.

    Args:
        dataset: of feature vectors.
        rows: of each class, at even distances; fewer where there are fewer.
        penalty: λ > 0.
    """
    x, y = _evenly(dataset, rows)

    def loss(weights: Tensor) -> Tensor:
        return F.cross_entropy(x @ weights.T, y) + 0.5 * penalty * weights.square().sum()

    return _least(loss, x.new_zeros(dataset.classes, x.shape[1]), 1000)


def cosine_weights(
    dataset: Dataset, rows: int, scale: float, iterations: int = 100
) -> Float[Tensor, "classes features"]:
    """A cosine classifier of all classes of a dataset, ``argmin_W mean_i CE(y_i, s cos(W, x_i))``, of length 1.

    By L-BFGS from the directions of class means, in float64: where it is stopped matters, as scores have a bound.

    Args:
        dataset: of feature vectors.
        rows: of each class, at even distances; fewer where there are fewer.
        scale: s > 0.
        iterations: at most.
    """
    x, y = _evenly(dataset, rows)
    x = F.normalize(x, dim=1)

    def loss(weights: Tensor) -> Tensor:
        return F.cross_entropy(scale * x @ F.normalize(weights, dim=1).T, y)

    sums = x.new_zeros(dataset.classes, x.shape[1]).index_add_(0, y, x)
    return F.normalize(_least(loss, F.normalize(sums, dim=1), iterations), dim=1)


def _evenly(dataset: Dataset, rows: int) -> tuple[Tensor, Tensor]:
    """Rows of each class, at even distances, in float64; and their classes."""
    positions, of = [], []
    for number, (first, last) in enumerate(zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)):
        own = np.unique(np.linspace(first, last - 1, rows).round().astype(np.int64))
        positions.append(own)
        of.append(np.full(len(own), number))
    return dataset.gather(np.concatenate(positions), dtype=torch.float64), torch.from_numpy(np.concatenate(of))


def _least(loss: Callable[[Tensor], Tensor], begin: Tensor, iterations: int) -> Tensor:
    """Where descent of a loss ends."""
    weights = begin.requires_grad_()
    descent = torch.optim.LBFGS(
        [weights], max_iter=iterations, tolerance_grad=1e-8, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        with torch.enable_grad():
            value = loss(weights)
        (weights.grad,) = torch.autograd.grad(value, [weights])
        return value.item()

    descent.step(closure)
    return weights.detach()
