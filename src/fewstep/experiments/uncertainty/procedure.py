"""What methods know of what they do not know: predictive distributions beside the exact posterior."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from fewstep.core import Batch, Task
from fewstep.data import SineOrLine
from fewstep.data.storage.files import write_atomically
from fewstep.evaluation.exact.sine_or_line import ExactPosterior, exact_posterior, mode_mass
from fewstep.evaluation.functions import Functions
from fewstep.evaluation.predictive import Distribution, Measures, Predictive, fit_noise, measure
from fewstep.evaluation.statistics import Interval, interval, paired
from fewstep.evaluation.tables import csv_text, markdown_lines
from fewstep.experiments.run import Run
from fewstep.recipes.problems.functions import SineOrLineTasks

logger = logging.getLogger("fewstep")

EXACT = "exact posterior"
GRID = np.linspace(-5, 5, 101)
"""Inputs at which a sampled function shows whether it is a sine or a line."""
AMBIGUOUS = 0.2
"""A task is ambiguous where the exact posterior gives each kind more than this."""
NOISES = (0.01, 100.0)
"""Between which observation noise is looked for, in units of y."""

_SHOWN = {
    "negative_log_likelihood": "NLL, nats",
    "squared_error": "MSE of the mean",
    "coverage_50": "in 50% interval, %",
    "coverage_90": "in 90% interval, %",
    "width_50": "its width (50%)",
    "width_90": "its width (90%)",
}


@final
@dataclass(frozen=True, eq=False)
class Judged:
    """One method's predictive distributions on the test tasks.

    Attributes:
        label: its name.
        noise: the deviation of targets about a function, fitted on validation tasks; the true one for the posterior.
        functions: how many make up a prediction; None for the exact posterior.
        measures: one number a task each.
        lines: fraction of its functions that are lines, for each of the ambiguous tasks, ``[ambiguous]``.
        failed: tasks whose functions are not finite, on which it is judged as if it knew nothing.
    """

    label: str
    noise: float
    functions: int | None
    measures: Measures
    lines: Float[np.ndarray, " ambiguous"]
    failed: int = 0


@final
@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Several methods and the exact posterior on the same test tasks.

    Attributes:
        judged: the exact posterior comes last.
        ambiguity: share of the pool's tasks that are ambiguous; the first of them are those of ``Judged.lines``.
        protocol: what a result must state.
    """

    judged: list[Judged]
    ambiguity: float
    protocol: dict[str, Any]

    @property
    def exact(self) -> Judged:
        """The yardstick."""
        return self.judged[-1]

    def mode_distance(self, one: Judged) -> Interval | None:
        """Mean over ambiguous tasks of ``|p(line) − its exact value|``: the total variation between the kinds.

        None where there are fewer than two: of the paper's tasks about one in a hundred is ambiguous.
        """
        return interval(np.abs(one.lines - self.exact.lines)) if len(one.lines) > 1 else None

    def rows(self) -> list[dict[str, Interval | str]]:
        """A row for each method: means over tasks with their 95% intervals, and the paired gap to the posterior."""
        rows = []
        for one in self.judged:
            row: dict[str, Interval | str] = {
                "": one.label,
                "functions": str(one.functions or "all"),
                "noise": f"{one.noise:.3f}",
            }
            for name, title in _SHOWN.items():
                values = getattr(one.measures, name)
                row[title] = interval(100 * values if "coverage" in name else values)
            nll = "negative_log_likelihood"
            row["NLL − exact"] = paired(getattr(one.measures, nll), getattr(self.exact.measures, nll))
            row["mode mass − exact, ambiguous"] = self.mode_distance(one) or "–"
            rows.append(row)
        return rows

    def table(self) -> Table:
        """For a terminal: a column for each method."""
        table = Table(title=self._title(), title_justify="left")
        rows = self.rows()
        table.add_column("")
        for row in rows:
            table.add_column(escape(str(row[""])), justify="right", overflow="fold")
        for title in list(rows[0])[1:]:
            table.add_row(title, *(_text(row[title]) for row in rows))
        return table

    def _title(self) -> str:
        ambiguous = f"{len(self.exact.lines)} ambiguous ones ({self.ambiguity:.1%} of tasks are)"
        return f"{self.protocol['tasks']} tasks, and {ambiguous}; mean ± 95% interval"

    def write(self, folder: Path) -> None:
        """``uncertainty.md``, ``uncertainty.json``, ``uncertainty_tasks.csv`` and ``uncertainty_modes.csv``."""
        rows = self.rows()
        titles = list(rows[0])
        lines = [
            "# Predictive distributions",
            "",
            self._title() + ".",
            "",
            *markdown_lines([titles, *[[_text(row[title]) for title in titles] for row in rows]]),
            "",
            "NLL: negative log-likelihood of a noisy held-out target under the predictive mixture; the noise of each "
            "method is fitted on validation tasks. MSE holds the variance of the noise. Mode mass: fraction of lines "
            "among a method's functions, and its mean distance from the exact posterior's on ambiguous tasks, in "
            f"which that gives each kind more than {AMBIGUOUS:.0%}: the first of a larger pool. Differences are paired "
            "by task. Intervals are of the choice of test tasks; another training seed is not covered by them.",
            "",
            *markdown_lines([["protocol", ""], *[[k, str(v)] for k, v in self.protocol.items()]]),
            *[
                f"\n{one.label}: {one.failed} tasks had functions that are not finite; they count as functions "
                "that are zero everywhere."
                for one in self.judged
                if one.failed
            ],
        ]
        write_atomically(folder / "uncertainty.md", "\n".join(lines) + "\n")
        content = {
            "protocol": self.protocol,
            "rows": [
                {title: value if isinstance(value, str) else vars(value) for title, value in row.items()}
                for row in rows
            ],
        }
        write_atomically(folder / "uncertainty.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        measures = {
            f"{one.label}: {field.name}": getattr(one.measures, field.name)
            for one in self.judged
            for field in fields(Measures)
        }
        modes = {f"{one.label}: lines": one.lines for one in self.judged}
        for name, columns in (("tasks", measures), ("modes", modes)):
            each = zip(*(column.tolist() for column in columns.values()), strict=True)
            write_atomically(folder / f"uncertainty_{name}.csv", csv_text([list(columns), *each]))


def _text(value: Interval | str) -> str:
    return value if isinstance(value, str) else value.text(decimals=3)


def judge(
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
    """Judge trained runs on sines and lines by their predictive distributions, beside the exact posterior.

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
        raise ValueError("nothing to judge: give folders of runs on sines and lines, such as of leo-sine-line.")
    for run in opened:
        if not isinstance(run.config.data, SineOrLineTasks):
            raise ValueError(
                f"{run.folder} is a run of {run.config.recipe}: only for sines and lines is the exact posterior known."
            )
        if (run.config.data.noise, run.config.data.shots) != (opened[0].config.data.noise, opened[0].config.data.shots):  # type: ignore[union-attr]
            raise ValueError(f"{run.folder} and {opened[0].folder} are on tasks of other noise or shots.")
    names = list(labels or _labels(opened))
    if len(names) != len(opened) or len({*names, EXACT}) <= len(names):
        raise ValueError(
            f"every one of the {len(opened)} runs needs a label of its own, and {EXACT!r} is taken; got {names}."
        )
    data = opened[0].config.data
    assert isinstance(data, SineOrLineTasks)
    test, validation, pool = (
        _batch(opened[0], split, n, rows, seed)
        for split, n, rows in (
            ("test", tasks, queries),
            ("val", validation_tasks, queries),
            ("test", 100 * ambiguous, 1),
        )
    )
    known = posterior_of(pool, data.noise)
    contested = (known.line > AMBIGUOUS) & (known.sine > AMBIGUOUS)
    chosen = np.flatnonzero(contested)[:ambiguous]
    unclear = Task(*(Batch(*(tensor[chosen] for tensor in batch)) for batch in pool))
    y, grid = _targets(test), torch.from_numpy(GRID).to(test.query.x).expand(len(chosen), -1)
    judged = []
    for run, label in zip(opened, names, strict=True):
        note(f"judging {label}")
        # Streams of their own: the noise must not be fitted to the draws that it is judged with.
        of = {name: Functions(run.method, samples, seed, name) for name in ("validation", "test", "ambiguous")}
        with run.at_test():
            (fitted,) = of["validation"](validation, validation.query.x[..., 0])
            (found,) = of["test"](test, test.query.x[..., 0])
            on_grid = of["ambiguous"](unclear, grid)[0] if len(chosen) else np.empty((0, samples, len(GRID)))
        (fitted, _), (found, failed), (on_grid, _) = (_finite(values) for values in (fitted, found, on_grid))
        noise = fit_noise(fitted, _targets(validation), bounds=NOISES)
        measures = measure(Predictive(found, noise), y)
        lines = mode_mass(GRID, on_grid, noise=data.noise) if len(chosen) else np.empty(0)
        judged.append(Judged(label, noise, found.shape[1], measures, lines, failed))
    note("the exact posterior")
    exact: Distribution = posterior_of(test, data.noise).at(_inputs(test.query))
    judged.append(Judged(EXACT, data.noise, None, measure(exact, y), known.line[chosen]))
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
    return Uncertainty(judged, float(contested.mean()), protocol)


def posterior_of(tasks: Task, noise: float) -> ExactPosterior:
    """The exact posterior of each task's function."""
    return exact_posterior(_inputs(tasks.support), _targets_of(tasks.support), noise=noise)


def _batch(run: Run, split: str, tasks: int, queries: int, seed: int) -> Task:
    source = run.problem.source(split, tasks=tasks, seed=seed, queries=queries)
    assert isinstance(source, SineOrLine)
    return source.batch(0)


def _inputs(batch: Batch) -> NDArray[np.float64]:
    inputs: NDArray[np.float64] = batch.x[..., 0].double().cpu().numpy()
    return inputs


def _targets_of(batch: Batch) -> NDArray[np.float64]:
    targets: NDArray[np.float64] = batch.y[..., 0].double().cpu().numpy()
    return targets


def _targets(tasks: Task) -> NDArray[np.float64]:
    return _targets_of(tasks.query)


def _finite(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Functions that an inner loop has thrown out are zero everywhere; how many tasks have such."""
    bad: NDArray[np.bool_] = np.asarray(~np.isfinite(values).all(-1))
    return np.where(bad[..., None], 0.0, values), int(bad.any(-1).sum())


def _labels(runs: Sequence[Run]) -> list[str]:
    """The recipe; of runs that share it the folder's name too, and where that is the same its whole path."""
    recipes = [run.config.recipe for run in runs]
    names = [r if recipes.count(r) == 1 else f"{r} ({run.folder.name})" for r, run in zip(recipes, runs, strict=True)]
    return [
        name if names.count(name) == 1 else f"{run.config.recipe} ({run.folder})"
        for name, run in zip(names, runs, strict=True)
    ]
