"""Processes that share out the tasks of a batch: each computes its share, and all come to the same numbers."""

from collections.abc import Sequence
from typing import final

import torch
import torch.distributed
from torch import Tensor


@final
class Ranks:
    """The processes among which tasks are shared out; one alone has them all.

    Tasks and their noise are functions of (seed, step, task), so that a share is the same whoever computes it. Sums
    are made in the order of ranks' shares by ``torch.distributed``: the same bits every time for the same number of
    processes, and other last digits for another.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.

    Example:
        >>> [Ranks(rank, 3).share(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, tasks: int) -> slice:
        """Which of so many tasks are this process's: neighbours, and as many as anyone's or one more."""
        return slice(self.rank * tasks // self.size, (self.rank + 1) * tasks // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums over processes, of tensors of one floating-point type that have the same shapes in all of them."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        return [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)]

    def gather(self, tensor: Tensor, rows: int) -> Tensor:
        """All rows of all processes, of which each has its :meth:`share`, in order.

        Args:
            tensor: ``[rows of this process, *shape]``.
            rows: of all processes.
        """
        if self.size == 1:
            return tensor
        shares = [Ranks(rank, self.size).share(rows) for rank in range(self.size)]
        counts = [share.stop - share.start for share in shares]
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in shares]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum([torch.tensor(float(here))])[0]) if self.size > 1 else here

    def told(self, words: str) -> str:
        """What the first process says."""
        said = [words]
        if self.size > 1:
            torch.distributed.broadcast_object_list(said, src=0)
        return said[0]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = Ranks()
"""A process that shares with nobody."""
