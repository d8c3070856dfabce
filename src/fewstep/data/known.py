"""Tasks that say which classes of their dataset they are of."""

from typing import final

import torch

from fewstep.core.types import KnownTask
from fewstep.data.episodes import EpisodeSampler
from fewstep.data.source import OfSource, TaskSource


@final
class KnownTasks(OfSource):
    """The tasks of a sampler, each with the numbers of its classes in the sampler's dataset.

    Args:
        source: an :class:`EpisodeSampler`.

    Raises:
        ValueError: for another source.
    """

    source: EpisodeSampler

    def __init__(self, source: TaskSource) -> None:
        if not isinstance(source, EpisodeSampler):
            raise ValueError(
                f"KnownTasks: the classes of {type(source).__name__} have no numbers; take an EpisodeSampler, whose "
                "images are not augmented."
            )
        self.source = source

    def batch(self, step: int, slice_: slice | None = None) -> KnownTask:
        """The tasks of a step, or a slice of them, as :meth:`EpisodeSampler.batch`."""
        indices = self.source.indices(step).part(slice_)
        task = self.source.assemble(indices)
        return KnownTask(task.support, task.query, torch.from_numpy(indices.classes).to(task.support.x.device))
