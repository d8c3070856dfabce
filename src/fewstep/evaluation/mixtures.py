"""Mixtures of normal distributions, a mixture for every row of every task.

Shapes: ``means`` ``[tasks, components, rows]``, ``weights`` ``[tasks, components]`` that add up to one, targets and
results ``[tasks, rows]``. The deviation is one number, or one for each mean; it and the targets have one unit.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.evaluation.arrays import chunks, to_numpy

Array = NDArray[np.float64]
Means = Float[np.ndarray, "tasks components rows"]
Weights = Float[np.ndarray, "tasks components"]
Rows = Float[np.ndarray, "tasks rows"]
Deviation = float | Means
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def log_density(means: Means, weights: Weights, deviation: Deviation, y: Rows) -> Rows:
    """``ln Σ_c w_c N(y; μ_c, σ_c²)``, in log space: finite however far the target lies from every component."""
    result = np.empty_like(y)
    for part in chunks(means.shape):
        own = _of(deviation, part)
        with np.errstate(divide="ignore"):
            terms = np.log(weights[part])[..., None] - 0.5 * ((y[part, None] - means[part]) / own) ** 2
        result[part] = log_sum(terms - np.log(own), 1) - _HALF_LOG_2PI
    return result


def cdf(means: Means, weights: Weights, deviation: Deviation, y: Rows) -> Rows:
    """``Σ_c w_c Φ((y - μ_c)/σ_c)``."""
    result = np.empty_like(y)
    for part in chunks(means.shape):
        below = _ndtr((y[part, None] - means[part]) / _of(deviation, part))
        result[part] = np.einsum("tc,tcr->tr", weights[part], below)
    return result


def _of(deviation: Deviation, part: slice) -> Deviation:
    return deviation if isinstance(deviation, float) else deviation[part]


def quantile(means: Means, weights: Weights, deviation: Deviation, level: float) -> Rows:
    """The y at which :func:`cdf` is ``level``, by Newton's method inside a bracket that shrinks at every step.

    The quantile of a mixture lies between the least and the greatest of its components' quantiles. A Newton step that
    leaves the bracket (as where two components lie far apart, and the density between them is nothing) is replaced by
    the bracket's middle. Steps end below ``1e-7 σ``, for the least σ of a task's row. Components by the hundred of one
    deviation are first gathered in cells of ``σ/8`` that keep their first two moments, which moves the level by some
    1e-6.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    tasks, _, rows = means.shape
    result = np.empty((tasks, rows))
    normal = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    for part in chunks(means.shape):
        columns, mixed = _columns(means[part]), np.repeat(weights[part], rows, 0)
        if isinstance(deviation, float):
            found = deviation * _invert(columns / deviation, mixed, level, normal)
        else:
            own = _columns(deviation[part])
            unit = own.min(1, keepdims=True)
            found = unit[:, 0] * _invert(columns / unit, mixed, level, normal, own / unit)
        result[part] = found.reshape(-1, rows)
    return result


def _columns(means: Array) -> Array:
    """The components of every row, a mixture after another: ``[mixtures, components]``."""
    return np.ascontiguousarray(np.swapaxes(means, 1, 2)).reshape(-1, means.shape[1])


def log_sum(terms: Array, axis: int) -> Array:
    """``ln Σ exp(terms)`` along an axis, in log space."""
    top = terms.max(axis, keepdims=True)
    return np.asarray(np.log(np.exp(terms - top).sum(axis)) + top.squeeze(axis))


def _invert(means: Array, weights: Array, level: float, normal: float, deviations: Array | None = None) -> Array:
    """Quantiles of mixtures in rows, ``[mixtures]``, for deviations of 1, or of 1 and more, one a component."""
    alike = deviations is None
    deviations = np.ones((1, 1)) if deviations is None else deviations
    low, high = (means + normal * deviations).min(1), (means + normal * deviations).max(1)
    cells = int(8 * (high - low).max()) + 1
    if alike and 2 * cells < means.shape[1]:
        means, weights, deviations = _gathered(means, weights, cells)
        low, high = low - 0.01, high + 0.01
    deviations = np.broadcast_to(deviations, means.shape)
    centre = (weights * means).sum(1)
    spread = np.sqrt((weights * (deviations**2 + (means - centre[:, None]) ** 2)).sum(1))
    y = np.clip(centre + normal * spread, low, high)
    result: Array = y.copy()
    active = np.arange(len(y))
    for _ in range(200):
        z = (y[:, None] - means) / deviations
        excess = (weights * _ndtr(z)).sum(1) - level
        density = (weights / deviations * np.exp(-0.5 * z**2)).sum(1) / np.sqrt(2 * np.pi)
        low, high = np.where(excess < 0, y, low), np.where(excess < 0, high, y)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            new = y - excess / density
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        going = np.abs(new - y) > 1e-7
        result[active] = new
        if not going.any():
            break
        active, means, weights, deviations, y, low, high = (
            a[going] for a in (active, means, weights, deviations, new, low, high)
        )
    return result


def _gathered(means: Array, weights: Array, cells: int) -> tuple[Array, Array, Array]:
    """Components of deviation 1 in one cell of their row's range replaced by one of the same mass, mean and variance.

    With cells of an eighth of the deviation this changes the distribution function by some 1e-6 (the third moment).
    """
    low = means.min(1, keepdims=True)
    width = np.maximum(np.ptp(means, 1)[:, None], 1e-9) * (1 + 1e-9) / cells
    offset: Array = (means - low) / width
    inside: Array = np.floor(offset)
    offset -= inside
    cell = inside.astype(np.int64) + cells * np.arange(len(means))[:, None]

    def total(values: Array) -> Array:
        summed: Array = np.asarray(np.bincount(cell.ravel(), values.ravel(), cells * len(means)), np.float64)
        return summed.reshape(-1, cells)

    mass = total(weights)
    divisor = np.where(mass > 0, mass, 1)
    centre, square = total(weights * offset) / divisor, total(weights * offset**2) / divisor
    variance = np.maximum(square - centre**2, 0) * width**2
    return low + (np.arange(cells) + centre) * width, mass, np.sqrt(1 + variance)


def _ndtr(z: Array) -> Array:
    return to_numpy(torch.special.ndtr(torch.from_numpy(z)))
