"""Jobs on a real cluster: a worker dies in the middle, and the runs are those of this machine bit for bit."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from services import require

from fewstep.data.storage.lock import alone_after
from fewstep.experiments.engines import Dask, Engine, Ray, engine_of
from fewstep.experiments.repeat.procedure import RunProgress, repeat, seen
from fewstep.experiments.run import Run
from fewstep.experiments.search import search
from fewstep.experiments.workers import Job, Tell
from fewstep.recipes import RECIPES, Config, Range
from fewstep.training import State


def config(seed: int) -> Config:
    sinusoid = RECIPES["maml-sinusoid"]()
    training = replace(
        sinusoid.training, steps=20, tasks=4, validate_every=5, validation_tasks=10, log_every=5, checkpoint_every=5
    )
    return replace(sinusoid, training=training, seed=seed, threads=1)


def trains(seed: int, folder: Path, deadly: bool, tell: Tell) -> tuple[float | None, int]:
    """A training that kills the worker of the cluster that it was given to, the first time."""
    worker = multiprocessing.parent_process()
    assert worker is not None

    def progress(state: State, _: dict[str, float]) -> None:
        if deadly and state.step == 7 and not (folder.parent / "killed").exists():
            (folder.parent / "killed").touch()
            os.kill(worker.pid or 0, signal.SIGKILL)
        if deadly and state.step in (8, 9):
            time.sleep(0.5)  # until this process is asked to end, too

    with alone_after(folder, lambda: tell("waiting")):
        return Run.continued(config(seed), folder, tell).train(progress).state.best, worker.pid or 0


def refuses(_: Tell) -> None:
    raise ValueError("three blind mice")


@pytest.fixture(params=["dask", "ray"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    if request.param == "ray":  # too large to be installed for every run of the tests
        pytest.importorskip("ray")
        there = [*sys.path, os.environ.get("PYTHONPATH", "")]  # its workers find this module there
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, there)))
        yield Ray()
        return
    require("distributed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call]
        yield Dask(cluster.scheduler_address)


def test_a_worker_dies_and_its_run_goes_on_elsewhere(engine: Engine, tmp_path: Path) -> None:
    assert engine.count(None, 1, "cpu") == 2 or isinstance(engine, Ray)
    looks: list[float] = []
    jobs = [Job(f"seed {seed}", trains, (seed, tmp_path / f"{seed}", seed == 0)) for seed in range(2)]
    found = engine.run(jobs, workers=2, look=lambda: looks.append(time.monotonic()))
    assert looks
    for seed, (best, _) in enumerate(found):
        here = tmp_path / "here" / f"{seed}"
        assert Run.create(config(seed), here).train().state.best == best
        assert (tmp_path / f"{seed}" / "metrics.csv").read_bytes() == (here / "metrics.csv").read_bytes()
    facts = json.loads((tmp_path / "0" / "environment.json").read_text())
    assert 5 <= facts["continued"][0]["step"] < 20, "begun anew instead of continued"
    with pytest.raises(ValueError, match=r"^blind: three blind mice$"):
        engine.run([Job("blind", refuses)], workers=1)


class Near:
    """A cluster that is this process."""

    shared = True

    def count(self, workers: int | None, threads: int, device: str) -> int:
        return 1

    def run(self, jobs: Sequence[Job], *, look: Callable[[], None] | None = None, **_: object) -> list[object]:
        found = [job.function(*job.arguments, lambda _: None) for job in jobs]
        assert look
        look()
        return found


def test_what_happens_elsewhere_is_seen_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.experiments.search.report.draw", lambda *_: b"")
    monkeypatch.setattr("fewstep.experiments.repeat.result.draw", lambda *_: b"", raising=False)
    small, told = replace(config(0), testing=replace(config(0).testing, tasks=4)), list[RunProgress]()
    repeat(small, seeds=(0, 1), out=tmp_path / "repeat", engine=Near(), baselines="none", progress=told.append)
    assert told == [RunProgress(seed, "finished", 1, 1) for seed in (0, 1)]
    (tmp_path / "repeat" / "seed-0" / "test-5-shot.key").unlink()
    assert seen(small, 0, tmp_path / "repeat" / "seed-0") == RunProgress(0, "testing", 0, 20)
    space = (Range("method.rate", 0.001, 0.1),)
    found = search(small, space, trials=2, out=tmp_path / "search", engine=Near(), prune=False)
    assert found.trials == {"complete": 2}
    assert {file.name for file in (tmp_path / "search").glob("study.*")} == {"study.journal"}
    assert search(small, space, trials=3, out=tmp_path / "search", workers=1, prune=False).trials == {"complete": 3}


def test_engines_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="give --engine dask or ray too"):
        engine_of("local", "tcp://here:1")
    with pytest.raises(ValueError, match="slurm-script is of fewstep search"):
        engine_of("slurm-script")
    monkeypatch.setattr("fewstep.experiments.engines.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'fewstep\[ray\]'"):
        engine_of("ray")
