import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
import pytest
import torch
from beartype import beartype
from pages import ROOT

SHARED = ROOT.parent / "shared"

_jaxtyped = jaxtyping.jaxtyped


def _parts(annotation: object) -> Iterator[object]:
    """An annotation and the annotations that it is made of."""
    yield annotation
    inner = annotation if isinstance(annotation, list) else get_args(annotation)  # a list: of a Callable's arguments
    if get_origin(annotation) is Annotated:
        inner = inner[:1]
    elif get_origin(annotation) is Literal:
        inner = ()
    for part in inner:
        yield from _parts(part)


def _checked(*, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates everything with: shapes where they are stated, types alone elsewhere.

    Without shapes a check costs a tenth. Functions within functions, which are decorated anew at each call of the outer
    one, are checked only where they state shapes. With all under ``jaxtyped`` tests of the core took thrice as long.
    """

    def decorate(thing: Any) -> Any:
        if isinstance(thing, type):  # of classes, dataclasses alone
            return _jaxtyped(thing, typechecker=typechecker)
        parts = [part for annotation in thing.__annotations__.values() for part in _parts(annotation)]
        if any(isinstance(part, type) and issubclass(part, jaxtyping.AbstractArray) for part in parts):
            return _jaxtyped(thing, typechecker=typechecker)
        if "<locals>" in thing.__qualname__:
            return thing
        if any(
            isinstance(part, str | ForwardRef) for part in parts
        ):  # may name what only type checkers import: not checked then
            return _jaxtyped(thing, typechecker=typechecker)
        return beartype(thing)

    return decorate


jaxtyping.jaxtyped = _checked  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("FEWSTEP_TEST_THREADS", "1")))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """In the background SIGINT may be ignored, and under nohup SIGHUP; what is ignored stays so, in children too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for what nobody else will ask for."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the development folder {SHARED} is not here")
    return SHARED
