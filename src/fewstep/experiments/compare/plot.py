"""The picture of a comparison: scores with their intervals, and paired differences to a reference."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from fewstep.evaluation.figures import at_edge, near_scores, span
from fewstep.evaluation.statistics import Interval


class Mark(NamedTuple):
    """One method in the picture.

    Attributes:
        label: its name.
        score: None where scores are not finite.
        difference: to the reference, likewise.
        unadapted: the method with zero inner steps, None where there is no such thing.
        transductive: drawn hollow.
        baseline: drawn grey.
    """

    label: str
    score: Interval | None
    difference: Interval | None
    unadapted: Interval | None
    transductive: bool
    baseline: bool


def draw(
    marks: Sequence[Mark], reference: str, unit: str, percent: bool, higher_is_better: bool, tasks: int, form: str
) -> bytes:
    """The picture as a file of the format ``form``, best method on top.

    Axes span what most methods need: one that is far from the others is an arrow at the edge with its number instead
    of squeezing them together. Unadapted starts, often near chance, are drawn where they fall on that scale.
    """
    # Here, for importing matplotlib takes longer than most of the library; without pyplot it leaves the user's
    # backend alone.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    def badness(mark: Mark) -> float:
        return float("inf") if mark.score is None else -mark.score.mean if higher_is_better else mark.score.mean

    marks = sorted(marks, key=badness)
    names = [textwrap.fill(mark.label, 34, break_long_words=True) for mark in marks]
    heights = [0.34 + 0.15 * name.count("\n") for name in names]
    # Rows of two lines get more room than rows of one.
    places = [sum(heights[:i]) + heights[i] / 2 for i in range(len(marks))]
    figure = Figure(figsize=(10.5, 1.9 + sum(heights)), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    scale = 100.0 if percent else 1.0
    digits = 2 if percent else 3

    scores = {mark.label: mark.score for mark in marks if mark.score is not None}
    shown = near_scores(scores)
    differences = {
        mark.label: mark.difference
        for mark in marks
        # Off the scale on the left is off it on the right, unless everything is far from the reference.
        if mark.difference is not None and mark.label != reference and (mark.label in shown or reference not in shown)
    }
    ranges = (
        span([scores[label] for label in shown], len(shown) < len(scores), scale),
        span([*differences.values(), Interval(0.0, 0.0, 0)], len(differences) + 1 < len(scores), scale, reach=0.08),
    )
    if percent:  # nothing is above 100
        ranges = ((ranges[0][0], min(ranges[0][1], 100 + 0.02 * (100 - ranges[0][0]))), ranges[1])
    for axis, values, (low, high) in (
        (left, [mark.score for mark in marks], ranges[0]),
        (right, [mark.difference for mark in marks], ranges[1]),
    ):
        axis.set_xlim(low, high)
        for mark, place, value in zip(marks, places, values, strict=True):
            colour = "0.45" if mark.baseline else "C0"
            if value is None:
                axis.text(
                    0.5,
                    place,
                    "not finite",
                    color="C3",
                    fontsize=8,
                    ha="center",
                    va="center",
                    transform=axis.get_yaxis_transform(),
                )
            elif axis is right and mark.label == reference:
                axis.text(
                    0.0,
                    place,
                    "reference",
                    color="0.3",
                    fontsize=8,
                    ha="center",
                    va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                )
            elif not low <= scale * value.mean <= high:
                at_edge(axis, place, scale * value.mean, low, digits, colour, axis is right, mark.transductive)
            else:
                axis.errorbar(
                    scale * value.mean,
                    place,
                    xerr=scale * value.half_width,
                    fmt="o",
                    color=colour,
                    markersize=6,
                    markerfacecolor="white" if mark.transductive else colour,
                    capsize=2.5,
                    linewidth=1.3,
                    zorder=3,
                )
            if axis is left and mark.unadapted is not None and low <= scale * mark.unadapted.mean <= high:
                axis.plot(scale * mark.unadapted.mean, place, marker="x", color="C1", markersize=5, zorder=2)
        axis.grid(axis="x", alpha=0.3, linewidth=0.6)
        axis.grid(axis="y", alpha=0.2, linewidth=0.5, linestyle=":")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    left.set_yticks(places, names, fontsize=8.5)
    left.set_ylim(sum(heights), 0)
    right.axvline(0, color="0.2", linewidth=0.9, zorder=1)
    better = "higher" if higher_is_better else "lower"
    left.set_xlabel(f"{unit} ({better} is better)")
    right.set_xlabel("difference, percentage points" if percent else f"difference, {unit}")
    left.set_title("Mean and 95% interval", loc="left", fontsize=10)
    right.set_title(textwrap.fill(f"Paired difference to {reference}", 42), loc="left", fontsize=10)

    def key(label: str, colour: str, face: str, marker: str = "o") -> Any:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label)

    keys = []
    low, high = left.get_xlim()
    solid = [mark for mark in marks if not mark.transductive and not mark.baseline]
    if solid:
        keys.append(key("inductive", "C0", "C0"))
    if any(mark.transductive for mark in marks):
        keys.append(key("transductive: queries normalised by each other", "C0", "white"))
    if any(mark.baseline for mark in marks):
        keys.append(key("without meta-learning", "0.45", "0.45"))
    if any(mark.unadapted is not None and low <= scale * mark.unadapted.mean <= high for mark in marks):
        keys.append(key("unadapted, where on the scale", "C1", "C1", "x"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8)
    figure.suptitle(f"{tasks} tasks, the same for every method", x=0.01, ha="left", fontsize=9, color="0.35")

    image = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):  # the same comparison gives the same file
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()
