"""Means over tasks and their 95% intervals, and how they are shown: as the few-shot literature prints them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

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


@final
@dataclass(frozen=True)
class Score:
    """What the scores of a result are, and how they are shown: an accuracy in percent, an error as it is.

    Attributes:
        name: ``"accuracy"``, a fraction in [0, 1], or that of an error.
        higher_is_better: the direction.
    """

    name: str
    higher_is_better: bool = True

    @property
    def percent(self) -> bool:
        """Whether it is shown in percent."""
        return self.name == "accuracy"

    @property
    def scale(self) -> float:
        """What a score is multiplied by to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def unit(self) -> str:
        """Of the shown numbers."""
        return "accuracy, %" if self.percent else self.name

    @property
    def title(self) -> str:
        """The unit where a sentence or a title begins."""
        return "Accuracy, %" if self.percent else self.name.upper()

    @property
    def better(self) -> str:
        """The direction in words."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def number(self, value: float | None) -> str:
        """One number, ``89.96`` or ``0.0424``; a dash for None."""
        return "–" if value is None else f"{self.scale * value:.{2 if self.percent else 4}f}"

    def text(self, value: Interval | None, *, sign: bool = False) -> str:
        """An interval, see :meth:`Interval.text`; ``n/a`` for None."""
        return "n/a" if value is None else value.text(percent=self.percent, sign=sign)


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


def plain_interval(value: Interval | None) -> dict[str, float] | None:
    """An interval for JSON: mean and half width by name, null for None."""
    return None if value is None else {"mean": value.mean, "half_width": value.half_width}


def finite_interval(values: NDArray[np.float64]) -> Interval | None:
    """As :func:`interval`; None for fewer than two tasks, or where a score is not finite."""
    return interval(values) if len(values) > 1 and np.isfinite(values).all() else None


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
