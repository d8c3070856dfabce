"""Regression tasks of two kinds: noisy sine curves and noisy lines."""

from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from fewstep.data import draws
from fewstep.data.functions.base import FunctionTasks, Rows, check_noise, check_range


class SinesOrLines(NamedTuple):
    """Functions, each a sine curve or a line: ``[tasks]``, or several for each task, ``[tasks, samples]``.

    Attributes:
        line: which functions are lines.
        amplitude: A of ``y = A sin(x - phase)``; NaN for a line.
        phase: radians; NaN for a line.
        slope: a of ``y = a x + b``; NaN for a sine.
        intercept: b; NaN for a sine.
    """

    line: Bool[np.ndarray, "*functions"]
    amplitude: Float[np.ndarray, "*functions"]
    phase: Float[np.ndarray, "*functions"]
    slope: Float[np.ndarray, "*functions"]
    intercept: Float[np.ndarray, "*functions"]

    @classmethod
    def where(
        cls, line: Bool[np.ndarray, "*functions"], *parameters: Float[np.ndarray, "*functions"]
    ) -> "SinesOrLines":
        """Keep of ``amplitude, phase, slope, intercept`` what belongs to each function's kind."""
        amplitude, phase, slope, intercept = parameters
        sine = [np.where(line, np.nan, parameter) for parameter in (amplitude, phase)]
        return cls(line, *sine, *(np.where(line, parameter, np.nan) for parameter in (slope, intercept)))

    def __call__(self, x: Float[np.ndarray, "tasks rows"]) -> Float[np.ndarray, "*functions rows"]:
        """The values at each task's inputs, without noise: ``[tasks, rows]`` or ``[tasks, samples, rows]``."""
        if self.line.ndim == 2:
            x = np.broadcast_to(x[:, None], (*self.line.shape, x.shape[1]))
        values: NDArray[np.float64] = self.slope[..., None] * x + self.intercept[..., None]
        sine = ~self.line  # not np.where: sines cost most, and in a posterior often no function is one
        values[sine] = self.amplitude[sine, None] * np.sin(x[sine] - self.phase[sine, None])
        return values


@final
@dataclass(frozen=True, kw_only=True)
class SineOrLinePrior:
    """How a task's function is drawn: its kind first, then its parameters, uniform and independent.

    Attributes:
        amplitude: range of A in ``y = A sin(x - phase)``.
        phase: range of the phase, radians.
        slope: range of a in ``y = a x + b``.
        intercept: range of b.
        lines: probability that a task is a line.

    Raises:
        ValueError: if a range is reversed or not finite, or the probability is outside [0, 1].

    Source: Rusu et al. 2019 (LEO), appendix A.1, after Finn et al. 2018 (PLATIPUS).
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)
    slope: tuple[float, float] = (-3.0, 3.0)
    intercept: tuple[float, float] = (-3.0, 3.0)
    lines: float = 0.5

    def __post_init__(self) -> None:
        for name in ("amplitude", "phase", "slope", "intercept"):
            check_range(name, getattr(self, name))
        if not 0 <= self.lines <= 1:
            raise ValueError(f"lines is a probability, from 0 to 1, got {self.lines}")


@final
@dataclass(frozen=True, kw_only=True)
class SineOrLine(FunctionTasks):
    """Sine curves and lines to regress from noisy targets: a :class:`~fewstep.data.TaskSource`.

    ``y = f(x) + ε`` with f from ``prior``, x uniform and ε ~ N(0, noise²), all independent for each row. Every task
    draws its kind on its own, so a batch has half lines on average and not exactly: tasks are then independent, and a
    batch of one is as good as any. The paper says "in equal proportions" and no more.

    A batch is a pure function of (seed, stream, step). Samplers that differ only in ``queries`` or ``noisy_queries``
    draw the same functions, inputs and support, and those that differ only in ``noise`` the same in other units of
    noise. The noise is Box and Muller's, in float64, from two words of the counter-based generator for each row, and
    never exceeds 8.6 deviations.

    Attributes:
        shots: support rows, K; 5 in the paper.
        queries: query rows.
        tasks: tasks in a batch.
        seed: from 0 to 2**64 - 1.
        prior: how functions are drawn.
        noise: standard deviation of ε, in the unit of y.
        noisy_queries: whether query targets have noise too, as in the paper; else they are f(x).
        x: range of the inputs.
        stream: name of an independent sequence under the same seed.
        dtype: floating-point type of the tensors; functions and noise are computed in float64.
        device: where the tensors lie.

    Raises:
        ValueError: if a count is not positive, the seed is out of range, the noise is negative or not finite, or the
            range of x is reversed or not finite.

    Source: Rusu et al. 2019 (LEO), section 4.1 and appendix A.1.
    """

    prior: SineOrLinePrior = field(default_factory=SineOrLinePrior)
    noise: float = 0.3
    noisy_queries: bool = True
    x: tuple[float, float] = (-5.0, 5.0)
    stream: str = "sine or line"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.noise)
        check_range("x", self.x)

    def functions(self, step: int, slice_: slice | None = None) -> SinesOrLines:
        """The true functions of a step's tasks, ``[tasks]``: their parameters, and a callable, for plots and checks."""
        ranges = ((0.0, 1.0), self.prior.amplitude, self.prior.phase, self.prior.slope, self.prior.intercept)
        kind, *parameters = self._parameters(step, "functions", ranges, slice_)
        return SinesOrLines.where(kind < self.prior.lines, *parameters)

    def _rows(self, step: int, part: slice) -> Rows:
        rows = self.shots + self.queries
        # Rows lead, so that asking for more queries leaves the support as it was.
        words = draws.words(self.seed, step, f"{self.stream} inputs", (rows, self.tasks))
        x = draws.uniform(words.T[part], *self.x)
        noise = self.noise * self._normal(step, "noise", (rows,), part)
        if not self.noisy_queries:
            noise[:, self.shots :] = 0
        return x[..., None], (self.functions(step, part)(x) + noise)[..., None]
