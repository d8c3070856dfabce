"""Mixtures of normal distributions of one deviation, a mixture for every row of every task.

Shapes: ``means`` ``[tasks, components, rows]``, ``weights`` ``[tasks, components]`` that add up to one, targets and
results ``[tasks, rows]``. The deviation and the targets have one unit.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]
Means = Float[np.ndarray, "tasks components rows"]
Weights = Float[np.ndarray, "tasks components"]
Rows = Float[np.ndarray, "tasks rows"]
_CHUNK = 2**21  # numbers at a time: some tens of megabytes
_CELLS = 64
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def log_density(means: Means, weights: Weights, deviation: float, y: Rows) -> Rows:
    """``ln Σ_c w_c N(y; μ_c, σ²)``, in log space: finite however far the target lies from every component."""
    result = np.empty_like(y)
    for part in chunks(means.shape):
        with np.errstate(divide="ignore"):
            terms = np.log(weights[part])[..., None] - 0.5 * ((y[part, None] - means[part]) / deviation) ** 2
        top = terms.max(1)
        result[part] = top + np.log(np.exp(terms - top[:, None]).sum(1)) - np.log(deviation) - _HALF_LOG_2PI
    return result


def cdf(means: Means, weights: Weights, deviation: float, y: Rows) -> Rows:
    """``Σ_c w_c Φ((y - μ_c)/σ)``."""
    result = np.empty_like(y)
    for part in chunks(means.shape):
        result[part] = np.einsum("tc,tcr->tr", weights[part], _ndtr((y[part, None] - means[part]) / deviation))
    return result


def quantile(means: Means, weights: Weights, deviation: float, level: float) -> Rows:
    """The y at which :func:`cdf` is ``level``, by Newton's method inside a bracket that shrinks at every step.

    The quantile of a mixture lies between the least and the greatest of its components' quantiles. A Newton step that
    leaves the bracket (as where two components lie far apart, and the density between them is nothing) is replaced by
    the bracket's middle. Steps end below ``1e-7 σ``. Many components are first gathered into 64, whose quantile is
    where the steps begin.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    tasks, _, rows = means.shape
    result = np.empty((tasks, rows))
    normal = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    for part in chunks(means.shape):
        columns: Array = np.ascontiguousarray(np.swapaxes(means[part], 1, 2)).reshape(-1, means.shape[1])
        result[part] = _invert(columns / deviation, np.repeat(weights[part], rows, 0), level, normal).reshape(-1, rows)
    return result * deviation


def chunks(shape: tuple[int, ...], least: int = 1) -> Iterator[slice]:
    """Slices of the first axis, each of about two million numbers of an array of this shape."""
    size = max(least, _CHUNK // max(1, int(np.prod(shape[1:]))))
    return (slice(start, start + size) for start in range(0, shape[0], size))


def _invert(means: Array, weights: Array, level: float, normal: float) -> Array:
    """Quantiles of mixtures in rows, ``[mixtures]``, for a deviation of 1."""
    low, high = means.min(1) + normal, means.max(1) + normal
    centre = (weights * means).sum(1)
    spread = np.sqrt(1 + (weights * (means - centre[:, None]) ** 2).sum(1))
    y = centre + normal * spread
    if means.shape[1] > 2 * _CELLS:
        y = _invert(*_gathered(means, weights), level, normal)
    y = np.clip(y, low, high)
    result, active = y.copy(), np.arange(len(y))
    for _ in range(200):
        z = y[:, None] - means
        excess = (weights * _ndtr(z)).sum(1) - level
        density = (weights * np.exp(-0.5 * z**2)).sum(1) / np.sqrt(2 * np.pi)
        low, high = np.where(excess < 0, y, low), np.where(excess < 0, high, y)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            new = y - excess / density
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        going = np.abs(new - y) > 1e-7
        result[active] = new
        if not going.any():
            break
        active, means, weights, y, low, high = (a[going] for a in (active, means, weights, new, low, high))
    return result


def _gathered(means: Array, weights: Array) -> tuple[Array, Array]:
    """Components within a cell of each row's range replaced by one at their centre of mass."""
    low, rows = means.min(1, keepdims=True), np.arange(len(means))[:, None]
    width = np.maximum(np.ptp(means, 1)[:, None], 1e-12) * (1 + 1e-9) / _CELLS
    cells = (((means - low) / width).astype(np.int64) + _CELLS * rows).ravel()
    size = _CELLS * len(means)
    mass = np.bincount(cells, weights.ravel(), size).reshape(-1, _CELLS)
    moment = np.bincount(cells, (weights * means).ravel(), size).reshape(-1, _CELLS)
    return np.where(mass > 0, moment / np.where(mass > 0, mass, 1), low), mass


def _ndtr(z: Array) -> Array:
    result: Array = torch.special.ndtr(torch.from_numpy(z)).numpy()
    return result
