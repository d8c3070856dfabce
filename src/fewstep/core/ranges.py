"""Which numbers a setting takes: said in its type, ``tasks: Count = 12``, and looked at before anything starts.

Types of settings, of command-line options and of arguments of algorithms are read alike, so a range is said once,
where the setting is declared.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

Given = ParamSpec("Given")
Result = TypeVar("Result")


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

MOST_THREADS = 1024

Threads: TypeAlias = Annotated[int, Whole(1, MOST_THREADS)]
"""Of a processor, or processes; more would bring a machine down rather than use it."""

Positive: TypeAlias = Annotated[float, Within(0.0, above=True)]
"""A rate, a scale, a deviation."""

PositiveOrZero: TypeAlias = Annotated[float, Within(0.0)]
"""A weight of a penalty, or a deviation that may be none."""

Share: TypeAlias = Annotated[float, Within(0.0, 1.0, below=True)]
"""A probability, or a part, that is not all."""

Portion: TypeAlias = Annotated[float, Within(0.0, 1.0)]
"""A part, that may be all."""


_as_given: ContextVar[bool] = ContextVar("_as_given", default=False)


@contextmanager
def as_given() -> Iterator[None]:
    """Inside, settings are taken as they are: :func:`require_again` looks at them later, or they were taken once.

    What ran under an earlier version, when a range was wider, can so be read, opened and scored.
    """
    before = _as_given.set(True)
    try:
        yield
    finally:
        _as_given.reset(before)


def refuse(why: str) -> None:
    """Raise a ValueError; inside of :func:`as_given` nothing is refused."""
    if not _as_given.get():
        raise ValueError(why)


def require(kind: Any, value: Any, name: str) -> None:
    """Refuse a value that its type does not take; inside of :func:`as_given` none is refused.

    Looked at are numbers, words of a choice, and both in tuples and in unions.

    Args:
        kind: the type, with its ranges.
        value: of a setting.
        name: of the setting, for the message.

    Raises:
        ValueError: saying what was given and what is taken.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if _as_given.get():
        return
    if origin is Annotated:
        require(arguments[0], value, name)
        for range_ in arguments[1:]:
            if isinstance(range_, Within | Whole) and value not in range_:
                raise ValueError(f"{name} must be {range_}, got {value!r}")
    elif origin in (Union, UnionType):
        if value is not None or NoneType not in arguments:
            others = [argument for argument in arguments if argument is not NoneType]
            fitting = [other for other in others if _sort(other) == _sort_of(value)]
            if len(others) == 1 or len(fitting) == 1:
                require((fitting or others)[0], value, name)
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


def _sort(kind: Any) -> str:
    """What values of a type are, as far as that tells the types of a union apart."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _sort(get_args(kind)[0])
    return {tuple: "several", Literal: "word"}.get(origin, "number" if kind in (int, float) else "")


def _sort_of(value: Any) -> str:
    sorts: tuple[tuple[Any, str], ...] = ((Real, "number"), (str, "word"), ((tuple, list), "several"))
    return next((sort for of, sort in sorts if isinstance(value, of)), "something else")


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
        require(kind, getattr(settings, name), _shown(name, before))


def require_again(settings: Any) -> None:
    """Look at a dataclass of settings, and at those in it, as if they were made now.

    Raises:
        ValueError: as making them does.
    """
    for field in fields(settings):
        if is_dataclass(value := getattr(settings, field.name)):
            require_again(value)
    getattr(settings, "__post_init__", lambda: None)()


def checked(function: Callable[Given, Result], before: str = "") -> Callable[Given, Result]:
    """The same function, which first refuses what its arguments' types do not take.

    Args:
        function: with types.
        before: what the names of its arguments stand behind in a message, as in :func:`require_ranges`.
    """

    @functools.wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Result:
        types = get_type_hints(function, include_extras=True)
        for name, value in inspect.signature(function).bind(*given, **named).arguments.items():
            require(types.get(name, Any), value, _shown(name, before))
        return function(*given, **named)

    return call


def _shown(name: str, before: str) -> str:
    return before + (name.replace("_", "-") if before == "--" else name)
