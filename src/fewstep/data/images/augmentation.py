"""What may be done to the images of training, readable without torch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, final

from fewstep.core.ranges import refuse

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, UInt64
    from torch import Tensor


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
            refuse(f"crop must be at least 0 pixels, got {self.crop}")
        if not 0 <= self.colour < float("inf"):
            refuse(f"colour must be a strength of at least 0, got {self.colour}")
        if self.padding not in ("reflect", "zeros"):
            refuse(f"padding must be 'reflect' or 'zeros', not {self.padding!r}")
        if self.area is not None and not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            refuse(
                f"area must be the least and the largest share of an image, above 0 and up to 1, got {self.area}: "
                "(0.08, 1.0) is usual"
            )
        if not (len(self.aspect) == 2 and 0 < self.aspect[0] <= self.aspect[1] < float("inf")):
            refuse(
                f"aspect must be the least and the largest ratio of width to height, above 0, got {self.aspect}: "
                "(3/4, 4/3) is usual"
            )
        if self.side is not None and self.side < 1:
            refuse(f"side must be at least 1 pixel, got {self.side}: leave it out to keep the images' size")
        if self.area is not None and self.crop:
            refuse(
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
        from fewstep.data.images.changes import WORDS, coloured, moved, resized

        flat = images.reshape(-1, *images.shape[-3:])
        drawn = words.reshape(-1, WORDS)
        if self.colour:
            flat = coloured(flat, drawn[:, 3:], self.colour)
        if self.area:
            flat = resized(flat, drawn[:, :3], area=self.area, aspect=self.aspect, flip=self.flip, side=self.side)
        elif self.crop or self.flip or self.side:
            flat = moved(flat, drawn[:, :3], crop=self.crop, flip=self.flip, side=self.side, padding=self.padding)
        return flat.reshape(*images.shape[:-2], *flat.shape[-2:])
