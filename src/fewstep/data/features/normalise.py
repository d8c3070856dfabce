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


def class_directions(
    dataset: Dataset, centre: Float[Tensor, " features"], directions: int
) -> Float[Tensor, "features directions"]:
    """The directions in which the means of classes vary, for rows of length 1 seen from a centre.

    Of the class means of ``x̃ = l₂(l₂(x) − c)``, less their mean: the right singular vectors, each multiplied by its
    singular value over the largest one. What there are too few classes for is zero.

    Args:
        dataset: of feature vectors.
        centre: c, of rows of length 1.
        directions: how many, the longest first.
    """
    means = []
    for of in range(dataset.classes):
        rows = dataset.gather(np.arange(dataset.offsets[of], dataset.offsets[of + 1]), dtype=torch.float64)
        means.append(l2_normalise(l2_normalise(rows) - centre.double()).mean(0))
    between = torch.stack(means) - torch.stack(means).mean(0)
    _, lengths, vectors = torch.linalg.svd(between, full_matrices=False)
    found = (lengths / lengths[0].clamp_min(1e-12) * vectors.T)[:, :directions]
    return F.pad(found, (0, directions - found.shape[1]))


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
