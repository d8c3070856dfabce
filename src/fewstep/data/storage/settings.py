"""Typed settings as JSON has them, and back: each value of its own type, and every mistake in words."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import cattrs
from cattrs.v import format_exception


def converter() -> cattrs.Converter:
    """A converter that takes no setting that there is not, and no number or truth value for another: 2.5 is no int."""
    made = cattrs.Converter(forbid_extra_keys=True)
    for kind, taken in ((int, int), (float, (int, float)), (bool, bool)):
        made.register_structure_hook(kind, lambda value, _, kind=kind, taken=taken: _of_its_type(value, kind, taken))
    return made


def _of_its_type(value: Any, kind: type, taken: Any) -> Any:
    """A value of JSON or YAML that is of its setting's type: 2.0 is whole; YAML has 1e-3 for a text."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    with suppress(ValueError):
        value = float(value) if kind is float and isinstance(value, str) else value
    if not isinstance(value, taken) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise ValueError(f"{value!r} is not {words[kind]}")
    return kind(value)


def mistakes(error: Exception) -> str:
    """What is wrong with settings, of the error that reading them ended in."""
    if isinstance(error, cattrs.BaseValidationError):
        return "; ".join(cattrs.transform_error(error, format_exception=_told))
    return repr(error)


def _told(error: BaseException, kind: Any) -> str:
    """An error of reading in words: of a field that there is not, with the nearest that there is."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        told = []
        for name in sorted(error.extra_fields):
            near = difflib.get_close_matches(str(name), known, n=1)
            told.append(
                f"there is no {name}" + (f", did you mean {near[0]}?" if near else f", only {', '.join(known)}")
            )
        return ", and ".join(told)
    if get_origin(kind) is Literal:
        return f"it must be one of {', '.join(map(repr, get_args(kind)))}"
    return str(error) if type(error) is ValueError else str(format_exception(error, kind))
