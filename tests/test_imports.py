"""Who may import whom, what the package costs to import, and how short its algorithms stay."""

import ast
import re
import subprocess
import sys

import imports
import pages
import pytest

HEAVY = ("matplotlib", "sklearn", "scipy", "pandas", "optuna", "torch._dynamo", "gradio")

LOWER = ("training", "evaluation", "data", "networks", "core")
FOLDERS = {
    "commands": (
        "demo",
        "estimators",
        "experiments",
        "recipes",
        "training",
        "evaluation",
        "algorithms",
        "data",
        "networks",
        "core",
    ),
    "demo": ("estimators", "recipes", "evaluation", "data", "core"),
    "estimators": ("experiments", "recipes", *LOWER),
    "experiments": ("recipes", *LOWER),
    "recipes": ("training", "evaluation", "algorithms", "data", "networks", "core"),
    "training": ("evaluation", "data", "networks", "core"),
    "evaluation": ("data", "networks", "core"),
    "algorithms": ("networks", "core"),
    "data": ("core",),
    "networks": ("core",),
    "core": (),
}
"""Each folder, from the top down, and what it may import. CONTRIBUTING has the same table."""

ROOMS = {
    "demo": ("pages",),
    "experiments": ("repeat", "compare", "search", "ablate", "uncertainty", "analyse", "fit", "report"),
    "recipes": ("methods", "problems"),
    "training": ("pretraining",),
    "evaluation": ("exact", "analysis"),
    "data": ("images", "features", "functions", "storage", "files"),
    "core": ("start", "rule", "meta_gradient", "network"),
}
"""Folders within them, those that are still to come included."""


def folder(module: str) -> str:
    """The folder that a module belongs to; empty for what stands above all of them."""
    return module.split(".")[1] if module.count(".") else ""


def violations(edges: imports.Graph) -> list[str]:
    """Imports against the table, in words."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if folder(module) in FOLDERS and folder(other) not in (folder(module), *FOLDERS[folder(module)])
    ]


def test_nothing_imports_upward() -> None:
    for name, allowed in FOLDERS.items():
        print(f"{name:12} may import {', '.join(allowed) or 'nothing of fewstep'}")  # seen with pytest -s
    assert violations(imports.graph()) == []


def test_no_module_imports_in_a_circle() -> None:
    assert imports.circles(imports.graph()) == []


def test_every_folder_is_in_the_table_and_no_module_is_loose() -> None:
    inside = [path for path in imports.SOURCE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in inside if path.is_dir()} == set(FOLDERS)
    assert {path.name for path in inside if path.is_file()} == {"__init__.py", "__main__.py", "py.typed"}
    for name in FOLDERS:
        rooms = {path.name for path in (imports.SOURCE / name).iterdir() if path.is_dir()} - {"__pycache__"}
        assert rooms <= set(ROOMS.get(name, ())), name


def test_only_the_entry_points_import_commands() -> None:
    importers = {module for module, others in imports.graph().items() if any(folder(o) == "commands" for o in others)}
    assert {module for module in importers if folder(module) != "commands"} == {"fewstep.__main__"}


def test_the_guide_has_the_same_table() -> None:
    table = re.findall(
        r"^\| `(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", (pages.ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    words = {
        name: (set(re.findall(r"`(\w+)", rooms)), re.findall(r"`(\w+)`", allowed)) for name, rooms, allowed in table
    }
    assert list(words) == list(FOLDERS)
    assert {name: set(allowed) for name, (_, allowed) in words.items()} == {n: set(a) for n, a in FOLDERS.items()}
    for name, rooms in ROOMS.items():
        assert set(rooms) <= words[name][0], name


@pytest.mark.parametrize(
    "planted",
    [
        "import fewstep.recipes",
        "import fewstep.recipes.config as config",
        "from fewstep import recipes",
        "from fewstep.recipes import Config",
        "from ..recipes import Config",
        "from .. import recipes",
        "def later():\n    from fewstep.recipes import Config",
        "class Late:\n    import fewstep.recipes.config",
        "if TYPE_CHECKING:\n    from fewstep.recipes import Config",
        "try:\n    pass\nexcept ImportError:\n    from fewstep.recipes import Config",
        'importlib.import_module("fewstep.recipes.config")',
        '__import__("fewstep.recipes")',
        'LATER = {"Config": "fewstep.recipes.config:Config"}',
        'importlib.import_module(f"fewstep.{name}")',
        'importlib.import_module("fewstep." + name)',
        'importlib.import_module(".config", "fewstep.recipes")',
    ],
)
def test_a_planted_import_upward_is_found(planted: str) -> None:
    name = "fewstep.data.dataset"
    source = imports.modules()[name].read_text() + "\n" + planted + "\n"
    assert not violations({name: frozenset(imports.imported(name, imports.modules()[name].read_text()))})
    assert violations({name: frozenset(imports.imported(name, source))})


def test_a_planted_circle_is_found() -> None:
    edges = {**imports.graph(), "fewstep.core.types": frozenset({"fewstep.core.learner"})}
    (circle,) = imports.circles(edges)
    assert {"fewstep.core.types", "fewstep.core.learner"} <= set(circle)


def test_no_function_hides_the_module_that_it_is_in() -> None:
    """``fewstep.data.images.crops`` is a module, and not a function of it. One algorithm a file is the exception."""
    hidden = []
    for name, path in imports.modules().items():
        if path.name != "__init__.py" or folder(name) == "algorithms":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fewstep"):
                names = (alias.asname or alias.name for alias in node.names)
                hidden += [
                    f"{name}.{n}"
                    for n in names
                    if f"{name}.{n}" in imports.modules() and f"{node.module}.{n}" != f"{name}.{n}"
                ]
    assert hidden == []


@pytest.mark.parametrize("module", ["fewstep", "fewstep.data", "fewstep.evaluation"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """What takes seconds to import is imported by the function that needs it."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_an_algorithm_is_a_short_composition() -> None:
    """Twenty lines at most, its signature and its docstring aside."""
    for path in (imports.SOURCE / "algorithms").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                lines = {line for part in node.body[1:] for line in range(part.lineno, (part.end_lineno or 0) + 1)}
                assert len(lines) <= 20, f"{path.name}: {node.name} has {len(lines)} lines of code"
