"""Processes that share out the tasks of a batch: each computes its share, and all come to the same numbers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, final

import torch
import torch.distributed
from torch import Tensor


class RankLost(ValueError):
    """Another of the processes that work together has ended, or is out of reach.

    Attributes:
        status: with which a command exits that could do nothing about it.
    """

    status: ClassVar[int] = 75


@final
class Ranks:
    """The processes among which tasks are shared out; one alone has them all.

    Tasks and their noise are functions of (seed, step, task), so that a share is the same whoever computes it. What is
    summed over processes has the same bits in all of them, and every time for the same number of processes; for another
    number, other last digits. Every process must come to the same calls in the same order.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.

    Raises:
        RankLost: of every call that waits for the other processes, where one of them is gone.

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
        """Sums over processes, of floating-point tensors that have the same shapes in all of them."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message
        with _answered():
            torch.distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]

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
        with _answered():
            torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def most(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        with _answered():
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def told(self, words: str) -> str:
        """What the first process says."""
        if self.size == 1:
            return words
        said = torch.frombuffer(bytearray(words.encode()), dtype=torch.uint8)
        length = self.most(len(said) if self.first else 0)
        heard = said if self.first else torch.empty(length, dtype=torch.uint8)
        with _answered():
            torch.distributed.broadcast(heard, 0)
        return bytes(heard.tolist()).decode()

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.most(0)


ALONE = Ranks()
"""A process that shares with nobody."""


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL or their store, which have no other base in common
        time.sleep(0.5)  # a signal that has ended the other process may be on its way to this one, and says more
        why = str(error).strip().splitlines()
        raise RankLost(
            f"another process of this command has ended or is out of reach ({why[0] if why else 'no reason given'})."
        ) from error
