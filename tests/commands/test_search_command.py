"""``fewstep search``, as users give it."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from fewstep import recipes
from fewstep.commands import detached
from fewstep.commands import main as cli
from fewstep.recipes import RECIPES, Config, Range, Recipe, from_json


def tiny() -> Config:
    """A search of a second."""
    from dataclasses import replace

    sinusoid = RECIPES["maml-sinusoid"]()
    training = replace(sinusoid.training, steps=10, tasks=2, validate_every=5, validation_tasks=4)
    return replace(sinusoid, training=training)


@pytest.fixture(autouse=True)
def _recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RECIPES, "tiny", Recipe("tiny", tiny, space=(Range("method.rate", 0.001, 0.1, log=True),)))  # type: ignore[misc]
    assert recipes.RECIPES is RECIPES
    monkeypatch.chdir(tmp_path)


def test_a_search(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["search", "tiny", "--trials", "2", "--workers", "1", "--training.tasks", "3"])
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "searches").iterdir()
    assert folder.name.startswith("tiny-2")
    assert f"fewstep train searches/{folder.name}/best.json" in said
    assert "2 complete" in said
    assert "too few to estimate importances" in said
    assert from_json(folder / "best.json").training.tasks == 3
    cli.main(["search", "tiny", "--trials", "3", "--workers", "1", "--training.tasks", "3", "--out", str(folder)])
    assert "best of 3 configurations" in capsys.readouterr().out


def test_mistakes_end_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, what in (
        (["maml-sinusoid", "--trials", "2"], "maml-sinusoid has no space to search; these have one: "),
        (["tiny", "--trials", "0", "--workers", "1"], "trials must be at least 1, got 0"),
        (["tine", "--trials", "2"], "did you mean tiny?"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["search", *arguments])
        assert end.value.code == 2
        assert what in capsys.readouterr().err


def test_a_detached_command_has_a_session_and_a_log_of_its_own(tmp_path: Path) -> None:
    started = detached.detach(["show", "maml-sinusoid"], tmp_path / "folder")
    session = os.getsid(started.pid)
    _, status = os.waitpid(started.pid, 0)
    assert session == started.pid != os.getsid(0)
    assert status == 0
    assert '"recipe": "maml-sinusoid"' in started.log.read_text()
    assert started.log == tmp_path / "folder" / "log.txt"


def test_a_script_for_slurm_gives_the_same_command_to_every_job(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "a search"
    cli.main(
        ["search", "tiny", "--trials", "4", "--no-prune", "--workers=3", "--engine", "slurm-script", "--out", str(out)]
    )
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "#SBATCH --array=1-3\n" in script
    word, *words = shlex.split(script.splitlines()[-1])[1:]
    assert word == "fewstep"
    for _ in range(2):  # the second one finds everything done
        cli.main(words)
        assert "4 complete" in capsys.readouterr().out
    assert (out / "study.journal").exists()
    with pytest.raises(SystemExit):
        cli.main(["repeat", "tiny", "--engine", "slurm-script"])
    assert "slurm-script is of fewstep search" in capsys.readouterr().err
