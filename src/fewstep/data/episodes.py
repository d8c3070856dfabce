"""Few-shot classification tasks (episodes) drawn from a dataset.

Drawing which examples make up a task and fetching them are two steps, :meth:`EpisodeSampler.indices` and
:func:`assemble`: the first is a few microseconds of integer arithmetic whatever the size of the data, the second is
bounded by memory bandwidth, and each is timed and tested by itself.
"""

import functools
from dataclasses import KW_ONLY, dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.checks import check_count
from fewstep.data.dataset import Dataset, as_tensor
from fewstep.data.source import Deferred, OnDevice, Pools


@final
@dataclass(frozen=True, eq=False)
class TaskIndices:
    """Which examples make up each task, without the examples.

    Attributes:
        classes: ``[tasks, ways]``, class indices of the dataset; the place in a row is the task's label.
        support: ``[tasks, ways, shots]``, positions in the dataset.
        query: ``[tasks, ways, queries]``, positions in the dataset. Padding repeats a valid position.
        query_weight: float32 ``[tasks, ways, queries]``, 1, or 0 where the query is padding
            (classes of unequal size).
    """

    classes: Int[np.ndarray, "tasks ways"]
    support: Int[np.ndarray, "tasks ways shots"]
    query: Int[np.ndarray, "tasks ways queries"]
    query_weight: Float[np.ndarray, "tasks ways queries"]

    def __len__(self) -> int:
        return len(self.classes)

    def part(self, slice_: slice | None) -> "TaskIndices":
        """Some of the tasks; all of them for None."""
        some = slice_ or slice(None)
        return TaskIndices(*(values[some] for values in (self.classes, self.support, self.query, self.query_weight)))


def assemble(
    dataset: Dataset, indices: TaskIndices, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Task:
    """Fetch the examples of some tasks.

    Rows are in class-major order: all rows of the task's class 0 first.

    Returns:
        A task batch: ``x`` is ``[tasks, ways * rows, *features]``, ``y`` one-hot ``[tasks, ways * rows, ways]`` and
        ``weight`` ``[tasks, ways * rows]``, with ``rows`` the shots in the support and the queries in the query. All
        share ``dtype``, but for the ``x`` of tokens, which is int64.
    """
    later = deferred(dataset, indices, dtype=dtype, device=device)
    return Task(later.support, later.query(slice(None)))


def deferred(
    dataset: Dataset, indices: TaskIndices, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Deferred:
    """Fetch the supports of some tasks now, and their queries when asked for; layout as in :func:`assemble`."""
    memory: Tensor | None = None

    def query(tasks: slice) -> Batch:
        nonlocal memory
        positions = indices.query[tasks]
        weight = _weights(indices.query_weight[tasks], dtype, device)
        if memory is not None and len(memory) >= len(positions):
            return _fetch(dataset, positions, weight, memory[: len(positions)])
        batch = _fetch(dataset, positions, weight)
        memory = batch.x
        return batch

    tasks, ways, shots = indices.support.shape
    ones = torch.ones(tasks, ways * shots, dtype=dtype, device=device)
    return Deferred(_fetch(dataset, indices.support, ones), ways * indices.query.shape[2], query)


def _pools(dataset: Dataset, indices: TaskIndices, dtype: torch.dtype, device: torch.device | str) -> Pools:
    """Queries that are all that is left of their classes."""

    def rows(of: int) -> Tensor:
        return dataset.gather(np.arange(dataset.offsets[of], dataset.offsets[of + 1]), dtype=dtype, device=device)

    _, ways, queries = indices.query.shape
    places = indices.query - dataset.offsets[indices.classes][..., None]
    y = _one_hot(ways, queries, dtype, torch.device(device)).expand(len(indices), -1, -1)
    weight = _weights(indices.query_weight, dtype, device)
    return Pools(indices.classes, places, rows, y, weight)


def _weights(values: np.ndarray, dtype: torch.dtype, device: torch.device | str) -> Float[Tensor, "tasks rows"]:
    return as_tensor(values).to(device=device, dtype=dtype, copy=True).flatten(1)


def _fetch(
    dataset: Dataset,
    positions: Int[np.ndarray, "tasks ways rows"],
    weight: Float[Tensor, "tasks all"],
    out: Num[Tensor, "tasks all *features"] | None = None,
) -> Batch:
    """The examples at some positions, in the dtype and on the device of their weights."""
    tasks, ways, rows = positions.shape
    flat = positions.reshape(tasks, ways * rows)
    x = dataset.gather(flat, dtype=weight.dtype, device=weight.device, out=out)
    # Labels are the same in every task; they are still materialised, for a view with stride 0 on the task axis may not
    # be written to and compiles to other code than a real tensor.
    y = _one_hot(ways, rows, weight.dtype, weight.device).expand(tasks, -1, -1)
    return Batch(x, y.clone(memory_format=torch.contiguous_format), weight)


@functools.lru_cache(maxsize=16)
def _one_hot(ways: int, rows: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows ways"]:
    """Labels of one task in class-major order. Kept, so to be copied and never handed out."""
    return torch.eye(ways, dtype=dtype, device=device).repeat_interleave(rows, 0)


@final
@dataclass(frozen=True, eq=False)
class EpisodeSampler(OnDevice):
    """Random N-way K-shot tasks: a :class:`~fewstep.data.TaskSource`.

    For each task, ``ways`` classes are drawn uniformly without replacement, and for each class ``shots + queries`` of
    its examples, uniformly without replacement; the first ``shots`` of the draw are the support. Every ordered choice
    of classes and of examples has the same probability.

    A batch is a pure function of (seed, stream, step). Its cost depends on the size of the tasks and not on that of
    the dataset, except that ``queries=None`` must list the rest of each class. For one seed, samplers that differ only
    in ``queries`` draw the same classes and the same support.

    Attributes:
        dataset: where examples come from.
        ways: classes in a task, N.
        shots: support examples of each class, K.
        queries: query examples of each class; None for all that are not support, as LEO evaluates. Classes of unequal
            size are then padded with weight 0 to the largest class of the *dataset*, so that shapes are the same in
            every step.
        tasks: tasks in a batch.
        seed: from 0 to 2**64 - 1.
        stream: name of an independent sequence under the same seed.
        dtype: floating-point type of the tensors.
        device: where the tensors lie.

    Raises:
        ValueError: if a count is not positive, the seed is out of range, the dataset has fewer classes than ``ways``,
            or a class has too few examples (named in the message).
    """

    dataset: Dataset
    _: KW_ONLY
    ways: int
    shots: int
    queries: int | None
    tasks: int
    seed: int
    stream: str = "episodes"

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries", "tasks"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value)
        draws.check_word("seed", self.seed)
        if self.dataset.classes < self.ways:
            raise ValueError(
                f"{self.dataset} has {self.dataset.classes} classes, too few for {self.ways}-way tasks: "
                "lower ways or add classes"
            )
        needed = self.shots + (1 if self.queries is None else self.queries)
        if (short := np.flatnonzero(self.dataset.sizes < needed)).size:
            first = int(short[0])
            wanted = "at least 1 query" if self.queries is None else f"{self.queries} queries"
            others = f" (and {short.size - 1} other classes are too small)" if short.size > 1 else ""
            raise ValueError(
                f"{self.dataset}: class {self.dataset.class_names[first]!r} has {self.dataset.sizes[first]} examples, "
                f"but {needed} are needed for {self.shots} shots and {wanted}{others}: lower them or drop the class"
            )

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them.

        Args:
            step: which batch, from 0; any step costs the same.
            slice_: the part of the batch to fetch.

        Returns:
            As :func:`assemble` says, with a leading task axis.

        Raises:
            ValueError: if the step is negative.
        """
        return self.assemble(self.indices(step).part(slice_))

    def assemble(self, indices: TaskIndices) -> Task:
        """Fetch the examples of ``indices`` with this sampler's dtype and device."""
        return assemble(self.dataset, indices, dtype=self.dtype, device=self.device)

    def deferred(self, step: int) -> Deferred:
        """The tasks of a step, their queries unfetched: see :class:`~fewstep.data.Deferring`.

        Raises:
            ValueError: if the step is negative.
        """
        indices = self.indices(step)
        given = deferred(self.dataset, indices, dtype=self.dtype, device=self.device)
        if self.queries is None:
            given = given._replace(pools=_pools(self.dataset, indices, self.dtype, self.device))
        return given

    def indices(self, step: int) -> TaskIndices:
        """Which examples make up the tasks of a step; see :class:`TaskIndices`.

        Raises:
            ValueError: if the step is negative.
        """
        tasks, ways, shots = self.tasks, self.ways, self.shots
        drawn = shots + (0 if self.queries is None else self.queries)
        # One call for all words of the step: first those of the classes, then a layer for each example of a class.
        # The layers of more queries come last, and so leave the classes and the support as they were.
        words = draws.words(self.seed, step, self.stream, (1 + drawn, tasks, ways))
        classes = draws.distinct(words[0], np.full(tasks, self.dataset.classes))
        offsets = self.dataset.offsets
        sizes = offsets[classes + 1] - offsets[classes]
        first = offsets[classes][..., None]
        chosen = draws.distinct(np.moveaxis(words[1:], 0, -1), sizes)
        support = chosen[..., :shots]
        if self.queries is None:
            left = (sizes - shots)[..., None]
            rank = np.arange(self.dataset.sizes.max() - shots)
            weight = (rank < left).astype(np.float32)
            # Padding repeats the last real query.
            query = draws.nth_left(np.minimum(rank, left - 1), support)
        else:
            query = chosen[..., shots:]
            weight = np.ones(query.shape, np.float32)
        return TaskIndices(classes, first + support, first + query, weight)
