"""How good a predictive distribution is, one number a task, however the distribution was made."""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.evaluation import mixtures

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = Float[np.ndarray, "tasks rows"]
Tasks: TypeAlias = Float[np.ndarray, " tasks"]


@runtime_checkable
class Distribution(Protocol):
    """A distribution of the target of every query row of every task, each row on its own, noise included."""

    def mean(self) -> Rows:
        """Mean, ``[tasks, rows]``."""

    def log_density(self, y: Rows) -> Rows:
        """Natural logarithm of the density of targets ``[tasks, rows]``."""

    def cdf(self, y: Rows) -> Rows:
        """Probability of a lesser target."""

    def quantile(self, level: float) -> Rows:
        """The y at which :meth:`cdf` is ``level``."""

    def interval(self, probability: float) -> tuple[Rows, Rows]:
        """Ends of the central interval: the quantiles of ``(1 ∓ probability)/2``."""


@final
@dataclass(frozen=True, eq=False)
class Predictive:
    """Sampled functions, equally weighted, and observation noise: ``p(y) = 1/S Σ_s N(y; f_s(x), noise²)``.

    Attributes:
        samples: values of the functions at the query inputs, ``[tasks, samples, rows]``.
        noise: standard deviation of a target about its function: one, which :func:`fit_noise` finds, or in the shape
            of ``samples`` what a method itself predicts.

    Raises:
        ValueError: if there is no sample, a value is not finite, or the noise is not positive.
    """

    samples: Float[np.ndarray, "tasks samples rows"]
    noise: float | Float[np.ndarray, "tasks samples rows"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", checked(self.samples))
        if not (np.greater(self.noise, 0) & np.isfinite(self.noise)).all():
            raise ValueError(f"noise is a standard deviation, positive and finite, got {np.min(self.noise)}")

    def mean(self) -> Rows:
        """Mean of the samples."""
        return np.asarray(self.samples.mean(1))

    def log_density(self, y: Rows) -> Rows:
        """``ln p(y)`` of every row, in nats."""
        return mixtures.log_density(self.samples, self._weights(), self.noise, np.asarray(y, np.float64))

    def cdf(self, y: Rows) -> Rows:
        """``1/S Σ_s Φ((y - f_s(x))/noise)``."""
        return mixtures.cdf(self.samples, self._weights(), self.noise, np.asarray(y, np.float64))

    def quantile(self, level: float) -> Rows:
        """The y at which :meth:`cdf` is ``level``; ``ValueError`` unless it lies between 0 and 1."""
        return mixtures.quantile(self.samples, self._weights(), self.noise, level)

    def interval(self, probability: float) -> tuple[Rows, Rows]:
        """Ends of the central interval of this probability."""
        return self.quantile((1 - probability) / 2), self.quantile((1 + probability) / 2)

    def _weights(self) -> Array:
        tasks, samples, _ = self.samples.shape
        return np.full((tasks, samples), 1 / samples)


@final
@dataclass(frozen=True, eq=False)
class Measures:
    """What :func:`measure` finds, each ``[tasks]``, a mean over the task's query rows.

    Attributes:
        negative_log_likelihood: nats for each target; lower is better.
        squared_error: of the mean, in squared units of y; lower is better.
        coverage_50: fraction of targets in the central 50% interval; 0.5 on average when calibrated.
        coverage_90: likewise.
        width_50: of the intervals, in units of y: sharpness; lower is better among the calibrated.
        width_90: likewise.
    """

    negative_log_likelihood: Tasks
    squared_error: Tasks
    coverage_50: Tasks
    coverage_90: Tasks
    width_50: Tasks
    width_90: Tasks


def measure(distribution: Distribution, y: Rows) -> Measures:
    """All measures of a predictive distribution against targets ``[tasks, rows]``.

    :func:`fewstep.evaluation.interval` gives the mean over tasks of each with its 95% interval, and
    :func:`fewstep.evaluation.paired` the difference of two methods on the same tasks.
    """
    half, most = (distribution.interval(probability) for probability in (0.5, 0.9))
    return Measures(
        negative_log_likelihood(distribution, y),
        squared_error(distribution, y),
        *(_inside(ends, y) for ends in (half, most)),
        *(_width(ends) for ends in (half, most)),
    )


def negative_log_likelihood(distribution: Distribution, y: Rows) -> Tasks:
    """``-1/R Σ_r ln p(y_r)``, ``[tasks]``: the mean over rows that are each predicted on their own."""
    return np.asarray(-distribution.log_density(y).mean(1))


def squared_error(distribution: Distribution, y: Rows) -> Tasks:
    """``1/R Σ_r (y_r - E y_r)²``, ``[tasks]``; noisy targets contribute the noise's variance."""
    return np.asarray(((distribution.mean() - y) ** 2).mean(1))


def coverage(distribution: Distribution, y: Rows, probability: float) -> Tasks:
    """Fraction of a task's targets inside the central interval of this probability, ``[tasks]``."""
    return _inside(distribution.interval(probability), y)


def sharpness(distribution: Distribution, probability: float) -> Tasks:
    """Mean width of a task's central intervals of this probability, ``[tasks]``, in units of y."""
    return _width(distribution.interval(probability))


def fit_noise(
    samples: Float[np.ndarray, "tasks samples rows"], y: Rows, *, bounds: tuple[float, float] | None = None
) -> float:
    """The deviation σ that maximises ``Σ ln 1/S Σ_s N(y; f_s(x), σ²)`` over all rows of (validation) tasks.

    The likelihood can have several maxima, so 41 values spaced evenly in ``ln σ`` come first, and golden sections
    narrow the best one's neighbourhood to a relative 1e-6. The result stays inside ``bounds``: samples that pass
    through every target have no finite answer, and get the lower one.

    Args:
        samples: values of sampled functions at the inputs of ``y``.
        y: noisy targets.
        bounds: least and greatest σ; when omitted, 1e-3 and 2 times the root mean square of ``y - f_s(x)``.

    Raises:
        ValueError: if there is no sample or a value is not finite, or the bounds are not positive and ascending.
    """
    samples, y = checked(samples), np.asarray(y, np.float64)
    if bounds is None:
        scale = max(float(np.sqrt(((y[:, None] - samples) ** 2).mean())), 1e-12)
        bounds = (1e-3 * scale, 2 * scale)
    if not 0 < bounds[0] < bounds[1] < np.inf:
        raise ValueError(f"bounds must be two positive deviations, the lesser first, got {bounds}")

    @cache
    def loss(log_deviation: float) -> float:
        return -float(Predictive(samples, float(np.exp(log_deviation))).log_density(y).mean())

    grid = np.linspace(np.log(bounds[0]), np.log(bounds[1]), 41)
    best = int(np.argmin([loss(value) for value in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 40)])
    golden = (np.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    while high - low > 1e-6:
        if loss(left) < loss(right):
            high, right = right, left
            left = high - golden * (high - low)
        else:
            low, left = left, right
            right = low + golden * (high - low)
    return float(np.clip(np.exp((low + high) / 2), *bounds))


def _inside(ends: tuple[Array, Array], y: Array) -> Array:
    return np.asarray(((ends[0] <= y) & (y <= ends[1])).mean(1))


def _width(ends: tuple[Array, Array]) -> Array:
    return np.asarray((ends[1] - ends[0]).mean(1))


def checked(samples: NDArray[np.floating]) -> Array:
    """Samples in float64.

    Raises:
        ValueError: when there is none a task, or a value is not finite.
    """
    values = np.asarray(samples, np.float64)
    if values.shape[1] < 1:
        raise ValueError(f"expected at least one sample a task, [tasks, samples, rows], got the shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a sampled function has values that are not finite: adaptation diverged on some task")
    return values
