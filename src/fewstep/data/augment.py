"""Random crops, mirror images and colours for tasks of images."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.source import TaskSource

WORDS = 6
"""Random words of an image: where the crop lies, down and across; the mirror; brightness, contrast, saturation."""

_GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601


@final
@dataclass(frozen=True)
class Augmentation:
    """What is done to an image, in this order: colours, crop, mirror.

    With s the strength ``colour`` and three factors drawn from [max(0, 1 − s), 1 + s] for each image, ``x ← b x``,
    ``x ← m + c (x − m)`` with m the mean grey of the image, ``x ← g + a (x − g)`` with g the grey of each pixel (for
    three channels), and x is clamped to [0, 1] after each. (Common libraries draw the order too.)

    Attributes:
        crop: pixels that are added at every side before an image of the old size is cut out anywhere; 0 for none.
        flip: mirror left and right with probability ½.
        colour: strength of the changes of brightness, contrast and saturation; 0 for none.
        padding: what the added pixels hold: the image mirrored at its outermost pixels, or zeros.

    Raises:
        ValueError: if ``crop`` or ``colour`` is negative, or the padding is unknown.
    """

    crop: int = 0
    flip: bool = False
    colour: float = 0.0
    _: KW_ONLY
    padding: Literal["reflect", "zeros"] = "reflect"

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop must be at least 0 pixels, got {self.crop}")
        if not 0 <= self.colour < float("inf"):
            raise ValueError(f"colour must be a strength of at least 0, got {self.colour}")
        if self.padding not in ("reflect", "zeros"):
            raise ValueError(f"padding must be 'reflect' or 'zeros', not {self.padding!r}")

    def __call__(
        self, images: Float[Tensor, "*rows channels height width"], words: UInt64[np.ndarray, "*rows words"]
    ) -> Float[Tensor, "*rows channels height width"]:
        """The images, each changed by its own draw.

        Args:
            images: from 0 to 1 where ``colour`` is not 0.
            words: uniform words, ``WORDS`` for each image. What one kind of change does depends on its own words only.

        Raises:
            ValueError: if the images are smaller than the reflected border, or their colours cannot be changed.
        """
        flat = images.reshape(-1, *images.shape[-3:])
        drawn = words.reshape(-1, WORDS)
        if self.colour:
            flat = self._coloured(flat, drawn[:, 3:])
        if self.crop or self.flip:
            flat = self._moved(flat, drawn[:, :3])
        return flat.reshape(images.shape)

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
    ) -> Float[Tensor, "n channels height width"]:
        """Crop and mirror as one reading of the pixels, without a padded copy."""
        n, channels, height, width = x.shape
        if self.padding == "reflect" and self.crop >= min(height, width):
            raise ValueError(
                f"images of {height} × {width} pixels have no {self.crop} to reflect: lower crop, or pad with zeros"
            )
        shift = draws.below(words[:, :2], 2 * self.crop + 1) - self.crop
        down = np.arange(height) + shift[:, 0, None]
        across = np.arange(width) + shift[:, 1, None]
        if self.flip:
            mirrored = draws.below(words[:, 2, None], 2) == 1
            across = np.where(mirrored, across[:, ::-1], across)
        y, x_ = (torch.from_numpy(_inside(place, size)) for place, size in ((down, height), (across, width)))
        pixel = (y[:, :, None] * width + x_[:, None, :]).reshape(n, 1, height * width).to(x.device)
        moved = x.reshape(n, channels, height * width).gather(2, pixel.expand(-1, channels, -1)).reshape(x.shape)
        if self.padding == "zeros" and self.crop:
            there = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
            moved = moved * torch.from_numpy(there[:, None]).to(moved)
        return moved


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
        if self.augmentation == Augmentation(padding=self.augmentation.padding):
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
