"""What a search may change in a configuration, and within which bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from fewstep.recipes.config import Config


@dataclass(frozen=True)
class Range:
    """A number that is drawn uniformly from an interval, or so that its logarithm is uniform.

    Attributes:
        setting: where it goes in the configuration: ``"method.dropout"``. A setting that is a tuple of numbers gets
            the number in all its places.
        low: the smallest value.
        high: the largest value.
        log: draw the logarithm uniformly; for what has an unknown order of magnitude.
        whole: draw whole numbers, both ends among them.

    Raises:
        ValueError: when the interval is empty, not finite, or not positive where its logarithm is drawn,
            and when an end is not a whole number where such are drawn.
    """

    setting: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.setting}: a range needs low < high, both finite, got {self.low} and {self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.setting}: a logarithmic range needs low > 0, got {self.low}.")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"{self.setting}: whole numbers lie between such, got {self.low} and {self.high}.")

    def at(self, share: float) -> float:
        """The value at a share of the way, 0 for ``low`` and 1 for ``high``; a uniform share makes the draw."""
        high = self.high + self.whole  # whole numbers are rounded down
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(high) - math.log(self.low)))
        else:
            value = self.low + share * (high - self.low)
        return max(self.low, min(float(math.floor(value)), self.high)) if self.whole else value

    def __str__(self) -> str:
        how = [", whole numbers"] * self.whole + [", logarithmic"] * self.log
        return f"{self.setting} from {self.low:g} to {self.high:g}{''.join(how)}"


def with_settings(config: Config, settings: Mapping[str, float]) -> Config:
    """The configuration with other numbers at dotted places.

    Raises:
        ValueError: when there is no such setting, or it is not a number.
    """
    for setting, value in settings.items():
        config = _replaced(config, setting.split("."), value, setting)
    return config


def _replaced(node: Any, path: list[str], value: float, setting: str) -> Any:
    name, *rest = path
    if not is_dataclass(node) or name not in (field.name for field in fields(node)):
        raise ValueError(f"{type(node).__name__} has no setting {name!r} (in {setting!r}).")
    old = getattr(node, name)
    if rest:
        return replace(node, **{name: _replaced(old, rest, value, setting)})  # type: ignore[type-var]
    if isinstance(old, tuple):
        return replace(node, **{name: (value,) * len(old)})  # type: ignore[type-var]
    if isinstance(old, int) and not isinstance(old, bool) and value == int(value):
        value = int(value)
    if isinstance(old, bool) or not isinstance(old, int | float):
        raise ValueError(f"{setting} is not a number but {old!r}, and cannot be searched.")
    return replace(node, **{name: value})  # type: ignore[type-var]
