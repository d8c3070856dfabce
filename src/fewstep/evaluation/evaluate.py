"""Judging a method on tasks: what it scores, what its adaptation adds, and what simple classifiers score."""

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from fewstep.core import Batch, Executor, Method, Task, Vmap
from fewstep.data.source import TaskSource
from fewstep.evaluation.baselines import nearest_mean, ridge
from fewstep.evaluation.modes import batch_normalised, descents, evaluating, inner_steps
from fewstep.evaluation.statistics import Interval, interval, paired
from fewstep.files import write_atomically

ADAPTED, UNADAPTED, NEAREST_MEAN, RIDGE = "adapted", "unadapted", "nearest class mean", "ridge"
"""Names of scores."""

Statistics = Literal["query", "support"]


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one method on one list of tasks, and of its rivals on the same list.

    Attributes:
        scores: one number a task by name, ``[tasks]`` float64: ``"adapted"`` is the method; ``"unadapted"`` the same
            method with zero inner steps; ``"after 5 steps"`` with five; ``"nearest class mean"`` and ``"ridge"``
            classify the same inputs without any meta-learning.
        score_name: what the numbers are: ``"accuracy"``, a fraction in [0, 1], or ``"mse"``, a squared error.
        higher_is_better: the direction of the score.
        transductive: whether the method normalised queries by statistics of the query rows of the whole task, that
            is, whether it saw the other queries when it answered one. The baselines never do.
        protocol: what the tasks were, for the reader of a report: counts that were seen, and what the caller added.
    """

    scores: Mapping[str, NDArray[np.float64]]
    score_name: str
    higher_is_better: bool
    transductive: bool
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self.scores[ADAPTED])

    def interval(self, name: str = ADAPTED) -> Interval:
        """The mean of a score with its 95% interval.

        Raises:
            ValueError: as :func:`~fewstep.evaluation.interval` says, and for a name that was not scored.
        """
        return interval(self._get(name))

    def difference(self, name: str) -> Interval:
        """``adapted − name``, paired by task, with its 95% interval.

        Raises:
            ValueError: as :func:`~fewstep.evaluation.paired` says, and for a name that was not scored.
        """
        return paired(self._get(ADAPTED), self._get(name))

    def _get(self, name: str) -> NDArray[np.float64]:
        if name not in self.scores:
            raise ValueError(f"Evaluation: {name!r} was not scored; there are {', '.join(map(repr, self.scores))}")
        return self.scores[name]

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values for ``json.dump``: ``report`` reads it. Single tasks are in the CSV file.

        A summary that does not exist, of one task or of scores that are not all finite, is null.
        """
        return {
            "score": self.score_name,
            "higher_is_better": self.higher_is_better,
            "tasks": self.tasks,
            "transductive": self.transductive,
            "protocol": dict(self.protocol),
            "scores": {name: _plain(values) for name, values in self.scores.items()},
            "differences": {
                name: _plain(self.scores[ADAPTED] - values) for name, values in self.scores.items() if name != ADAPTED
            },
        }

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a task, ``task`` (from 0) and a column a score, whole or not at all.

        Numbers are written so that reading them back gives the same bits.

        Raises:
            OSError: if the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["task", *self.scores])
        for task, row in enumerate(zip(*self.scores.values(), strict=True)):
            writer.writerow([task, *(repr(float(value)) for value in row)])
        write_atomically(path, text.getvalue())

    def table(self) -> Table:
        """The result as a table for ``rich.print``: means with 95% intervals, and what the method gains."""
        percent = self.score_name == "accuracy"
        note = "query statistics: transductive" if self.transductive else "inductive"
        better = "higher is better" if self.higher_is_better else "lower is better"
        unit = f"{self.score_name}, %" if percent else self.score_name
        table = Table(title=f"{self.tasks} tasks, mean ± 95% interval ({note})", title_justify="left")
        table.add_column("")
        table.add_column(f"{unit} ({better})", justify="right")
        table.add_column("adapted − this, paired", justify="right")
        for name, values in self.scores.items():
            own = _summary(values)
            gain = None if name == ADAPTED else _summary(self.scores[ADAPTED] - values)
            table.add_row(
                name,
                own.text(percent=percent) if own else _absence(values),
                "" if name == ADAPTED else gain.text(percent=percent, sign=True) if gain else "n/a",
            )
        return table


def evaluate(
    method: Method,
    source: TaskSource,
    tasks: int,
    *,
    baselines: bool = True,
    steps: Sequence[int] = (),
    statistics: Statistics | None = None,
    executor: Executor | None = None,
    batch: int | None = None,
    protocol: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a method on the first ``tasks`` tasks of a source, in evaluation mode: no sampling and no dropout.

    The score of a task is the mean over its query rows, by weight, of ``method.learner.loss.score``: accuracy, or
    squared error. A row whose prediction is not a number counts as misclassified.

    Args:
        method: left as it was, also when something fails.
        source: of tasks; steps 0, 1, ... are asked for.
        tasks: how many; what is left of the last batch is not used.
        baselines: for classification, also score nearest class mean and ridge regression on the same inputs.
        steps: also score after these numbers of inner steps; for methods with one ``Descend``.
        statistics: batch-normalise queries by the rows of the ``"query"`` (transductive) or of the ``"support"``; as
            in the method's meta-training when omitted.
        executor: how tasks are run; ``Vmap`` when omitted.
        batch: tasks to run at once, at most; as many as the source gives when omitted. No score depends on it.
        protocol: kept with the result, for its reader: dataset, split, seed.
        progress: called with the number of tasks done and ``tasks``.

    Raises:
        ValueError: for numbers that are not positive, ``steps`` with a method that has not exactly one ``Descend``, or
            a source that ends early.
    """
    for name, number in (("tasks", tasks), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"evaluate: {name} must be at least 1, got {number}")
    stages = descents(method.learner)
    if steps and len(stages) != 1:
        raise ValueError(
            "evaluate: scores after a number of inner steps need a method with exactly one Descend, this one has "
            f"{len(stages)}: leave `steps` out, or set the stages' `steps` and evaluate again"
        )
    if statistics is None:
        statistics = "support" if getattr(method.meta_gradient, "support_statistics", False) else "query"
    classifies = source.ways is not None
    solvers = _solvers(method, steps, statistics, executor or Vmap(), baselines and classifies)
    scores: dict[str, list[Tensor]] = {name: [] for name in solvers}
    rows: dict[str, list[Tensor]] = {"support": [], "query": []}
    done = 0
    with evaluating(method.learner), torch.no_grad():
        for part in _parts(source, tasks, batch):
            for name, solve in solvers.items():
                scores[name].append(_score(method, solve(part), part.query, classifies))
            for side, weight in (("support", part.support.weight), ("query", part.query.weight)):
                rows[side].append(weight.count_nonzero(1))
            done += len(part.query.weight)
            if progress is not None:
                progress(done, tasks)
    return Evaluation(
        {name: torch.cat(columns).cpu().numpy() for name, columns in scores.items()},
        method.learner.loss.score_name,
        classifies,
        statistics == "query" and batch_normalised(method.learner),
        _counts(source.ways, rows) | dict(protocol or {}),
    )


def _solvers(
    method: Method, steps: Sequence[int], statistics: Statistics, executor: Executor, baselines: bool
) -> dict[str, Callable[[Task], Tensor]]:
    """Functions from a batch of tasks to predictions of their queries, by the name of the score."""

    def solver(number: int | None) -> Callable[[Task], Tensor]:
        def solve(task: Task) -> Tensor:
            with ExitStack() as stack:
                if number is not None:
                    stack.enter_context(inner_steps(method.learner, number))
                point = method.adapt(task.support, executor)
                return method.predict(point, task.query, task.support if statistics == "support" else None, executor)

        return solve

    solvers = {ADAPTED: solver(None), UNADAPTED: solver(0)}
    solvers |= {f"after {number} step{'s' if number != 1 else ''}": solver(number) for number in steps}
    if baselines:
        solvers |= {NEAREST_MEAN: lambda t: nearest_mean(*t), RIDGE: lambda t: ridge(*t)}
    return solvers


def _parts(source: TaskSource, tasks: int, batch: int | None) -> Iterator[Task]:
    """Exactly ``tasks`` tasks, at most ``batch`` at a time."""
    step, left = 0, tasks
    while left:
        try:
            given = source.batch(step)
        except IndexError as end:
            raise ValueError(
                f"evaluate: {tasks} tasks were asked for, but the source ended after {tasks - left}: ask for fewer"
            ) from end
        count = min(len(given.query.weight), left)
        for i in range(0, count, batch or count):
            rows = slice(i, min(i + (batch or count), count))
            yield Task(*(Batch(*(tensor[rows] for tensor in side)) for side in given))
        left, step = left - count, step + 1


def _score(method: Method, prediction: Tensor, query: Batch, classifies: bool) -> Tensor:
    """``[tasks]`` in float64: means over the real query rows."""
    rows = method.learner.loss.score(prediction.flatten(0, 1), query.y.flatten(0, 1)).double().view_as(query.weight)
    if classifies:
        # The largest of some NaNs is the first, which would be right once in every number of ways.
        rows = rows.masked_fill(prediction.isnan().any(-1), 0.0)
    weight = query.weight.double()
    # Not a product with the weights alone: what padding predicts may be infinite.
    return torch.where(weight > 0, rows * weight, 0.0).sum(1) / weight.sum(1)


def _counts(ways: int | None, rows: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """Ways, and how many real rows a task has: a number, or a range where tasks differ."""
    counts: dict[str, Any] = {} if ways is None else {"ways": ways}
    for side, parts in rows.items():
        low, high = (int(bound) for bound in torch.cat(list(parts)).aminmax())
        counts[f"{side} rows"] = low if low == high else f"{low} to {high}"
    return counts


def _summary(values: NDArray[np.float64]) -> Interval | None:
    return interval(values) if len(values) > 1 and np.isfinite(values).all() else None


def _plain(values: NDArray[np.float64]) -> dict[str, float] | None:
    summary = _summary(values)
    return {"mean": summary.mean, "half_width": summary.half_width} if summary else None


def _absence(values: NDArray[np.float64]) -> str:
    bad = int((~np.isfinite(values)).sum())
    return f"not finite in {bad} tasks" if bad else f"{values[0]:.4f} (one task)"
