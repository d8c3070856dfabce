"""A run that is killed and resumed ends with the same bits as one that was not: real processes, real SIGKILL.

``FEWSTEP_KILLS`` sets the number of kills at random moments (default 3; a campaign takes 20 or more).
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from resume_driver import OPTIONS, trainer
from safetensors.torch import load_file

DRIVER = Path(__file__).with_name("resume_driver.py")
KILLS = int(os.environ.get("FEWSTEP_KILLS", "3"))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder), *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()  # "started"
    return process


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("reference")
    process, began = start(folder), time.monotonic()
    assert process.wait(timeout=120) == 0
    return folder, time.monotonic() - began


def assert_same_end(killed: Path, reference: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = load_file(killed / name), load_file(reference / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = trainer(killed).state, trainer(reference).state
    ours.seconds = theirs.seconds = 0.0  # wall time is the only difference there may be
    assert ours == theirs
    assert (killed / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_killed_at_random_moments(reference: tuple[Path, float], tmp_path: Path) -> None:
    folder, seconds = reference
    moments, kills = random.Random(os.environ.get("FEWSTEP_KILL_SEED", "0")), 0
    for _ in range(10 * KILLS):
        process = start(tmp_path)
        if kills < KILLS:
            try:
                process.wait(timeout=moments.uniform(0.02, 2 * seconds / (KILLS + 1)))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                continue
        assert process.wait(timeout=120) == 0
        break
    assert kills > 0, "the run always ended before its kill"
    print(f"{kills} kills")
    assert_same_end(tmp_path, folder)


@pytest.mark.parametrize("write", [1, 9])
def test_killed_inside_a_checkpoint_write(reference: tuple[Path, float], tmp_path: Path, write: int) -> None:
    process = start(tmp_path, "--kill-in-write", str(write))
    assert process.wait(timeout=120) == -signal.SIGKILL
    assert list(tmp_path.glob(".*.part")), "the kill was meant to come in the middle of a write"
    assert start(tmp_path).wait(timeout=120) == 0
    assert_same_end(tmp_path, reference[0])


def test_the_reference_run_exercises_early_stopping(reference: tuple[Path, float]) -> None:
    state = trainer(reference[0]).state
    assert state.finished
    assert state.step < OPTIONS.steps, "no early stopping"
    assert state.stale == OPTIONS.patience
    assert state.best_step > 0
