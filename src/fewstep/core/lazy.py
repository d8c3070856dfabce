"""Packages that import what they export when it is first asked for."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that exports the imports of its ``if TYPE_CHECKING:``.

    They read ``import name as name``, by which type checkers know an export. The package's modules are found too, as if
    they had been imported. Importing a module imports the packages around it, so one that settings live in must not
    bring torch along.
    """
    module = sys.modules[package]
    source = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    blocks = (node.body for node in source.body if isinstance(node, ast.If))
    exports = {
        alias.asname or alias.name: (statement.module, alias.name)
        for block in blocks
        for statement in block
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }

    def find(name: str) -> Any:
        if name in exports:
            origin, original = exports[name]
            setattr(module, name, getattr(import_module(origin), original))
            return vars(module)[name]
        if find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted({*vars(module), *exports}), sorted(exports)
