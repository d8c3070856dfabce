"""The picture of a repetition: every run with its interval, and what they come to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fewstep.evaluation.figures import bounds, error_bar, image, key, length_of, new_figure, style_rows, write_in_row
from fewstep.evaluation.statistics import Interval, Score

FAR = 3.0
"""A line is left out when with it the axis would be more than this many times as long."""

STYLES: Sequence[Any] = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""Of lines."""


class Panel(NamedTuple):
    """One test of all runs.

    Attributes:
        name: above the panel.
        score: what is shown.
        runs: their means over tasks with 95% intervals; None where scores are not finite.
        mean: over runs.
        sd: over runs; NaN for a single one.
        own: means of the method's other scores on the same tasks: unadapted, after other numbers of steps.
        rivals: means of other methods on the same tasks.
        tasks: their number.
    """

    name: str
    score: Score
    runs: Sequence[Interval | None]
    mean: float
    sd: float
    own: Mapping[str, float]
    rivals: Mapping[str, float]
    tasks: int


def draw(panels: Sequence[Panel], seeds: Sequence[int], title: str, form: str) -> bytes:
    """The picture as a file of the format ``form``, a panel a test.

    Lines that would squeeze the runs together are told in the legend instead, as off the scale.
    """
    height = 1.5 + 0.24 * max(len(seeds), 3)
    figure = new_figure(8.5, 0.4 + height * len(panels))
    for axis, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        _draw_panel(axis, panel, seeds)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return image(figure, form)


def _draw_panel(axis: Any, panel: Panel, seeds: Sequence[int]) -> None:
    scale, number = panel.score.scale, panel.score.number
    sd = 0.0 if math.isnan(panel.sd) else panel.sd
    shown = [run for run in panel.runs if run is not None]
    for place, run in enumerate(panel.runs):
        if run is None:
            write_in_row(axis, float(place), "not finite", "C3")
        else:
            error_bar(axis, float(place), run, scale, "C0", markersize=5.5)
    handles = [key("a run, 95% interval over tasks", marker="o", color="C0")]
    if math.isfinite(panel.mean):
        shown.append(Interval(panel.mean, sd, panel.tasks))
        spread = "n/a" if math.isnan(panel.sd) else number(sd)
        text = f"mean ± s.d. over runs, {number(panel.mean)} ± {spread}"
        low, high = (scale * end for end in bounds(shown[-1:]))
        handles.append(axis.axvspan(low, high, color="C0", alpha=0.15, linewidth=0, label=text))
        axis.axvline(scale * panel.mean, color="C0", linewidth=1.2, zorder=2)
    low, high = (scale * end for end in bounds(shown)) if shown else (0.0, 1.0)
    ends, length = [low, high], length_of(low, high)
    lines = [("C1", i, *line) for i, line in enumerate(panel.own.items())]
    lines += [("0.35", i, *line) for i, line in enumerate(panel.rivals.items())]
    for colour, i, name, value in lines:
        x, style = scale * value, STYLES[i % len(STYLES)]
        label = f"{name} {number(value)}"
        if math.isfinite(x) and max(high, x) - min(low, x) <= FAR * length:
            axis.axvline(x, color=colour, linestyle=style, linewidth=1.1, zorder=1)
            ends.append(x)
        else:
            label, style = f"{label}, off the scale", ""
        handles.append(key(label, color=colour, linestyle=style, linewidth=1.1))
    low, high = min(ends), max(ends)
    margin = 0.05 * length_of(low, high)
    axis.set_xlim(low - margin, high + margin)
    axis.set_yticks(range(len(seeds)), [f"seed {seed}" for seed in seeds], fontsize=8.5)
    axis.set_ylim(len(seeds) - 0.4, -0.6)
    style_rows(axis)
    axis.set_xlabel(f"{panel.score.unit} ({panel.score.better})")
    about = f"{panel.tasks} tasks, the same for every seed"
    axis.set_title(f"{panel.name} · {about}" if panel.name else about, loc="left", fontsize=9)
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
