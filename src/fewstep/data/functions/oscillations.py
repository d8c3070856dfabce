"""Forecasting tasks: the first values of a trajectory are given, and the next ones are to be found."""

from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.data.checks import check_count
from fewstep.data.functions.base import FunctionTasks, Rows, check_noise, check_range


class Oscillators(NamedTuple):
    """One damped oscillator for each task, float64 ``[tasks]``.

    Attributes:
        damping: γ, per unit of time.
        frequency: ω, radians per unit of time.
    """

    damping: Float[np.ndarray, " tasks"]
    frequency: Float[np.ndarray, " tasks"]

    def basis(self, times: Float[np.ndarray, " times"]) -> Float[np.ndarray, "2 tasks times"]:
        """``e^{−γ t} cos ω t`` and ``e^{−γ t} sin ω t``: every trajectory is a sum of multiples of the two."""
        decay, angle = np.exp(-self.damping[:, None] * times), self.frequency[:, None] * times
        return np.stack([decay * np.cos(angle), decay * np.sin(angle)])

    def __call__(
        self, a: Float[np.ndarray, "tasks rows"], b: Float[np.ndarray, "tasks rows"], times: Float[np.ndarray, " times"]
    ) -> Float[np.ndarray, "tasks rows times"]:
        """``s(t) = e^{−γ t}(a cos ω t + b sin ω t)``, a trajectory for each row."""
        cosine, sine = self.basis(times)[:, :, None]
        # Not a matrix product: its last bits depend on the number of rows.
        trajectories: NDArray[np.float64] = a[..., None] * cosine + b[..., None] * sine
        return trajectories


@final
@dataclass(frozen=True, kw_only=True)
class OscillatorPrior:
    """How a task's oscillator is drawn: damping and frequency, uniform and independent.

    Attributes:
        damping: range of γ, from 0, per unit of time.
        frequency: range of ω, from 0, radians per unit of time. Observations Δt apart tell frequencies up to π/Δt.

    Raises:
        ValueError: if a range is reversed, not finite, or begins below 0.
    """

    damping: tuple[float, float] = (0.0, 0.3)
    frequency: tuple[float, float] = (0.5, 2.5)

    def __post_init__(self) -> None:
        for name in ("damping", "frequency"):
            check_range(name, getattr(self, name), least=0.0)


@final
@dataclass(frozen=True, kw_only=True)
class Oscillations(FunctionTasks):
    """Damped oscillations to forecast from their first values: a :class:`~fewstep.data.TaskSource`.

    ``s(t) = e^{−γ t}(a cos ω t + b sin ω t)`` with γ, ω from ``prior`` for each task, and a, b ~ N(0, 1) for each row:
    one oscillator, released from K + queries states. It is observed at ``t_i = i Δt``, each time with noise
    ε ~ N(0, noise²) of its own. The x of a row are its first ``seen`` observations and y the ``ahead`` next ones.

    A few values of one trajectory under noise hardly tell γ and ω; the support's trajectories do. No weights fit all
    tasks, since the same few values go on differently under other oscillators.

    A batch is a pure function of (seed, stream, step). Samplers that differ only in ``queries`` or ``noisy_queries``
    draw the same oscillators, states and support, and those that differ only in ``noise`` the same in other units of
    noise. States and noise are Box and Muller's normals, in float64, from two words of the counter-based generator
    each, and never exceed 8.6 deviations.

    Attributes:
        shots: support rows, K.
        queries: query rows.
        tasks: tasks in a batch.
        seed: from 0 to 2**64 - 1.
        prior: how oscillators are drawn.
        seen: observations in x.
        ahead: observations in y, which follow those of x.
        interval: Δt, time between observations.
        noise: standard deviation of ε, in the unit of s.
        noisy_queries: whether query targets have noise too; else they are s(t). Inputs are observed, hence noisy.
        stream: name of an independent sequence under the same seed.
        dtype: floating-point type of the tensors; trajectories and noise are computed in float64.
        device: where the tensors lie.

    Raises:
        ValueError: if a count is not positive, the seed is out of range, the interval is not positive and finite, or
            the noise is negative or not finite.
    """

    prior: OscillatorPrior = field(default_factory=OscillatorPrior)
    seen: int = 5
    ahead: int = 20
    interval: float = 0.5
    noise: float = 0.1
    noisy_queries: bool = True
    stream: str = "oscillations"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("seen", self.seen)
        check_count("ahead", self.ahead)
        if not 0 < self.interval < np.inf:
            raise ValueError(f"interval is a time between observations, positive and finite, got {self.interval}")
        check_noise(self.noise)

    @property
    def times(self) -> Float[np.ndarray, " times"]:
        """When a trajectory is observed, ``[seen + ahead]``."""
        return self.interval * np.arange(self.seen + self.ahead, dtype=np.float64)

    def oscillators(self, step: int, slice_: slice | None = None) -> Oscillators:
        """The true oscillators of a step's tasks, for plots and checks."""
        return Oscillators(*self._parameters(step, "oscillators", (self.prior.damping, self.prior.frequency), slice_))

    def _rows(self, step: int, part: slice) -> Rows:
        rows, times = self.shots + self.queries, self.times
        # Rows lead, so that asking for more queries leaves the support as it was.
        a, b = np.moveaxis(self._normal(step, "states", (rows, 2), part), -1, 0)
        noise = self.noise * self._normal(step, "noise", (rows, len(times)), part)
        if not self.noisy_queries:
            noise[:, self.shots :, self.seen :] = 0
        observed = self.oscillators(step, part)(a, b, times) + noise
        return observed[..., : self.seen], observed[..., self.seen :]
