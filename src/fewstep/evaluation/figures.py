"""What the figures of results have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewstep.evaluation.statistics import Interval

FAR = 5.0
"""A value is off the scale when with it the axis would be more than this many times as long."""


def at_edge(
    axis: Any, place: float, value: float, low: float, digits: int, colour: str, sign: bool, hollow: bool
) -> None:
    """A value off the scale: an arrow at its edge, and the number."""
    number = f"{value:{'+' if sign else ''}{f'.{digits}f' if abs(value) < 1e5 else '.1e'}}".replace("-", "−")
    below = value < low
    arrow = ("◃" if below else "▹") if hollow else ("◂" if below else "▸")
    text, side = (f"{arrow} {number}", "left") if below else (f"{number} {arrow}", "right")
    axis.text(
        0.012 if below else 0.988,
        place,
        text,
        color=colour,
        fontsize=8,
        ha=side,
        va="center",
        transform=axis.get_yaxis_transform(),
    )


def near_scores(scores: Mapping[str, Interval]) -> list[str]:
    """The labels that share a scale: all, but for a minority at one end that would stretch it too far."""
    ordered = sorted(scores, key=lambda label: scores[label].mean)

    def length(labels: Sequence[str]) -> float:
        bounds = [_bounds(scores[label]) for label in labels]
        return max(high for _, high in bounds) - min(low for low, _ in bounds)

    kept, fewest = ordered, max(2, (len(ordered) + 1) // 2)
    for gone in range(1, len(ordered) - fewest + 1):
        for below in range(gone + 1):
            rest = ordered[below : len(ordered) - (gone - below)]
            if length(kept) > FAR * length(rest) > 0:
                kept = rest
    return kept


def span(values: Sequence[Interval], crowded: bool, scale: float, reach: float = 0.0) -> tuple[float, float]:
    """From the lowest to the highest bound, with a margin; a wider one where numbers stand at an edge.

    ``reach`` keeps the ends that far from zero, in lengths of the range, so that a word centred there has room.
    """
    if not values:
        return 0.0, 1.0
    bounds = [_bounds(value) for value in values]
    low, high = scale * min(a for a, _ in bounds), scale * max(b for _, b in bounds)
    length = (high - low) or 0.1 * abs(high) or 1.0
    if reach:
        low, high = min(low, -reach * length), max(high, reach * length)
    margin = (0.16 if crowded else 0.06) * length
    return low - margin, high + margin


def _bounds(value: Interval) -> tuple[float, float]:
    return value.mean - value.half_width, value.mean + value.half_width
