"""The end of a fit at some shots: the choice on fresh validation tasks, then the test, which is made once."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.core import Task
from fewstep.data import TaskSource, mean_input
from fewstep.data.source import OfSource
from fewstep.data.storage.files import csv_text, read_json, sealed
from fewstep.data.storage.reading import reading
from fewstep.evaluation.baselines import Baseline
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.tables import task_rows, write_files
from fewstep.experiments.fit.methods import SIMPLEST_FIRST, TRAINED, SimpleSettings, Trial, trials
from fewstep.experiments.fit.plan import Plan
from fewstep.experiments.fit.verdict import best_of, recommended
from fewstep.experiments.fit.worker import BATCH, TRIAL, accuracies, quieten
from fewstep.experiments.run import Run
from fewstep.experiments.workers import Tell
from fewstep.recipes.problems.problem import Split

FEWEST = 100
"""Tasks of the choice and of the test, however little time there is."""

CHUNK = 40
"""Tasks that are scored by all methods before the time is looked at; a multiple of ``BATCH``."""


def conclude(plan: Plan, shots: int, tell: Tell) -> None:
    """Choose among the best of every method on validation tasks that none of them has seen, then test all of them.

    Args:
        plan: of the fit.
        shots: of the tasks.
        tell: is told what is done.
    """
    plan = plan.started()
    quieten()
    place = plan.folder / "result" / f"{shots}shot"
    test = place / "test.csv"
    if test.exists():
        return
    import sklearn.linear_model  # noqa: F401  (which takes seconds: before the time is shared out)

    scored = _Scored(plan, shots)
    began = time.monotonic()
    name = f"{shots}-shot"
    tell((name, "choosing", False))
    waiting = sum(not (plan.folder / "result" / f"{k}shot" / "test.csv").exists() for k in plan.shots)
    ours = max(0.0, plan.left - plan.reporting) * min(1.0, plan.workers / waiting)
    if not (place / "choice.json").exists():
        validation = scored.of("val", plan.validation_tasks, plan.seed + 1, 0.2 * ours)
        chosen = recommended(validation, SIMPLEST_FIRST)
        write_files(
            place,
            {
                **_files("validation", validation),
                "choice.json": sealed(
                    {
                        "recommended": chosen,
                        "trained": best_of(validation, tuple(TRAINED)),
                        "settings": scored.settings,
                        "runs": {one: str(run.folder.relative_to(plan.folder)) for one, run in scored.runs.items()},
                    }
                ),
            },
        )
    tell((name, "testing", False))
    test_scores = scored.of("test", plan.limits.test_tasks, plan.seed, 0.9 * ours - (time.monotonic() - began))
    write_files(place, _files("test", test_scores))
    tell((name, f"tested on {len(next(iter(test_scores.values()))):,} tasks", True))


def best_trial(plan: Plan, method: str, shots: int) -> Trial | None:
    """The trial of a method that validated best; None where none has come to an end."""
    found = {}
    for trial in trials((shots,), plan.limits.rounds):
        if trial.method == method and "value" in (kept := read_json(plan.place(trial) / TRIAL)):
            found[trial] = kept["value"]
    return max(found, key=found.__getitem__, default=None)


class _Scored:
    """The best of every method, ready to be scored."""

    def __init__(self, plan: Plan, shots: int) -> None:
        self.plan, self.problem = plan, plan.problem(next(iter(TRAINED)), shots)
        assert self.problem.examples is not None
        centre = mean_input(self.problem.examples())
        self.settings: dict[str, Any] = {}
        self.simple: dict[str, Baseline] = {}
        self.runs: dict[str, Run] = {}
        for name, best in read_json(plan.folder / "simple" / f"{shots}shot" / TRIAL).get("found", {}).items():
            if "settings" not in best:
                continue
            self.settings[name] = best["settings"]
            self.simple[name] = SimpleSettings(**best["settings"]).make(centre)
        for name in TRAINED:
            if (trial := best_trial(plan, name, shots)) is not None:
                opened = plan.problem(name, shots)
                self.runs[name] = Run.open(plan.place(trial) / "run", lambda _: None, problem=opened)

    def of(self, split: Split, most: int, seed: int, seconds: float) -> dict[str, NDArray[np.float64]]:
        """Scores of all methods on the same tasks: ``most``, or as many as there is time for."""
        source: TaskSource = self.problem.source(split, tasks=BATCH, seed=seed, queries=self.plan.prepared.queries)
        parts: list[dict[str, NDArray[np.float64]]] = []
        done, ends = 0, time.monotonic() + seconds
        while done < most and (done < FEWEST or time.monotonic() < ends):
            tasks, first = min(CHUNK, most - done), done // BATCH
            part = accuracies(self.simple, source, tasks, first)
            for name, run in self.runs.items():
                with run.at_test():
                    part[name] = run.score(_From(source, first), tasks).scores[ADAPTED]
            parts.append(part)
            done += tasks
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _From(OfSource):
    """A source from one of its batches on."""

    source: TaskSource
    first: int

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        return self.source.batch(self.first + step, slice_)


def _files(name: str, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, str]:
    """Scores of single tasks as ``NAME.csv``, and before it its digest."""
    text = csv_text(task_rows(scores))
    return {f"{name}.sha256": hashlib.sha256(text.encode()).hexdigest() + "\n", f"{name}.csv": text}


def read_scores(path: Path) -> dict[str, NDArray[np.float64]]:
    """What was written so.

    Raises:
        ValueError: when the file is damaged.
    """
    text, digest = path.read_text(encoding="utf-8"), path.with_suffix(".sha256")
    if digest.exists() and digest.read_text().strip() != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError(
            f"{path} is damaged (it does not match {digest.name}): restore it, or delete "
            f"{path.parent}, which the same command makes again."
        )
    with reading(path, "holds no scores"):
        (_, *names), *rows = csv.reader(text.splitlines())
    return {name: np.array([float(row[i]) for row in rows]) for i, name in enumerate(names, 1)}
