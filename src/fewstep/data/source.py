"""What every source of tasks offers to a training or evaluation loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from fewstep.core.types import Batch, Task

_Tasks = TypeVar("_Tasks", bound="OnDevice")


@runtime_checkable
class TaskSource(Protocol):
    """A sequence of batches of tasks, addressed by step.

    A source has no position: the same step gives the same batch, in any order and in any process. That is what makes
    training resumable (only the step is saved) and lets ranks take disjoint slices of one step.
    """

    @property
    def ways(self) -> int | None:
        """Classes in a task; None for regression."""

    @property
    def tasks(self) -> int:
        """Tasks in a whole batch."""

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them: every tensor has a leading task axis.

        Args:
            step: which batch, from 0.
            slice_: the part of the batch to build. ``batch(step, s)`` equals ``batch(step)`` with ``s`` applied to
                every tensor, and costs only its own tasks (plus the drawing of all indices, which is cheap).
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDevice:
    """What a source of tasks says about its tensors.

    Attributes:
        dtype: floating-point type of the tensors.
        device: where the tensors lie.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def to(self: _Tasks, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> _Tasks:
        """The same tasks on another device, or in another floating-point type."""
        return replace(self, device=device or self.device, dtype=dtype or self.dtype)


class OfSource:
    """A source of the tasks of another one, as many and of as many classes.

    Attributes:
        source: the other one.
    """

    source: TaskSource

    @property
    def ways(self) -> int | None:
        """Classes in a task; None for regression."""
        return self.source.ways

    @property
    def tasks(self) -> int:
        """Tasks in a whole batch."""
        return self.source.tasks


class Pools(NamedTuple):
    """The queries of some tasks, by the classes that they are taken from: all remaining rows of each class.

    Tasks have classes in common. What is linear in the rows can be computed for a class as a whole, and for all of its
    tasks at once, in a fraction of the time that fetching the queries of every task takes.

    Attributes:
        classes: the class of each of a task's ways; no task has one twice.
        places: of each query among the rows of its class.
        rows: all rows of a class.
        y: labels of the queries, one-hot, in class-major order.
        weight: of the queries; 0 for padding.
    """

    classes: Int[np.ndarray, "tasks ways"]
    places: Int[np.ndarray, "tasks ways queries"]
    rows: Callable[[int], Num[Tensor, "rows *features"]]
    y: Float[Tensor, "tasks rows ways"]
    weight: Float[Tensor, "tasks rows"]

    def part(self, tasks: slice) -> "Pools":
        """Some of the tasks."""
        return Pools(self.classes[tasks], self.places[tasks], self.rows, self.y[tasks], self.weight[tasks])


class Deferred(NamedTuple):
    """The tasks of a step whose queries have not been fetched.

    Attributes:
        support: of all tasks.
        rows: query rows of a task, padding included.
        query: fetches the queries of some tasks. Their ``x`` may be overwritten by the next call: fresh memory for
            gigabytes of rows costs more than the rows.
        pools: the same queries by class, where they are all that is left of their classes.
    """

    support: Batch
    rows: int
    query: Callable[[slice], Batch]
    pools: Pools | None = None


@runtime_checkable
class Deferring(TaskSource, Protocol):
    """A source that can leave the fetching of queries until they are needed.

    With all remaining examples as queries, a hundred tasks are most of a gigabyte. Adaptation wants many tasks at once
    and needs their small supports only; prediction is fastest on so few tasks that their queries stay in the
    processor's cache. Evaluation asks for this where a source offers it.
    """

    def deferred(self, step: int) -> Deferred:
        """The tasks of ``batch(step)``: ``query(s)`` equals ``batch(step, s).query``, without drawing again.

        Args:
            step: which batch, from 0.
        """


def deferred_tasks(source: TaskSource, step: int) -> Deferred:
    """The tasks of a step of any source; one that cannot defer fetches everything now, and gives views of it."""
    if isinstance(source, Deferring):
        return source.deferred(step)
    support, query = source.batch(step)
    return Deferred(support, query.weight.shape[1], lambda rows: Batch(*(tensor[rows] for tensor in query)))
