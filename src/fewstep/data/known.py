"""Tasks that say which classes of their dataset they are of."""

from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int

from fewstep.core.types import Batch, KnownTask
from fewstep.data import draws
from fewstep.data.episodes import EpisodeSampler
from fewstep.data.source import OfSource, TaskSource


@final
class KnownTasks(OfSource):
    """The tasks of a sampler, each with the numbers of its classes in the sampler's dataset.

    With ``others``, a query has so many rows more, each of a class that is drawn uniformly from the known ones that the
    task is not of. Labels of the query then have ``known`` columns after those of its ways.

    Args:
        source: an :class:`EpisodeSampler`.
        known: how many classes are known, the dataset's first.
        others: rows of them in every query.

    Raises:
        ValueError: for another source, and when a task may be of all known classes.
    """

    source: EpisodeSampler

    def __init__(self, source: TaskSource, known: int = 0, others: int = 0) -> None:
        if not isinstance(source, EpisodeSampler):
            raise ValueError(
                f"KnownTasks: the classes of {type(source).__name__} have no numbers; take an EpisodeSampler, whose "
                "images are not augmented."
            )
        self.source, self.known, self.others = source, known, others
        self._there = min(known, source.dataset.classes)
        if others and self._there <= source.ways:
            raise ValueError(
                f"KnownTasks: tasks of {source.ways} classes leave none of {self._there} known ones for other rows; "
                "have fewer ways, or more classes of meta-training."
            )

    def batch(self, step: int, slice_: slice | None = None) -> KnownTask:
        """The tasks of a step, or a slice of them, as :meth:`EpisodeSampler.batch`."""
        indices = self.source.indices(step).part(slice_)
        support, query = self.source.assemble(indices)
        if self.others:
            query = self._with_others(query, indices.classes, step, slice_)
        return KnownTask(support, query, torch.from_numpy(indices.classes).to(support.x.device))

    def _with_others(self, query: Batch, own: Int[np.ndarray, "tasks ways"], step: int, slice_: slice | None) -> Batch:
        sampler, dataset = self.source, self.source.dataset
        stream, shape = f"{sampler.stream}/others", (sampler.tasks, 2, self.others)
        words = draws.words(sampler.seed, step, stream, shape)[slice_ or slice(None)]
        free = self._there - (own < self._there).sum(1, keepdims=True)
        classes = draws.nth_left(draws.below(words[:, 0], free), own)
        rows = dataset.offsets[classes] + draws.below(words[:, 1], dataset.sizes[classes])
        x = dataset.gather(rows, dtype=query.weight.dtype, device=query.weight.device)
        y = F.one_hot(torch.from_numpy(classes).to(query.y.device) + query.y.shape[2], query.y.shape[2] + self.known)
        return Batch(
            torch.cat([query.x, x], 1),
            torch.cat([F.pad(query.y, (0, self.known)), y.to(query.y.dtype)], 1),
            F.pad(query.weight, (0, self.others), value=1.0),
        )
