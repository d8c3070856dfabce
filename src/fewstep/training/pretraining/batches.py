"""Batches of images for one network, made ahead of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.core import generator
from fewstep.core.ranks import ALONE, Ranks
from fewstep.data import Dataset, draws
from fewstep.data.images.augment import WORDS, Augmentation


class Batches:
    """Batches of augmented images, addressed by step.

    Args:
        dataset: images.
        batch: how many at a time; what does not fill a batch is left out of an epoch.
        augmentation: what is done to each.
        seed: of the order in every epoch, and of the augmentation.
        device: where batches lie; the images stay where they are.
        ranks: the processes that share out every batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.dataset, self.augmentation, self.seed, self.device = dataset, augmentation, seed, device
        self.batch = min(batch, len(dataset))
        self.own = ranks.share(self.batch)
        self.labels = torch.from_numpy(dataset.labels)
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.dataset) // self.batch

    def at(self, step: int) -> tuple[Float[Tensor, "rows channels height width"], Int[Tensor, " rows"]]:
        """The images of a step, or this process's share of them, channels last in memory, and their classes."""
        epoch, place = divmod(step, len(self))
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.dataset), generator=generator(self.seed, epoch, "pretraining order"))
            self._order = epoch, order
        chosen = self._order[1][place * self.batch : (place + 1) * self.batch][self.own]
        x = self.dataset.gather(chosen.numpy(), device=self.device)
        words = draws.words(self.seed, step, "pretraining augmentation", (self.batch, WORDS))
        x = self.augmentation(x, words[self.own])
        return x.contiguous(memory_format=torch.channels_last), self.labels[chosen].to(self.device)

    @contextmanager
    def ahead(self, start: int, end: int, count: int = 2) -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
        """A function that gives the batches from ``start`` on, ``count`` of which another thread makes in advance."""
        with ThreadPoolExecutor(1, "batches") as thread:
            steps = iter(range(start, end))
            waiting: list[Future[tuple[Tensor, Tensor]]] = []

            def fetch() -> tuple[Tensor, Tensor]:
                while len(waiting) <= count and (step := next(steps, None)) is not None:
                    waiting.append(thread.submit(self.at, step))
                return waiting.pop(0).result()

            try:
                yield fetch
            finally:
                for future in waiting:
                    future.cancel()
