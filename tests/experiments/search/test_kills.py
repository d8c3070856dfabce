"""A killed search resumes and two processes share one study: real processes, real SIGKILL, the same result."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from search_driver import process, run

from fewstep.experiments.search import report, study

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fewstep.experiments.search"])  # once for all
TRIALS = 4


def start(out: Path, workers: int, kill: tuple[int, int] | None = None, together: int = 1) -> ForkServerProcess:
    begun = PROCESSES.Process(target=process, args=(out, TRIALS, workers, kill, together))
    begun.start()
    return begun


def end(begun: ForkServerProcess) -> int | None:
    begun.join(timeout=120)
    return begun.exitcode


def trials(out: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="maml-sinusoid", storage=f"sqlite:///{out / 'study.db'}").get_trials()


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: b"")
        patch.setattr(study, "HEARTBEAT", 1)
        patch.setattr(study, "GRACE", 2)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "search"
    run(out, TRIALS)
    return out


def assert_same_end(out: Path, reference: Path) -> None:
    """Every configuration has been trained once to its end, to the same bits as by one process without a kill."""
    tables = []
    for folder in (out, reference):
        with (folder / "trials.csv").open(newline="") as file:
            tables.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert (out / "best.json").read_bytes() == (reference / "best.json").read_bytes()
    for metrics in (reference / "trials").glob("*/metrics.csv"):
        assert (out / metrics.relative_to(reference)).read_bytes() == metrics.read_bytes()
    states = Counter(trial.state for trial in trials(out))
    assert states[TrialState.COMPLETE] == TRIALS
    assert not states[TrialState.RUNNING] + states[TrialState.WAITING]


def test_a_killed_search_resumes(tmp_path: Path, reference: Path) -> None:
    out = tmp_path / "search"
    assert end(start(out, 1, kill=(2, 10))) == -signal.SIGKILL
    assert [trial.state for trial in trials(out)].count(TrialState.COMPLETE) == 2
    trial = out / "trials" / "002" / "environment.json"
    began = json.loads(trial.read_text())["started"]
    damaged = Path(shutil.copytree(out, tmp_path / "damaged"))
    run(out, TRIALS)
    assert json.loads(trial.read_text())["started"] == began, "started over instead of continued"
    assert_same_end(out, reference)
    (damaged / "trials" / "002" / "config.json").write_text("{")
    run(damaged, TRIALS)
    assert (damaged / "trials" / "002-damaged-1" / "config.json").read_text() == "{"
    assert_same_end(damaged, reference)


def test_two_processes_share_a_study_and_one_is_killed(tmp_path: Path, reference: Path) -> None:
    out = tmp_path / "search"
    survivor, killed = start(out, 1, together=2), start(out, 1, kill=(-1, 10), together=2)
    assert end(killed) == -signal.SIGKILL
    assert end(survivor) == 0
    assert_same_end(out, reference)
    assert len({trial.user_attrs["process"] for trial in trials(out)}) == 2


def test_workers_end_with_their_search_and_a_new_one_goes_on(tmp_path: Path, reference: Path) -> None:
    out = tmp_path / "search"
    search, deadline = start(out, 2), time.monotonic() + 60
    workers: set[int] = set()
    while not workers and time.monotonic() < deadline:
        time.sleep(0.05)
        if (out / "trials").exists():
            workers = {int(t.user_attrs["process"].split(":")[1]) for t in trials(out) if "process" in t.user_attrs}
    search.kill()
    search.join()
    assert workers
    assert search.pid not in workers
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers)), "a worker outlived the search"
    run(out, TRIALS, workers=2)
    assert_same_end(out, reference)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text() if Path("/proc/self").exists() else ") S"
    except (ProcessLookupError, FileNotFoundError):  # it may end between the two
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
