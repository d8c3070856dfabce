"""Regression tasks made from sine curves."""

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.data import draws
from fewstep.data.functions.base import FunctionTasks, Rows, check_range


class Sinusoid(NamedTuple):
    """Parameters of one sine curve for each task, float64 ``[tasks]``; angles in radians."""

    amplitude: Float[np.ndarray, " tasks"]
    phase: Float[np.ndarray, " tasks"]
    frequency: Float[np.ndarray, " tasks"]

    def __call__(self, x: Float[np.ndarray, "tasks rows"]) -> Float[np.ndarray, "tasks rows"]:
        """``y = A sin(ω x - phase)``."""
        amplitude, phase, frequency = (parameter[:, None] for parameter in self)
        curve: NDArray[np.float64] = amplitude * np.sin(frequency * x - phase)
        return curve


@final
@dataclass(frozen=True, kw_only=True)
class Sinusoids(FunctionTasks):
    """Sine curves to regress, without noise: a :class:`~fewstep.data.TaskSource`.

    ``y = A sin(ω x - phase)`` with A, ω, phase uniform for each task and x uniform for each row.

    A batch is a pure function of (seed, stream, step), and samplers that differ only in ``queries`` draw the same
    curves and the same support.

    Attributes:
        shots: support rows, K.
        queries: query rows.
        tasks: tasks in a batch.
        seed: from 0 to 2**64 - 1.
        amplitude: range of A.
        phase: range of the phase, radians.
        frequency: range of ω, radians for each unit of x; 1 for every task in the paper.
        x: range of the inputs.
        stream: name of an independent sequence under the same seed.
        dtype: floating-point type of the tensors; curves are computed in float64.
        device: where the tensors lie.

    Raises:
        ValueError: if a count is not positive, the seed is out of range, or a range is reversed or not finite.

    Source: Finn et al. 2017, section 5.1.
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)
    frequency: tuple[float, float] = (1.0, 1.0)
    x: tuple[float, float] = (-5.0, 5.0)
    stream: str = "sinusoids"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("amplitude", "phase", "frequency", "x"):
            check_range(name, getattr(self, name))

    def curves(self, step: int, slice_: slice | None = None) -> Sinusoid:
        """The true curves of a step's tasks, for plots and checks."""
        return Sinusoid(*self._parameters(step, "curves", (self.amplitude, self.phase, self.frequency), slice_))

    def _rows(self, step: int, part: slice) -> Rows:
        # Rows lead, so that asking for more queries leaves the support as it was.
        words = draws.words(self.seed, step, f"{self.stream} inputs", (self.shots + self.queries, self.tasks))
        x = draws.uniform(words.T[part], *self.x)
        return x[..., None], self.curves(step, part)(x)[..., None]
