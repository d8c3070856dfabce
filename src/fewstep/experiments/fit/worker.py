"""A process of a fit: scores simple classifiers and trains methods, one after another, until the time is over.

What is done has a file, so that another process, or the same command after a kill, does not do it again. A job that is
being done is locked; the lock goes with its process.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.data import TaskSource, mean_input
from fewstep.data.storage.files import json_text, sealed, write_atomically
from fewstep.data.storage.lock import alone_in
from fewstep.evaluation.baselines import Baseline
from fewstep.experiments.fit.methods import SIMPLE, TRAINED, Cost, SimpleSettings, Trial, trials
from fewstep.experiments.fit.plan import VALIDATIONS, Plan
from fewstep.experiments.folder import best_checkpoint, is_run, stored_config
from fewstep.experiments.run import Run
from fewstep.experiments.workers import USERS_MISTAKES, Tell, Throttle
from fewstep.recipes import Config
from fewstep.training import State, Trainer
from fewstep.training.checkpoint import read_state

logger = logging.getLogger("fewstep")

TRIAL = "trial.json"
"""What became of a trial, in its folder."""

BATCH = 20
"""Tasks at a time."""

FEWEST_STEPS, LATER_STEPS = 0.15, 0.5
"""Share of its recipe's meta-steps that a method must have time for, in its first trial and in later ones."""

FEWEST_TASKS = 50
"""Validation tasks that a trial is scored on when time is short."""

OVERTIME = 0.02
"""Share of all the time by which a training may be longer than was planned, before it is stopped."""


class NoTime(Exception):
    """What is to be done would take longer than there is time."""


@dataclass(frozen=True)
class Rates:
    """Seconds that a method takes.

    Attributes:
        step: of a meta-step.
        score: of scoring a task.
        choices: options that are scored after a training, a number.
    """

    step: float
    score: float
    choices: int = 0

    def seconds(self, steps: int, tasks: int) -> float:
        """Of a trial of so many meta-steps that is scored on so many tasks."""
        return steps * self.step + (1 + self.choices if self.choices else VALIDATIONS) * tasks * self.score


def work(plan: Plan, tell: Tell) -> None:
    """Do what is left of a fit's search, until there is nothing or no time left.

    Args:
        plan: of the fit.
        tell: is told of every beginning, of progress, and of every end: ``(job, text, finished)``.
    """
    plan = plan.started()
    quieten()
    for shots in plan.shots:
        with _claim(plan.folder / "simple" / f"{shots}shot") as place:
            if place is not None and not (place / TRIAL).exists():
                _finish(place, f"simple classifiers, {shots}-shot", partial(simple, plan, shots, tell), tell)
    rates: dict[Cost, Rates] = {}
    over: set[Cost] = set()  # what there is no time for any more
    for trial in trials(plan.shots, plan.limits.rounds):
        cost = plan.cost(trial)
        if cost in over or (plan.place(trial) / TRIAL).exists():
            continue
        with _claim(plan.place(trial)) as place:
            if place is None or (place / TRIAL).exists():
                continue
            if not _finish(place, str(trial), partial(train, trial, plan, rates, tell), tell):
                over.add(cost)


def _finish(place: Path, name: str, do: Callable[[], dict[str, Any]], tell: Tell) -> bool:
    """Do a job and keep what becomes of it, an error included; false where there was no time for it."""
    began = time.monotonic()
    try:
        found = do()
    except NoTime as short:
        found = {"skipped": str(short)}
    except OSError:  # a full disk is no fault of a method: the fit stops, and goes on when there is room
        raise
    except Exception as error:  # of one method, which must not end the others
        found = {"error": told(error)}
    found["seconds"] = round(time.monotonic() - began, 1)
    write_atomically(place / TRIAL, json_text(sealed(found)))
    if "error" in found:
        tell((name, f"failed: {found['error']}", True))
    elif "skipped" not in found:
        tell((name, f"{100 * found['value']:.2f}% on validation tasks ({found['seconds']:.0f} s)", True))
    else:
        tell((name, "", True))
    return "skipped" not in found


def quieten() -> None:
    """Dozens of trials would warn of their non-finite meta-steps; the report has what became of them."""
    logger.setLevel(logging.ERROR)
    warnings.simplefilter("ignore", RuntimeWarning)


def told(error: Exception) -> str:
    """An error in a line."""
    return " ".join((str(error) if isinstance(error, USERS_MISTAKES) else repr(error)).split())


@contextmanager
def _claim(place: Path) -> Iterator[Path | None]:
    """The folder of a job, locked; None where another process is at it."""
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(place))
        except ValueError:
            yield None
            return
        yield place


# -- simple classifiers ------------------------------------------------------------------------------------------------


def accuracies(
    predictors: Mapping[str, Baseline], source: TaskSource, tasks: int, first: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Accuracy of each in every task, ``[tasks]``, from batch ``first`` of the source on."""
    columns: dict[str, list[float]] = {name: [] for name in predictors}
    step = first
    while any(len(column) < tasks for column in columns.values()):
        support, query = source.batch(step)
        truth, weight = query.y.argmax(-1), query.weight.double()
        for name, predict in predictors.items():
            right = (predict(support, query).argmax(-1) == truth).double()
            columns[name] += ((right * weight).sum(1) / weight.sum(1)).tolist()
        step += 1
    return {name: np.array(column[:tasks]) for name, column in columns.items()}


def simple(plan: Plan, shots: int, tell: Tell) -> dict[str, Any]:
    """The best of each kind of simple classifier, by validation tasks: as many of its settings as there is time for."""
    problem = plan.problem(next(iter(TRAINED)), shots)
    assert problem.examples is not None
    centre, tasks = mean_input(problem.examples()), plan.validation_tasks
    source = problem.source("val", tasks=BATCH, seed=plan.seed, queries=plan.prepared.queries)
    found: dict[str, Any] = {}

    def best_settings(candidates: Sequence[SimpleSettings]) -> dict[str, Any]:
        tried: list[dict[str, Any]] = []
        for settings in candidates:
            if tried and plan.simple_left < 0:
                break
            predict = settings.make(centre)
            tell((f"simple classifiers, {shots}-shot", str(predict), False))
            score = float(accuracies({"": predict}, source, tasks)[""].mean())
            tried.append({"settings": asdict(settings), "value": score})
        return max(tried, key=lambda one: one["value"]) | {"tried": tried}

    for name, candidates in SIMPLE.items():
        try:
            found[name] = best_settings(candidates)
        except OSError:
            raise
        except Exception as error:  # of one kind, which must not end the others
            found[name] = {"error": told(error)}
    if not (values := [one["value"] for one in found.values() if "value" in one]):
        raise ValueError("; ".join(one["error"] for one in found.values()))
    return {"found": found, "value": max(values)}


# -- trained methods ---------------------------------------------------------------------------------------------------


def train(trial: Trial, plan: Plan, rates: dict[Cost, Rates], tell: Tell) -> dict[str, Any]:
    """Train a method, in as many meta-steps as there is time for.

    Args:
        trial: which.
        plan: of the fit.
        rates: known so far; one that is missing is measured.
        tell: is told how far it is.

    Raises:
        NoTime: when it would take too long.
    """
    folder = plan.place(trial) / "run"
    settings = plan.settings(trial)
    tell((str(trial), "", False))
    begun = is_run(folder)
    config = stored_config(folder) if begun else _fitting(trial, settings, plan, rates)
    run = Run.continued(config, folder, lambda _: None, plan.problem(trial.method, trial.shots) if begun else None)
    due = Throttle(1.0)
    latest = State()

    def progress(state: State, _: dict[str, float]) -> None:
        nonlocal latest
        latest = state
        if due():
            tell((str(trial), f"meta-step {state.step} of {config.training.steps}", False))
        if plan.search_left < -OVERTIME * plan.seconds:
            raise NoTime("the time was over before its training was")

    try:
        latest = run.train(progress).state
        best = latest.best
    except NoTime:
        if run.method.alternatives or not best_checkpoint(folder).exists():
            raise
        best = read_state(best_checkpoint(folder)).best
    if best is None or not math.isfinite(best):
        raise FloatingPointError(f"its validation score is {best}")
    return {
        "value": best,
        "settings": settings,
        "steps": latest.step,
        "best_step": latest.best_step,
        "validation_tasks": config.training.validation_tasks,
    }


def _fitting(trial: Trial, settings: Mapping[str, float], plan: Plan, rates: dict[Cost, Rates]) -> Config:
    """The configuration of a trial, with as many meta-steps and validation tasks as fit into its time."""
    tasks = plan.validation_tasks
    config = plan.config(trial.method, trial.shots, settings, tasks)
    cost = plan.cost(trial)
    if cost not in rates:
        if plan.search_left < 2.0:
            raise NoTime("there was no time left for it")
        rates[cost] = measured(config)
    rate, wanted = rates[cost], config.training.steps
    if plan.limits.steps is not None:
        wanted = min(wanted, plan.limits.steps)
    fewest = max(1, round((LATER_STEPS if trial.index else FEWEST_STEPS) * wanted))
    left = 0.9 * plan.search_left
    # The first trial of a method has a share of the time, but where that is too short for it, what it needs at least.
    ours = left if trial.index else min(left, max(plan.first_share(trial.method), rate.seconds(fewest, FEWEST_TASKS)))
    while tasks > FEWEST_TASKS and ours < rate.seconds(fewest, tasks):
        tasks = max(FEWEST_TASKS, tasks // 2)
    if ours < (needed := rate.seconds(fewest, tasks)):
        raise NoTime(f"it needs about {needed:.0f} s, and {max(0.0, left):.0f} s were left for it")
    steps = min(wanted, int((ours - rate.seconds(0, tasks)) / max(rate.step, 1e-9)))
    every = steps if rate.choices else max(1, math.ceil(steps / VALIDATIONS))
    training = replace(
        config.training, steps=steps, validate_every=every, checkpoint_every=every, validation_tasks=tasks
    )
    return replace(config, training=training)


def measured(config: Config) -> Rates:
    """How long a meta-step and the scoring of a task take on this machine, now."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
        source = run.problem.source("train", tasks=config.training.tasks, seed=config.seed)
        trainer = Trainer(run.method, source, config.training, lambda _: 0.0, folder=Path(folder), seed=config.seed)
        trainer.step(*trainer.inputs(0))
        began = time.monotonic()
        for step in (1, 2, 3):
            trainer.step(*trainer.inputs(step))
        step_seconds = (time.monotonic() - began) / 3
        tasks = run.problem.source("val", tasks=BATCH, seed=config.testing.seed, queries=config.testing.queries)
        with run.at_test():
            run.score(tasks, 2)
            began = time.monotonic()
            run.score(tasks, BATCH)
            score_seconds = (time.monotonic() - began) / BATCH
    return Rates(step_seconds, score_seconds, sum(len(setting.options) for setting in run.method.alternatives))
