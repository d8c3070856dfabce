"""Small pictures that a small network tells apart within seconds."""

from itertools import pairwise

import numpy as np
import torch

from fewstep.data import Augmentation, Dataset
from fewstep.training.pretraining import Architecture, Pretraining

SMALL = Pretraining(
    Architecture(widths=(4, 8), pools=1),
    epochs=3,
    batch=8,
    rate=0.02,
    precision="float32",
    augmentation=Augmentation(1, True, padding="zeros"),
)
"""Settings of a network that trains in a fraction of a second."""


def pictures(classes: int = 4, seed: int = 0, channels: int = 1, side: int = 8) -> Dataset:
    """Classes of unequal size, 9 images and more: a bright bar, in a row of the class's own, and noise."""
    random = np.random.default_rng(seed)
    sizes = [9 + c for c in range(classes)]
    rows = random.integers(0, 150, (sum(sizes), channels, side, side), dtype=np.uint8)
    offsets = np.cumsum([0, *sizes])
    for c, (start, end) in enumerate(pairwise(offsets)):
        rows[start:end, :, 2 * c % side, :] = 255
    return Dataset.from_sorted(rows, offsets, [f"class {c}" for c in range(classes)], split="train")


def everything(data: Dataset) -> torch.Tensor:
    """All rows, in order."""
    return data.gather(np.arange(len(data)))
