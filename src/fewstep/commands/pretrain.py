"""``fewstep pretrain``: stage 1, from images to a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Column, Table

from fewstep.commands.arguments import explained, overridden, split_name, value_of
from fewstep.commands.console import console, note, point_to, say, warn
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.data.images.by_name import ImageData
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.folder import all_or_nothing, new_folder
from fewstep.experiments.pretraining import PretrainingConfig, PretrainingRun
from fewstep.training.pretraining.presets import NETWORKS, PHOTOGRAPH_SIZE, preset

FEW = 1000
"""Batches below which a user is told so."""

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


def pretrain(arguments: Sequence[str]) -> None:
    """``fewstep pretrain DATASET [options]``, or ``fewstep pretrain --resume RUN``."""
    if explained(arguments, USAGE):
        return
    given = arguments
    name, arguments = split_name(arguments)
    if (resumed := value_of(arguments, "--resume")) is not None:
        if name is not None or len(arguments) > 2:
            raise ValueError(f"a resumed pre-training keeps its configuration; give only --resume {resumed}.")
        PretrainingRun.open(Path(resumed), note)  # what is none is told before a lock comes into it
        with stoppable("pretrain", "--resume", resumed), all_or_nothing(Path(resumed)):
            _run(PretrainingRun.resume(Path(resumed), note))
    elif name is None:
        raise ValueError(f"no dataset was given.\n{USAGE}")
    else:
        parsed = overridden(
            Pretrain(default_config(name, arguments)), _without(arguments, "--network"), f"fewstep pretrain {name}"
        )
        network = value_of(arguments, "--network") or "resnet-9"
        folder = parsed.out or new_folder("runs", f"{network}-{Path(name).name or 'images'}")
        again = ("pretrain", *given, *([] if parsed.out else ["--out", str(folder)]))
        with removed_if_empty(parsed.out, folder), stoppable(*again), all_or_nothing(folder):
            _run(PretrainingRun.create(parsed.config, folder, note))


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


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """The arguments without an option and its value."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [one for before, one in pairs if flag not in (before, one) and not one.startswith(f"{flag}=")]


def _run(run: PretrainingRun) -> None:
    point_to("run folder", run.folder)
    with stoppable("pretrain", "--resume", str(run.folder)):
        _at_work(run)


def _at_work(run: PretrainingRun) -> None:
    from fewstep.commands.progress import training_bar

    trainer = run.trainer
    parameters = sum(p.numel() for p in trainer.parameters)
    say(
        f"{type(trainer.network.backbone).__name__}, {parameters:,} parameters, {trainer.options.precision}; "
        f"{len(trainer.dataset):,} images of {trainer.dataset.classes} base classes; {trainer.total:,} batches"
    )
    if trainer.total < FEW:
        warn(
            "few batches",
            f"a network learns little from scratch in {trainer.total:,}; with so few images give more --epochs and a "
            "smaller --batch, or take features of a network that others have trained",
        )
    began = trainer.state.step, trainer.state.seconds
    with training_bar(trainer.total, "pre-training", "batches") as progress:
        trainer.run(progress)
    steps, seconds = trainer.state.step - began[0], trainer.state.seconds - began[1]
    if steps:
        speed, waited = steps * trainer.batches.batch / seconds, trainer.waited / seconds
        say(f"{speed:.0f} images/s; the network waited for images {waited:.1%} of the time")
    scores = run.score()
    if any(scores.values()):
        console.print(table(scores))
    point_to("report", run.folder / "report.md")
    say(f"features: fewstep embed {run.folder} {run.config.images.name} --out features.npz")


def table(scores: dict[str, dict[str, dict[int, Interval]]]) -> Table:
    """Nearest class mean by layer and split."""
    shots = sorted({k for of in scores.values() for by in of.values() for k in by})
    columns = (Column(f"{k}-shot", justify="right") for k in shots)
    shown = Table("layer", "classes", *columns, title="nearest class mean, 5-way, %", title_justify="left")
    for layer, of in scores.items():
        for split, by in of.items():
            shown.add_row(layer, split, *(by[k].text(percent=True) if k in by else "n/a" for k in shots))
    return shown
