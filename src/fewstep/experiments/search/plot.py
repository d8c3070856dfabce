"""The picture of a search: scores in order, what matters to them, and the score against each setting."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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
    # Here, for importing matplotlib takes longer than most of the library; without pyplot it leaves the user's
    # backend alone.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    scale = 100.0 if found.score == "accuracy" else 1.0
    unit = "validation accuracy, %" if found.score == "accuracy" else f"validation {found.score}"
    rows = [row for row in found.rows if row.value is not None and math.isfinite(row.value)]
    low, high = _range([scale * (row.value or 0.0) for row in rows], found.higher_is_better)

    below = -(-len(found.space) // ACROSS)
    across = -(-len(found.space) // below)
    figure = Figure(figsize=(11, 4.0 + 2.5 * below), layout="constrained", dpi=150)
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.3, 2.5 * below))
    top, bottom = parts
    order, shares = top.subplots(1, 2, width_ratios=(1.3, 1))

    def scatter(axis: Any, places: Sequence[float]) -> None:
        for row, place in zip(rows, places, strict=True):
            value = scale * (row.value or 0.0)
            inside = low <= value <= high
            best = row.index == found.index
            colour = "C1" if best else "C0" if row.state == "complete" else "0.5"
            axis.plot(
                place,
                min(max(value, low), high),
                linestyle="",
                color=colour,
                zorder=4 if best else 3,
                clip_on=False,
                marker="D" if best else "o" if inside else "v" if value < low else "^",
                markersize=6 if best else 4.5,
                markerfacecolor=colour if row.state == "complete" else "white",
                markeredgewidth=0.9,
            )
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)

    scatter(order, [float(row.index) for row in rows])
    indices, so_far = _best_so_far(rows, found.higher_is_better)
    if indices:
        order.step(
            [*indices, len(found.rows) - 1],
            [scale * v for v in (*so_far, so_far[-1])],
            where="post",
            color="C1",
            linewidth=1.2,
            zorder=2,
        )
    failed = [row.index for row in found.rows if row.state == "failed"]
    if failed:  # an empty line that is not clipped breaks the layout
        order.plot(
            failed,
            [0.0] * len(failed),
            "x",
            color="C3",
            markersize=5,
            clip_on=False,
            transform=order.get_xaxis_transform(),
        )
    order.xaxis.set_major_locator(MaxNLocator(integer=True))
    order.set_xlabel("configuration", fontsize=9)
    order.set_ylabel(f"{unit}\n({'higher' if found.higher_is_better else 'lower'} is better)", fontsize=9)
    order.set_title("In order, and the best so far", loc="left", fontsize=10)

    _bars(shares, found)
    first = None
    for i, range in enumerate(found.space):
        axis = bottom.add_subplot(below, across, i + 1, sharey=first)
        first = first or axis
        scatter(axis, [row.settings[range.setting] for row in rows])
        if range.log:
            axis.set_xscale("log")
            axis.set_xlim(range.low, range.high)
            _log_ticks(axis, range.low, range.high)
        else:
            axis.set_xlim(range.low, range.high)
            axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(range.setting, fontsize=9)
        axis.tick_params(axis="y", labelleft=i % across == 0)
        if i % across == 0:
            axis.set_ylabel(unit, fontsize=9)

    def key(label: str, colour: str, face: str, marker: str) -> Any:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label)

    keys = [key("the best", "C1", "C1", "D"), key("complete", "C0", "C0", "o")]
    if any(row.state == "pruned" for row in rows):
        keys.append(key("pruned, at its best so far", "0.5", "white", "o"))
    if any(not low <= scale * (row.value or 0.0) <= high for row in rows):
        keys.append(key("off the scale", "0.3", "white", "v" if found.higher_is_better else "^"))
    if failed:
        keys.append(key("failed", "C3", "C3", "x"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8.5)
    figure.suptitle(f"{found.config.recipe}: {len(found.rows)} random configurations", x=0.01, ha="left", fontsize=11)

    image = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):  # the same search gives the same file
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()


def _bars(axis: Any, found: SearchResult) -> None:
    """Importances, the largest on top, or why there are none."""
    axis.set_title("Share of the score's variance (fANOVA)", loc="left", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    if not found.importances:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines["bottom"].set_visible(False)
        text = found.importance_text()
        axis.text(
            0.5,
            0.5,
            textwrap.fill(text, 46),
            ha="center",
            va="center",
            fontsize=9,
            color="0.35",
            transform=axis.transAxes,
            in_layout=False,
        )
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
    if len(powers) < 2:
        axis.xaxis.set_major_locator(FixedLocator([low, high]))
    else:
        axis.xaxis.set_major_locator(FixedLocator(powers))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """0.001, but 1e-4: labels of neighbours must not touch."""
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")


def _best_so_far(rows: Sequence[Trial], higher_is_better: bool) -> tuple[list[int], list[float]]:
    indices: list[int] = []
    values: list[float] = []
    for row in rows:
        if row.state != "complete" or row.value is None:
            continue
        if not values or (row.value > values[-1] if higher_is_better else row.value < values[-1]):
            indices.append(row.index)
            values.append(row.value)
    return indices, values


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
