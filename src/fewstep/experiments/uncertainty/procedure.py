"""What regressions know of what they do not know: predictive distributions measured beside the exact posterior."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core import Task
from fewstep.data import SineOrLine
from fewstep.evaluation.arrays import take, to_numpy
from fewstep.evaluation.exact.sine_or_line import ExactPosterior, exact_posterior, mode_mass
from fewstep.evaluation.functions import Functions
from fewstep.evaluation.predictive import Predictive, fit_noise, measure
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.result import AMBIGUOUS, EXACT, MethodMeasures, Uncertainty
from fewstep.recipes.problems.functions import SineOrLineTasks

logger = logging.getLogger("fewstep")

GRID = np.linspace(-5, 5, 101)
"""Inputs at which a sampled function shows whether it is a sine or a line."""
NOISES = (0.01, 100.0)
"""Between which observation noise is looked for, in units of y."""


def measure_runs(
    runs: Sequence[Path],
    *,
    labels: Sequence[str] | None = None,
    tasks: int = 1000,
    samples: int = 100,
    queries: int = 100,
    seed: int = 0,
    validation_tasks: int = 300,
    ambiguous: int = 200,
    note: Callable[[str], None] = logger.info,
) -> Uncertainty:
    """Measure trained runs on sines and lines by their predictive distributions, beside the exact posterior.

    Args:
        runs: folders, of recipes on :class:`~fewstep.data.SineOrLine` tasks with the same noise and shots.
        labels: their names; the recipe's and, where that is not enough, the folder's when omitted.
        tasks: test tasks, the same for all.
        samples: functions to draw for each task where a method has a distribution of them.
        queries: noisy query points a task.
        seed: of the tasks and of what is drawn.
        validation_tasks: on which each method's observation noise is fitted.
        ambiguous: tasks, at most, on which kinds are counted: the first ambiguous ones of a pool of 100 times as many.
        note: told, in a line, what takes time.

    Raises:
        ValueError: for runs on other tasks, on tasks that differ, or labels that do not tell them apart.
    """
    opened = [Run.open(Path(run), note) for run in runs]
    if not opened:
        raise ValueError("nothing to measure: give folders of runs on sines and lines, such as of leo-sine-line.")
    first = opened[0].config.data
    for run in opened:
        data = run.config.data
        if not (isinstance(data, SineOrLineTasks) and isinstance(first, SineOrLineTasks)):
            raise ValueError(
                f"{run.folder} is a run of {run.config.recipe}: only for sines and lines is the exact posterior known."
            )
        if (data.noise, data.shots) != (first.noise, first.shots):
            raise ValueError(f"{run.folder} and {opened[0].folder} are on tasks of other noise or shots.")
    names = list(labels or run_labels(opened))
    if len(names) != len(opened) or len({*names, EXACT}) <= len(names):
        raise ValueError(
            f"every one of the {len(opened)} runs needs a label of its own, and {EXACT!r} is taken; got {names}."
        )
    data = opened[0].config.data
    assert isinstance(data, SineOrLineTasks)
    test = _batch(opened[0], "test", tasks, queries, seed)
    validation = _batch(opened[0], "val", validation_tasks, queries, seed)
    pool = _batch(opened[0], "test", 100 * ambiguous, 1, seed)
    known = posterior_of(pool, data.noise)
    contested = (known.line > AMBIGUOUS) & (known.sine > AMBIGUOUS)
    chosen = np.flatnonzero(contested)[:ambiguous]
    unclear, y = take(pool, chosen), _numbers(test.query.y)
    grid = torch.from_numpy(GRID).to(test.query.x).expand(len(chosen), -1)
    methods = []
    for run, label in zip(opened, names, strict=True):
        note(f"measuring {label}")
        # Streams of their own: the noise must not be fitted to the draws that it is measured with.
        of = {name: Functions(run.method, samples, seed, name) for name in ("validation", "test", "ambiguous")}
        with run.at_test():
            ((fitted, _),) = of["validation"].read(validation, validation.query.x[..., 0])
            ((found, own),) = of["test"].read(test, test.query.x[..., 0])
            on_grid = of["ambiguous"](unclear, grid)[0] if len(chosen) else np.empty((0, samples, len(GRID)))
        past = _numbers(validation.query.y)
        if own is not None:
            found, own = wide_where_not_finite(found, own, float(np.sqrt(np.mean(past**2))))
        (fitted, _), (found, failed), (on_grid, _) = map(zero_where_not_finite, (fitted, found, on_grid))
        deviation = fit_noise(fitted, past, bounds=NOISES) if own is None else own
        lines = mode_mass(GRID, on_grid, noise=data.noise) if len(chosen) else np.empty(0)
        measures, noise = measure(Predictive(found, deviation), y), deviation if isinstance(deviation, float) else None
        methods.append(MethodMeasures(label, noise, found.shape[1], measures, lines, failed))
    note("the exact posterior")
    exact = measure(posterior_of(test, data.noise).at(_numbers(test.query.x)), y)
    methods.append(MethodMeasures(EXACT, data.noise, None, exact, known.line[chosen]))
    protocol = {
        "dataset": "sine or line",
        "shots": data.shots,
        "tasks": tasks,
        "queries": queries,
        "noise": data.noise,
        "task seed": seed,
        "samples": samples,
        "validation tasks": validation_tasks,
        "pool": 100 * ambiguous,
        "training seeds": [run.config.seed for run in opened],
        "training steps": [run.config.training.steps for run in opened],
    }
    return Uncertainty(methods, float(contested.mean()), protocol)


def posterior_of(tasks: Task, noise: float) -> ExactPosterior:
    """The exact posterior of each task's function."""
    return exact_posterior(_numbers(tasks.support.x), _numbers(tasks.support.y), noise=noise)


def _batch(run: Run, split: str, tasks: int, queries: int, seed: int) -> Task:
    source = run.problem.source(split, tasks=tasks, seed=seed, queries=queries)
    assert isinstance(source, SineOrLine)
    return source.batch(0)


def _numbers(values: Tensor) -> NDArray[np.float64]:
    """Single inputs or targets, ``[tasks, rows]``."""
    return to_numpy(values[..., 0])


def zero_where_not_finite(functions: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Functions ``[tasks, functions, rows]``, zero everywhere where the inner loop threw one out; tasks with such."""
    bad: NDArray[np.bool_] = np.asarray(~np.isfinite(functions).all(-1))
    return np.where(bad[..., None], 0.0, functions), int(bad.any(-1).sum())


def wide_where_not_finite(
    functions: NDArray[np.float64], deviations: NDArray[np.float64], unknown: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Functions ``[tasks, functions, rows]``, NaN where they or their deviations are not finite, with that deviation.

    ``unknown`` is of targets about zero, which is what such a function is then taken to be.
    """
    bad: NDArray[np.bool_] = np.asarray(~(np.isfinite(functions) & np.isfinite(deviations)).all(-1))
    return np.where(bad[..., None], np.nan, functions), np.where(bad[..., None], unknown, deviations)


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Names of runs: the recipe; where they share it the folder's name too, and where that is the same its path."""
    recipes = [run.config.recipe for run in runs]
    names = [r if recipes.count(r) == 1 else f"{r} ({run.folder.name})" for r, run in zip(recipes, runs, strict=True)]
    return [
        name if names.count(name) == 1 else f"{run.config.recipe} ({run.folder})"
        for name, run in zip(names, runs, strict=True)
    ]
