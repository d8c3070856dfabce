"""Searches in this process: what is drawn, pruned, refused and written."""

import csv
import errno
import json
import signal
import sqlite3
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_driver import SPACE, config, run

from fewstep.experiments.folder import stored_config
from fewstep.experiments.search import Status, report, search, study, worker
from fewstep.experiments.search.halving import Halving
from fewstep.experiments.search.plot import draw
from fewstep.experiments.search.result import SearchResult, Trial, importances
from fewstep.experiments.search.study import Plan, in_one_line
from fewstep.recipes import Config, Range, from_json, with_settings
from fewstep.training.stopping import Stopped, stoppable


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the searches, and have a test of their own."""
    monkeypatch.setattr(report, "draw", lambda *_: b"picture")


def plan(out: Path, space: tuple[Range, ...] = SPACE, seed: int = 0, name: str = "study") -> Plan:
    return Plan(config(), space, seed, f"sqlite:///{out / 'study.db'}", name, out, True, False, 1, 2)


def test_a_configuration_depends_on_its_seed_and_number_alone() -> None:
    here, other = plan(Path()), plan(Path(), seed=1)
    drawn = [here.draw(index) for index in range(200)]
    assert drawn[7] == here.draw(7) != other.draw(7)
    assert all(r.low <= settings[r.setting] <= r.high for settings in drawn for r in SPACE)
    rates = [settings["training.rate"] for settings in drawn]
    assert 0.4 < np.mean([rate < 10**-2.5 for rate in rates]) < 0.6, "not uniform in the logarithm"
    assert len(set(rates)) == 200


def test_a_full_disk_ends_a_search_in_one_line_and_loses_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def database_full(*_: Any, **__: Any) -> None:
        raise sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr("fewstep.training.trainer.save_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, 1)

    def first_meta_step(*_: Any) -> None:
        patch.setattr("sqlalchemy.orm.Session.commit", database_full)
        time.sleep(1.5)  # until the next sign of life

    with monkeypatch.context() as patch:
        patch.setattr(study, "HEARTBEAT", 1)
        patch.setattr(study, "GRACE", 2)
        patch.setattr("fewstep.experiments.search.worker.Run.train", first_meta_step)
        with pytest.raises(OSError, match=r"^the study's storage .*study.db cannot .* \(.*full\)") as told:
            run(tmp_path, 1)
    assert "\n" not in str(told.value)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setattr(study, "GRACE", 2)
    assert run(tmp_path, 1).trials == {"complete": 1}


def test_a_study_is_of_its_data(tmp_path: Path) -> None:
    of_old = plan(tmp_path)
    study.join(of_old, 1)
    study.join(replace(of_old, data={"train": "a"}), 1)  # which the study does not know
    of_new = replace(plan(tmp_path, name="other"), data={"train": "a"})
    study.join(of_new, 1)
    study.join(of_new, 1)
    with pytest.raises(ValueError, match=r"is of another search \(train data: a there, b here\)"):
        study.join(replace(of_new, data={"train": "b"}), 1)


def test_a_search_writes_what_train_takes_and_grows(tmp_path: Path) -> None:
    told: list[Status] = []
    first = run(tmp_path, 2, progress=told.append)
    assert (told[-1].finished, told[-1].total) == (2, 2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "trials").rglob("*.safetensors")}
    found = run(tmp_path, 4)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "trained again"
    assert [row.settings for row in found.rows] == [plan(tmp_path).draw(index) for index in range(4)]
    assert list(found.rows[:2]) == list(first.rows)
    assert found.trials == {"complete": 4}
    assert found.value == min(row.value for row in found.rows if row.value is not None)
    for row in found.rows:  # the value is what the run's log says
        with (tmp_path / "trials" / f"{row.index:03d}" / "metrics.csv").open() as file:
            scores = {
                int(line["step"]): float(line["value"])
                for line in csv.DictReader(file)
                if line["split"] == "validation"
            }
        assert scores[row.best_step or 0] == row.value == min(scores.values())
    best = from_json(tmp_path / "best.json")
    assert best == found.config == with_settings(config(), plan(tmp_path).draw(found.index))
    # The recipe leaves the number of threads to its user; the trial had one.
    assert replace(best, threads=1, device="cpu") == stored_config(tmp_path / "trials" / f"{found.index:03d}")
    assert "is optimistic" in (tmp_path / "search.md").read_text()
    assert (tmp_path / "search.png").read_bytes() == b"picture"


@pytest.mark.parametrize("stopped", [(), (8, 10), (5, 7)], ids=["", "at a rung", "after one"])
def test_the_best_third_goes_on_from_a_rung(
    stopped: tuple[int, ...], halved: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the search is stopped in the middle or not."""
    if stopped:
        train = worker.Run.train

        def interrupted(self: worker.Run, progress: Callable[[Any, Any], None]) -> Any:
            def tell(state: Any, metrics: Any) -> None:
                progress(state, metrics)
                if (int(self.folder.name), state.step) == stopped:
                    raise KeyboardInterrupt

            return train(self, tell)

        with monkeypatch.context() as patch:
            patch.setattr(worker.Run, "train", interrupted)
            with pytest.raises(KeyboardInterrupt):
                search(config(), SPACE, trials=10, out=tmp_path, workers=1, seed=1)
    found = search(config(), SPACE, trials=10, out=tmp_path, workers=1, seed=1)
    assert [(row.state, row.value, row.steps) for row in found.rows] == [
        (row.state, row.value, row.steps) for row in halved.rows
    ]
    assert (found.importances, found.weighed, found.weighed_at) == (halved.importances, 10, 5)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """Ten configurations, whose rungs are after 5 and 10 of 20 meta-steps."""
    out = tmp_path_factory.mktemp("halved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: b"")
        found = search(config(), SPACE, trials=10, out=out, workers=1, seed=1)
    there = optuna.load_study(study_name="maml-sinusoid", storage=f"sqlite:///{out / 'study.db'}").get_trials()
    came: dict[int, list[float]] = {5: [], 10: []}
    for trial, row in zip(there, found.rows, strict=True):
        values = trial.intermediate_values
        assert list(values.values()) == sorted(values.values(), reverse=True), "the best so far never gets worse"
        for rung, before in came.items():
            if rung in values:
                before.append(values[rung])
                goes_on = values[rung] in sorted(before)[: max(1, len(before) // 3)]
                assert goes_on == (max(values) > rung), (row, before)
        assert row.state == ("complete" if max(values) == 20 else "pruned")
    assert len({row.steps for row in found.rows}) == 3, "nothing was stopped at one of the rungs"
    assert found.importances
    return found


def test_a_configuration_that_was_killed_counts_once() -> None:
    there, rungs = optuna.create_study(direction="maximize"), Halving(steps=27, every=1)

    def come(index: int, value: float, state: TrialState = TrialState.RUNNING) -> None:
        told: dict[str, Any] = {"user_attrs": {"index": index}, "intermediate_values": {3: value}}
        there.add_trial(optuna.create_trial(state=state, **told))

    for index, value in enumerate((0.5, 0.4, 0.3, 0.2, 0.1)):
        come(index, value)
    come(4, 0.1, TrialState.FAIL)
    assert [rungs.prune(there, trial) for trial in there.get_trials()[:2]] == [False, True]
    come(5, 0.0)
    assert [rungs.prune(there, trial) for trial in there.get_trials()[:3]] == [False, False, True]


RUNGS = [(1500, 100, [200, 500]), (160, 40, [40, 80]), (20, 10, [10]), (20, 20, []), (5, 9, [])]


@pytest.mark.parametrize(("steps", "every", "rungs"), RUNGS)
def test_rungs_are_validations_before_the_last(steps: int, every: int, rungs: list[int]) -> None:
    assert Halving(steps, every).rungs == rungs
    assert str(Halving(steps, every)).endswith("meta-steps" if rungs else "none")


def test_whole_numbers_are_drawn_kept_and_weighed_as_such(tmp_path: Path) -> None:
    space = (SPACE[0], Range("training.tasks", 2.0, 3.0, whole=True))
    found = search(config(1), space, trials=4, out=tmp_path, workers=1, prune=False)
    tasks = [row.settings["training.tasks"] for row in found.rows]
    assert set(tasks) == {2, 3}
    assert found.config.training.tasks == tasks[found.index]
    assert [stored_config(tmp_path / "trials" / f"{i:03d}").training.tasks for i in range(4)] == tasks
    again = search(config(1), space, trials=4, out=tmp_path, workers=1, prune=False)
    assert [row.settings for row in again.rows] == [row.settings for row in found.rows]


def test_a_configuration_that_diverges_fails_once_with_its_reason(tmp_path: Path) -> None:
    space = (Range("method.rate", 1e-3, 1e24, log=True),)
    found = search(config(), space, trials=4, out=tmp_path, workers=1)
    failed = [row for row in found.rows if row.state == "failed"]
    assert failed
    assert found.trials["complete"] + len(failed) == 4
    assert all("FloatingPointError: the validation score is " in row.reason for row in failed)
    there = optuna.load_study(study_name="maml-sinusoid", storage=f"sqlite:///{tmp_path / 'study.db'}").get_trials()
    assert len(there) == 4, "an error has been retried"
    assert failed[0].reason in (tmp_path / "search.md").read_text()
    with pytest.raises(ValueError, match=r"none of 1 configurations reached the end .*trial 0: FloatingPointError"):
        search(config(), (Range("method.rate", 1e23, 1e24),), trials=1, out=tmp_path / "none", workers=1)


def test_a_killed_trial_is_continued_twice_and_then_by_the_next_search_alone(tmp_path: Path) -> None:
    with study.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = study.join(plan(tmp_path), 1)
        while there.get_trials(states=(TrialState.WAITING,)):
            trial = there.ask()
            assert trial.user_attrs == {"index": 0}
            there.tell(trial.number, state=TrialState.FAIL)  # as if by a kill
            study.requeue(there, there.get_trials()[trial.number])
        assert len(there.get_trials()) == 3
        study.join(plan(tmp_path), 1)
    assert len(there.get_trials(states=(TrialState.WAITING,))) == 1


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_trial_whose_process_died_before_its_first_sign_of_life_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(study, "GRACE", 1)
    storage = f"{kind}:///{tmp_path / 'here'}"
    run(tmp_path, 1, storage=storage)
    with study.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = replace(plan(tmp_path, name="maml-sinusoid"), storage=storage)
        there = study.join(replace(here, config=replace(config(), threads=1), prune=False), 2)
        there.ask()
    assert run(tmp_path, 2, storage=storage).trials == {"complete": 2}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_no_two_processes_take_the_same_trial(tmp_path: Path, kind: str) -> None:
    with study.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = replace(plan(tmp_path), storage=f"{kind}:///{tmp_path / 'study'}")
        study.join(here, 40)
        studies = [study.load(here) for _ in range(4)]

        def take(there: optuna.Study) -> list[int]:
            return [there.ask().number for _ in range(10)]

        with ThreadPoolExecutor(4) as pool:
            taken = [number for numbers in pool.map(take, studies) for number in numbers]
    assert sorted(taken) == list(range(40))


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_signal_waits_for_the_end_of_what_is_done_in_the_study(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends a transaction half-way leaves the database locked, for whoever gives the trial back as well."""
    here = replace(plan(tmp_path), storage=f"{kind}:///{tmp_path / f'study.{kind}'}")
    study.join(here, 2)
    joined = study.load(here)

    def interrupt(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        if kind == "sqlite":
            sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", interrupt, once=True)
        else:
            patched.setattr(JournalFileBackend, "append_logs", interrupted(JournalFileBackend.append_logs, interrupt))
        with pytest.raises(Stopped), stoppable():
            joined.set_user_attr("said", "whole")
    assert joined.user_attrs["said"] == "whole"


def interrupted(function: Callable[..., Any], interrupt: Callable[[], None]) -> Callable[..., Any]:
    """With a signal before its end."""

    def both(*words: Any) -> Any:
        interrupt()
        return function(*words)

    return both


def test_another_search_is_refused_by_what_differs(tmp_path: Path) -> None:
    run(tmp_path, 1)
    narrower = (SPACE[0], replace(SPACE[1], high=0.05))
    refused: list[tuple[Config, tuple[Range, ...], int, str]] = [
        (config(25), SPACE, 0, "training.steps: 20 there, 25 here"),
        (config(), narrower, 0, "method.rate: from 0.001 to 0.1 there, from 0.001 to 0.05 here"),
        (config(), SPACE[:1], 0, "method.rate: from 0.001 to 0.1 there, 0.001 here"),
        (config(), SPACE, 5, "the search's seed: 0 there, 5 here"),
    ]
    for other, space, seed, what in refused:
        with pytest.raises(ValueError, match=what):
            search(other, space, trials=1, out=tmp_path, seed=seed, workers=1)
    # A trial goes on to the same bits with as many threads alone, and pruning is of the report.
    with pytest.raises(ValueError, match="threads: 1 there, 2 here"):
        run(tmp_path, 1, threads=2)
    with pytest.raises(ValueError, match="--prune: False there, True here"):
        search(config(), SPACE, trials=1, out=tmp_path, workers=1)
    with pytest.raises(ValueError, match="folder of another search"):
        run(tmp_path, 1, name="else")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        run(tmp_path / "new", 0)
    with pytest.raises(ValueError, match=r"no setting 'dropout' \(in 'method.dropout'\)"):
        search(config(), (Range("method.dropout", 0.0, 1.0),), trials=1, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds something else than a search"):
        run(tmp_path, 1)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "study.db").write_text("no database" * 100)
    text = tmp_path / "text" / "study.db"
    for i, storage in enumerate(
        (f"sqlite:///{text}", f"journal:///{text}", "nonsense", "sqlite:////no/where.db", "journal:////no/where")
    ):
        with pytest.raises(ValueError, match=r"storage .* cannot be opened"):
            run(tmp_path / str(i), 1, storage=storage)


def rows(number: int) -> list[Trial]:
    """The first setting decides, the second does nothing."""
    drawn = [plan(Path()).draw(index) for index in range(number)]
    return [
        Trial(i, "complete", float(np.log(settings["training.rate"])), 5, 20, 1.0, settings, "")
        for i, settings in enumerate(drawn)
    ]


def test_importances() -> None:
    scores = {row.index: row.value or 0.0 for row in rows(30)}
    shares = importances(scores, plan(Path()))
    assert shares["training.rate"] > 10 * shares["method.rate"]
    assert shares == importances(scores, plan(Path()))
    assert importances(dict(list(scores.items())[:9]), plan(Path())) == {}
    assert importances(dict.fromkeys(scores, 1.0), plan(Path())) == {}


@pytest.mark.parametrize("number", [1, 30])
def test_the_picture(number: int) -> None:
    drawn = rows(number)
    if number > 1:
        drawn[3] = replace(drawn[3], state="failed", value=None, reason="killed 3 times")
        drawn[5] = replace(drawn[5], value=1e9)
        drawn[8] = replace(drawn[8], state="pruned")
    shares = importances({row.index: row.value or 0.0 for row in drawn}, plan(Path()))
    states = {"complete": number}
    found = SearchResult(config(), 1.0, 0, states, "s", shares, number, None, drawn, SPACE, {}, "mse", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit
        assert draw(found, "png").startswith(b"\x89PNG")
        first = draw(found, "svg")
    if number == 1:
        assert first == draw(found, "svg")
    text = first.decode()
    for label, there in (("pruned", 30), ("off the scale", 30), ("failed", 30), ("are too few", 1)):
        assert (f"<!-- {label}" in text or label in text) == (number == there), label


def test_the_report_does_not_hold_a_password() -> None:
    assert study.without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert json.dumps(plan(Path()).identity)


def test_a_database_that_fails_at_the_end_of_a_trial_is_told_in_one_line() -> None:
    def optunas() -> None:
        try:
            raise optuna.exceptions.StorageInternalError("disk full")
        except optuna.exceptions.StorageInternalError:
            raise AssertionError("Should not reach.")  # noqa: B904  (as Optuna has it)

    def ours() -> None:
        raise AssertionError("of ours")

    with pytest.raises(OSError, match=r"cannot be read or written \(disk full\)"), in_one_line("sqlite:///study.db"):
        optunas()
    with pytest.raises(AssertionError, match="of ours"), in_one_line("sqlite:///study.db"):
        ours()
