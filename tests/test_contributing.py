"""The worked example of CONTRIBUTING.md runs, passes the whole contract with its one row, and its witness agrees."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import pages
import pytest
import test_contract
import test_examples

GUIDE = pages.ROOT / "CONTRIBUTING.md"
CONTRACT = [
    check
    for name, check in vars(test_contract).items()
    if name.startswith("test_") and "case" in inspect.signature(check).parameters
]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The guide's python blocks, run in order; ``row`` is what its row of ``CASES`` makes."""
    space: dict[str, Any] = dict(vars(cases))
    for number, (block, _) in enumerate(pages.blocks(GUIDE.read_text(encoding="utf-8")), 1):
        is_row = block.startswith("Case(")
        source = f"(row,) = [\n{block}]" if is_row else block
        exec(compile(source, f"{GUIDE.name}, python block {number}", "exec"), space)
    return space


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__.removeprefix("test_"))
def test_the_row_of_the_guide_buys_the_contract(
    check: Callable[..., None], example: dict[str, Any], tmp_path: Path
) -> None:
    check(example["row"], *([tmp_path] if "tmp_path" in inspect.signature(check).parameters else []))


def test_the_witness_of_the_guide(example: dict[str, Any]) -> None:
    (witness,) = [value for name, value in example.items() if name.startswith("test_")]
    witness()


@pytest.mark.parametrize("name", ["HeavyBall", "heavy_ball"])
def test_the_examples_of_the_guide(name: str, example: dict[str, Any]) -> None:
    said = test_examples.failures(name, example[name], **{name: example[name]})
    assert not said, said


def test_the_names_of_the_guide_exist() -> None:
    """Files and folders that the guide names, besides those that its example would add, are there."""
    text = GUIDE.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|src)/[\w/.]+)`", text):
        assert "heavy_ball" in name or (GUIDE.parent / name).exists(), name
