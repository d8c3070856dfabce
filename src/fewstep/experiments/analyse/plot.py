"""Pictures of an analysis, after LEO's Figures 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewstep.evaluation.figures import key, legend_below, new_figure, style_curve, style_rows
from fewstep.experiments.analyse.result import QUANTILES, SYMBOLS, Analysis, CodeMap

# Okabe and Ito's colours, told apart under every common colour blindness.
_BEFORE, _AFTER = "#0072B2", "#E69F00"
_COLOURS = {"codes": "#0072B2", "weights": "#D55E00", "induced": "#009E73", "decoder": "#0072B2"}
_QUIET = "0.85"


def draw_codes(codes: CodeMap) -> Any:
    """Codes before and after adaptation, by t-SNE above and by principal components below."""
    columns = 1 if codes.classes is None else 3
    figure = new_figure(3.6 * columns + 0.6, 7.0)
    axes = figure.subplots(2, columns, squeeze=False)
    x, y = (f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(codes.shares))
    for row, (places, title) in enumerate(((codes.tsne, "t-SNE"), (codes.components, "PCA"))):
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
        _both(axes[row, 0], places)
        axes[row, 0].set_title(f"{title}: before and after", fontsize=10, loc="left")
        if codes.classes is not None:
            of = codes.classes.ravel()
            colours = _class_colours(len(codes.names))[of]
            chosen = int(of[0])
            for points in places:
                _scatter(axes[row, 1], points, colours)
                _scatter(axes[row, 2], points[of != chosen], _QUIET)
            _both(axes[row, 2], places[:, of == chosen], 5.0)
            axes[row, 1].set_title("by class", fontsize=10, loc="left")
            axes[row, 2].set_title(f"class {codes.names[chosen]}", fontsize=10, loc="left")
        if row:
            axes[row, 0].set_xlabel(x, fontsize=8)
            axes[row, 0].set_ylabel(y, fontsize=8)
    dot = {"linestyle": "", "marker": "o", "markersize": 4}
    legend_below(figure, [key("before: z", color=_BEFORE, **dot), key("after: z'", color=_AFTER, **dot)], 9.0)
    return figure


def _both(axis: Any, places: Any, size: float = 2.0) -> None:
    """Before and after, in a mixed order: those that are drawn last would hide the others."""
    points = np.concatenate(places)
    order = np.random.default_rng(0).permutation(len(points))
    colours = np.repeat([_BEFORE, _AFTER], len(points) // 2)
    _scatter(axis, points[order], colours[order], size)


def _scatter(axis: Any, points: Any, colour: Any, size: float = 2.0) -> None:
    axis.scatter(points[:, 0], points[:, 1], s=size, c=colour, linewidths=0, alpha=0.6, rasterized=True)


def _class_colours(count: int) -> Any:
    from matplotlib import colormaps  # here, for importing it takes longer than most of the library

    if count <= 20:
        return colormaps["tab20"](np.arange(count))
    return colormaps["hsv"](np.linspace(0, 1, count, endpoint=False))


def draw_curvature(analysis: Analysis) -> Any:
    """Box plots of eigenvalues, singular values and steps; and curvature along training, where it was looked at."""
    boxes = analysis.boxes()
    panels = [
        ("|eigenvalues| of the loss's Hessian", ("eigenvalues",), True),
        ("singular values of the decoder", ("singular values",), False),
        ("length of a step", ("step",), True),
    ]
    shown = [(title, [box for box in boxes if box["quantity"] in which], log) for title, which, log in panels]
    shown = [panel for panel in shown if panel[1]]
    count = len(shown) + bool(analysis.training)
    columns = min(count, 2)
    rows = -(-count // columns)
    tall = max(len(panel[1]) for panel in shown)
    figure = new_figure(5.6 * columns, rows * max(2.4, 0.32 * tall + 0.9))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    several = len(analysis.runs) > 1
    for axis, (title, of, log) in zip(axes, shown, strict=False):
        _boxes(axis, of, several)
        axis.set_title(title, fontsize=10, loc="left")
        if log:
            axis.set_xscale("log")
        elif all(box["quantity"] == "singular values" for box in of):
            axis.axvline(1.0, color="0.4", linewidth=0.9, linestyle=(0, (4, 3)))
            axis.set_xlim(left=0)
            axis.set_xlabel("1 preserves lengths", fontsize=8)
    if analysis.training:
        _along_training(axes[len(shown)], analysis)
    for axis in axes[count:]:
        axis.axis("off")
    about = f"{analysis.protocol['tasks']} tasks; boxes: quartiles, whiskers: 5% to 95%"
    figure.suptitle(about, x=0.01, ha="left", fontsize=9, color="0.35")
    return figure


def _boxes(axis: Any, boxes: Sequence[dict[str, Any]], several: bool) -> None:
    style_rows(axis)
    names = []
    for place, box in enumerate(boxes):
        low, first, middle, third, high = (box[f"{q:.0%}"] for q in QUANTILES)
        colour = _COLOURS[box["space"]]
        axis.hlines(place, low, high, color=colour, linewidth=1.1)
        axis.vlines([low, high], place - 0.16, place + 0.16, color=colour, linewidth=1.1)
        look = {"color": "white", "edgecolor": colour, "linewidth": 1.3, "zorder": 2}
        axis.barh(place, third - first, left=first, height=0.56, **look)
        axis.vlines(middle, place - 0.28, place + 0.28, color=colour, linewidth=2.2, zorder=3)
        what = "" if box["space"] == "decoder" else SYMBOLS[box["space"]]
        parts = (box["run"] if several or not what else "", what, box["place"] if what and box["place"] else "")
        names.append(", ".join(part for part in parts if part))
    axis.set_yticks(range(len(boxes)), names, fontsize=8)
    axis.set_ylim(len(boxes) - 0.4, -0.6)


def _along_training(axis: Any, analysis: Analysis) -> None:
    rows = analysis.along_training()
    place = "adapted" if any(row["place"] == "adapted" for row in rows) else "start"
    some = [row for row in rows if row["place"] == place]
    steps = [row["meta-step"] for row in some]
    for name, symbol, marker in (("codes", "z", "o"), ("weights", "θ", "s")):
        axis.plot(steps, [row[f"largest, {symbol}"] for row in some], color=_COLOURS[name], marker=marker, markersize=4)
    axis.set_yscale("log")
    axis.set_xscale("symlog", linthresh=max(1, min((step for step in steps if step), default=1)))
    style_curve(axis)
    axis.set_title(f"largest |eigenvalue| along training, {place}", fontsize=10, loc="left")
    axis.set_xlabel("meta-step", fontsize=9)
    axis.legend(["z", "θ"], frameon=False, fontsize=9)
