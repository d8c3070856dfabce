"""How the program starts: its table of commands, its version, what it completes, and what it does not import."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

TORCHLESS = """
import io, sys
from contextlib import redirect_stdout, suppress
from fewstep.commands.main import main
with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
    main(sys.argv[1:])
print(len(shown.getvalue()), *(name for name in ("torch", "numpy", "matplotlib", "optuna") if name in sys.modules))
"""


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["--help"],
        ["--version"],
        ["list"],
        ["show", "leo-omniglot"],
        ["train", "--help"],
        ["train", "maml-omniglot-5way-1shot", "--help"],
        ["repeat", "leo-omniglot", "--help"],
        ["search", "leo-features-1shot", "--help"],
        ["ablate", "leo-features-1shot", "--help"],
    ],
    ids=" ".join,
)
def test_what_only_tells_does_not_import_torch(command: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", TORCHLESS, *command], capture_output=True, text=True, check=True)
    length, *heavy = done.stdout.split()
    assert int(length) > 10
    assert heavy == []
