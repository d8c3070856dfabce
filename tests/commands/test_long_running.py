"""Commands that take hours: stopped by Ctrl-C or ``kill``, continued by the command that they name, and detached."""

import os
import pty
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

import fewstep.experiments.ablate.procedure
import fewstep.experiments.compare.procedure
import fewstep.experiments.repeat.procedure
import fewstep.experiments.run
import fewstep.experiments.search
from fewstep.commands import detached
from fewstep.commands.long_running import stoppable
from fewstep.commands.main import main

pytestmark = pytest.mark.usefixtures("interruptible")

PROCEDURES = {
    "repeat": (fewstep.experiments.repeat.procedure, ["maml-sinusoid"], "repeats"),
    "search": (fewstep.experiments.search, ["leo-features-1shot", "--trials", "2"], "searches"),
    "ablate": (fewstep.experiments.ablate.procedure, ["leo-features-1shot"], "ablations"),
    "compare": (fewstep.experiments.compare.procedure, ["maml-sinusoid", "meta-sgd-sinusoid"], "comparisons"),
}


def killed(number: Any = signal.SIGTERM, *_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), number if isinstance(number, int) else signal.SIGTERM)
    time.sleep(5)
    raise AssertionError("SIGTERM ends it in order")


@pytest.mark.parametrize("at", ["fewstep.commands.compare.parsed", "fewstep.experiments.compare.procedure.compare"])
def test_a_command_that_is_stopped_before_it_has_begun_says_how_to_go_on(
    at: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(at, killed)
    with pytest.raises(SystemExit, match="143"):
        main(["compare", "maml-sinusoid", "--out", "a folder"])
    said = "".join(capsys.readouterr())
    assert "continue with: fewstep compare maml-sinusoid --out 'a folder'\n" in said


@pytest.mark.parametrize("name", PROCEDURES)
def test_a_stopped_command_names_the_one_that_continues_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module, arguments, parent = PROCEDURES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, name, killed)
    before = signal.getsignal(signal.SIGTERM)
    for given in (arguments, None):
        with pytest.raises(SystemExit) as end:
            main([name, *(given or continued)])
        assert end.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is before
        said = capsys.readouterr().out
        (line,) = [line for line in said.splitlines() if line.startswith("stopped; ")]
        program, command, *continued = shlex.split(line.partition("continue with: ")[2])
        assert (program, command) == ("fewstep", name)
        assert continued[: len(arguments)] == arguments
        assert continued[-2] == "--out"
        assert f"folder: {continued[-1]}\n" in said
        assert Path(continued[-1]).parts[0] == parent
        assert continued.count("--out") == 1


@pytest.mark.parametrize("name", ["repeat", "search", "ablate"])
@pytest.mark.parametrize("out", [[], ["--out", "a folder"]], ids=["new", "named"])
def test_a_detached_command_is_given_again_without_detach(
    name: str, out: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detached, "detach", lambda *a: given.append(a) or detached.Detached(7, tmp_path / "log.txt"))
    _, arguments, _ = PROCEDURES[name]
    main([name, *arguments, "--detach", *out])
    ((words, folder),) = given
    assert words == [name, *arguments, *(out or ["--out", str(folder)])]
    assert "kill 7" in capsys.readouterr().out


STATUSES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(("number", "status"), STATUSES)
def test_a_stopped_training_is_resumed(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(fewstep.experiments.run.Run, "train", lambda *_: killed(number))
    with pytest.raises(SystemExit) as end:
        main(["train", "maml-sinusoid", "--out", str(tmp_path / "a run")])
    assert end.value.code == status
    said = capfd.readouterr()
    assert f"{signal.Signals(number).name}: ending in order; a second signal ends at once" in said.err
    assert f"continue with: fewstep train --resume '{tmp_path / 'a run'}'" in said.out


def test_a_command_whose_terminal_is_closed_ends_in_order(tmp_path: Path) -> None:
    """Nothing that it prints from then on fails, and nobody is at the other end to see how it ends."""
    script = f"""
import time
from fewstep.commands.console import say
from fewstep.commands.long_running import stoppable

try:
    with stoppable("train", "--resume", "a run"):
        say("at work")
        time.sleep(60)
except SystemExit as end:
    say(f"ended with {{end}}")
    open({str(tmp_path / "said")!r}, "w").write(str(end))
    raise
"""
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-c", script])
    with os.fdopen(terminal, "rb", closefd=True) as end:
        assert end.readline() == b"at work\r\n"
    _, status = os.waitpid(process, 0)
    assert (tmp_path / "said").read_text() == "129"
    assert os.waitstatus_to_exitcode(status) == 129


def test_what_ends_by_itself_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with stoppable("train"):
        pass
    with pytest.raises(ValueError, match="broken"), stoppable("train"):
        raise ValueError("broken")
    assert capsys.readouterr().out == ""
