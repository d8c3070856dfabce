"""What several files say of one thing is one thing: versions, ranges, and the two commands of the README."""

import re
import tomllib
from typing import Any

import pages
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fewstep

PROJECT: dict[str, Any] = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [name.split(" :: ")[-1] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]


def text(name: str) -> str:
    return (pages.ROOT / name).read_text(encoding="utf-8")


def requirements() -> dict[str, SpecifierSet]:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    return {made.name: made.specifier for made in map(Requirement, lines)}


def constraints() -> dict[str, SpecifierSet]:
    lines = [line.split("#")[0].strip() for line in text("constraints.txt").splitlines()]
    return {made.name: made.specifier for made in (Requirement(line) for line in lines if line)}


def of_constraints(name: str) -> str:
    (pin,) = constraints()[name]
    return pin.version.removesuffix(".*")


@pytest.mark.parametrize("name", requirements())
def test_every_requirement_is_constrained_within_its_range(name: str) -> None:
    assert requirements()[name].contains(of_constraints(name)), f"{name}: {of_constraints(name)}"


def test_the_constraint_of_torch_resolves_everywhere() -> None:
    """The first, and with no local suffix such as ``+cpu``: that would resolve on one system alone."""
    assert next(iter(constraints())) == "torch"
    assert re.fullmatch(r"\d+\.\d+", of_constraints("torch"))


def test_documents_say_the_range_of_torch_and_python() -> None:
    versions = {pin.operator: pin.version for pin in requirements()["torch"]}
    major, minor = versions["<"].split(".")
    said = f"torch {versions['>=']} to {major}.{int(minor) - 1}"
    for page in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {PYTHONS[0]} or newer, {said}" in text(page), page
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    blocks = re.findall(r"^```\n(pip install .*)\n```$", text("README.md"), re.MULTILINE)
    assert [block.split(" && ")[1].split()[0] for block in blocks] == ["fewstep", "pytest"]
    for half in " && ".join(blocks).split(" && "):
        assert half in text(".ci/run"), half


def test_public_ci_covers_what_the_package_claims() -> None:
    workflow = text(".github/workflows/ci.yml")
    for claim in (*PYTHONS, next(pin.version for pin in requirements()["torch"] if pin.operator == ">=")):
        assert f'"{claim}"' in workflow or f'"{claim}.*"' in workflow, claim


def test_one_version() -> None:
    assert fewstep.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in text("CITATION.cff")
    first = re.search(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == PROJECT["version"]
