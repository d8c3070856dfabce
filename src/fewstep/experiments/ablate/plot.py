"""The picture of an ablation: what every row scores, seed by seed, and what LEO is ahead of it."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from fewstep.evaluation.figures import Rows, image, key, legend_below, write_in_row
from fewstep.evaluation.statistics import Interval, Score


class Mark(NamedTuple):
    """A row or a baseline.

    Attributes:
        label: its name.
        score: over tasks; None where it is missing.
        seeds: the mean score of each run; none for a baseline.
        sd: over runs; 0 where there are not several.
        difference: LEO minus this; None where it is missing, or for LEO itself.
        absence: what is shown instead of the score.
        reference: this is LEO.
        baseline: a classifier without meta-learning.
    """

    label: str
    score: Interval | None
    seeds: Sequence[float] = ()
    sd: float = 0.0
    difference: Interval | None = None
    absence: str = ""
    reference: bool = False
    baseline: bool = False


def draw(marks: Sequence[Mark], score: Score, title: str, note: str, form: str) -> bytes:
    """The picture as a file of the format ``form``, in the order given."""
    gaps = [0.2 if mark.baseline and i and not marks[i - 1].baseline else 0.0 for i, mark in enumerate(marks)]
    rows = Rows([mark.label for mark in marks], score, 36, (0.38, 0.13), gaps)
    left, right, scale = rows.left, rows.right, score.scale
    # As far as a row reaches: its interval, its standard deviation, and its seeds.
    reach = {mark.label: _reach(mark, mark.score) for mark in marks if mark.score is not None}
    gains = {mark.label: mark.difference for mark in marks if mark.difference is not None}
    rows.set_ranges(reach, gains, next((mark.label for mark in marks if mark.reference), ""))
    for mark, place in zip(marks, rows.places, strict=True):
        colour = "0.45" if mark.baseline else "C0"
        if mark.score is None:
            write_in_row(left, place, mark.absence, "C3" if mark.absence == "missing" else "0.5", 8.5)
        elif rows.dot(left, place, mark.score, colour, 5.0):
            ends = [scale * (mark.score.mean + side * mark.sd) for side in (-1, 1)]
            left.plot(ends, [place, place], color=colour, alpha=0.25, linewidth=9, solid_capstyle="butt", zorder=2)
            seeds = [scale * value for value in mark.seeds]
            left.plot(seeds, [place + 0.13] * len(seeds), "o", color="C1", markersize=3, zorder=4)
        if mark.reference and mark.score is not None:
            rows.write_at_zero(place, "LEO itself")
        elif mark.difference is not None:
            rows.dot(right, place, mark.difference, colour, 5.0)
    if not gains:
        middle = {"ha": "center", "va": "center", "transform": right.transAxes}
        box = {"facecolor": "white", "edgecolor": "none"}
        right.text(0.5, 0.5, "LEO has no test", color="0.5", fontsize=8.5, bbox=box, **middle)
        right.tick_params(axis="x", colors="white")  # numbers of an axis that means nothing
    right.set_xlabel("LEO − row, " + ("percentage points" if score.percent else score.unit))
    left.set_title("Test score, mean over seeds", loc="left", fontsize=10)
    right.set_title("Lead of LEO, paired, 95% interval over tasks", loc="left", fontsize=10)

    dot = {"marker": "o", "markersize": 5, "linewidth": 1.3}
    keys = [
        key("mean, 95% over tasks", color="C0", **dot),
        key("± s.d. over seeds", color="C0", alpha=0.25, linewidth=9),
        key("a seed", color="C1", marker="o", linestyle="", markersize=3),
    ]
    if any(mark.baseline for mark in marks):
        keys.append(key("no meta-learning", color="0.45", **dot))
    legend_below(rows.figure, keys)
    heading = "\n".join([textwrap.fill(title, 140), note])
    rows.figure.suptitle(heading, x=0.01, ha="left", fontsize=8.5, color="0.35")
    return image(rows.figure, form)


def _reach(mark: Mark, score: Interval) -> Interval:
    spread = max([score.half_width, mark.sd, *(abs(value - score.mean) for value in mark.seeds)])
    return Interval(score.mean, spread, score.tasks)
