"""Scores of a method on tasks, of its start without adaptation, and of simple classifiers."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.core import Batch, Executor, Method, Point, Task, Vmap
from fewstep.core.loss import accuracy
from fewstep.core.modes import as_usual
from fewstep.core.network.heads import GeneratedHead
from fewstep.core.ranks import ALONE, Ranks
from fewstep.core.types import Statistics
from fewstep.data.source import Deferred, TaskSource, deferred_tasks
from fewstep.data.storage.files import csv_text, write_atomically
from fewstep.evaluation.arrays import slices, take
from fewstep.evaluation.baselines import Baseline, Linear, quick_baselines
from fewstep.evaluation.embedded import once_embedded
from fewstep.evaluation.inner_loop import descents, evaluating, inner_steps
from fewstep.evaluation.statistics import Interval, Score, finite_interval, interval, paired, plain_interval
from fewstep.evaluation.tables import counted, task_rows

ADAPTED, UNADAPTED = "adapted", "unadapted"
"""Names of scores; those of the baselines are beside them in ``baselines.py``."""

MEAN_OF = "mean of {} checkpoints"
"""The name of the score of :class:`~fewstep.evaluation.MeanOutputs`."""


def is_own(score: str) -> bool:
    """Whether a score is of the method itself, and not of a baseline."""
    return score in (ADAPTED, UNADAPTED) or is_mean(score) or re.fullmatch(r"after \d+ steps?", score) is not None


def is_mean(score: str) -> bool:
    """Whether a score is of several sets of meta-parameters together."""
    return re.fullmatch(MEAN_OF.format(r"\d+"), score) is not None


QUERY_BYTES = 2**24
"""Queries that are predicted at once. They are written once and read by every score, so they should stay in a cache."""


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
        baselines: which of the scores are of predictors without meta-learning.
    """

    scores: Mapping[str, NDArray[np.float64]]
    score_name: str
    higher_is_better: bool
    transductive: bool
    protocol: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()

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

    def shortfall(self) -> str:
        """Which baseline the method is furthest below, and by how much; empty where it is below none."""
        sign = 1 if self.higher_is_better else -1
        gains = {name: sign * float((self.scores[ADAPTED] - self.scores[name]).mean()) for name in self.baselines}
        worst = min(gains, key=lambda name: gains[name], default="")
        if not worst or not gains[worst] < 0:
            return ""
        gain = Score(self.score_name, self.higher_is_better).text(self._gain(worst), sign=True)
        others = sum(gain < 0 for gain in gains.values()) - 1
        more = f", and below {counted(others, 'other baseline')}" if others else ""
        return f"below {worst}, which needs no meta-learning: {gain}{more}"

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
            "below": self.shortfall(),
            "scores": {name: plain_interval(finite_interval(values)) for name, values in self.scores.items()},
            "differences": {name: plain_interval(self._gain(name)) for name in self.scores if name != ADAPTED},
        }

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a task, ``task`` (from 0) and a column a score, whole or not at all.

        Numbers are written so that reading them back gives the same bits.

        Raises:
            OSError: if the file cannot be written.
        """
        write_atomically(path, csv_text(task_rows(self.scores)))

    def table(self) -> Table:
        """The result as a table for ``rich.print``: means with 95% intervals, and what the method gains."""
        score = Score(self.score_name, self.higher_is_better)
        note = "query statistics: transductive" if self.transductive else "inductive"
        below = f"{self.shortfall()}\n" if self.shortfall() else ""
        title = Text.assemble((below, "bold yellow"), f"{self.tasks} tasks, mean ± 95% interval ({note})")
        table = Table(title=title, title_justify="left")
        table.add_column("")
        table.add_column(f"{score.unit} ({score.better})", justify="right")
        table.add_column("adapted − this, paired", justify="right")
        for name, values in self.scores.items():
            own = finite_interval(values)
            gain = "" if name == ADAPTED else score.text(self._gain(name), sign=True)
            table.add_row(Text(name), score.text(own) if own else _absence(values), gain)
        return table

    def _gain(self, name: str) -> Interval | None:
        return finite_interval(self.scores[ADAPTED] - self.scores[name])


@as_usual
def evaluate(
    method: Method,
    source: TaskSource,
    tasks: int,
    *,
    unadapted: bool = True,
    baselines: bool | Mapping[str, Baseline] = True,
    beside: Mapping[str, Baseline] | None = None,
    steps: Sequence[int] = (),
    statistics: Statistics | None = None,
    executor: Executor | None = None,
    batch: int | None = None,
    protocol: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score a method on the first ``tasks`` tasks of a source, in evaluation mode: no sampling and no dropout.

    The score of a task is the mean over its query rows, by weight, of ``method.learner.loss.score``: accuracy, or
    squared error. A row whose prediction is not a number counts as misclassified.

    Args:
        method: left as it was, also when something fails.
        source: of tasks; steps 0, 1, ... are asked for.
        tasks: how many; what is left of the last batch is not used.
        unadapted: also score with zero inner steps, where there are any.
        baselines: also score predictors without meta-learning on the same inputs: those of a mapping from names to
            functions of the supports and the queries, as :func:`~fewstep.evaluation.all_baselines` gives; or, when
            true, nearest class mean and ridge regression for classification, and none for regression or of tokens,
            which have no means. Each is given every task once.
        beside: also score other predictors, functions as these, which are not without meta-learning: such as
            :class:`~fewstep.evaluation.MeanOutputs`.
        steps: also score after these numbers of inner steps; for methods with one ``Descend``.
        statistics: batch-normalise queries by the rows of the ``"query"`` (transductive); of the ``"support"``; of the
            support ``"joined"`` by that one query row (Reptile); or by ``"running"`` statistics of the support along
            adaptation (Meta-LSTM). As in the method's meta-training when omitted.
        executor: how tasks are run; ``Vmap`` when omitted.
        batch: tasks to run at once, at most; as many as the source gives when omitted. No score depends on it, up to
            rounding.
        protocol: kept with the result, for its reader: dataset, split, seed.
        progress: called with the number of tasks done and ``tasks``.
        ranks: the processes that share the tasks out, all of which call this and get the same.

    Raises:
        ValueError: for numbers that are not positive, ``steps`` with a method that has not exactly one ``Descend``, a
            baseline with the name of another score, or a source that ends early.
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
        statistics = method.meta_gradient.statistics
    normalised = method.learner.batch_normalised
    if not normalised:
        statistics = "query"  # of which nothing is made
    classifies, each = source.ways is not None, executor or Vmap()
    numbers = {ADAPTED: None} | ({UNADAPTED: 0} if unadapted and stages else {})
    numbers |= {f"after {counted(number, 'step')}": number for number in steps}
    if isinstance(baselines, bool):
        of_numbers = not getattr(getattr(source, "dataset", None), "tokens", False)
        baselines = quick_baselines() if baselines and classifies and of_numbers else {}
    others = {**(beside or {}), **baselines}
    if taken := sorted(others.keys() & numbers.keys()):
        raise ValueError(f"evaluate: {taken[0]!r} is the name of a score of the method: call the baseline otherwise")
    if not others:
        with evaluating(method.learner):
            method, source = once_embedded(method, source, tasks)
    scores: dict[str, list[Tensor]] = {name: [] for name in (*numbers, *others)}
    rows: dict[str, list[Tensor]] = {"support": [], "query": []}
    own = ranks.share(tasks)
    done = own.start
    with evaluating(method.learner), torch.no_grad():
        for part in _parts(source, own, batch):
            # Supports are small and adapt all at once; queries may be huge, and come a few tasks at a time.
            points = {
                name: _adapted(method, number, statistics, each, part.support) for name, number in numbers.items()
            }
            found: dict[str, Tensor] = {}
            if part.pools is not None and method.learner.loss.score is accuracy:
                found, weight = _right_by_class(method, points, others, part), part.pools.weight
            if len(found) < len(scores):
                left = {name: predict for name, predict in others.items() if name not in found}
                points = {name: point for name, point in points.items() if name not in found}
                more, weight = _scored_by_task(method, points, left, part, statistics, each, classifies)
                found |= more
            for name, of_rows in found.items():
                scores[name].append(_mean(of_rows, weight))
            for side, weights in (("support", part.support.weight), ("query", weight)):
                rows[side].append(weights.count_nonzero(1))
            done += len(part.support.weight)
            if progress is not None:
                progress(done, tasks)
    whole = {name: ranks.gather(_joined(columns), tasks) for name, columns in scores.items()}
    counts = {side: ranks.gather(_joined(columns), tasks) for side, columns in rows.items()}
    return Evaluation(
        {name: values.numpy() for name, values in whole.items()},
        method.learner.loss.score_name,
        classifies,
        statistics == "query" and normalised,
        _counts(source.ways, counts) | ({"batch statistics": statistics} if normalised else {}) | dict(protocol or {}),
        tuple(baselines),
    )


def _adapted(method: Method, steps: int | None, statistics: Statistics, executor: Executor, supports: Batch) -> Point:
    """Adapt by a number of inner steps, the method's own when None."""
    with nullcontext() if steps is None else inner_steps(method.learner, steps):
        return method.adapt(supports, executor, statistics)


def _predicted(
    method: Method, points: Sequence[Point], task: Task, statistics: Statistics, executor: Executor
) -> list[Tensor]:
    """What each of the points predicts for the queries of the same tasks."""
    if len(points) < 2 or not isinstance(method.learner.network, GeneratedHead):
        return [method.predict(point, task.query, task.support, executor, statistics) for point in points]

    # A head alone: its outputs at all the points are one product, which reads the queries once. (Convolutions of the
    # same images by several weights take longer together.)
    of_all = torch.vmap(partial(method.learner.predict, statistics=statistics), in_dims=(0, None, None))
    together = tree_map(lambda *tensors: torch.stack(tensors, 1), *points)
    return list(executor(of_all)(together, task.query, task.support).unbind(1))


def _scored_by_task(
    method: Method,
    points: Mapping[str, Point],
    baselines: Mapping[str, Baseline],
    part: Deferred,
    statistics: Statistics,
    executor: Executor,
    classifies: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """By name the scores of the query rows ``[tasks, rows]`` of tasks whose queries are fetched; and their weights."""
    predictions: list[list[Tensor]] = [[] for _ in (*points, *baselines)]
    truth: list[tuple[Tensor, Tensor]] = []
    for some in _pieces(part):
        task = Task(take(part.support, some), part.query(some))
        of_some = _predicted(method, [take(point, some) for point in points.values()], task, statistics, executor)
        of_some += [predict(*task) for predict in baselines.values()]
        for pieces, prediction in zip(predictions, of_some, strict=True):
            # Copied, for a prediction may be a view of the queries, whose memory is used again.
            pieces.append(prediction.clone())
        truth.append((task.query.y, task.query.weight))
    y, weight = (torch.cat(pieces) for pieces in zip(*truth, strict=True))
    named = zip((*points, *baselines), predictions, strict=True)
    return {name: _scored(method, torch.cat(pieces), y, classifies) for name, pieces in named}, weight


def _right_by_class(
    method: Method, points: Mapping[str, Point], baselines: Mapping[str, Baseline], part: Deferred
) -> dict[str, Tensor]:
    """By name which query rows are classified rightly ``[tasks, rows]``, of all that is linear, a class at a time.

    One product of all rows of a class with the heads of all tasks that have it.
    """
    pools = part.pools
    assert pools is not None, "asked for where there are some"
    linear: dict[tuple[str, ...], Callable[[Tensor, Tensor], Tensor]]
    linear = {(name,): of.by_class(part.support) for name, of in baselines.items() if isinstance(of, Linear)}
    if isinstance(method.learner.network, GeneratedHead) and method.learner.embedding is None:
        linear[tuple(points)] = _heads(method, list(points.values()))
    names = [name for some in linear for name in some]
    right = {name: pools.weight.new_empty(pools.places.shape, dtype=torch.bool) for name in names}
    for of in np.unique(pools.classes) if names else ():
        x = pools.rows(int(of))
        pairs = np.nonzero(pools.classes == of)
        places = torch.from_numpy(pools.places[pairs]).to(x.device)
        task, way = (torch.from_numpy(numbers).to(x.device) for numbers in pairs)
        for some, predict in linear.items():
            found = _largest(predict(x, task).unflatten(0, (len(task), -1))) == way[:, None, None]
            for name, rows in zip(some, found.unbind(1), strict=True):
                right[name][task, way] = rows.gather(1, places)
    return {name: rows.flatten(1) for name, rows in right.items()}


def _heads(method: Method, points: Sequence[Point]) -> Callable[[Tensor, Tensor], Tensor]:
    """From rows and the numbers of some tasks to what each point of a generated head predicts.

    That is ``[tasks · points, ways, rows]``.
    """
    together = tree_map(lambda *tensors: torch.stack(tensors, 1), *points)

    def predict(rows: Tensor, tasks: Tensor) -> Tensor:
        query = Batch(rows, rows.new_empty(len(rows), 0), rows.new_ones(len(rows)))
        heads = tree_map(lambda tensor: tensor[tasks].flatten(0, 1), together)
        found: Tensor = torch.vmap(method.learner.predict, in_dims=(0, None))(heads, query)
        return found.mT

    return predict


def _largest(prediction: Tensor) -> Tensor:
    """Which of the outputs ``[..., outputs, rows]`` is largest, the first of equals; none where one is not a number.

    As ``argmax``, which takes ten times as long to find the largest of numbers that are not adjacent.
    """
    outputs = prediction.shape[-2]
    number = torch.arange(outputs, dtype=torch.int16, device=prediction.device).unsqueeze(1)
    return torch.where(prediction == prediction.amax(-2, keepdim=True), number, outputs).amin(-2)


def _parts(source: TaskSource, tasks: slice, batch: int | None) -> Iterator[Deferred]:
    """Exactly these tasks of a source, at most ``batch`` at a time."""
    place = tasks.start
    while place < tasks.stop:
        step, first = divmod(place, source.tasks)
        try:
            given = deferred_tasks(source, step)
            if len(given.support.weight) <= first:
                raise IndexError("the last batch has fewer tasks than the others")
        except IndexError as end:
            raise ValueError(
                f"evaluate: {tasks.stop} tasks were asked for, but the source ended after {place}: ask for fewer"
            ) from end
        count = min(len(given.support.weight) - first, tasks.stop - place)
        for of_count in slices(count, count if batch is None else batch):
            some = slice(first + of_count.start, first + of_count.stop)
            pools = None if given.pools is None else given.pools.part(some)
            yield Deferred(take(given.support, some), given.rows, partial(_query, given, some.start), pools)
        place += count


def _query(given: Deferred, first: int, some: slice) -> Batch:
    """The queries of some tasks, counted from task ``first`` of those given."""
    return given.query(slice(first + some.start, first + some.stop))


def _pieces(part: Deferred) -> Iterator[slice]:
    """Slices of a part whose queries fit in the cache."""
    size = part.rows * part.support.x[0, 0].numel() * part.support.x.element_size()
    return slices(len(part.support.weight), max(1, QUERY_BYTES // max(1, size)))


def _scored(method: Method, prediction: Tensor, y: Tensor, classifies: bool) -> Tensor:
    """``[tasks, rows]``."""
    # Adjacent outputs: the largest of strided ones is found ten times more slowly.
    prediction = prediction.contiguous()
    rows = method.learner.loss.score(prediction.flatten(0, 1), y.flatten(0, 1)).view(y.shape[:2])
    if classifies:
        # The largest of some NaNs is the first, which would be right once in every number of ways.
        rows = rows.masked_fill(prediction.isnan().any(-1), 0.0)
    return rows


def _mean(rows: Tensor, weight: Tensor) -> Tensor:
    """``[tasks]`` in float64: over the real query rows."""
    weight = weight.double()
    # Not a product with the weights alone: what padding predicts may be infinite.
    return torch.where(weight > 0, rows.double() * weight, 0.0).sum(1) / weight.sum(1)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """On the CPU, in float64; of a process that has no task, nothing."""
    return torch.cat([part.double() for part in parts]).cpu() if parts else torch.zeros(0, dtype=torch.float64)


def _counts(ways: int | None, rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """Ways, and how many real rows a task has: a number, or a range where tasks differ."""
    counts: dict[str, Any] = {} if ways is None else {"ways": ways}
    for side, numbers in rows.items():
        low, high = (int(bound) for bound in numbers.aminmax())
        counts[f"{side} rows"] = low if low == high else f"{low} to {high}"
    return counts


def _absence(values: NDArray[np.float64]) -> str:
    bad = int((~np.isfinite(values)).sum())
    return f"not finite in {bad} tasks" if bad else f"{values[0]:.4f} (one task)"
