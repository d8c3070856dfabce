"""Tasks of images whose images are augmented."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, cast, final

from fewstep.core.types import Batch, Task
from fewstep.data import draws
from fewstep.data.images.augmentation import Augmentation
from fewstep.data.images.changes import WORDS
from fewstep.data.source import OfSource, TaskSource


@final
@dataclass(frozen=True, eq=False)
class Augmented(OfSource):
    """A source of tasks whose images are augmented: a :class:`~fewstep.data.TaskSource`, for training.

    Every image of support and query is changed by a draw of its own. The draws are a function of (seed, stream, step)
    and of the image's place in the batch; those of the support do not depend on the number of queries.

    Attributes:
        source: gives tasks with ``x`` of shape ``[tasks, rows, channels, height, width]``.
        augmentation: what is done.
        seed: from 0 to 2**64 - 1.
        stream: name of an independent sequence under the same seed.

    Raises:
        ValueError: if the seed is out of range.
    """

    source: TaskSource
    augmentation: Augmentation
    seed: int
    _: KW_ONLY
    stream: str = "augmentation"

    def __post_init__(self) -> None:
        draws.check_word("seed", self.seed)

    @property
    def shots(self) -> int:
        """Support examples of each class, where the source knows."""
        return cast(int, self._of_source("shots"))

    @property
    def queries(self) -> int | None:
        """Query examples of each class, where the source knows."""
        return cast("int | None", self._of_source("queries"))

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of a step, or a slice of them, with their images augmented.

        Raises:
            ValueError: if the step is negative, or the inputs are no images.
        """
        if slice_ is not None and not _leading(slice_):
            support, query = self.batch(step)  # the last batch of a source may be short: counted from its end
            return Task(*(Batch(*(tensor[slice_] for tensor in batch)) for batch in (support, query)))
        support, query = self.source.batch(step, slice_)
        return Task(self._changed(support, step, slice_, "support"), self._changed(query, step, slice_, "query"))

    def _changed(self, batch: Batch, step: int, slice_: slice | None, part: str) -> Batch:
        if self.augmentation.changes_nothing:
            return batch
        if batch.x.ndim != 5:
            raise ValueError(
                f"images are augmented, [tasks, rows, channels, height, width]; the inputs of this source are "
                f"{list(batch.x.shape)}"
            )
        # Tasks lead, so that a short batch has the beginning of the words of a whole one.
        shape = (self.tasks, batch.x.shape[1], WORDS)
        words = draws.words(self.seed, step, f"{self.stream} {part}", shape)[slice_ or slice(None)]
        return batch._replace(x=self.augmentation(batch.x, words[: len(batch.x)]))

    def _of_source(self, name: str) -> Any:
        try:
            return getattr(self.source, name)
        except AttributeError:
            raise AttributeError(f"the augmented source, {type(self.source).__name__}, has no {name}") from None


def _leading(slice_: slice) -> bool:
    """Whether a slice means the same tasks whatever their number."""
    ends = (slice_.start or 0, 0 if slice_.stop is None else slice_.stop)
    return min(ends) >= 0 and (slice_.step is None or slice_.step > 0)
