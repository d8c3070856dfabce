"""``fewstep pretrain``: stage 1, from images to a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from fewstep.commands.arguments import explained, overridden, split_name, value_of, without
from fewstep.core.ranges import Threads
from fewstep.data.images.by_name import ImageData
from fewstep.experiments.pretraining_config import PretrainingConfig
from fewstep.training.pretraining.presets import NETWORKS, PHOTOGRAPH_SIZE, preset

_SIZES = {"cifar-fs": 32, "fc100": 32, "omniglot": 28}
"""Pixels a side of datasets that come in one size."""

USAGE = f"""\
fewstep pretrain DATASET --network NETWORK [options]
  DATASET  cifar-fs, fc100, omniglot, mini-imagenet, tiered-imagenet,
           or a folder of images with a split
  NETWORK  {", ".join(NETWORKS)}, or another
           wrn-DEPTH-FACTOR; resnet-9 when omitted
fewstep pretrain --resume RUN
fewstep pretrain DATASET --network NETWORK --help shows every option"""


@dataclass(frozen=True)
class Pretrain:
    """Train a network to name the base classes of a dataset; `fewstep embed` then exports its features.

    --network NAME chooses the network and sets all other options to what suits it and the size of the images.
    """

    config: Annotated[PretrainingConfig, tyro.conf.arg(name="")]
    """What is trained on what."""
    out: Path | None = None
    """Folder of the pre-training. None: a new one under runs/."""
    resume: Path | None = None
    """Continue the stopped one in this folder, to the same bits."""
    processes: Threads | None = None
    """Processes of this machine that share every batch, and its cores, out among them. None: 1; of one that is
    continued, as many as before. On several machines: torchrun ... -m fewstep pretrain DATASET."""


def pretrain(arguments: Sequence[str]) -> None:
    """``fewstep pretrain DATASET [options]``, or ``fewstep pretrain --resume RUN``."""
    if explained(arguments, USAGE):
        return
    given = arguments
    name, arguments = split_name(arguments)
    if (resumed := value_of(arguments, "--resume")) is not None:
        from fewstep.commands.pretraining import go_on

        go_on(Path(resumed), given)
    elif name is None:
        raise ValueError(f"no dataset was given.\n{USAGE}")
    else:
        parsed = overridden(
            Pretrain(default_config(name, arguments)), without(arguments, "--network"), f"fewstep pretrain {name}"
        )
        from fewstep.commands.pretraining import begin_new

        title = f"{value_of(arguments, '--network') or 'resnet-9'}-{Path(name).name or 'images'}"
        begin_new(parsed.config, parsed.out, parsed.processes, given, title)


def default_config(dataset: str, arguments: Sequence[str]) -> PretrainingConfig:
    """What a dataset and a network are trained with where the user says nothing else.

    Raises:
        ValueError: for an unknown network, or a size that is no number.
    """
    images = ImageData(dataset)
    size = _SIZES.get(dataset)
    if size is None:
        given = value_of(arguments, "--size") or str(PHOTOGRAPH_SIZE)
        if not given.isdecimal():
            raise ValueError(f"--size must be a number of pixels, got {given!r}.")
        size = int(given)
        images = replace(images, size=size)
    return PretrainingConfig(images, preset(value_of(arguments, "--network") or "resnet-9", size, dataset))
