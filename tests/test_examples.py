"""The examples in the docstrings of public classes and functions: each has one, it is short, and it runs.

They go on from the lines in the docstring of the package (``help(fewstep)``), which are run here as they stand there:
torch, all that is public, and some tasks. Nothing else is given to an example, and it begins in an empty folder.
"""

import doctest
import inspect
import re
import textwrap
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import fewstep
from fewstep import algorithms, core

LINES = 6
"""Of an example, at most: code and what it prints."""

EXCUSED = {
    "fomaml": "a partial of maml, whose example says what differs",
    "cnp": "a partial of neural_process, whose example is of both",
    "t_net": "a partial of mt_net, whose example is of both",
}
"""Without an example, and why: ten at most."""


def public() -> dict[str, Any]:
    """Classes and functions that the packages export, by name. Constants and names of types need no example."""
    exported = {name: getattr(package, name) for package in (fewstep, core, algorithms) for name in package.__all__}
    return {
        name: value
        for name, value in exported.items()
        if inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, partial)
    }


def example(value: Any) -> str:
    """The last section of a docstring, if that is an example."""
    *before, last = re.split(r"^Example:\n", inspect.cleandoc(value.__doc__ or ""), flags=re.MULTILINE)
    return textwrap.dedent(last) if before and last.startswith("    >>> ") else ""


@cache
def beginning() -> str:
    """The lines that examples go on from."""
    (block,) = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", inspect.cleandoc(fewstep.__doc__ or "") + "\n")
    return textwrap.dedent(block)


def failures(name: str, value: Any, **more: Any) -> str:
    """What is wrong with the example of ``value``; it also finds what is given as ``more``."""
    text = example(value)
    if not text:
        return f"{name} has no example: end its docstring with a section 'Example:'"
    if len(text.splitlines()) > LINES:
        return f"the example of {name} has more than {LINES} lines:\n{text}"
    space: dict[str, Any] = {}
    exec(beginning(), space)
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, space | more, name, None, None)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


def test_few_are_excused() -> None:
    assert set(EXCUSED) <= set(public())
    assert len(EXCUSED) <= 10


@pytest.mark.parametrize("name", [name for name in public() if name not in EXCUSED])
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = failures(name, public()[name])
    assert not said, said


def no_example() -> None:
    """None."""


def long_example() -> None:
    """Too long.

    Example:
        >>> a = 1
        >>> a + 1
        2
        >>> a + 2
        3
        >>> a + 3
        4
    """


def wrong_example() -> None:
    """Wrong.

    Example:
        >>> tuple(sines.query.x.shape)
        (4, 10, 2)
    """


@pytest.mark.parametrize(
    ("value", "what"),
    [(no_example, "has no example"), (long_example, "more than 6 lines"), (wrong_example, r"Got:\s+\(4, 10, 1\)")],
)
def test_examples_can_fail(value: Any, what: str) -> None:
    assert re.search(what, failures("it", value))
