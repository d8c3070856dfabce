"""Pictures on the pages: SVG by Matplotlib in the colours of the page, light or dark, and what the learner sees."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fewstep.demo.characters import LETTERS, Naming
from fewstep.demo.functions import ACROSS, UP, Curves
from fewstep.evaluation.figures import image, new_figure

COLOURS = ("#1f83c6", "#d35f1a", "#16936a", "#c7559f", "#9a7d0a")
"""Of classes; each is seen on white and on black, at a contrast above 3."""

FRAME = {"left": 0.09, "right": 0.985, "top": 0.03, "bottom": 0.91}
"""Where the axes of :func:`curves` begin and end, in shares of the picture from its top left corner."""

_INK, _GREY = "#010203", "#040506"  # stand for the colours of the page's text and of its lines


def seen(pixels: UInt8[np.ndarray, "1 28 28"], strokes: int) -> str:
    """What the learner sees of a drawing, ink on paper, as HTML."""
    file = io.BytesIO()
    Image.fromarray(255 - pixels[0]).save(file, "png")
    told = f"{strokes} stroke{'s' * (strokes != 1)}, as the learner sees them"
    source = base64.b64encode(file.getvalue()).decode()
    return f'<img class="seen" alt="{told}" title="{told}" src="data:image/png;base64,{source}">'


def paths(naming: Naming) -> str:
    """Codes of the classes, hollow where they begin and filled where latent steps end, as HTML.

    Both axes have one scale. Where codes move by far less than what lies between them, their paths are drawn longer,
    and it is said how much.
    """
    codes = naming.codes
    begin = codes[0]
    between = np.linalg.norm(begin[:, None] - begin, axis=-1).max()
    moved = np.linalg.norm(codes[-1] - begin, axis=-1).max()
    times = next((k for k in (500, 200, 100, 50, 20, 10, 5, 2) if k * moved <= 0.35 * between), 1)
    figure = new_figure(5.6, 3.0)
    figure.set_layout_engine("none")  # nothing stands outside of the axes
    axis = figure.add_axes((0, 0, 1, 1), aspect="equal")
    axis.axis("off")
    axis.margins(0.15)
    for path, letter, colour in zip(np.swapaxes(begin + times * (codes - begin), 0, 1), LETTERS, COLOURS, strict=False):
        style: dict[str, Any] = {"color": colour, "linestyle": "none", "marker": "o"}
        axis.plot(*path.T, color=colour, linewidth=1.2)
        axis.plot(*path[1:-1].T, markersize=2.5, **style)
        axis.plot(*path[:1].T, markersize=7, markerfacecolor="none", markeredgewidth=1.4, **style)
        axis.plot(*path[-1:].T, markersize=7, **style)
        away = path[0] - path[-1] if (path[0] != path[-1]).any() else np.array([0.0, 1.0])
        place = 14 * away / np.linalg.norm(away)
        axis.annotate(
            letter,
            path[0],
            place,
            textcoords="offset points",
            ha="center",
            va="center",
            color=_INK,
            size=12,
            weight="bold",
        )
    told = (
        f"One code a class, from where the encoder puts it (hollow) through {len(codes) - 1} latent steps (filled), on "
        f"the first two principal components, which have {naming.shown:.0%} of the variance."
    )
    if times > 1:
        told += f" Paths are drawn {times} times as long as they are."
    return _framed("How the codes move", _svg(figure, "paths of the classes' codes in latent space"), told)


def curves(
    title: str,
    colour: str,
    points: Float[np.ndarray, "points 2"],
    x: Float[np.ndarray, " inputs"],
    found: Curves | None,
) -> str:
    """Functions through points, or the empty plot, as HTML."""
    figure = new_figure(4.4, 3.2)
    figure.set_layout_engine("none")  # the axes' place is said
    left, right, top, bottom = FRAME.values()
    axis = figure.add_axes((left, 1 - bottom, right - left, bottom - top))
    axis.set(xlim=(-ACROSS, ACROSS), ylim=(-UP, UP), xticks=range(-4, 5, 2), yticks=range(-8, 9, 4))
    axis.tick_params(length=0, labelcolor=_INK, labelsize=9)
    axis.grid(color=_GREY, linewidth=0.6)
    axis.spines[:].set_visible(False)
    axis.axhline(0, color=_INK, linewidth=0.6, alpha=0.5)
    axis.axvline(0, color=_INK, linewidth=0.6, alpha=0.5)
    if found is not None:
        axis.fill_between(x, found.low, found.high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(x, found.functions.T, color=colour, alpha=0.45, linewidth=0.7)
        axis.plot(x, found.mean, color=colour, linewidth=2)
    axis.plot(*points.T, "o", color=_INK, markersize=4.5, zorder=3)
    told = "\u00a0" if found is None else f"{found.line:.0%} lines, {1 - found.line:.0%} sines"
    return _framed(title, _svg(figure, f"{title}: click to add a point"), told)


def _framed(title: str, picture: str, told: str) -> str:
    return f"<figure><h3>{title}</h3>{picture}<figcaption>{told}</figcaption></figure>"


def _svg(figure: Any, label: str) -> str:
    """A figure on the page's own ground, in its font and with the colour of its text."""
    import matplotlib

    figure.patch.set_visible(False)
    for axis in figure.axes:
        axis.patch.set_visible(False)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        text = image(figure, "svg").decode()
    # Within a page, its style would be that of all pictures.
    text = re.sub("<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_GREY, "var(--border-color-primary)")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
