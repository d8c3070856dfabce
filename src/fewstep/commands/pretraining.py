"""What ``fewstep pretrain`` does: a pre-training, begun or continued, by one process or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.table import Column, Table

from fewstep.commands.arguments import value_of, without
from fewstep.commands.console import console, note, point_to, say, warn
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.commands.progress import training_bar
from fewstep.commands.sharing import begin, in_folder, is_to_begin, sharing
from fewstep.core.ranks import Ranks
from fewstep.data.storage.files import read_json
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.environment import processes_before
from fewstep.experiments.folder import ENVIRONMENT, new_folder
from fewstep.experiments.pretraining import PretrainingRun
from fewstep.experiments.pretraining_config import CONFIG, PretrainingConfig
from fewstep.training.launched import may_restart, restarted

FEW = 1000
"""Batches below which a user is told so."""


def begin_new(
    config: PretrainingConfig, out: Path | None, processes: int | None, given: Sequence[str], title: str
) -> None:
    """Begin a pre-training.

    Args:
        config: what is trained on what.
        out: its folder; a new one under runs/ when None.
        processes: that share its batches out; 1 when None.
        given: the arguments of the command.
        title: of a new folder.

    Raises:
        ValueError: as :meth:`PretrainingRun.create`.
    """
    if out is None and may_restart():
        raise ValueError("torchrun --max-restarts goes on in a folder that it must know: give --out RUN.")
    if several := is_to_begin(processes):
        folder = out or new_folder("runs", title)
        words = ["pretrain", *given, *([] if out else ["--out", str(folder)])]
        with removed_if_empty(out, folder):
            begin(words, several, config.threads, ["pretrain", "--resume", str(folder)])
        return
    with sharing(config.device) as ranks:
        folder = out or Path(ranks.told(str(new_folder("runs", title)) if ranks.first else ""))
        again = ("pretrain", *given, *([] if out else ["--out", str(folder)]))
        begun = restarted() and (folder / CONFIG).exists()
        create = partial(PretrainingRun.resume, folder, note) if begun else partial(_create, config, folder)
        _together(create, folder, out, again, ranks)


def go_on(folder: Path, given: Sequence[str]) -> None:
    """Go on with a pre-training; ``given`` are the arguments of the command.

    Raises:
        ValueError: for options that a pre-training has from its folder, and as :meth:`PretrainingRun.resume`.
    """
    rest = without(given, "--resume", "--processes")
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


def _run(run: PretrainingRun) -> None:
    point_to("run folder", run.folder)
    with stoppable("pretrain", "--resume", str(run.folder)):
        _at_work(run)


def _at_work(run: PretrainingRun) -> None:
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
