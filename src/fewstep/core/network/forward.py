"""What one forward of a network draws, and what it normalises by."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from fewstep.core.network import primitives
from fewstep.core.noise import Mask, Normal, Site, dropout


class Moments(NamedTuple):
    """What a batch normalisation saw.

    Attributes:
        mean: ``[channels]``.
        variance: ``[channels]``.
        momentum: weight of the newest statistics in running ones, as the layer asked for.
        by_row: an entry of what was normalised was a row, so that rows could be counted by their weights.
    """

    mean: Tensor
    variance: Tensor
    momentum: float
    by_row: bool


class Forward:
    """The noise of one forward, read in the order of its draws, and the statistics of its batch normalisations.

    Args:
        row_weight: ``[rows]``, by which rows enter the statistics; all alike when None.
        draws: a tensor for each draw. None, in evaluation: every draw is its mean.
        moments: means and variances to normalise by, in place of those of the rows.
        seen: a list to which every batch normalisation adds what it saw.
    """

    def __init__(
        self,
        row_weight: Tensor | None,
        draws: Sequence[Tensor] | None,
        moments: Sequence[tuple[Tensor, Tensor]] | None,
        seen: list[Moments],
    ) -> None:
        self.row_weight, self.seen = row_weight, seen
        self._draws: Iterator[Tensor] | None = None if draws is None else iter(draws)
        self._given = None if moments is None else iter(moments)

    def drawn(self, site: Site) -> Tensor | None:
        """The numbers of a site, or None in evaluation."""
        if self._draws is None:
            return None
        found = next(self._draws, None)
        if found is None or tuple(found.shape) != tuple(site.shape):
            raise ValueError(
                "The network draws otherwise than when its random draws were counted "
                f"({'no draw is left' if found is None else list(found.shape)} for one of {list(site.shape)}): what it "
                "draws must depend on the shape of its input alone."
            )
        return found

    def normal(self, like: Tensor) -> Tensor | None:
        """Standard-normal numbers in the shape and type of ``like``."""
        found = self.drawn(Normal(tuple(like.shape)))
        return None if found is None else found.to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor | None:
        """Numbers uniform in (0, 1): the normal distribution function of normal ones."""
        found = self.normal(like)
        return None if found is None else torch.special.ndtr(found)

    def drop(self, x: Tensor, rate: float, shape: Sequence[int] | None = None) -> Tensor:
        """Dropout of the entries of ``x``, or of whatever has this shape and is spread over the rest."""
        if rate == 0:
            return x
        if not 0 <= rate <= 1:
            raise ValueError(f"The network's dropout has a rate outside of [0, 1]: {rate}.")
        shape = tuple(x.shape if shape is None else shape)
        if rate > 1 - 2**-16:
            return x if self._draws is None else x * 0
        kept = self.drawn(Mask(shape, rate))
        return x if kept is None else dropout(x, kept.view(*shape, *(1,) * (x.dim() - len(shape))).expand_as(x), rate)

    def moments_of(self, x: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
        """The statistics of the rows, or what takes their place."""
        by_row = self.row_weight is not None and len(self.row_weight) == len(x)
        own = primitives.batch_moments(x, self.row_weight if by_row else None)
        mean, variance = own if self._given is None else next(self._given)
        self.seen.append(Moments(mean, variance, momentum, by_row))
        return mean, variance


@final
class Recorded(Forward):
    """Notes what is drawn, and draws nothing."""

    def __init__(self) -> None:
        super().__init__(None, None, None, [])
        self.sites: list[Site] = []

    def drawn(self, site: Site) -> Tensor | None:
        """None, as in evaluation."""
        self.sites.append(site)
        return None
