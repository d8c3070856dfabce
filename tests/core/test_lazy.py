"""Packages import what they export when it is asked for, and are otherwise like any other."""

import importlib
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import FunctionType

import pytest

PACKAGES = (
    "fewstep",
    "fewstep.core",
    "fewstep.data",
    "fewstep.networks",
    "fewstep.training",
    "fewstep.training.pretraining",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_that_is_exported_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for export in package.__all__:
        assert getattr(package, export) is vars(package)[export]
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {name} import nothing")


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_packages_imports_no_torch() -> None:
    assert run(f"import sys, {', '.join(PACKAGES)}, fewstep.recipes; print('torch' in sys.modules)") == ["False"]


def test_an_algorithm_is_the_function_and_not_its_module() -> None:
    ways = (
        "from fewstep import leo",
        "import fewstep; leo = fewstep.leo",
        "import fewstep.algorithms.leo; from fewstep import leo",
        "import fewstep; leo = fewstep.algorithms.leo",  # a package that nobody has imported
        "from fewstep.algorithms.leo import FORMULATIONS; from fewstep.algorithms import leo",
    )
    # One torch for all of them, and for each a process that has imported nothing else.
    code = f"""
        import os, torch
        for way in {ways}:
            if not os.fork():
                exec(way)
                print(type(leo).__name__, flush=True)
                os._exit(0)
            assert os.wait()[1] == 0, way
    """
    assert run(dedent(code)) == [FunctionType.__name__] * len(ways)


def test_only_what_is_type_checked_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_one").mkdir()
    (tmp_path / "lazy_one" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from fewstep.core.lazy import lazily\n"
        "if TYPE_CHECKING:\n    from math import pi as ratio\n"
        "else:\n    __getattr__, __dir__, __all__ = lazily(__name__)\n"
    )
    (tmp_path / "lazy_one" / "part.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("lazy_one")
    assert package.__all__ == ["ratio"]
    assert "ratio" not in vars(package)
    assert round(package.ratio, 2) == 3.14
    assert package.part.value == 3
