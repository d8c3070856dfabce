"""Tasks whose queries are of any of their classes."""

from typing import final

import numpy as np
import torch

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.dataset import as_tensor
from fewstep.data.episodes import EpisodeSampler
from fewstep.data.source import OfSource, TaskSource


@final
class AnyQueries(OfSource):
    """The tasks of a sampler, with its ``queries`` for a task in place of a class: a :class:`~fewstep.data.TaskSource`.

    They are drawn uniformly from all examples of the task's classes that are not its support, so that a task has more
    of one class than of another, as TADAM's authors train theirs. Rows are in class-major order.

    Args:
        source: an :class:`EpisodeSampler` with a number of queries; classes and support are as it draws them.

    Raises:
        ValueError: for another source.
    """

    source: EpisodeSampler

    def __init__(self, source: TaskSource) -> None:
        if not isinstance(source, EpisodeSampler) or source.queries is None:
            raise ValueError(
                f"AnyQueries: {type(source).__name__} has no number of queries to draw from what it knows of classes; "
                "take an EpisodeSampler with queries, whose images are not augmented."
            )
        self.source, self.queries = source, source.queries

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them."""
        sampler, queries = self.source, self.queries
        indices = sampler.indices(step).part(slice_)
        words = draws.words(sampler.seed, step, f"{sampler.stream}/any", (sampler.tasks, queries))
        # Which examples are of which class is all that is drawn here: those of a class are the sampler's first ones.
        ends = np.cumsum(sampler.dataset.sizes[indices.classes] - sampler.shots, axis=1)
        drawn = draws.distinct(words[slice_ or slice(None)], ends[:, -1])
        way = np.sort((drawn[:, :, None] >= ends[:, None]).sum(2), axis=1)
        place = np.arange(queries) - (way[:, :, None] > way[:, None]).sum(2)
        task = sampler.assemble(indices)
        rows = as_tensor(way * queries + place).to(task.query.weight.device)
        lead = torch.arange(len(rows), device=rows.device)[:, None]
        return Task(task.support, Batch(*(values[lead, rows] for values in task.query)))
