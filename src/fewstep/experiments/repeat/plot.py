"""The picture of a repetition: every run with its interval, and what they come to."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fewstep.evaluation.statistics import Interval

FAR = 3.0
"""A line is left out when with it the axis would be more than this many times as long."""

STYLES: Sequence[Any] = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""Of lines."""


class Panel(NamedTuple):
    """One test of all runs.

    Attributes:
        name: above the panel.
        unit: of the axis.
        runs: their means over tasks with 95% intervals; None where scores are not finite.
        mean: over runs.
        sd: over runs; NaN for a single one.
        own: means of the method's other scores on the same tasks: unadapted, after other numbers of steps.
        rivals: means of other methods on the same tasks.
        percent: show 100 times the numbers.
        higher_is_better: the direction.
        tasks: their number.
    """

    name: str
    unit: str
    runs: Sequence[Interval | None]
    mean: float
    sd: float
    own: Mapping[str, float]
    rivals: Mapping[str, float]
    percent: bool
    higher_is_better: bool
    tasks: int


def draw(panels: Sequence[Panel], seeds: Sequence[int], title: str, form: str) -> bytes:
    """The picture as a file of the format ``form``, a panel a test.

    Lines that would squeeze the runs together are told in the legend instead, as off the scale.
    """
    # Here, for importing matplotlib takes longer than most of the library; without pyplot it leaves the user's
    # backend alone.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    height = 1.5 + 0.24 * max(len(seeds), 3)
    figure = Figure(figsize=(8.5, 0.4 + height * len(panels)), layout="constrained", dpi=150)
    for axis, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        scale, digits = (100.0, 2) if panel.percent else (1.0, 4)
        mean, sd = scale * panel.mean, 0.0 if math.isnan(panel.sd) else scale * panel.sd
        bounds = [mean - sd, mean + sd] if math.isfinite(mean) else []
        for place, run in enumerate(panel.runs):
            if run is None:
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
                continue
            half = scale * run.half_width
            axis.errorbar(
                scale * run.mean,
                place,
                xerr=half,
                fmt="o",
                color="C0",
                markersize=5.5,
                capsize=2.5,
                linewidth=1.3,
                zorder=3,
            )
            bounds += [scale * run.mean - half, scale * run.mean + half]
        handles = [Line2D([], [], marker="o", color="C0", label="a run, 95% interval over tasks")]
        if math.isfinite(mean):
            spread = "n/a" if math.isnan(panel.sd) else f"{sd:.{digits}f}"
            text = f"mean ± s.d. over runs, {mean:.{digits}f} ± {spread}"
            handles.append(axis.axvspan(mean - sd, mean + sd, color="C0", alpha=0.15, linewidth=0, label=text))
            axis.axvline(mean, color="C0", linewidth=1.2, zorder=2)
        low, high = (min(bounds), max(bounds)) if bounds else (0.0, 1.0)
        length = (high - low) or 0.1 * abs(high) or 1.0
        lines = [("C1", i, *line) for i, line in enumerate(panel.own.items())]
        lines += [("0.35", i, *line) for i, line in enumerate(panel.rivals.items())]
        for colour, i, name, value in lines:
            x, style = scale * value, STYLES[i % len(STYLES)]
            reach = max(high, x) - min(low, x)
            shown = math.isfinite(x) and reach <= FAR * length
            label = f"{name} {x:.{digits}f}" + ("" if shown else ", off the scale")
            if shown:
                axis.axvline(x, color=colour, linestyle=style, linewidth=1.1, zorder=1)
                bounds.append(x)
            handles.append(Line2D([], [], color=colour, linestyle=style if shown else "", linewidth=1.1, label=label))
        low, high = (min(bounds), max(bounds)) if bounds else (0.0, 1.0)
        margin = 0.05 * ((high - low) or 0.1 * abs(high) or 1.0)
        axis.set_xlim(low - margin, high + margin)
        axis.set_yticks(range(len(seeds)), [f"seed {seed}" for seed in seeds], fontsize=8.5)
        axis.set_ylim(len(seeds) - 0.4, -0.6)
        axis.grid(axis="x", alpha=0.3, linewidth=0.6)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"{panel.unit} ({'higher' if panel.higher_is_better else 'lower'} is better)")
        about = f"{panel.tasks} tasks, the same for every seed"
        axis.set_title(f"{panel.name} · {about}" if panel.name else about, loc="left", fontsize=9)
        axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)

    image = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):  # the same result gives the same file
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()
