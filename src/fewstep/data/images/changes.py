"""Colours, crops and mirror images of many images at once, each by a draw of its own."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from numpy.typing import NDArray
from torch import Tensor

from fewstep.data import draws

WORDS = 6
"""Random words of an image: where the crop lies, down and across; the mirror; brightness, contrast, saturation.

A place reads the upper half of its word; the lower halves of the first two are the area and the aspect of a crop.
"""

_GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601


def coloured(
    x: Float[Tensor, "n channels height width"], words: UInt64[np.ndarray, "n 3"], strength: float
) -> Float[Tensor, "n channels height width"]:
    """Images of another brightness, contrast and saturation."""
    channels = x.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"colours are changed of images with 1 or 3 channels, not {channels}: set colour to 0")
    low, high = (float(end) for end in x.aminmax()) if x.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"colours are changed of images from 0 to 1, these are from {low:g} to {high:g}: set colour to 0, or "
            "normalise after the augmentation"
        )
    factors = draws.uniform(words, max(0.0, 1 - strength), 1 + strength)
    brightness, contrast, saturation = torch.from_numpy(factors).to(x)[..., None, None, None].unbind(1)
    luma = x.new_tensor(_GREY)[:, None, None] if channels == 3 else x.new_ones(1, 1, 1)
    x = (x * brightness).clamp(0, 1)
    mean = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = torch.lerp(mean, x, contrast).clamp(0, 1)
    if channels == 1:
        return x
    return torch.lerp((x * luma).sum(1, keepdim=True), x, saturation).clamp(0, 1)


def moved(
    x: Float[Tensor, "n channels height width"],
    words: UInt64[np.ndarray, "n 3"],
    *,
    crop: int,
    flip: bool,
    side: int | None,
    padding: Literal["reflect", "zeros"],
) -> Float[Tensor, "n channels new_height new_width"]:
    """Crop and mirror as one reading of the pixels, without a padded copy."""
    n, channels, height, width = x.shape
    rows, columns = (height, width) if side is None else (side, side)
    if padding == "reflect" and crop >= min(height, width):
        raise ValueError(
            f"images of {height} × {width} pixels have no {crop} to reflect: lower crop, or pad with zeros"
        )
    places = np.array([height - rows, width - columns]) + 2 * crop + 1
    if places.min() < 1:
        raise ValueError(
            f"images of {height} × {width} pixels with {crop} added at every side have no crop of {rows} × "
            f"{columns}: lower side, raise crop, or give area, whose crops are resized"
        )
    shift = draws.below(words[:, :2], places) - crop
    down = np.arange(rows) + shift[:, 0, None]
    across = np.arange(columns) + shift[:, 1, None]
    if flip:
        across = np.where(_mirrored(words), across[:, ::-1], across)
    y, x_ = (torch.from_numpy(_inside(place, size)) for place, size in ((down, height), (across, width)))
    pixel = (y[:, :, None] * width + x_[:, None, :]).reshape(n, 1, rows * columns).to(x.device)
    read = x.flatten(2).gather(2, pixel.expand(-1, channels, -1)).reshape(n, channels, rows, columns)
    if padding == "zeros" and crop:
        there = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
        read = read * torch.from_numpy(there[:, None]).to(read)
    return read


def resized(
    x: Float[Tensor, "n channels height width"],
    words: UInt64[np.ndarray, "n 3"],
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    side: int | None,
) -> Float[Tensor, "n channels new_height new_width"]:
    """Box, resizing and mirror as a product of each image with two matrices, one for rows and one for columns."""
    height, width = x.shape[2:]
    extent, start = _boxes(words[:, :2], (height, width), area, aspect)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))  # 16 bits are too few for the weights
    rows, columns = (height, width) if side is None else (side, side)
    down = _bilinear(start[:, 0], extent[:, 0], height, rows)
    across = _bilinear(start[:, 1], extent[:, 1], width, columns)
    if flip:
        across = across._replace(centre=np.where(_mirrored(words), across.centre[:, ::-1], across.centre))
    product = down.weights(exact)[:, None] @ exact @ across.weights(exact).mT[:, None]
    return product.to(x.dtype)


def _mirrored(words: UInt64[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n 1"]:
    """Which images are seen in the mirror."""
    mirrored: NDArray[np.bool_] = draws.below(words[:, 2:], 2) == 1
    return mirrored


def _boxes(
    words: UInt64[np.ndarray, "n 2"], size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[Int[np.ndarray, "n 2"], Int[np.ndarray, "n 2"]]:
    """Extent and first pixel of random boxes, down and across, in images of a size (rows, columns)."""
    lower = words << np.uint64(32)
    share = draws.uniform(lower[:, 0], *area)
    # h ≤ H if and only if ρ ≥ s W / H, and w ≤ W if and only if ρ ≤ W / (s H). A share up to 1 leaves W / H at least.
    square = np.log(size[1] / size[0])
    low, high = (np.clip(np.log(end), square + np.log(share), square - np.log(share)) for end in aspect)
    root = np.exp((low + (high - low) * draws.uniform(lower[:, 1], 0.0, 1.0)) / 2)
    side = np.sqrt(share * size[0] * size[1])
    extent = np.clip(np.rint(np.stack([side / root, side * root], 1)), 1, size).astype(np.int64)
    return extent, draws.below(words, np.array(size) - extent + 1)


class _Triangles(NamedTuple):
    """Bilinear weights before they are spread out, in integers: lengths are in pixels / (2 × pixels of the result)."""

    centre: Int[np.ndarray, "n out"]
    place: Float[np.ndarray, "n size"]
    reach: Int[np.ndarray, " n"]

    def weights(self, like: Tensor) -> Float[Tensor, "n out size"]:
        """``max(0, reach − |centre − place|)``, each row divided by its sum: exact ones and zeros at scale 1."""
        centre, place, reach = (torch.from_numpy(part).to(like) for part in self)
        weights = (centre[:, :, None] - place[:, None]).abs_().neg_().add_(reach[:, None, None]).clamp_(min=0)
        return weights.div_(weights.sum(-1, keepdim=True))


def _bilinear(start: Int[np.ndarray, " n"], extent: Int[np.ndarray, " n"], size: int, out: int) -> _Triangles:
    """How ``out`` pixels read ``extent`` pixels of ``size`` from ``start`` on; the others are infinitely far away."""
    pixel = np.arange(size) - start[:, None]
    place = np.where((pixel >= 0) & (pixel < extent[:, None]), (2.0 * pixel + 1) * out, np.inf)
    centre = np.arange(1, 2 * out, 2) * extent[:, None]
    return _Triangles(centre, place, 2 * np.maximum(extent, out))


def _inside(place: Int[np.ndarray, "n size"], size: int) -> Int[np.ndarray, "n size"]:
    """Places outside of 0 to size − 1 mirrored at the ends; where zeros will be put, any place will do."""
    inside: NDArray[np.int64] = np.clip(size - 1 - np.abs(size - 1 - np.abs(place)), 0, size - 1)
    return inside
