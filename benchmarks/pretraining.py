"""Stage 1: a step of pre-training beside the making of its batch, which another thread does meanwhile."""

from dataclasses import replace

import numpy as np

from benchmarks.measure import Case, Contender, Work
from fewstep.data import Dataset
from fewstep.training.pretraining import Pretrainer
from fewstep.training.pretraining.presets import preset


def _trainer(network: str, size: int, batch: int) -> Pretrainer:
    pixels = np.random.default_rng(0).integers(0, 256, (2048, 3, size, size), dtype=np.uint8)
    images = Dataset.from_labels(pixels, np.repeat(np.arange(64), 32))
    return Pretrainer(images, replace(preset(network, size), batch=batch), seed=0)


def step(network: str, size: int, batch: int, rounds: int = 5) -> Case:
    """What the network takes, and what the input pipeline takes: gathering, augmenting, laying out."""

    def network_step() -> Work:
        trainer = _trainer(network, size, batch)
        trainer.network.train()
        x, y = trainer.batches.at(0)
        return lambda: trainer.advance(x, y)

    def making() -> Work:
        batches, steps = _trainer(network, size, batch).batches, iter(range(10**9))
        return lambda: batches.at(next(steps))

    return Case(
        f"pretraining-{network}-{size}",
        f"{network}, a batch of {batch} images, {size}×{size}",
        [Contender("step of the network", network_step), Contender("making the batch", making)],
        rounds=rounds,
    )
