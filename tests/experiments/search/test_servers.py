"""A search in a database's server: a worker is killed, the server is restarted, and nothing is lost or done twice."""

import csv
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from search_driver import SPACE, config
from services import postgresql

from fewstep.experiments.search import Status, report, search, study

TRIALS = 40
RUNNING, COMPLETE = TrialState.RUNNING, TrialState.COMPLETE


def test_postgresql_bears_a_killed_worker_and_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw", lambda *_: b"")
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    monkeypatch.setattr(study, "GRACE", 5)
    sinusoid = config(4)
    short = replace(sinusoid, training=replace(sinusoid.training, tasks=1, validate_every=2, validation_tasks=2))
    killed, restarts = list[int](), list[int]()
    with postgresql() as server:

        def trials() -> list[FrozenTrial]:
            url = server.url.replace(":", "+psycopg:", 1)
            return optuna.load_study(study_name="maml-sinusoid", storage=url).get_trials()

        def disturb(status: Status) -> None:
            if status.finished >= TRIALS // 8 and status.running and not killed:
                killed.extend(
                    int(t.user_attrs["process"].split(":")[1])
                    for t in trials()
                    if t.state == RUNNING and "process" in t.user_attrs
                )
                os.kill(killed[-1], signal.SIGKILL)
            if status.finished >= TRIALS // 3 and not restarts:
                restarts.append(status.running)
                server.start("restart")

        options = {"trials": TRIALS, "out": tmp_path, "storage": server.url, "workers": 4, "prune": False}
        found = search(short, SPACE, **options, progress=disturb)  # type: ignore[arg-type]
        there = trials()
    assert killed
    assert restarts[0] >= 1, "nothing was running when the server went"
    assert found.trials == {"complete": TRIALS}
    complete = Counter(trial.user_attrs["index"] for trial in there if trial.state == COMPLETE)
    assert complete == dict.fromkeys(range(TRIALS), 1)
    assert len({trial.user_attrs["process"] for trial in there if "process" in trial.user_attrs}) == 5, "not replaced"
    for row in found.rows:
        with (tmp_path / "trials" / f"{row.index:03d}" / "metrics.csv").open(newline="") as file:
            steps = [int(line["step"]) for line in csv.DictReader(file) if line["split"] == "validation"]
        assert steps == sorted(set(steps)), "validated twice"
        assert steps[-1] == 4
