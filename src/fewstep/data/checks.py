"""Checks of arguments that are made in several places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SLACK = 1e-3  # what the rounding of a resize may add


def check_count(name: str, count: int) -> None:
    """Refuse a count below one.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def check_choice(name: str, given: str, known: Sequence[str]) -> None:
    """Refuse a word that is none of those that are known.

    Raises:
        ValueError: listing them.
    """
    if given not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")


def check_unit_range(images: Tensor | NDArray[Any], what: str) -> None:
    """Refuse floating-point images beyond [0, 1] where a network was trained on such: its answers would be noise.

    Args:
        images: of floating point, any shape.
        what: they are, for the message.

    Raises:
        ValueError: if a number is beyond, or is NaN.
    """
    if 0 in images.shape:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        advice = "divide them by 255, or give bytes" if high > 2 and low >= 0 else "give them as they were before that"
        raise ValueError(f"{what} must be images from 0 to 1, they are from {low:g} to {high:g}: {advice}")


def without_length(rows: Tensor) -> Tensor:
    """Which rows have a length that is zero, or not finite, in the dtype that they are computed with, ``[rows]``."""
    squares = rows.flatten(1).square().sum(1)
    return ~squares.isfinite() | (squares == 0)


def check_lengths(rows: Tensor, stored: Tensor, what: str) -> None:
    """Refuse rows that have lost their length: by conversion, by normalisation or by the dtype's range.

    Every comparison of such rows would be one of zeros, or of infinities. Rows that were zero before are as they were.

    Args:
        rows: ``[n, *features]``, as they are computed with.
        stored: ``[n, *features]``, as they were given, of any dtype.
        what: they are, for the message.

    Raises:
        ValueError: naming the first.
    """
    if not rows.is_floating_point():
        return
    lost = without_length(rows) & (stored.flatten(1) != 0).any(1).to(rows.device)
    if bool(lost.any()):
        first = int(lost.nonzero()[0])
        largest = float(stored[first].double().abs().max())
        kind = str(rows.dtype).removeprefix("torch.")
        raise ValueError(
            f"{int(lost.sum())} of {len(rows)} rows of {what} have no length in {kind}, the first is row {first}, with "
            f"numbers up to {largest:g}: scale the features, to lengths of about 1"
        )
