"""Regression tasks made from functions."""

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.core.types import Batch, Task
from fewstep.data import draws


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
class Sinusoids:
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

    shots: int
    queries: int
    tasks: int
    seed: int
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)
    frequency: tuple[float, float] = (1.0, 1.0)
    x: tuple[float, float] = (-5.0, 5.0)
    stream: str = "sinusoids"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        for name in ("shots", "queries", "tasks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        draws.check_word("seed", self.seed)
        for name in ("amplitude", "phase", "frequency", "x"):
            low, high = getattr(self, name)
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"{name} must be a finite range (low, high) with low <= high, got {(low, high)}")

    @property
    def ways(self) -> None:
        """None: the tasks are regression."""
        return None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Sinusoids":
        """The same tasks on another device, or in another floating-point type."""
        return replace(self, device=device or self.device, dtype=dtype or self.dtype)

    def curves(self, step: int, slice_: slice | None = None) -> Sinusoid:
        """The true curves of a step's tasks, for plots and checks."""
        words = draws.words(self.seed, step, f"{self.stream} curves", (3, self.tasks))[:, slice_ or slice(None)]
        ranges = (self.amplitude, self.phase, self.frequency)
        return Sinusoid(*(draws.uniform(word, *bounds) for word, bounds in zip(words, ranges, strict=True)))

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them.

        Returns:
            Support and query with ``x`` and ``y`` ``[tasks, rows, 1]`` and ``weight`` ones ``[tasks, rows]``, where
            ``rows`` is ``shots`` or ``queries``.

        Raises:
            ValueError: if the step is negative.
        """
        # Rows lead, so that asking for more queries leaves the support as it was.
        words = draws.words(self.seed, step, f"{self.stream} inputs", (self.shots + self.queries, self.tasks))
        x = draws.uniform(words.T[slice_ or slice(None)], *self.x)
        y = self.curves(step, slice_)(x)

        def batch(rows: slice) -> Batch:
            inputs, targets = (
                torch.from_numpy(values[:, rows, None]).to(device=self.device, dtype=self.dtype) for values in (x, y)
            )
            return Batch(inputs, targets, torch.ones_like(inputs[..., 0]))

        return Task(support=batch(slice(None, self.shots)), query=batch(slice(self.shots, None)))
