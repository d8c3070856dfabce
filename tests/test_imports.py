import subprocess
import sys

import pytest

HEAVY = ("matplotlib", "sklearn", "scipy", "pandas", "optuna")


@pytest.mark.parametrize("module", ["fewstep", "fewstep.data", "fewstep.evaluation"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """What takes seconds to import is imported by the function that needs it."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
