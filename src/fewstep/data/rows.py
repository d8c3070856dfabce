"""Examples without tasks: rows of a dataset with the names of their classes."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F

from fewstep.core.types import Batch
from fewstep.data.checks import check_count
from fewstep.data.dataset import Dataset


@final
@dataclass(frozen=True, eq=False)
class RandomRows:
    """Rows of a dataset, drawn uniformly with replacement, with their classes: the batches of an auxiliary loss.

    Attributes:
        dataset: where examples come from; every class of it is an output.
        rows: in a batch.

    Raises:
        ValueError: for a count below one.

    Example:
        >>> from fewstep.data import RandomRows
        >>> batch = RandomRows(classes, rows=6)(torch.Generator().manual_seed(0))
        >>> batch.x.shape, batch.y.shape  # of five classes
        (torch.Size([6, 8]), torch.Size([6, 5]))
    """

    dataset: Dataset
    rows: int

    def __post_init__(self) -> None:
        check_count("rows", self.rows)

    def __call__(self, source: torch.Generator) -> Batch:
        """A batch from a random stream on the CPU: float32 rows, one-hot labels ``[rows, classes]``, weights of 1."""
        positions = torch.randint(len(self.dataset), (self.rows,), generator=source).numpy()
        of = torch.from_numpy(np.searchsorted(self.dataset.offsets, positions, side="right") - 1)
        y = F.one_hot(of, self.dataset.classes).float()
        return Batch(self.dataset.gather(positions), y, torch.ones(self.rows))
