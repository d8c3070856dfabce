"""Figures: how all of them are made and saved, and what the rows of methods in them have in common."""

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fewstep.evaluation.statistics import Interval, Score

FORMS = ("png", "svg")
"""Every figure of a result is saved as both."""

FAR = 5.0
"""A value is off the scale when with it the axis would be more than this many times as long."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches, without pyplot: the user's backend is left alone."""
    from matplotlib.figure import Figure  # here, for importing it takes longer than most of the library

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def image(figure: Any, form: str) -> bytes:
    """A figure as a file of the format ``form``; the same figure gives the same file."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):
        figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()


def images(name: str, draw: Callable[[str], bytes]) -> dict[str, bytes]:
    """A picture in every form, by the names of its files."""
    return {f"{name}.{form}": draw(form) for form in FORMS}


def key(label: str, **style: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def legend_below(figure: Any, keys: Sequence[Any], size: float = 8.0, columns: int | None = None) -> None:
    """A legend under all axes, in one row unless told otherwise."""
    figure.legend(
        handles=keys,
        loc="outside lower center",
        ncols=len(keys) if columns is None else columns,
        frameon=False,
        fontsize=size,
    )


def style_curve(axis: Any, alpha: float = 0.3) -> None:
    """The look of an axis with curves, on a grid of some opacity."""
    axis.grid(alpha=alpha, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def style_rows(axis: Any) -> None:
    """The look of an axis whose rows are methods or runs."""
    axis.grid(axis="x", alpha=0.3, linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def write_in_row(
    axis: Any, place: float, text: str, colour: str, size: float = 8.0, x: float = 0.5, side: str = "center"
) -> None:
    """A word in a row instead of a score, in the middle or at a share ``x`` of the width."""
    where = axis.get_yaxis_transform()
    axis.text(x, place, text, color=colour, fontsize=size, ha=side, va="center", transform=where)


def error_bar(axis: Any, place: float, value: Interval, scale: float, colour: str, **style: Any) -> None:
    """A mean with its interval in a row."""
    style = {"fmt": "o", "color": colour, "capsize": 2.5, "linewidth": 1.3, "zorder": 3} | style
    axis.errorbar(scale * value.mean, place, xerr=scale * value.half_width, **style)


class Rows:
    """A figure with a row a method: scores on the left, paired differences on the right.

    Axes span what most methods need: one that is far from the others is an arrow at the edge with its number instead of
    squeezing them together.

    Args:
        labels: of the rows, from the top.
        score: what is shown.
        width: of a label, in letters.
        heights: of a row with a label of one line, and of every further line, in inches.
        gaps: above the rows, in inches; none when omitted.
    """

    def __init__(
        self,
        labels: Sequence[str],
        score: Score,
        width: int,
        heights: tuple[float, float],
        gaps: Sequence[float] | None = None,
    ) -> None:
        self.score = score
        names = [textwrap.fill(label, width) for label in labels]
        sizes = [heights[0] + heights[1] * name.count("\n") for name in names]
        gaps = gaps or [0.0] * len(names)
        self.places = [sum(sizes[:i]) + sum(gaps[: i + 1]) + size / 2 for i, size in enumerate(sizes)]
        bottom = sum(sizes) + sum(gaps)
        self.figure = new_figure(10.5, 1.9 + bottom)
        self.left, self.right = self.figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        for axis in (self.left, self.right):
            style_rows(axis)
            axis.grid(axis="y", alpha=0.2, linewidth=0.5, linestyle=":")
        self.right.axvline(0, color="0.2", linewidth=0.9, zorder=1)
        self.left.set_yticks(self.places, names, fontsize=8.5)
        self.left.set_ylim(bottom, 0)
        self.left.set_xlabel(f"{score.unit} ({score.better})")

    def set_ranges(self, scores: Mapping[str, Interval], differences: Mapping[str, Interval], reference: str) -> None:
        """Choose what both axes span.

        Args:
            scores: by label, those that there are.
            differences: to the reference, likewise.
            reference: its label.
        """
        near = near_scores(scores)
        # Off the scale on the left is off it on the right, unless everything is far from the reference.
        some = [value for label, value in differences.items() if label in near or reference not in near]
        low, high = span([scores[label] for label in near], len(near) < len(scores), self.score.scale)
        if self.score.percent:  # nothing is above 100
            high = min(high, 100 + 0.02 * (100 - low))
        self.left.set_xlim(low, high)
        zero = Interval(0.0, 0.0, 0)
        self.right.set_xlim(span([*some, zero], len(some) < len(differences), self.score.scale, reach=0.08))

    def on_scale(self, axis: Any, value: Interval) -> bool:
        """Whether a mean lies inside an axis."""
        low, high = axis.get_xlim()
        return bool(low <= self.score.scale * value.mean <= high)

    def dot(self, axis: Any, place: float, value: Interval, colour: str, size: float, hollow: bool = False) -> bool:
        """A mean with its interval, or an arrow where it is off the scale; whether it is on it."""
        if inside := self.on_scale(axis, value):
            face = "white" if hollow else colour
            error_bar(axis, place, value, self.score.scale, colour, markersize=size, markerfacecolor=face)
        else:
            number = self.score.scale * value.mean
            form = f".{2 if self.score.percent else 3}f" if abs(number) < 1e5 else ".1e"
            text = f"{number:{'+' if axis is self.right else ''}{form}}".replace("-", "−")
            if number < axis.get_xlim()[0]:
                write_in_row(axis, place, f"{'◃' if hollow else '◂'} {text}", colour, x=0.012, side="left")
            else:
                write_in_row(axis, place, f"{text} {'▹' if hollow else '▸'}", colour, x=0.988, side="right")
        return inside

    def write_at_zero(self, place: float, text: str) -> None:
        """A word in place of a difference of nothing."""
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        self.right.text(0.0, place, text, color="0.3", fontsize=8, ha="center", va="center", bbox=box)


def near_scores(scores: Mapping[str, Interval]) -> list[str]:
    """The labels that share a scale: all, but for a minority at one end that would stretch it too far."""
    ordered = sorted(scores, key=lambda label: scores[label].mean)

    def length(labels: Sequence[str]) -> float:
        low, high = bounds(scores[label] for label in labels)
        return high - low

    kept, fewest = ordered, max(2, len(ordered) // 2 + 1)
    for gone in range(1, len(ordered) - fewest + 1):
        for below in range(gone + 1):
            rest = ordered[below : len(ordered) - (gone - below)]
            if length(kept) > FAR * length(rest) > 0:
                kept = rest
    return kept


def span(values: Sequence[Interval], crowded: bool, scale: float, reach: float = 0.0) -> tuple[float, float]:
    """From the lowest to the highest bound, with a margin; a wider one where numbers stand at an edge.

    ``reach`` keeps the ends that far from zero, in lengths of the range, so that a word centred there has room.
    """
    if not values:
        return 0.0, 1.0
    low, high = (scale * bound for bound in bounds(values))
    length = length_of(low, high)
    if reach:
        low, high = min(low, -reach * length), max(high, reach * length)
    margin = (0.16 if crowded else 0.06) * length
    return low - margin, high + margin


def length_of(low: float, high: float) -> float:
    """Of a range, or what is drawn of one without a length."""
    return (high - low) or 0.1 * abs(high) or 1.0


def bounds(values: Iterable[Interval]) -> tuple[float, float]:
    """The lowest and the highest end of some intervals."""
    ends = [value.mean + side * value.half_width for value in values for side in (-1, 1)]
    return min(ends), max(ends)
