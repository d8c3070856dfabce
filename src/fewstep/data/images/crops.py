"""Crops at fixed places of an image, for testing and for features."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def views(
    images: Float[Tensor, "*rows channels height width"], side: int, which: Literal["center", "multiview"]
) -> Float[Tensor, "views *rows channels {side} {side}"]:
    """Crops at fixed places, one after another along the first axis; their pixels are the images', not resized.

    ``"center"`` is one view, whose first row and column are ``⌊(size − side) / 2⌋``. ``"multiview"`` is ten: the
    corners at top left, top right, bottom left and bottom right, the centre, and the mirror images of these five in the
    same order. Features averaged over the ten are the "multi-view" ones of Qiao et al. 2018 ("Few-shot image
    recognition by predicting parameters from activations"; 80 × 80 of images whose shorter side is 92) and of LEO (Rusu
    et al. 2019, appendix B.1). Common libraries round the centre's half pixel in other ways.

    Args:
        images: any numbers; the result is contiguous and shares no memory with them.
        side: rows and columns of a view, from 1 to the shorter side of the images.
        which: the views.

    Raises:
        ValueError: if the side is no size of a crop of these images, or the views are unknown.
    """
    height, width = images.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise ValueError(
            f"side must be from 1 to {min(height, width)} for images of {height} × {width} pixels, got {side}: "
            "lower it, or enlarge the images first"
        )
    if which not in ("center", "multiview"):
        raise ValueError(f"which must be 'center' or 'multiview', not {which!r}")
    bottom, right = height - side, width - side
    corners = [(bottom // 2, right // 2)]
    if which == "multiview":
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), *corners]
    seen = torch.stack([images[..., top : top + side, left : left + side] for top, left in corners])
    return (torch.cat([seen, seen.flip(-1)]) if which == "multiview" else seen).contiguous()
