"""``fewstep pretrain``: stage 1, from images to a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Column, Table

from fewstep.commands.arguments import explained, overridden, split_name, value_of
from fewstep.commands.console import console, note, point_to, say, warn
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.commands.sharing import begin, in_folder, is_to_begin, sharing
from fewstep.core.ranges import Threads
from fewstep.core.ranks import Ranks
from fewstep.data.images.by_name import ImageData
from fewstep.data.storage.files import read_json
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.environment import processes_before
from fewstep.experiments.folder import ENVIRONMENT, new_folder
from fewstep.experiments.pretraining import CONFIG, PretrainingConfig, PretrainingRun
from fewstep.training.launched import may_restart, restarted
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
        _resume(Path(resumed), given)
    elif name is None:
        raise ValueError(f"no dataset was given.\n{USAGE}")
    else:
        parsed = overridden(
            Pretrain(default_config(name, arguments)), _without(arguments, "--network"), f"fewstep pretrain {name}"
        )
        _begin(parsed, given, f"{value_of(arguments, '--network') or 'resnet-9'}-{Path(name).name or 'images'}")


def _begin(asked: Pretrain, given: Sequence[str], title: str) -> None:
    if asked.out is None and may_restart():
        raise ValueError("torchrun --max-restarts goes on in a folder that it must know: give --out RUN.")
    if several := is_to_begin(asked.processes):
        folder = asked.out or new_folder("runs", title)
        words = ["pretrain", *given, *([] if asked.out else ["--out", str(folder)])]
        with removed_if_empty(asked.out, folder):
            begin(words, several, asked.config.threads, ["pretrain", "--resume", str(folder)])
        return
    with sharing(asked.config.device) as ranks:
        folder = asked.out or Path(ranks.told(str(new_folder("runs", title)) if ranks.first else ""))
        again = ("pretrain", *given, *([] if asked.out else ["--out", str(folder)]))
        begun = restarted() and (folder / CONFIG).exists()
        create = partial(PretrainingRun.resume, folder, note) if begun else partial(_create, asked.config, folder)
        _together(create, folder, asked.out, again, ranks)


def _resume(folder: Path, given: Sequence[str]) -> None:
    rest = _without(_without(given, "--resume"), "--processes")
    number = value_of(given, "--processes")
    if rest or not (number or "1").isdecimal():
        allowed = f"--resume {folder}, and --processes N"
        raise ValueError(f"a resumed pre-training keeps its configuration; give only {allowed}.")
    run = PretrainingRun.open(folder, note)  # what is none is told before a lock comes into it
    before = processes_before(read_json(folder / ENVIRONMENT))
    again = ["pretrain", "--resume", str(folder)]
    if several := is_to_begin(int(number) if number else None, before):
        return begin(["pretrain", *given], several, run.config.threads, again)
    with sharing(run.config.device) as ranks:
        _together(partial(PretrainingRun.resume, folder, note), folder, folder, again, ranks)


def _create(config: PretrainingConfig, folder: Path) -> PretrainingRun:
    return PretrainingRun.create(config, folder, note)


def _together(
    begun: Callable[[], PretrainingRun], folder: Path, kept: Path | None, again: Sequence[str], ranks: Ranks
) -> None:
    """Train in this process, alone or with others."""
    with in_folder(folder, kept, again, ranks):
        _run(PretrainingRun.joined(begun, folder, ranks))


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
    if not run.ranks.first:
        return
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
