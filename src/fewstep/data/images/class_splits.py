"""The published lists of classes of CIFAR-FS, FC100, miniImageNet and tieredImageNet."""

import functools
import json
from importlib import resources
from typing import Literal

from fewstep.data.checks import check_choice

Split = Literal["train", "val", "trainval", "test"]

PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
"""The published parts that each split is made of."""


def class_split(dataset: str, split: str) -> tuple[str, ...]:
    """The classes of a part of a dataset, in the published order; "trainval" is train and val together.

    CIFAR's classes go by their fine names ("dolphin"), ImageNet's by their WordNet ids ("n01532829"). FC100 is split
    by superclass: the fine names of each in alphabetical order.

    Sources: Bertinetto et al. 2019 (CIFAR-FS), Oreshkin et al. 2018 (FC100), Ravi and Larochelle 2017 (miniImageNet),
    Ren et al. 2018 (tieredImageNet).

    Raises:
        ValueError: if the split is unknown.
    """
    check_choice("split", split, tuple(PARTS))
    named = [name for part in PARTS[split] for name in _lists()[dataset][part]]
    if dataset == "FC100":
        return tuple(fine for superclass in named for fine in _lists()["CIFAR-100"][superclass])
    return tuple(named)


def all_classes(dataset: str) -> tuple[str, ...]:
    """The classes of all parts, in alphabetical order: for CIFAR, that of its labels."""
    return tuple(sorted(name for part in ("train", "val", "test") for name in class_split(dataset, part)))


@functools.cache
def _lists() -> dict[str, dict[str, list[str]]]:
    text = (resources.files("fewstep") / "data" / "files" / "class_splits.json").read_text()
    lists: dict[str, dict[str, list[str]]] = json.loads(text)
    return lists
