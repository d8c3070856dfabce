"""Normalisation of feature rows, and what they are centred by."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewstep.data.dataset import Dataset


def l2_normalise(x: Float[Tensor, "*rows features"], floor: float = 1e-12) -> Float[Tensor, "*rows features"]:
    """Scale each row to unit Euclidean length: ``x / sqrt(max(sum x², floor))``.

    LEO's data loader does this to every embedding, for training and for evaluation; the paper does not mention it. A
    zero row stays zero.

    Args:
        x: ``[..., features]``, floating point, not half precision (the squares would overflow).
        floor: the smallest sum of squares that is divided by. It also keeps the gradient finite at a zero row.

    Source: Rusu et al. 2019, code at google-deepmind/leo, ``data.py``.
    """
    return x * x.square().sum(-1, keepdim=True).clamp_min(floor).rsqrt()


def class_means(dataset: Dataset, centre: Float[Tensor, " features"], most: int) -> Float[Tensor, "most features"]:
    """The means of classes, for rows of length 1 seen from a centre: of ``x̃ = l₂(l₂(x) − c)``, in float64.

    Args:
        dataset: of feature vectors.
        centre: c, of rows of length 1.
        most: how many rows to give. Of more classes, those at even distances; where there are fewer, zeros follow.
    """
    means = []
    for of in np.unique(np.linspace(0, dataset.classes - 1, most).round().astype(int)):
        rows = dataset.gather(np.arange(dataset.offsets[of], dataset.offsets[of + 1]), dtype=torch.float64)
        means.append(l2_normalise(l2_normalise(rows) - centre.double()).mean(0))
    return F.pad(torch.stack(means), (0, 0, 0, most - len(means)))


def mean_input(dataset: Dataset) -> Float[Tensor, "*features"]:
    """The mean of all rows, as :meth:`Dataset.gather` gives them: converted, scaled and through the ``transform``.

    Rows are read a few at a time and summed in float64, so a memory map may be larger than memory. Every example
    counts alike; in a dataset whose classes differ in size it is not the mean of the class means.

    Returns:
        In float64, of the shape of one row after ``transform``.

    Raises:
        ValueError: for a dataset without rows.
    """
    if not len(dataset):
        raise ValueError(f"{dataset} has no rows, so they have no mean: give a dataset with at least one")
    sums = (dataset.gather(some, dtype=torch.float64).sum(0) for some in dataset.blocks())
    return sum(sums, torch.zeros((), dtype=torch.float64)) / len(dataset)
