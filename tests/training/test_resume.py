"""A run that is killed and resumed ends with the same bits as one that was not: real processes, real SIGKILL.

``FEWSTEP_KILLS`` sets the number of kills at random moments (default 3; a campaign takes 20 or more).
"""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from resume_driver import OPTIONS, train, trainer
from safetensors.torch import load_file

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fewstep.training", "fewstep.algorithms", "fewstep.evaluation"])  # once for all
KILLS = int(os.environ.get("FEWSTEP_KILLS", "3"))


def start(folder: Path, write: int = 0) -> ForkServerProcess:
    started = PROCESSES.Event()
    process = PROCESSES.Process(target=train, args=(folder, started, write))
    process.start()
    assert started.wait(timeout=120)
    return process


def end(process: ForkServerProcess) -> int | None:
    process.join(timeout=120)
    return process.exitcode


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("reference")
    process, began = start(folder), time.monotonic()
    assert end(process) == 0
    return folder, time.monotonic() - began


def assert_same_end(killed: Path, reference: Path) -> None:
    kept = [{path.name for path in folder.glob("*[!s].safetensors")} for folder in (killed, reference)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 5, "the last, the best, and the three best"
    for name in kept[0]:
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
            process.join(timeout=moments.uniform(0.02, 2 * seconds / (KILLS + 1)))
            if process.exitcode is None:
                process.kill()
                kills += end(process) == -signal.SIGKILL
                continue
        assert end(process) == 0
        break
    assert kills > 0, "the run always ended before its kill"
    print(f"{kills} kills")
    assert_same_end(tmp_path, folder)


@pytest.mark.parametrize("write", [1, 9])
def test_killed_inside_a_checkpoint_write(reference: tuple[Path, float], tmp_path: Path, write: int) -> None:
    assert end(start(tmp_path, write)) == -signal.SIGKILL
    assert list(tmp_path.glob(".*.part")), "the kill was meant to come in the middle of a write"
    assert end(start(tmp_path)) == 0
    assert_same_end(tmp_path, reference[0])


def test_the_reference_run_exercises_early_stopping(reference: tuple[Path, float]) -> None:
    state = trainer(reference[0]).state
    assert state.finished
    assert state.step < OPTIONS.steps, "no early stopping"
    assert state.stale == OPTIONS.patience
    assert state.best_step > 0
