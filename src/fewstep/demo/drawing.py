"""Drawings of one's own: checked as they come from a canvas, and made into what was trained on.

What comes is strokes and no picture. A pen then is as wide as Omniglot's however large somebody draws, and no decoder
of images sees bytes from outside.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from fewstep.data.images.characters import reduced

Stroke: TypeAlias = Float[np.ndarray, "_ 2"]
"""Where a pen has been, (right, down) in sides of the canvas, from 0 to 1."""

STROKES, POINTS = 64, 4096
"""The most of a drawing."""

SIDE, INK, CENTRE, PEN = 105, 66.0, (51.0, 50.5), 4.75
"""Of Omniglot's drawings, in pixels: their side; the median of the longer side of their ink, and the mean place of its
middle; and the pen with which their centre lines, drawn anew, cover most of the same pixels."""

_LEAST = 0.05  # of a canvas: less is a dot, and does not become a scribble
_FINER = 4  # times as many pixels, so that a pen of 4.75 has its width


def drawing(given: Any, name: str = "the drawing") -> list[Stroke]:
    """Strokes of what a page has sent.

    Args:
        given: of JSON: a list of strokes, each a list of points [right, down].
        name: for messages.

    Raises:
        ValueError: for anything else, no ink, or more than anybody draws.

    Example:
        >>> drawing([[[0.1, 0.2], [0.3, 0.2]]])[0].shape
        (2, 2)
    """
    if not isinstance(given, list) or not all(isinstance(stroke, list) and stroke for stroke in given):
        raise ValueError(f"{name} is no drawing: a list of strokes is, each with points [right, down]")
    if not given:
        raise ValueError(f"{name} is empty: draw something")
    points = sum(map(len, given))
    if len(given) > STROKES or points > POINTS:
        much = f"{len(given)} strokes with {points} points"
        raise ValueError(f"{name} has {much}, more than the {STROKES} with {POINTS} that are taken: draw less")
    for point in (point for stroke in given for point in stroke):
        if not (isinstance(point, list) and len(point) == 2 and all(type(at) in (int, float) for at in point)):
            raise ValueError(f"{name} is no drawing: its points are two numbers each")
        if not all(0 <= at <= 1 for at in point):
            raise ValueError(f"{name} leaves the canvas: points go from 0 to 1")
    return [np.array(stroke, np.float64) for stroke in given]


def as_omniglot(strokes: Sequence[Stroke]) -> UInt8[np.ndarray, "1 28 28"]:
    """The image of a drawing, 255 for ink and 0 for paper, as an Omniglot character would be.

    Its ink is moved and scaled to where the middle of Omniglot's is, and as long; drawn with its pen at 105 × 105; and
    reduced as :func:`~fewstep.data.omniglot` reduces. A drawing's place and size are therefore not seen.

    Args:
        strokes: of :func:`drawing`; a stroke of one point is a dot.

    Example:
        >>> low, high = (as_omniglot([np.array([[0.2, y], [0.3, y]])]) for y in (0.1, 0.8))
        >>> low.shape, (low == high).all().item()
        ((1, 28, 28), True)
    """
    every = np.concatenate(strokes)
    low, high = every.min(0), every.max(0)
    scale = (INK - PEN) / max((high - low).max(), _LEAST)
    image = Image.new("L", (SIDE * _FINER, SIDE * _FINER))
    pen, radius = ImageDraw.Draw(image), PEN * _FINER / 2
    for stroke in strokes:
        placed = ((stroke - (low + high) / 2) * scale + CENTRE) * _FINER
        path = [(float(x), float(y)) for x, y in placed]
        pen.line(path, fill=255, width=round(2 * radius))
        for x, y in path:  # round, where it starts, turns and ends
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    bits = np.asarray(image.reduce(_FINER)) > 127
    small: UInt8[np.ndarray, "1 28 28"] = reduced(bits[None, None])[0]
    return small
