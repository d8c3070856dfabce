"""The examples in the docstrings of public classes and functions: all have one, it is short, and it runs.

Examples begin after the lines in the docstring of the package, which are run here as they stand there.
"""

import doctest
import inspect
import re
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fewstep
from fewstep import algorithms, core

LINES = 6
"""Of an example, at most: code and what it prints."""

EXCUSED = {"fomaml": "a partial of maml, in whose example it has its number"}
"""Without an example, and why: ten at most."""


def public() -> dict[str, Any]:
    """Classes and functions that the packages export, by name; not types with another name, nor constants."""
    exported = {name: getattr(package, name) for package in (fewstep, core, algorithms) for name in package.__all__}
    return {
        name: value
        for name, value in exported.items()
        if inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, partial)
    }


def section(value: Any) -> str:
    """The last section of a docstring, when it is an example."""
    *_, last = re.split(r"^Example:\n", inspect.cleandoc(value.__doc__ or ""), flags=re.MULTILINE)
    return textwrap.dedent(last) if last.startswith("    >>> ") else ""


NAMED = [name for name in public() if name not in EXCUSED]


@pytest.fixture(scope="module")
def beginning() -> str:
    (block,) = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", inspect.cleandoc(fewstep.__doc__ or "") + "\n")
    return textwrap.dedent(block)


def test_few_are_excused() -> None:
    assert len(EXCUSED) <= 10
    assert set(EXCUSED) <= set(public())
    assert len(NAMED) > 50


@pytest.mark.parametrize("name", NAMED)
def test_example(name: str, beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = section(public()[name])
    assert text, f"{name} has no example: end its docstring with a section 'Example:'"
    assert len(text.splitlines()) <= LINES, f"the example of {name} has more than {LINES} lines"
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(beginning, space)
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, space, name, None, None)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
