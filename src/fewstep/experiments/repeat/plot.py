"""The picture of a repetition: every run with its interval, and what they come to."""

import math
from collections.abc import Sequence
from typing import Any

from fewstep.evaluation.figures import bounds, error_bar, image, key, length_of, new_figure, style_rows, write_in_row
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.repeat.tested import SeedScores

FAR = 3.0
"""A line is left out when with it the axis would be more than this many times as long."""

STYLES: Sequence[Any] = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""Of lines."""


def draw(tests: Sequence[SeedScores], seeds: Sequence[int], title: str, form: str) -> bytes:
    """The picture as a file of the format ``form``, a panel a test, with its name where there are several.

    Lines that would squeeze the runs together are told in the legend instead, as off the scale.
    """
    height = 1.5 + 0.24 * max(len(seeds), 3)
    figure = new_figure(8.5, 0.4 + height * len(tests))
    for axis, test in zip(figure.subplots(len(tests), 1, squeeze=False)[:, 0], tests, strict=True):
        _draw_panel(axis, test, seeds, f"{test.name} · " if len(tests) > 1 else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return image(figure, form)


def _draw_panel(axis: Any, test: SeedScores, seeds: Sequence[int], name: str) -> None:
    scale, number, mean, sd = test.score.scale, test.score.number, test.mean(), test.sd()
    runs = [test.interval_of_run(i) for i in range(len(seeds))]
    shown = [run for run in runs if run is not None]
    for place, run in enumerate(runs):
        if run is None:
            write_in_row(axis, float(place), "not finite", "C3")
        else:
            error_bar(axis, float(place), run, scale, "C0", markersize=5.5)
    handles = [key("a run, 95% interval over tasks", marker="o", color="C0")]
    if math.isfinite(mean):
        shown.append(Interval(mean, 0.0 if math.isnan(sd) else sd, test.tasks))
        text = f"mean ± s.d. over runs, {number(mean)} ± {'n/a' if math.isnan(sd) else number(sd)}"
        low, high = (scale * end for end in bounds(shown[-1:]))
        handles.append(axis.axvspan(low, high, color="C0", alpha=0.15, linewidth=0, label=text))
        axis.axvline(scale * mean, color="C0", linewidth=1.2, zorder=2)
    low, high = (scale * end for end in bounds(shown)) if shown else (0.0, 1.0)
    ends, length = [low, high], length_of(low, high)
    own = [score for score in test.scores if score != ADAPTED]
    lines = [("C1", i, score, test.mean(score)) for i, score in enumerate(own)]
    lines += [("0.35", i, rival, float(scores.mean())) for i, (rival, scores) in enumerate(test.baselines.items())]
    for colour, i, score, value in lines:
        x, style = scale * value, STYLES[i % len(STYLES)]
        label = f"{score} {number(value)}"
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
    axis.set_xlabel(f"{test.score.unit} ({test.score.better})")
    axis.set_title(f"{name}{test.tasks} tasks, the same for every seed", loc="left", fontsize=9)
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
