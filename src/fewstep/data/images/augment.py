"""Random crops, mirror images and colours for tasks of images."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.source import TaskSource

WORDS = 6
"""Random words of an image: where the crop lies, down and across; the mirror; brightness, contrast, saturation.

A place reads the upper half of its word; the lower halves of the first two are the area and the aspect of a crop.
"""

_GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601


@final
@dataclass(frozen=True)
class Augmentation:
    """What is done to an image, in this order: colours, crop, mirror.

    With s the strength ``colour`` and three factors drawn from [max(0, 1 − s), 1 + s] for each image, ``x ← b x``,
    ``x ← m + c (x − m)`` with m the mean grey of the image, ``x ← g + a (x − g)`` with g the grey of each pixel (for
    three channels), and x is clamped to [0, 1] after each. (Common libraries draw the order too, and change colours
    after a random-sized crop: only m differs, and what is clamped.)

    With ``area``, a box of the H × W pixels is resized, so that scale and aspect change as in the crops of Szegedy et
    al. 2015 ("Going deeper with convolutions", section 6; for LEO's features, Rusu et al. 2019, appendix B.2). For a
    share s uniform in ``area`` and a ratio ρ log-uniform in ``aspect``, the box has ``h = √(s H W / ρ)`` rows and
    ``w = √(s H W ρ)`` columns, rounded to whole pixels, and lies anywhere in the image. Row i of S rows of the result
    (columns likewise) is the mean of rows j of the box with weights in proportion to

        ``max(0, 1 − |(i + ½) h / S − (j + ½)| / max(1, h / S))``,

    which is bilinear interpolation where the box is enlarged; where it is reduced, the triangle is as much wider, so
    that no pixel of the box is skipped (aliasing). Pixels are squares, and the box's corners are the result's (not the
    centres of corner pixels); pixels outside of the box have weight 0. Two products with matrices do this for a batch
    of boxes on any device, and exactly at scale 1; sampling at points, as ``grid_sample`` does, reads four pixels
    however much a box is reduced, and also pixels beyond its edges.

    Where not all ratios fit, ρ is log-uniform among those that do, or the nearest that does: s stays uniform. Common
    libraries draw s and ρ anew until the box fits, so that large boxes are rarer (a mean share of 0.48, not 0.54, for a
    square image and shares from 0.08), and give up for a central crop after some trials. The lighting noise along the
    principal colours, which Qiao et al. 2018 add, is left out.

    Attributes:
        crop: pixels that are added at every side before the crop; 0 for none.
        flip: mirror left and right with probability ½.
        colour: strength of the changes of brightness, contrast and saturation; 0 for none.
        padding: what the added pixels hold: the image mirrored at its outermost pixels, or zeros.
        area: least and largest share of the image in a random-sized crop, within (0, 1]; None for crops at scale 1.
        aspect: least and largest ratio of width to height of a random-sized crop; read with ``area`` only.
        side: rows and columns of the result, a crop of that size or a random-sized one resized; None keeps the image's.

    Raises:
        ValueError: if ``crop`` or ``colour`` is negative, the padding is unknown, ``area``, ``aspect`` or ``side`` is
            out of range, or both ``crop`` and ``area`` are given.
    """

    crop: int = 0
    flip: bool = False
    colour: float = 0.0
    _: KW_ONLY
    padding: Literal["reflect", "zeros"] = "reflect"
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    side: int | None = None

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop must be at least 0 pixels, got {self.crop}")
        if not 0 <= self.colour < float("inf"):
            raise ValueError(f"colour must be a strength of at least 0, got {self.colour}")
        if self.padding not in ("reflect", "zeros"):
            raise ValueError(f"padding must be 'reflect' or 'zeros', not {self.padding!r}")
        if self.area is not None and not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise ValueError(
                f"area must be the least and the largest share of an image, above 0 and up to 1, got {self.area}: "
                "(0.08, 1.0) is usual"
            )
        if not (len(self.aspect) == 2 and 0 < self.aspect[0] <= self.aspect[1] < float("inf")):
            raise ValueError(
                f"aspect must be the least and the largest ratio of width to height, above 0, got {self.aspect}: "
                "(3/4, 4/3) is usual"
            )
        if self.side is not None and self.side < 1:
            raise ValueError(f"side must be at least 1 pixel, got {self.side}: leave it out to keep the images' size")
        if self.area is not None and self.crop:
            raise ValueError(
                f"crop = {self.crop} adds pixels around the image, and the random-sized crops of area = {self.area} "
                "have no use for them: set crop to 0, or leave area out"
            )

    @property
    def changes_nothing(self) -> bool:
        """Whether images stay as they are."""
        return not (self.crop or self.flip or self.colour or self.area or self.side)

    def __call__(
        self, images: Float[Tensor, "*rows channels height width"], words: UInt64[np.ndarray, "*rows words"]
    ) -> Float[Tensor, "*rows channels new_height new_width"]:
        """The images, each changed by its own draw.

        Colours keep the memory format; images that are cropped or mirrored come out contiguous. An image does not
        depend on the others of its batch, but for the rounding of sums.

        Args:
            images: from 0 to 1 where ``colour`` is not 0.
            words: uniform words, ``WORDS`` for each image. What one kind of change does depends on its own words only.

        Raises:
            ValueError: if the images are smaller than the reflected border or than the crop, or their colours cannot be
                changed.
        """
        flat = images.reshape(-1, *images.shape[-3:])
        drawn = words.reshape(-1, WORDS)
        if self.colour:
            flat = self._coloured(flat, drawn[:, 3:])
        if self.area:
            flat = self._resized(flat, drawn[:, :3], self.area)
        elif self.crop or self.flip or self.side:
            flat = self._moved(flat, drawn[:, :3])
        return flat.reshape(*images.shape[:-2], *flat.shape[-2:])

    def _coloured(
        self, x: Float[Tensor, "n channels height width"], words: UInt64[np.ndarray, "n 3"]
    ) -> Float[Tensor, "n channels height width"]:
        channels = x.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"colours are changed of images with 1 or 3 channels, not {channels}: set colour to 0")
        low, high = (float(end) for end in x.aminmax()) if x.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"colours are changed of images from 0 to 1, these are from {low:g} to {high:g}: set colour to 0, or "
                "normalise after the augmentation"
            )
        factors = draws.uniform(words, max(0.0, 1 - self.colour), 1 + self.colour)
        brightness, contrast, saturation = torch.from_numpy(factors).to(x)[..., None, None, None].unbind(1)
        luma = x.new_tensor(_GREY)[:, None, None] if channels == 3 else x.new_ones(1, 1, 1)
        x = (x * brightness).clamp(0, 1)
        mean = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        x = torch.lerp(mean, x, contrast).clamp(0, 1)
        if channels == 1:
            return x
        return torch.lerp((x * luma).sum(1, keepdim=True), x, saturation).clamp(0, 1)

    def _moved(
        self, x: Float[Tensor, "n channels height width"], words: UInt64[np.ndarray, "n 3"]
    ) -> Float[Tensor, "n channels new_height new_width"]:
        """Crop and mirror as one reading of the pixels, without a padded copy."""
        n, channels, height, width = x.shape
        rows, columns = self.side or height, self.side or width
        if self.padding == "reflect" and self.crop >= min(height, width):
            raise ValueError(
                f"images of {height} × {width} pixels have no {self.crop} to reflect: lower crop, or pad with zeros"
            )
        places = np.array([height - rows, width - columns]) + 2 * self.crop + 1
        if places.min() < 1:
            raise ValueError(
                f"images of {height} × {width} pixels with {self.crop} added at every side have no crop of {rows} × "
                f"{columns}: lower side, raise crop, or give area, whose crops are resized"
            )
        shift = draws.below(words[:, :2], places) - self.crop
        down = np.arange(rows) + shift[:, 0, None]
        across = np.arange(columns) + shift[:, 1, None]
        if self.flip:
            across = np.where(_mirrored(words), across[:, ::-1], across)
        y, x_ = (torch.from_numpy(_inside(place, size)) for place, size in ((down, height), (across, width)))
        pixel = (y[:, :, None] * width + x_[:, None, :]).reshape(n, 1, rows * columns).to(x.device)
        moved = x.reshape(n, channels, height * width).gather(2, pixel.expand(-1, channels, -1))
        moved = moved.reshape(n, channels, rows, columns)
        if self.padding == "zeros" and self.crop:
            there = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
            moved = moved * torch.from_numpy(there[:, None]).to(moved)
        return moved

    def _resized(
        self, x: Float[Tensor, "n channels height width"], words: UInt64[np.ndarray, "n 3"], area: tuple[float, float]
    ) -> Float[Tensor, "n channels new_height new_width"]:
        """Box, resizing and mirror as a product of each image with two matrices, one for rows and one for columns."""
        height, width = x.shape[2:]
        extent, start = _boxes(words[:, :2], (height, width), area, self.aspect)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # 16 bits are too few for the weights
        down = _bilinear(start[:, 0], extent[:, 0], height, self.side or height)
        across = _bilinear(start[:, 1], extent[:, 1], width, self.side or width)
        if self.flip:
            across = across._replace(centre=np.where(_mirrored(words), across.centre[:, ::-1], across.centre))
        resized = down.weights(exact)[:, None] @ exact @ across.weights(exact).mT[:, None]
        return resized.to(x.dtype)


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


@final
@dataclass(frozen=True, eq=False)
class Augmented:
    """A source of tasks whose images are augmented: a :class:`~fewstep.data.TaskSource`, for training.

    Every image of support and query is changed by a draw of its own. The draws are a function of (seed, stream, step)
    and of the image's place in the batch; those of the support do not depend on the number of queries.

    Attributes:
        source: gives tasks with ``x`` of shape ``[tasks, rows, channels, height, width]``.
        augmentation: what is done.
        seed: from 0 to 2**64 - 1.
        stream: name of an independent sequence under the same seed.

    Raises:
        ValueError: if the seed is out of range.
    """

    source: TaskSource
    augmentation: Augmentation
    seed: int
    _: KW_ONLY
    stream: str = "augmentation"

    def __post_init__(self) -> None:
        draws.check_word("seed", self.seed)

    @property
    def ways(self) -> int | None:
        """Classes in a task."""
        return self.source.ways

    @property
    def tasks(self) -> int:
        """Tasks in a whole batch."""
        return self.source.tasks

    @property
    def shots(self) -> int:
        """Support examples of each class, where the source knows."""
        shots: int = self._of_source("shots")
        return shots

    @property
    def queries(self) -> int | None:
        """Query examples of each class, where the source knows."""
        queries: int | None = self._of_source("queries")
        return queries

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them, with their images augmented.

        Raises:
            ValueError: if the step is negative, or the inputs are no images.
        """
        if slice_ is not None and not _leading(slice_):
            support, query = self.batch(step)  # the last batch of a source may be short: counted from its end
            return Task(*(Batch(*(tensor[slice_] for tensor in batch)) for batch in (support, query)))
        support, query = self.source.batch(step, slice_)
        return Task(self._changed(support, step, slice_, "support"), self._changed(query, step, slice_, "query"))

    def _changed(self, batch: Batch, step: int, slice_: slice | None, part: str) -> Batch:
        if self.augmentation.changes_nothing:
            return batch
        if batch.x.ndim != 5:
            raise ValueError(
                f"images are augmented, [tasks, rows, channels, height, width]; the inputs of this source are "
                f"{list(batch.x.shape)}"
            )
        # Tasks lead, so that a short batch has the beginning of the words of a whole one.
        shape = (self.tasks, batch.x.shape[1], WORDS)
        words = draws.words(self.seed, step, f"{self.stream} {part}", shape)[slice_ or slice(None)]
        return batch._replace(x=self.augmentation(batch.x, words[: len(batch.x)]))

    def _of_source(self, name: str) -> Any:
        try:
            return getattr(self.source, name)
        except AttributeError:
            raise AttributeError(f"the augmented source, {type(self.source).__name__}, has no {name}") from None


def _leading(slice_: slice) -> bool:
    """Whether a slice means the same tasks whatever their number."""
    ends = (slice_.start or 0, 0 if slice_.stop is None else slice_.stop)
    return min(ends) >= 0 and (slice_.step is None or slice_.step > 0)
