"""From a table of features to the best classifier: what ``fewstep fit`` does."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.data.features.formats import source_of
from fewstep.data.features.report import EmbeddingReport
from fewstep.data.storage.files import json_text, read_json, sealed, write_atomically
from fewstep.experiments.environment import machine
from fewstep.experiments.fit import report
from fewstep.experiments.fit.conclude import conclude
from fewstep.experiments.fit.methods import trials
from fewstep.experiments.fit.photographs import embedded, is_photographs
from fewstep.experiments.fit.plan import Limits, Plan, shots_text
from fewstep.experiments.fit.prepare import prepare
from fewstep.experiments.fit.result import FitResult, found_in
from fewstep.experiments.fit.worker import TRIAL, work
from fewstep.experiments.folder import all_or_nothing, claim, clear
from fewstep.experiments.report.folders import write_own_page
from fewstep.experiments.workers import Job, Tell, Throttle, count_workers, run_all
from fewstep.recipes import differences
from fewstep.training.device import device_here, same_threads

logger = logging.getLogger("fewstep")

MARK, CLOCK = "fit.json", "clock.json"
"""The file by which the folder of a fit is known, and that with the seconds it has taken so far."""

BRIEF = 0.75
"""Below so many minutes no processes are started, for that takes seconds."""


@dataclass(frozen=True)
class Status:
    """How far a fit has come.

    Attributes:
        phase: "features" (of photographs), "search", "test" or "report".
        seconds: that have passed, those before a stop included.
        total: that were given.
        running: what is being done, by job.
        line: what has just ended; empty where nothing has.
    """

    phase: str
    seconds: float
    total: float
    running: dict[str, str]
    line: str = ""


def fit(
    data: str | Path,
    folder: str | Path,
    *,
    shots: Sequence[int] = (1, 5),
    minutes: float = 10.0,
    ways: int = 5,
    seed: int = 0,
    workers: int | None = None,
    limits: Limits | None = None,
    note: Callable[[str], None] = logger.info,
    inspected: Callable[[EmbeddingReport], None] = lambda _: None,
    progress: Callable[[Status], None] = lambda _: None,
) -> FitResult:
    """Find out what classifies new classes of some features best from few examples, and whether meta-learning pays.

    Class means, ridge and logistic regression choose their settings, and LEO, ProtoNet and residual prototypes are
    trained and searched, on tasks of training and validation classes, as long as there is time. Of each the best is
    scored on fresh validation tasks; the best of all, or in doubt a simpler one, is chosen. Then all are tested,
    once, on the same tasks of test classes. The chosen one is recommended, unless the test is clear that the best
    trained or the best simple one is better.

    The same call goes on where an earlier one was stopped. What is tried depends on how fast the machine is; what a
    trial scores, on its settings, its number of meta-steps and the seed alone.

    With more than one worker, a script needs the usual ``if __name__ == "__main__":``.

    Args:
        data: features with labels, in any format of :func:`~fewstep.data.embeddings`; or a folder of photographs, with
            a folder for each class, on whose training classes a small network is trained first.
        folder: of the fit, empty, new or of the same fit.
        shots: examples of each new class; a recommendation is made for each number.
        minutes: for everything.
        ways: classes of a task; fewer where a split has fewer.
        seed: of the division of classes where the data say none, of draws, training and tasks.
        workers: processes at once, of one thread; as many as there are cores when omitted, one on a GPU.
        limits: the most to do in that time; see :class:`Limits`.
        note: is given a line about what has been decided or finished.
        inspected: is given what ``fewstep data inspect`` says of the data.
        progress: called about every second.

    Returns:
        The result, whose files are in the folder: ``result.json``, ``report.md``, ``trials.csv``, ``fit.png`` and
        ``fit.svg``; the trained runs below ``trials``, and scores of single tasks below ``result``.

    Raises:
        FileNotFoundError: when there are no such data.
        ValueError: for data that cannot be read or are too few, for counts that are not positive, for a folder that
            holds something else, and when a test came to nothing because its process died.
    """
    began, limits = time.monotonic(), limits or Limits()
    folder, data = Path(folder).resolve(), Path(data).absolute()
    shots = tuple(dict.fromkeys(shots))
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be positive numbers, got {', '.join(map(str, shots)) or 'none'}.")
    if not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes:g}.")
    if ways < 2:
        raise ValueError(f"ways must be at least 2, got {ways}.")
    workers = count_workers(workers, 1, device_here("auto"))
    photographs = is_photographs(data)
    state = [] if photographs else source_of(data).state
    mark = {"data": str(data), "shots": list(shots), "minutes": minutes, "ways": ways, "seed": seed}
    mark |= {"limits": asdict(limits), "files": [[*of[1:]] for of in state]}
    with all_or_nothing(folder, work=f"**/{TRIAL}"):
        if others := differences(claim(folder, MARK, mark, "a fit"), mark):
            raise ValueError(f"{folder} is the folder of another fit ({others}): give another --out.")
        clear(folder)
        clock = read_json(folder / CLOCK)
        began -= float(clock.get("seconds", 0.0))
        features = data
        if photographs:
            kept = Throttle(2.0)

            def doing(job: str, text: str) -> None:
                if kept():
                    _keep(folder, seconds=time.monotonic() - began)
                progress(Status("features", time.monotonic() - began, 60 * minutes, {job: text}))

            features = embedded(data, folder, seconds=60 * minutes, ways=ways, seed=seed, note=note, doing=doing)
        prepared = prepare(features, folder, ways=ways, shots=shots, seed=seed, inspected=inspected)
        for remark in prepared.remarks:
            note(remark)
        searching = float(clock.get("searching", time.monotonic() - began))
        if minutes < BRIEF:
            workers = 1
        plan = Plan(folder, prepared, shots, seed, minutes, began, searching, workers, limits)
        watch = _Watch(plan, note, progress)
        watch.keep()
        if not any((folder / "result" / f"{k}shot" / "choice.json").exists() for k in shots):
            watch.phase = "search"
            watch.run({f"worker {i + 1}": partial(work, _launched(plan)) for i in range(workers)})
        _require_something(plan)
        watch.phase = "test"
        watch.run({f"{k}-shot": partial(conclude, _launched(plan), k) for k in shots})
        if missing := [k for k in shots if not (folder / "result" / f"{k}shot" / "test.csv").exists()]:
            why = "; ".join(watch.errors) or "it was stopped"
            raise ValueError(f"the test at {shots_text(missing)} failed ({why}): give the same command again.")
        watch.phase = "report"
        watch.tell()
        found = found_in(plan, _protocol(plan, data), _tried(plan))
        report.write(found)
        write_own_page(folder)
        watch.keep()
    return found


def _keep(folder: Path, **times: float) -> None:
    """Keep the time that has passed."""
    with suppress(OSError):
        write_atomically(folder / CLOCK, json_text(sealed(times)))


def _launched(plan: Plan) -> Plan:
    """The plan of a process that is about to be started."""
    return replace(plan, launched=time.monotonic()) if plan.workers > 1 else plan


def _require_something(plan: Plan) -> None:
    """See that there is something to test at every number of shots.

    Raises:
        ValueError: when simple classifiers, which are tried first, have failed.
    """
    for k in plan.shots:
        found = read_json(plan.folder / "simple" / f"{k}shot" / TRIAL)
        if "found" not in found:
            raise ValueError(
                f"no simple classifier could be scored at {k}-shot: {found.get('error', 'it was stopped')}"
            )


class _Watch:
    """Runs jobs, tells how far they are, and keeps the time."""

    def __init__(self, plan: Plan, note: Callable[[str], None], progress: Callable[[Status], None]) -> None:
        self.plan, self.note, self.progress = plan, note, progress
        self.phase, self.running, self.errors = "search", dict[str, str](), list[str]()
        self.kept, self.shown = Throttle(2.0), Throttle(0.5)

    def run(self, jobs: Mapping[str, Callable[[Tell], None]]) -> None:
        """Run jobs by name, at most ``workers`` at once; what fails is told, and does not end the others."""
        self.running.clear()
        self.tell()
        try:
            if self.plan.workers == 1:
                before = logger.level
                with same_threads(), warnings.catch_warnings():
                    try:
                        for do in jobs.values():
                            do(self.message)
                    finally:
                        logger.setLevel(before)
            else:
                started = [Job(name, do) for name, do in jobs.items()]
                run_all(started, workers=self.plan.workers, on_message=lambda _, what: self.message(what))
        except (ValueError, RuntimeError) as error:
            self.errors.append(str(error).strip().splitlines()[-1])
            self.note(f"warning: {self.errors[-1]}")
        finally:
            self.keep()

    def message(self, what: tuple[str, str, bool]) -> None:
        """What a job says."""
        job, text, ended = what
        if ended:
            self.running.pop(job, None)
            line = f"{job}: {text}" if text else ""
            if line:
                self.note(line)
            self.tell(line)
        else:
            self.running[job] = text
            if self.shown():
                self.tell()
        if self.kept():
            self.keep()

    def tell(self, line: str = "") -> None:
        """Tell how far the fit is."""
        passed = self.plan.seconds - self.plan.left
        self.progress(Status(self.phase, passed, self.plan.seconds, dict(self.running), line))

    def keep(self) -> None:
        """Keep the time, for a fit that goes on after a stop."""
        _keep(self.plan.folder, seconds=self.plan.seconds - self.plan.left, searching=self.plan.searching)


def _tried(plan: Plan) -> list[dict[str, Any]]:
    """Every trial that was begun, and what became of it; later ones without time are not mentioned."""
    found = []
    for trial in trials(plan.shots, plan.limits.rounds):
        place = plan.place(trial)
        if not place.exists():
            continue
        kept = read_json(place / TRIAL) or {"error": "its process died"}
        if trial.index and "skipped" in kept:
            continue
        found.append({"method": trial.method, "shots": trial.shots, "trial": trial.index, **kept})
    return found


def _protocol(plan: Plan, data: Path) -> dict[str, Any]:
    prepared = plan.prepared
    queries = f"{prepared.queries} of each class" if prepared.queries > 1 else "1 of each class"
    counts = [len(_lines(plan, k, "test")) - 1 for k in plan.shots]
    chosen = [len(_lines(plan, k, "validation")) - 1 for k in plan.shots]
    return {
        "data": data.name,
        "classes": prepared.classes,
        "tasks": f"{prepared.ways}-way, {shots_text(plan.shots)}, queries {queries}, inductive",
        "test tasks": counts,
        "trained on": "training classes",
        "settings chosen on": f"at most {plan.validation_tasks} tasks of validation classes (task seed {plan.seed})",
        "methods chosen on": f"{', '.join(map(str, chosen))} others of them (task seed {plan.seed + 1})",
        "rows": "scaled to length 1",
        "time": f"{plan.minutes:g} minutes, {plan.workers} processes of one thread, {machine()}",
        "seed": plan.seed,
    }


def _lines(plan: Plan, shots: int, name: str) -> list[str]:
    return (plan.folder / "result" / f"{shots}shot" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
