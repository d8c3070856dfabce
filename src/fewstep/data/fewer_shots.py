"""Tasks that differ in their number of shots."""

from typing import final

import numpy as np

from fewstep.core.types import Task
from fewstep.data import draws
from fewstep.data.checks import check_count
from fewstep.data.dataset import as_tensor
from fewstep.data.source import OfSource, TaskSource


@final
class FewerShots(OfSource):
    """The tasks of a source, each with as many of its shots as are drawn for it: a :class:`~fewstep.data.TaskSource`.

    A task keeps the first K examples of each class, or of a regression, K uniform from ``fewest`` to ``shots``; the
    others have weight 0, as padding. So one network learns for several numbers of shots, as the authors of SNAIL and of
    neural processes train theirs.

    Args:
        source: of tasks, the rows of a class side by side.
        shots: of the source's tasks.
        fewest: of the tasks here.
        seed: of the numbers of shots; those of a step are a function of it and the step.

    Raises:
        ValueError: for a number that is not positive, or more than ``shots``.
    """

    def __init__(self, source: TaskSource, shots: int, fewest: int = 1, *, seed: int) -> None:
        check_count("fewest", fewest)
        draws.check_word("seed", seed)
        if fewest > shots:
            raise ValueError(f"FewerShots: from {fewest} of {shots} shots; give no more than those of the source.")
        self.source, self.shots, self.fewest, self.seed = source, shots, fewest, seed

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them."""
        task = self.source.batch(step, slice_)
        words = draws.words(self.seed, step, "shots", (self.tasks,))[slice_ or slice(None)]
        kept = self.fewest + draws.below(words, self.shots - self.fewest + 1)
        mask = as_tensor((np.arange(self.shots) < kept[:, None]).astype(np.float32)).to(task.support.weight)
        weight = task.support.weight.unflatten(1, (-1, self.shots)) * mask[:, None]
        return task._replace(support=task.support._replace(weight=weight.flatten(1)))
