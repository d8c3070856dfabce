"""What imports what, read from the source: every import statement, wherever it stands, and imports by string."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

import fewstep

SOURCE = Path(fewstep.__file__).parent


@cache
def modules() -> Mapping[str, Path]:
    """Every module of fewstep by its name; a package is its ``__init__``."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


Graph: TypeAlias = Mapping[str, frozenset[str]]
"""For each module those that it imports."""


def imported(name: str, source: str) -> Iterator[str]:
    """The modules of the package that a module's source names in an import, or in a string that an import may take.

    ``from package import name`` counts for the module ``package.name`` where there is one, else for ``package``.
    """
    known, package = modules(), name.split(".")[0]
    here = name if known[name].name == "__init__.py" else name.rpartition(".")[0]
    documents = set()
    for node in ast.walk(ast.parse(source)):
        for child in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                documents.add(child.value)  # prose
        if isinstance(node, ast.Import):
            yield from (_nearest(alias.name, known) for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here.split(".")[: len(here.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            if origin.split(".")[0] == package:
                yield from (_nearest(f"{origin}.{alias.name}", known) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documents:
            if re.fullmatch(rf"{package}(\.\w+)+(:\w+)?", node.value):
                yield _nearest(node.value.partition(":")[0], known)
            elif re.fullmatch(rf"{package}\.[\w.]*", node.value):  # goes on with what is known at run time alone
                yield f"{package}.*"


def _nearest(name: str, known: Mapping[str, Path]) -> str:
    while name not in known:
        name = name.rpartition(".")[0]
    return name


@cache
def graph() -> Graph:
    """For each module those that it imports."""
    return {
        name: frozenset(imported(name, path.read_text(encoding="utf-8"))) - {name} for name, path in modules().items()
    }


def circles(edges: Graph) -> list[list[str]]:
    """Modules that import each other, in groups (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges.get(name, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def definition(module: str, name: str) -> str:
    """The module that defines what ``from module import name`` brings, through re-exports."""
    known = modules()
    if f"{module}.{name}" in known:
        return f"{module}.{name}"
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(node.module, alias.name)
    return module


def reached(module: str, package: str) -> list[str]:
    """A module and the modules that define what it imports from ``package``, and so on, by name."""
    found, left = {module}, [module]
    while left:
        for node in ast.walk(ast.parse(modules()[left.pop()].read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
                new = {definition(node.module, alias.name) for alias in node.names} - found
                found |= new
                left += sorted(new)
    return sorted(found)
