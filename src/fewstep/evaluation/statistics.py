"""Means over tasks and their 95% intervals, as the few-shot literature prints them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Values: TypeAlias = NDArray[np.floating] | Tensor | Sequence[float]
"""One number a task."""


@dataclass(frozen=True)
class Interval:
    """A mean over tasks and half the width of its 95% interval, in the unit of the values.

    Attributes:
        mean: over tasks.
        half_width: ``1.96 s/√n``; the interval is ``mean ± half_width``.
        tasks: n.
    """

    mean: float
    half_width: float
    tasks: int

    def text(self, *, percent: bool = False, decimals: int | None = None, sign: bool = False) -> str:
        """For reading: ``95.31 ± 0.12`` in percent (without the sign %), or ``0.0424 ± 0.0013`` plain.

        From a million on, powers of ten: ``1.60e+06 ± 2.40e+06``.

        Args:
            percent: multiply by 100.
            decimals: digits after the point; 2 in percent and 4 plain when omitted.
            sign: write a plus before a positive mean, for differences.
        """
        scale, default = (100, 2) if percent else (1, 4)
        digits = default if decimals is None else decimals
        # An inner loop that diverges has errors that nobody wants to read in full.
        form = f".{digits}f" if max(abs(self.mean), self.half_width) * scale < 1e6 else ".2e"
        return f"{scale * self.mean:{'+' if sign else ''}{form}} ± {scale * self.half_width:{form}}"

    def __str__(self) -> str:
        return self.text()


def interval(values: Values) -> Interval:
    """The mean over tasks with ``1.96 s/√n``, s the standard deviation with divisor n − 1.

    This is the normal approximation that LEO, MAML and their successors report. It describes the sampling of
    evaluation tasks for one trained model; it says nothing of training with another seed.

    Args:
        values: one number a task, ``[tasks]``.

    Raises:
        ValueError: for fewer than two tasks, more than one axis, or a number that is not finite.
    """
    numbers = _per_task(values, "interval")
    tasks = len(numbers)
    return Interval(float(numbers.mean()), 1.96 * float(numbers.std(ddof=1)) / math.sqrt(tasks), tasks)


def paired(a: Values, b: Values) -> Interval:
    """The interval of ``a − b``, task by task, for two ways of solving the *same* tasks in the same order.

    What makes a task hard is hard for both and cancels, so this interval is usually much narrower than those of
    ``a`` and ``b``, whose overlap says little.

    Args:
        a: one number a task, ``[tasks]``.
        b: likewise.

    Raises:
        ValueError: for different lengths, and as :func:`interval` says.
    """
    first, second = _per_task(a, "paired"), _per_task(b, "paired")
    if len(first) != len(second):
        raise ValueError(
            f"paired: both sides must be of the same tasks, got {len(first)} and {len(second)} values: "
            "evaluate both on one source and one number of tasks"
        )
    return interval(first - second)


def _per_task(values: Values, caller: str) -> NDArray[np.float64]:
    numbers = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"{caller}: expected one number a task, an array [tasks], got the shape {numbers.shape}")
    if len(numbers) < 2:
        raise ValueError(f"{caller}: an interval needs at least 2 tasks, got {len(numbers)}: evaluate more tasks")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(
            f"{caller}: {len(bad)} of {len(numbers)} values are not finite, the first is {numbers[bad[0]]} at task "
            f"{bad[0]}: the method diverged there; lower its inner rate or look at that task"
        )
    return numbers
