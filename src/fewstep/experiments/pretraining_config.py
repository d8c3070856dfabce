"""What a pre-training is configured by, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewstep.core.ranges import CountOrZero, Seed, Several, Threads, require_ranges
from fewstep.data.images.by_name import TITLES, ImageData
from fewstep.training.pretraining.options import Pretraining

CONFIG = "pretraining.json"
"""The name of its file in the folder of a pre-training."""

Views = Literal["center", "multiview"]
"""What is shown of an image: its centre, or the mean over ten crops."""


@dataclass(frozen=True)
class PretrainingConfig:
    """Everything that a pre-training depends on."""

    images: Annotated[ImageData, tyro.conf.arg(name="")]
    """The dataset; its base classes (train) alone are trained on."""
    training: Annotated[Pretraining, tyro.conf.arg(name="")]
    """Network and training."""
    patience: CountOrZero = 0
    """End after so many epochs without a better validation; 0 for never. Under one cycle the last epochs are the best,
    so that it is of use for schedules of steps."""
    validation_tasks: Several = 1000
    """5-way tasks of the validation classes on which nearest class mean is scored after every epoch."""
    seed: Seed = 0
    """Of the first weights, the order of images and their augmentation."""
    device: str = "auto"
    """"auto", a GPU where there is one; "cpu", "cuda" or "cuda:1". A pre-training keeps the one it was begun on."""
    threads: Threads | None = None
    """CPU threads. None: as many as torch takes by itself. The same bits need the same number."""

    def __post_init__(self) -> None:
        require_ranges(self)


def from_anywhere(images: ImageData) -> ImageData:
    """The same images, whatever the working directory is when the configuration is read."""
    folder = images.name not in TITLES and Path(images.name).is_dir()  # other names are mistakes, and told as given
    path, split, cache = (place and str(Path(place).absolute()) for place in (images.path, images.split, images.cache))
    name = str(Path(images.name).absolute()) if folder else images.name
    return replace(images, name=name, path=path, split=split, cache=cache)
