"""Torch's modes that are on around a call, and that would change what it computes."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def as_usual(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """The same function, as if no ``inference_mode``, ``no_grad`` or ``autocast`` were around its call.

    Inner loops differentiate, and results are those of the precision that was asked for, wherever it is called.

    Example:
        >>> with torch.inference_mode():
        ...     as_usual(lambda x: x.square())(torch.ones(2, requires_grad=True)).requires_grad
        True
    """

    @wraps(function)
    def call(*given: _Given.args, **named: _Given.kwargs) -> _Result:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    modes.enter_context(torch.autocast(device, enabled=False))
            return function(*given, **named)

    return call
