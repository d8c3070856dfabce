"""What every source of tasks offers to a training or evaluation loop."""

from typing import Protocol, runtime_checkable

from fewstep.core.types import Task


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
