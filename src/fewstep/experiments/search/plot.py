"""The picture of a search: scores in order, what matters to them, and the score against each setting."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from fewstep.evaluation.figures import image, key, legend_below, new_figure, style_curve
from fewstep.evaluation.statistics import Score
from fewstep.experiments.search.result import SearchResult, Trial

ACROSS = 4
"""Settings beside each other, at most."""

FAR = 3.0
"""A score is off the scale when it is worse than the worse quartile by more than this many times the quartile's
distance to the best."""


def draw(found: SearchResult, form: str) -> bytes:
    """The picture as a file of the format ``form``.

    Scores far worse than most are arrowheads at the edge, so that the good ones can be told apart.
    """
    from matplotlib.ticker import MaxNLocator  # here, for importing it takes longer than most of the library

    score = Score(found.score, found.higher_is_better)
    unit, scale = f"validation {score.unit}", score.scale
    rows = [row for row in found.rows if row.value is not None and math.isfinite(row.value)]
    low, high = _range([scale * (row.value or 0.0) for row in rows], found.higher_is_better)

    below = -(-len(found.space) // ACROSS)
    across = -(-len(found.space) // below)
    figure = new_figure(11.0, 4.0 + 2.5 * below)
    top, bottom = figure.subfigures(2, 1, height_ratios=(3.3, 2.5 * below))
    order, shares = top.subplots(1, 2, width_ratios=(1.3, 1))

    def scatter(axis: Any, places: Sequence[float]) -> None:
        for row, place in zip(rows, places, strict=True):
            value = scale * (row.value or 0.0)
            best = row.index == found.index
            colour = "C1" if best else "C0" if row.state == "complete" else "0.5"
            marker = "D" if best else "o" if low <= value <= high else "v" if value < low else "^"
            style: dict[str, Any] = {"linestyle": "", "marker": marker, "color": colour, "markeredgewidth": 0.9}
            style |= {"markersize": 6, "zorder": 4} if best else {"markersize": 4.5, "zorder": 3}
            style["markerfacecolor"] = colour if row.state == "complete" else "white"
            axis.plot(place, min(max(value, low), high), clip_on=False, **style)
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
        style_curve(axis, alpha=0.25)
        axis.tick_params(labelsize=8)

    scatter(order, [float(row.index) for row in rows])
    indices, so_far = _best_so_far(rows, found.higher_is_better)
    if indices:
        ends = [*indices, len(found.rows) - 1], [scale * value for value in (*so_far, so_far[-1])]
        order.step(*ends, where="post", color="C1", linewidth=1.2, zorder=2)
    failed = [row.index for row in found.rows if row.state == "failed"]
    if failed:  # an empty line that is not clipped breaks the layout
        where = order.get_xaxis_transform()
        order.plot(failed, [0.0] * len(failed), "x", color="C3", markersize=5, clip_on=False, transform=where)
    order.xaxis.set_major_locator(MaxNLocator(integer=True))
    order.set_xlabel("configuration", fontsize=9)
    order.set_ylabel(f"{unit}\n({score.better})", fontsize=9)
    order.set_title("In order, and the best so far", loc="left", fontsize=10)

    _bars(shares, found)
    first = None
    for i, range in enumerate(found.space):
        axis = bottom.add_subplot(below, across, i + 1, sharey=first)
        first = first or axis
        scatter(axis, [row.settings[range.setting] for row in rows])
        axis.set_xscale("log" if range.log else "linear")
        axis.set_xlim(range.low - 0.5 * range.whole, range.high + 0.5 * range.whole)
        if range.log:
            _log_ticks(axis, range.low, range.high)
        else:
            axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(range.setting, fontsize=9)
        axis.tick_params(axis="y", labelleft=i % across == 0)
        if i % across == 0:
            axis.set_ylabel(unit, fontsize=9)

    def dot(label: str, colour: str, marker: str, hollow: bool = False) -> Any:
        face = "white" if hollow else colour
        return key(label, linestyle="", marker=marker, color=colour, markerfacecolor=face)

    keys = [dot("the best", "C1", "D"), dot("complete", "C0", "o")]
    if any(row.state == "pruned" for row in rows):
        keys.append(dot("pruned, at its best so far", "0.5", "o", hollow=True))
    if any(not low <= scale * (row.value or 0.0) <= high for row in rows):
        keys.append(dot("off the scale", "0.3", "v" if found.higher_is_better else "^", hollow=True))
    if failed:
        keys.append(dot("failed", "C3", "x"))
    legend_below(figure, keys, 8.5)
    figure.suptitle(f"{found.config.recipe}: {len(found.rows)} random configurations", x=0.01, ha="left", fontsize=11)

    return image(figure, form)


def _bars(axis: Any, found: SearchResult) -> None:
    """Importances, the largest on top, or why there are none."""
    axis.set_title("Share of the score's variance (fANOVA)", loc="left", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    if not found.importances:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines["bottom"].set_visible(False)
        text, middle = textwrap.fill(found.importance_text(), 46), {"ha": "center", "va": "center"}
        axis.text(0.5, 0.5, text, fontsize=9, color="0.35", transform=axis.transAxes, in_layout=False, **middle)
        return
    names = list(found.importances)
    values = [found.importances[name] for name in names]
    axis.barh(range(len(names)), values, color="C0", height=0.6)
    for place, value in enumerate(values):
        axis.text(value + 0.01 * max(values), place, f"{value:.2f}", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8.5)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, 1.12 * max(values))
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)


def _log_ticks(axis: Any, low: float, high: float) -> None:
    """Powers of ten; where the range holds fewer than two of them, its ends."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    powers = [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    powers = powers[:: max(1, -(-len(powers) // 5))]
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(FixedLocator([low, high] if len(powers) < 2 else powers))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """0.001, but 1e-4: labels of neighbours must not touch."""
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")


def _best_so_far(rows: Sequence[Trial], higher_is_better: bool) -> tuple[list[int], list[float]]:
    """Where the best complete score changes, and what it is from there on."""
    better = max if higher_is_better else min
    complete = [(row.index, row.value) for row in rows if row.state == "complete" and row.value is not None]
    best = list(accumulate((value for _, value in complete), better))
    new = [i for i in range(len(best)) if not i or best[i] != best[i - 1]]
    return [complete[i][0] for i in new], [best[i] for i in new]


def _range(values: Sequence[float], higher_is_better: bool) -> tuple[float, float]:
    """From the best to the worst score that is not far off."""
    if not values:
        return 0.0, 1.0
    worse = float(np.quantile(values, 0.25 if higher_is_better else 0.75))
    best = max(values) if higher_is_better else min(values)
    reach = worse - FAR * (best - worse)
    kept = [value for value in values if (value >= reach if higher_is_better else value <= reach)]
    low, high = min(kept), max(kept)
    if low == high:
        low, high = low - 0.05 * (abs(low) or 1.0), high + 0.05 * (abs(high) or 1.0)
    return low, high
