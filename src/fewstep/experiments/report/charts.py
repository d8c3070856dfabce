"""Charts as what a template draws: places in percent of a frame, so that they fit any width and take any colours.

They are not made with matplotlib, which draws the pictures beside the reports: each of its figures takes a tenth of a
second, which every training would spend at its end, and its text shrinks with the figure on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation.statistics import Score, interval

Point: TypeAlias = tuple[float, float]

Tone: TypeAlias = Literal["first", "second", "quiet", "bad"]
"""The part that a mark plays, which the style sheet gives a colour."""

MOST_POINTS = 400
"""Of a line; one with more is thinned to the lowest and the highest of as many intervals."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low: where it begins.
        high: where it ends.
        label: what is along it.
        log: powers of ten are equally far apart.
    """

    low: float
    high: float
    label: str = ""
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value is, in percent of the length; what is beyond an end is at that end."""
        low, high, at = (math.log10(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        return round(100 * min(max((at - low) / ((high - low) or 1.0), 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of a few round values."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            powers = [10.0**k for k in range(first, last + 1)][:: max(1, -(-(last - first + 1) // 5))]
            ends = [self.low, self.high] if len(powers) < 2 else powers
            return [(self.place(value), _short(value)) for value in ends]
        step = _round((self.high - self.low) / 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        values = [step * k for k in range(first, last + 1)]
        return [(self.place(value), f"{value:,.{digits}f}".replace("-", "−")) for value in values]

    @property
    def letters(self) -> int:
        """Of the longest label."""
        return max((len(label) for _, label in self.ticks), default=1)


def _round(step: float) -> float:
    """1, 2 or 5 times a power of ten, near a length."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(k for k in (1, 2, 5, 10) if k * power >= 0.999 * step)


def _short(value: float) -> str:
    return f"{value:.3g}" if 1e-3 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e−").replace("e+0", "e")


def axis_of(values: Iterable[float], label: str = "", *, log: bool = False, zero: bool = False) -> Axis:
    """An axis on which some values have room; from zero on where that is wanted and nothing is below."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if log:
        return Axis(low / 1.1, 1.1 * high, label, log)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(0.0 if zero and low >= 0 else low - margin, high + margin, label)


@dataclass(frozen=True)
class Line:
    """A curve; a value that is not finite leaves a gap."""

    points: Sequence[Point]
    tone: Tone = "first"
    label: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Dots:
    """Points that are not joined; the text of each is shown when it is pointed at."""

    points: Sequence[Point]
    tone: Tone = "first"
    label: str = ""
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Columns:
    """Bars from the bottom up: begin, end and height of each."""

    bars: Sequence[tuple[float, float, float]]
    tone: Tone = "first"
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """A frame with marks in it.

    Attributes:
        title: above it.
        x: to the right.
        y: upward.
        lines: curves.
        dots: points.
        columns: bars.
        alt: what a reader sees in it, in a sentence, for those who do not see it.
        note: below it; empty for none.
        at: a value of x with a line of its own, such as zero; None for none.
        diagonal: a line from corner to corner.
        shape: of the frame.
    """

    title: str
    x: Axis
    y: Axis
    alt: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dots] = ()
    columns: Sequence[Columns] = ()
    note: str = ""
    at: float | None = None
    diagonal: bool = False
    shape: Literal["wide", "low", "square"] = "wide"
    hidden_y: bool = False
    legend: Sequence[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        marks: list[Line | Dots | Columns] = [*self.lines, *self.dots, *self.columns]
        named = dict.fromkeys((mark.tone, mark.label) for mark in marks if mark.label)
        object.__setattr__(self, "legend", list(named))

    def path(self, line: Line) -> str:
        """A line as the ``d`` of an SVG path, in a frame of 100 by 100."""
        parts, pen = [], "M"
        for x, y in _thinned(line.points):
            if math.isfinite(y):
                parts.append(f"{pen}{self.x.place(x):g} {100 - self.y.place(y):g}")
                pen = "L"
            else:
                pen = "M"
        return "".join(parts)

    def places(self, marks: Dots | Line) -> list[tuple[float, float, str]]:
        """Places of points from the upper left, and their texts."""
        texts = marks.texts if isinstance(marks, Dots) and marks.texts else [""] * len(marks.points)
        found = zip(marks.points, texts, strict=True)
        return [(self.x.place(x), round(100 - self.y.place(y), 2), text) for (x, y), text in found if math.isfinite(y)]

    def boxes(self, columns: Columns) -> list[tuple[float, float, float, float]]:
        """Left, top, width and height of bars."""
        made = []
        for begin, end, height in columns.bars:
            left, right, top = self.x.place(begin), self.x.place(end), self.y.place(height)
            made.append((left, round(100 - top, 2), round(right - left, 2), top))
        return made


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Few enough points: of each of equal parts the lowest and the highest, in their order."""
    if len(points) <= MOST_POINTS:
        return points
    kept: list[Point] = []
    for part in np.array_split(np.arange(len(points)), MOST_POINTS // 2):
        ends = {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
        kept += [points[i] for i in sorted(ends)]
    return kept


def difference_chart(title: str, differences: NDArray[np.float64], score: Score) -> Chart | None:
    """How the differences of single tasks are spread; None where one is not finite, there are fewer than two, or none.

    Args:
        title: what was subtracted from what.
        differences: ``[tasks]``, paired.
        score: what they are differences of.
    """
    if len(differences) < 2 or not np.isfinite(differences).all() or not differences.any():
        return None
    values = score.scale * differences
    width = _round(float(np.abs(values).max()) / 12)
    which = np.round(values / width).astype(int)
    places, counts = np.unique(which, return_counts=True)
    good = 1 if score.higher_is_better else -1
    tones: Mapping[int, tuple[Tone, str]] = {
        good: ("first", "better"),
        0: ("quiet", "near equal"),
        -good: ("second", "worse"),
    }
    columns = []
    for side, (tone, _) in tones.items():
        some = [
            (width * (k - 0.46), width * (k + 0.46), float(n))
            for k, n in zip(places, counts, strict=True)
            if np.sign(k) == side
        ]
        if some:
            columns.append(Columns(some, tone))
    better, equal = float((good * values > 0).mean()), float((values == 0).mean())
    shares = f"better in {better:.1%}, equal in {equal:.1%}, worse in {1 - better - equal:.1%} of {len(values):,} tasks"
    mean = score.text(interval(differences), sign=True).replace("-", "−")
    unit = "points" if score.percent else score.unit
    ends = (min(places.min(), 0) - 0.6) * width, (max(places.max(), 0) + 0.6) * width
    return Chart(
        title,
        Axis(*ends, unit),
        Axis(0.0, 1.04 * float(counts.max())),
        f"Histogram of the differences of single tasks: {shares}.",
        columns=columns,
        note=f"{mean}; {shares}",
        at=0.0,
        shape="low",
        hidden_y=True,
    )
