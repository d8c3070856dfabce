"""The picture of a comparison: scores with their intervals, and paired differences to a reference."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from fewstep.evaluation.figures import Rows, image, key, legend_below, write_in_row
from fewstep.evaluation.statistics import Interval, Score


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


def draw(marks: Sequence[Mark], reference: str, score: Score, tasks: int, form: str) -> bytes:
    """The picture as a file of the format ``form``, best method on top.

    Unadapted starts, often near chance, are drawn where they fall on the scale of the others.
    """

    def badness(mark: Mark) -> float:
        return math.inf if mark.score is None else -mark.score.mean if score.higher_is_better else mark.score.mean

    marks = sorted(marks, key=badness)
    rows = Rows([mark.label for mark in marks], score, 34, (0.34, 0.15))
    left, right = rows.left, rows.right
    rows.set_ranges(
        {mark.label: mark.score for mark in marks if mark.score is not None},
        {mark.label: mark.difference for mark in marks if mark.difference is not None and mark.label != reference},
        reference,
    )
    starts = []
    for mark, place in zip(marks, rows.places, strict=True):
        colour = "0.45" if mark.baseline else "C0"
        for axis, value in ((left, mark.score), (right, mark.difference)):
            if value is None:
                write_in_row(axis, place, "not finite", "C3")
            elif axis is right and mark.label == reference:
                rows.write_at_zero(place, "reference")
            else:
                rows.dot(axis, place, value, colour, 6.0, mark.transductive)
        if mark.unadapted is not None and rows.on_scale(left, mark.unadapted):
            starts += left.plot(
                score.scale * mark.unadapted.mean, place, marker="x", color="C1", markersize=5, zorder=2
            )
    right.set_xlabel("difference, percentage points" if score.percent else f"difference, {score.unit}")
    left.set_title("Mean and 95% interval", loc="left", fontsize=10)
    right.set_title(textwrap.fill(f"Paired difference to {reference}", 42), loc="left", fontsize=10)

    dot = {"linestyle": "", "marker": "o"}
    keys = []
    if any(not mark.transductive and not mark.baseline for mark in marks):
        keys.append(key("inductive", color="C0", **dot))
    if any(mark.transductive for mark in marks):
        label = "transductive: queries normalised by each other"
        keys.append(key(label, color="C0", markerfacecolor="white", **dot))
    if any(mark.baseline for mark in marks):
        keys.append(key("without meta-learning", color="0.45", **dot))
    if starts:
        keys.append(key("unadapted, where on the scale", color="C1", linestyle="", marker="x"))
    legend_below(rows.figure, keys)
    about = f"{tasks} tasks, the same for every method"
    rows.figure.suptitle(about, x=0.01, ha="left", fontsize=9, color="0.35")
    return image(rows.figure, form)
