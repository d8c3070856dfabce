"""The picture of a comparison: scores with their intervals, and paired differences to a reference."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from fewstep.evaluation.figures import Rows, image, key, legend_below, write_in_row
from fewstep.evaluation.statistics import Interval, Score
from fewstep.experiments.compare.method import MethodScores


def draw(
    methods: Sequence[MethodScores], differences: Mapping[str, Interval | None], reference: str, score: Score, form: str
) -> bytes:
    """The picture as a file of the format ``form``, best method on top.

    Unadapted starts, often near chance, are drawn where they fall on the scale of the others. Scores on which queries
    were normalised by each other are hollow, baselines grey.
    """

    def badness(method: MethodScores) -> float:
        value = method.interval
        return math.inf if value is None else -value.mean if score.higher_is_better else value.mean

    methods = sorted(methods, key=badness)
    rows = Rows([method.label for method in methods], score, 34, (0.34, 0.15))
    left, right = rows.left, rows.right
    scores = {method.label: value for method in methods if (value := method.interval) is not None}
    gains = {label: value for label, value in differences.items() if value is not None and label != reference}
    rows.set_ranges(scores, gains, reference)
    starts = []
    for method, place in zip(methods, rows.places, strict=True):
        colour = "0.45" if method.baseline else "C0"
        for axis, value in ((left, method.interval), (right, differences[method.label])):
            if value is None:
                write_in_row(axis, place, "not finite", "C3")
            elif axis is right and method.label == reference:
                rows.write_at_zero(place, "reference")
            else:
                rows.dot(axis, place, value, colour, 6.0, method.transductive)
        if (start := method.start) is not None and rows.on_scale(left, start):
            starts += left.plot(score.scale * start.mean, place, marker="x", color="C1", markersize=5, zorder=2)
    right.set_xlabel("difference, percentage points" if score.percent else f"difference, {score.unit}")
    left.set_title("Mean and 95% interval", loc="left", fontsize=10)
    right.set_title(textwrap.fill(f"Paired difference to {reference}", 42), loc="left", fontsize=10)

    dot = {"linestyle": "", "marker": "o"}
    keys = []
    if any(not method.transductive and not method.baseline for method in methods):
        keys.append(key("inductive", color="C0", **dot))
    if any(method.transductive for method in methods):
        label = "transductive: queries normalised by each other"
        keys.append(key(label, color="C0", markerfacecolor="white", **dot))
    if any(method.baseline for method in methods):
        keys.append(key("without meta-learning", color="0.45", **dot))
    if starts:
        keys.append(key("unadapted, where on the scale", color="C1", linestyle="", marker="x"))
    legend_below(rows.figure, keys)
    about = f"{len(methods[0].scores)} tasks, the same for every method"
    rows.figure.suptitle(about, x=0.01, ha="left", fontsize=9, color="0.35")
    return image(rows.figure, form)
