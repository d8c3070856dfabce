"""The picture of an ablation: what every row scores, seed by seed, and what LEO is ahead of it."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from fewstep.evaluation.figures import at_edge, near_scores, span
from fewstep.evaluation.statistics import Interval


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


def draw(marks: Sequence[Mark], unit: str, percent: bool, title: str, note: str, form: str) -> bytes:
    """The picture as a file of the format ``form``, in the order given.

    Axes span what most rows need: one that is far from the others is an arrow at the edge with its number instead of
    squeezing them together.
    """
    # Here, for importing matplotlib takes longer than most of the library; without pyplot it leaves the user's
    # backend alone.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [textwrap.fill(mark.label, 36) for mark in marks]
    heights = [0.38 + 0.13 * name.count("\n") for name in names]
    gaps = [0.2 if mark.baseline and i and not marks[i - 1].baseline else 0.0 for i, mark in enumerate(marks)]
    places = [sum(heights[:i]) + sum(gaps[: i + 1]) + heights[i] / 2 for i in range(len(marks))]
    bottom = sum(heights) + sum(gaps)
    figure = Figure(figsize=(10.5, 1.9 + bottom), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    scale, digits = (100.0, 2) if percent else (1.0, 3)

    # As far as a row reaches: its interval, its standard deviation, and its seeds.
    reach = {mark.label: _reach(mark, mark.score) for mark in marks if mark.score is not None}
    near = near_scores(reach)
    gains = {mark.label: mark.difference for mark in marks if mark.difference is not None}
    around = [gains[label] for label in near if label in gains]
    ranges = (
        span([reach[label] for label in near], len(near) < len(reach), scale),
        span([*around, Interval(0.0, 0.0, 0)], len(around) < len(gains), scale, reach=0.08),
    )
    for axis, (low, high) in zip((left, right), ranges, strict=True):
        axis.set_xlim(low, high)
        axis.grid(axis="x", alpha=0.3, linewidth=0.6)
        axis.grid(axis="y", alpha=0.2, linewidth=0.5, linestyle=":")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    right.axvline(0, color="0.2", linewidth=0.9, zorder=1)

    def dot(axis: Any, place: float, value: Interval, colour: str) -> bool:
        low, high = axis.get_xlim()
        if not low <= scale * value.mean <= high:
            at_edge(axis, place, scale * value.mean, low, digits, colour, axis is right, hollow=False)
            return False
        axis.errorbar(
            scale * value.mean,
            place,
            xerr=scale * value.half_width,
            fmt="o",
            color=colour,
            markersize=5,
            capsize=2.5,
            linewidth=1.3,
            zorder=3,
        )
        return True

    for mark, place in zip(marks, places, strict=True):
        colour = "0.45" if mark.baseline else "C0"
        if mark.score is None:
            alarm = "C3" if mark.absence == "missing" else "0.5"
            left.text(
                0.5,
                place,
                mark.absence,
                color=alarm,
                fontsize=8.5,
                ha="center",
                va="center",
                transform=left.get_yaxis_transform(),
            )
        elif dot(left, place, mark.score, colour):
            ends = [scale * (mark.score.mean + side * mark.sd) for side in (-1, 1)]
            left.plot(ends, [place, place], color=colour, alpha=0.25, linewidth=9, solid_capstyle="butt", zorder=2)
            left.plot(
                [scale * value for value in mark.seeds],
                [place + 0.13] * len(mark.seeds),
                "o",
                color="C1",
                markersize=3,
                zorder=4,
            )
        if mark.reference and mark.score is not None:
            right.text(
                0.0,
                place,
                "LEO itself",
                color="0.3",
                fontsize=8,
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
        elif mark.difference is not None:
            dot(right, place, mark.difference, colour)
    if not gains:
        right.text(
            0.5,
            0.5,
            "LEO has no test",
            color="0.5",
            fontsize=8.5,
            ha="center",
            va="center",
            transform=right.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none"},
        )
        right.tick_params(axis="x", colors="white")  # numbers of an axis that means nothing
    left.set_yticks(places, names, fontsize=8.5)
    left.set_ylim(bottom, 0)
    left.set_xlabel(f"{unit} (higher is better)")
    right.set_xlabel("LEO − row, " + ("percentage points" if percent else unit))
    left.set_title("Test score, mean over seeds", loc="left", fontsize=10)
    right.set_title("Lead of LEO, paired, 95% interval over tasks", loc="left", fontsize=10)

    keys: list[Any] = [
        Line2D([], [], color="C0", marker="o", markersize=5, linewidth=1.3, label="mean, 95% over tasks"),
        Line2D([], [], color="C0", alpha=0.25, linewidth=9, label="± s.d. over seeds"),
        Line2D([], [], color="C1", marker="o", linestyle="", markersize=3, label="a seed"),
    ]
    if any(mark.baseline for mark in marks):
        keys.append(Line2D([], [], color="0.45", marker="o", markersize=5, linewidth=1.3, label="no meta-learning"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8)
    heading = "\n".join([textwrap.fill(title, 140), note])
    figure.suptitle(heading, x=0.01, ha="left", fontsize=8.5, color="0.35")

    image = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):  # the same table gives the same file
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()


def _reach(mark: Mark, score: Interval) -> Interval:
    spread = max([score.half_width, mark.sd, *(abs(value - score.mean) for value in mark.seeds)])
    return Interval(score.mean, spread, score.tasks)
