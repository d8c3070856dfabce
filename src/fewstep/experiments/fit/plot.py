"""The picture of a fit: how far every method is above the best simple one, at every number of shots."""

from __future__ import annotations

from collections.abc import Sequence

from fewstep.evaluation.figures import FAR, error_bar, image, key, legend_below, new_figure, style_rows, write_in_row
from fewstep.experiments.fit.methods import SIMPLE
from fewstep.experiments.fit.result import Cell


def draw(cells: Sequence[Cell], form: str) -> bytes:
    """The picture as a file of the format ``form``: a panel for every number of shots, a row for every method.

    What is recommended is filled, other methods are hollow; simple ones are grey. One that is so far below that it
    would squeeze the others together is an arrow at the edge.
    """
    names = [row.name for row in cells[0].rows]
    figure = new_figure(3.2 + 3.6 * len(cells), 1.5 + 0.34 * len(names))
    axes = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axis, cell in zip(axes, cells, strict=True):
        style_rows(axis)
        axis.axvline(0, color="0.2", linewidth=0.9, zorder=1)
        axis.set_title(f"{cell.shots}-shot: over {cell.rival}", loc="left", fontsize=9.5)
        axis.set_xlabel("percentage points, paired, with 95% interval", fontsize=8.5)
        low = _lowest(cell)
        for place, row in enumerate(cell.rows):
            colour = "0.45" if row.name in SIMPLE else "C0"
            best = row.name == cell.recommended
            face = colour if best else "white"
            if row.name == cell.rival:
                axis.plot(0, float(place), marker="o", color=colour, markersize=6.5, markerfacecolor=face, zorder=3)
            elif row.gain is None:
                word = "failed" if row.error.startswith("failed") else "not tried"
                write_in_row(axis, float(place), word, "C3" if word == "failed" else "0.45")
            elif row.gain.mean < low:
                text = f"◂ {100 * row.gain.mean:+.1f}".replace("-", "−")
                write_in_row(axis, float(place), text, colour, x=0.012, side="left")
            else:
                error_bar(axis, float(place), row.gain, 100.0, colour, markersize=6.5, markerfacecolor=face)
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    dot = {"linestyle": "", "marker": "o"}
    legend_below(
        figure,
        [
            key("without meta-learning", color="0.45", markerfacecolor="white", **dot),
            key("meta-trained", color="C0", markerfacecolor="white", **dot),
            key("recommended", color="0.2", **dot),
        ],
    )
    return image(figure, form)


def _lowest(cell: Cell) -> float:
    """Below it, a difference is an arrow."""
    gains = sorted(row.gain.mean for row in cell.rows if row.gain is not None)
    if not gains:
        return 0.0
    middle = gains[len(gains) // 2]
    return FAR * min(middle, -max(0.0, gains[-1]), -0.002)
