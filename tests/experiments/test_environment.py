"""What is recorded of the machine and of the source tree."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fewstep.experiments import environment


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed here")
def test_asking_for_the_commit_writes_nothing_into_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that it took would stay there if the run was killed meanwhile."""
    module = tmp_path / "package" / "experiments" / "environment.py"
    module.parent.mkdir(parents=True)
    module.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    os.utime(module, (1e9, 1e9))  # what the index knows of the file is old: status, by itself, brings it up to date
    before = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr(environment, "__file__", str(module))
    commit = environment._commit()
    assert (tmp_path / ".git" / "index").read_bytes() == before
    assert commit is not None
    assert len(commit) == 40, "changed, or no commit"
