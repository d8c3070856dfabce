"""How the program starts: its table of commands, its version, what it completes, and what it does not import."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pages
import pytest

import fewstep
from fewstep.commands.main import COMMANDS, main

TOLD = (
    "--help",
    "--version",
    "list",
    "show leo-omniglot",
    "--tyro-print-completion bash",
    "train --help",
    "train maml-omniglot-5way-1shot --help",
    "pretrain --help",
    "pretrain mini-imagenet --network wrn-28-10 --help",
    "embed --help",
    "fit --help",
    "evaluate --help",
    "compare --help",
    "repeat leo-omniglot --help",
    "search leo-features-1shot --help",
    "ablate leo-features-1shot --help",
    "uncertainty --help",
    "plot --help",
    "predict --help",
    "export --help",
    "data --help",
)
"""What only tells."""

TELLING = """
import io, sys
from contextlib import redirect_stdout, suppress
from fewstep.commands.main import main
for command in sys.argv[1:]:
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        main(command.split())
    heavy = ("torch", "numpy", "sklearn", "scipy", "matplotlib", "pandas", "optuna", "PIL")
    print(len(shown.getvalue()), *(name for name in heavy if name in sys.modules))
"""


def test_what_only_tells_imports_nothing_heavy() -> None:
    """In one process, one after another: what one of them imports is there for all that come after it."""
    done = subprocess.run([sys.executable, "-c", TELLING, *TOLD], capture_output=True, text=True, check=True)
    for command, line in zip(TOLD, done.stdout.splitlines(), strict=True):
        length, *heavy = line.split()
        assert int(length) > 10, command
        assert heavy == [], command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"fewstep {fewstep.__version__}\n"
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == fewstep.__version__


def test_every_command_is_there_and_in_the_usage_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name, command in COMMANDS.items():
        assert callable(command.load())
        assert [line for line in lines if line.startswith(f"  fewstep {name} ") and line.endswith(command.about)], name


COMPLETING = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _tyro_fewstep
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    file = tmp_path_factory.mktemp("completion") / "new" / "fewstep"
    main(["--tyro-write-completion", "bash", str(file)])
    assert "complete -o default -F" in file.read_text()
    return file


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], {"train"}),
        (["plot", "o"], {"oscillations"}),
        (["evaluate", "run", "--baselines", ""], {"none", "quick", "all"}),
        (["evaluate", "run", "--ba"], {"--baselines"}),
        (["train", "leo-omniglot", "--method.kl"], {"--method.kl-weight"}),
        (["repeat", "leo-omniglot", "--see"], {"--seeds"}),
        (["evaluate", "ru"], set()),  # left to bash, which knows files
    ],
)
def test_bash_completes_commands_and_their_options(words: Sequence[str], expected: set[str], bash_script: Path) -> None:
    given = ["bash", "-c", COMPLETING, "bash", str(bash_script), "fewstep", *words]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    found = {word for word in done.stdout.splitlines() if word}
    assert expected <= found
    assert bool(found) == bool(expected)
    assert found or not expected
    assert all(word.startswith(words[-1]) for word in found)


def test_an_error_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "inspect", "no[rows, features]file[/x].npz"])
    assert "no[rows, features]file[/x].npz" in capsys.readouterr().err.replace("\n", "")
