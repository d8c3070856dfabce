"""Tasks that say which classes of their dataset they are of."""

from typing import final

import torch

from fewstep.core.types import KnownTask
from fewstep.data.episodes import EpisodeSampler
from fewstep.data.source import TaskSource


@final
class KnownTasks:
    """The tasks of a sampler, each with the numbers of its classes in the sampler's dataset.

    Args:
        source: an :class:`EpisodeSampler`.

    Raises:
        ValueError: for another source.
    """

    def __init__(self, source: TaskSource) -> None:
        if not isinstance(source, EpisodeSampler):
            raise ValueError(
                f"KnownTasks: the classes of {type(source).__name__} have no numbers; take an EpisodeSampler, whose "
                "images are not augmented."
            )
        self.sampler = source

    @property
    def ways(self) -> int:
        """Classes in a task."""
        return self.sampler.ways

    @property
    def tasks(self) -> int:
        """Tasks in a whole batch."""
        return self.sampler.tasks

    def batch(self, step: int, slice_: slice | None = None) -> KnownTask:
        """The tasks of a step, or a slice of them, as :meth:`EpisodeSampler.batch`."""
        indices = self.sampler.indices(step).part(slice_)
        task = self.sampler.assemble(indices)
        return KnownTask(task.support, task.query, torch.from_numpy(indices.classes).to(task.support.x.device))
