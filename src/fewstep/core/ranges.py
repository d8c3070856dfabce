"""Which numbers a setting takes: said in its type, ``tasks: Count = 12``, and looked at before anything starts.

Types of settings, of command-line options and of arguments of algorithms are read alike, so a range is said once,
where the setting is declared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Within:
    """An interval of finite numbers.

    Attributes:
        low: the least.
        high: the greatest.
        above: ``low`` itself is too little.
        below: ``high`` itself is too much.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        high = value < self.high if self.below else value <= self.high
        return math.isfinite(value) and (value > self.low if self.above else value >= self.low) and high

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"
        return "positive and finite" if (self.low, self.above) == (0, True) else f"at least {self.low:g} and finite"


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int = 2**31 - 1

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high == 2**31 - 1 else f"from {self.low} to {self.high}"


Count: TypeAlias = Annotated[int, Whole(1)]
"""How many, at least one."""

CountOrZero: TypeAlias = Annotated[int, Whole(0)]
"""How many, or none."""

Ways: TypeAlias = Annotated[int, Whole(2)]
"""Classes of a task."""

Several: TypeAlias = Annotated[int, Whole(2)]
"""How many, for a mean and an interval."""

Seed: TypeAlias = Annotated[int, Whole(0, 2**64 - 1)]
"""Of random numbers."""

Threads: TypeAlias = Annotated[int, Whole(1, 1024)]
"""Of a processor, or processes; more would bring a machine down rather than use it."""

Positive: TypeAlias = Annotated[float, Within(0.0, above=True)]
"""A rate, a scale, a deviation."""

PositiveOrZero: TypeAlias = Annotated[float, Within(0.0)]
"""A weight of a penalty, or a deviation that may be none."""

Share: TypeAlias = Annotated[float, Within(0.0, 1.0, below=True)]
"""A probability, or a part, that is not all."""

Portion: TypeAlias = Annotated[float, Within(0.0, 1.0)]
"""A part, that may be all."""


def require(kind: Any, value: Any, name: str) -> None:
    """Refuse a value that its type does not take.

    Looked at are numbers, words of a choice, and both in tuples and where None is another possibility.

    Args:
        kind: the type, with its ranges.
        value: of a setting.
        name: of the setting, for the message.

    Raises:
        ValueError: saying what was given and what is taken.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        require(arguments[0], value, name)
        for range_ in arguments[1:]:
            if isinstance(range_, Within | Whole) and value not in range_:
                raise ValueError(f"{name} must be {range_}, got {value!r}")
    elif origin in (Union, UnionType):
        if value is not None or NoneType not in arguments:
            others = [argument for argument in arguments if argument is not NoneType]
            if len(others) == 1:
                require(others[0], value, name)
    elif origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
    elif origin is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name} must be several values, got {value!r}")
        many = arguments[-1:] == (...,)
        if not many and len(value) != len(arguments):
            raise ValueError(f"{name} must be {len(arguments)} values, got {len(value)}: {value!r}")
        for own, one in zip(arguments[:1] * len(value) if many else arguments, value, strict=True):
            require(own, one, name)
    elif kind is int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    elif kind is float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    elif kind is bool and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")


@cache
def _types(kind: type) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def require_ranges(settings: Any, before: str = "") -> None:
    """Refuse a dataclass of settings with a value that its type does not take.

    Args:
        settings: an instance.
        before: what the names of its fields stand behind in a message, such as ``"training."``; behind ``"--"`` they
            are written as options of the command line.

    Raises:
        ValueError: as :func:`require`.

    Example:
        >>> require_ranges(Training(steps=10))
        >>> Training(steps=10, rate=float("inf"))
        Traceback (most recent call last):
        ValueError: training.rate must be positive and finite, got inf
    """
    for name, kind in _types(settings.__class__).items():
        shown = name.replace("_", "-") if before == "--" else name
        require(kind, getattr(settings, name), f"{before}{shown}")
