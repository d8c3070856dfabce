"""What sources of drawn functions have in common: their counts, their noise, and tasks made of arrays."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.checks import check_count
from fewstep.data.source import OnDevice

Rows: TypeAlias = tuple[Float[np.ndarray, "tasks rows inputs"], Float[np.ndarray, "tasks rows outputs"]]


@dataclass(frozen=True, kw_only=True)
class FunctionTasks(OnDevice, ABC):
    """Regression tasks that are drawn rather than stored: a :class:`~fewstep.data.TaskSource`.

    Attributes:
        shots: support rows, K.
        queries: query rows.
        tasks: tasks in a batch.
        seed: from 0 to 2**64 - 1.
        stream: name of an independent sequence under the same seed.
        dtype: floating-point type of the tensors; what is drawn is computed in float64.
        device: where the tensors lie.

    Raises:
        ValueError: if a count is not positive, or the seed is out of range.
    """

    shots: int
    queries: int
    tasks: int
    seed: int
    stream: str

    def __post_init__(self) -> None:
        for name in ("shots", "queries", "tasks"):
            check_count(name, getattr(self, name))
        draws.check_word("seed", self.seed)

    @property
    def ways(self) -> None:
        """None: the tasks are regression."""
        return None

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them.

        Returns:
            Support and query with ``x`` ``[tasks, rows, inputs]``, ``y`` ``[tasks, rows, outputs]`` and ``weight`` ones
            ``[tasks, rows]``, where ``rows`` is ``shots`` or ``queries``.

        Raises:
            ValueError: if the step is negative.
        """
        arrays = self._rows(step, slice_ or slice(None))

        def batch(rows: slice) -> Batch:
            x, y = (torch.from_numpy(values[:, rows]).to(device=self.device, dtype=self.dtype) for values in arrays)
            return Batch(x, y, torch.ones_like(x[..., 0]))

        return Task(support=batch(slice(None, self.shots)), query=batch(slice(self.shots, None)))

    def _parameters(
        self, step: int, what: str, ranges: Sequence[tuple[float, float]], slice_: slice | None
    ) -> list[Float[np.ndarray, " tasks"]]:
        """For each task of a part a number of every range."""
        words = draws.words(self.seed, step, f"{self.stream} {what}", (len(ranges), self.tasks))
        return [draws.uniform(word[slice_ or slice(None)], *bounds) for word, bounds in zip(words, ranges, strict=True)]

    def _normal(self, step: int, what: str, shape: tuple[int, ...], part: slice) -> Float[np.ndarray, "tasks *shape"]:
        """For each task of a part standard normal numbers, ``√(-2 ln u) cos 2πv`` (Box and Muller 1958).

        u is in (0, 1] and v in [0, 1), with 53 bits each; so no number exceeds 8.6.
        """
        words = draws.words(self.seed, step, f"{self.stream} {what}", (*shape, 2, self.tasks))[..., part]
        above_zero = 1 - draws.uniform(words[..., 0, :], 0.0, 1.0)
        angle = 2 * np.pi * draws.uniform(words[..., 1, :], 0.0, 1.0)
        return np.moveaxis(np.sqrt(-2 * np.log(above_zero)) * np.cos(angle), -1, 0)

    @abstractmethod
    def _rows(self, step: int, part: slice) -> Rows:
        """x and y of a part of the tasks; the first ``shots`` rows, which ``queries`` do not change, are support."""


def check_noise(deviation: float) -> None:
    """Refuse what is no standard deviation.

    Raises:
        ValueError: if the deviation is negative or not finite.
    """
    if not 0 <= deviation < np.inf:
        raise ValueError(f"noise is a standard deviation, finite and not negative, got {deviation}")


def check_range(name: str, bounds: tuple[float, float], least: float = -np.inf) -> None:
    """Refuse what is no range of numbers from ``least`` upwards.

    Raises:
        ValueError: if the range is reversed, not finite, or begins below ``least``.
    """
    low, high = bounds
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"{name} must be a finite range (low, high) with low <= high, got {(low, high)}")
    if low < least:
        raise ValueError(f"{name} must be a range that begins at {least:g} or above, got {(low, high)}")
