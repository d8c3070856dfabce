"""What the package costs to import, and how short its algorithms stay."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fewstep

HEAVY = ("matplotlib", "sklearn", "scipy", "pandas", "optuna")


@pytest.mark.parametrize("module", ["fewstep", "fewstep.data", "fewstep.evaluation"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """What takes seconds to import is imported by the function that needs it."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_an_algorithm_is_at_most_forty_lines_of_code() -> None:
    for path in (Path(fewstep.__file__).parent / "algorithms").glob("*.py"):
        source = path.read_text()
        documented = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        lines = enumerate(map(str.strip, source.splitlines()), 1)
        code = [i for i, line in lines if line and not line.startswith("#") and i not in documented]
        assert len(code) <= 40, f"{path.name} has {len(code)} lines of code"
