"""``fewstep fit``: from a table of features to the best classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from fewstep.commands.arguments import options_of, parsed
from fewstep.commands.console import console, note, point_to, say, warn
from fewstep.commands.long_running import LongRunning
from fewstep.core.ranges import Count, Positive, Seed, Threads, Ways

USAGE = "fewstep fit FEATURES [--shots 1 5] [--minutes 10] [--out FOLDER]; fewstep fit --help shows every option"

if TYPE_CHECKING:
    from fewstep.experiments.fit import FitResult


@dataclass(frozen=True)
class Fit:
    """Find out what classifies new classes of some features best from few examples, and whether meta-learning pays.

    Class means, ridge and logistic regression, residual prototypes, ProtoNet and LEO are tried on validation classes as
    long as there is time, and tested once on classes that nothing was trained or chosen on. The same command continues
    one that was stopped or killed.
    """

    data: tyro.conf.Positional[Path]
    """Features with labels, in any format that `fewstep data inspect` reads: .npz, .npy, .safetensors, .csv, .parquet,
    .pkl, .h5, .mat; or a folder of photographs, with a folder for each class, on whose training classes a small network
    is trained first. Where there is no split, classes are divided at random."""
    shots: tuple[Count, ...] = (1, 5)
    """Examples of each new class; there is a recommendation for each number."""
    minutes: Positive = 10.0
    """For everything."""
    ways: Ways = 5
    """Classes of a task; fewer where a split has fewer."""
    seed: Seed = 0
    """Of the division of classes, of draws, training and tasks."""
    workers: Threads | None = None
    """Processes at once, of one thread. None: as many as there are cores; one on a GPU."""
    out: Path | None = None
    """Folder for the models, report.md, result.json and the picture; an earlier fit goes on. None: a new one under
    fits/."""


def fit(arguments: Sequence[str]) -> None:
    """``fewstep fit FEATURES [options]``."""
    if not arguments:
        return say(USAGE)
    asked = parsed(Fit, arguments, "fewstep fit")
    job = LongRunning("fit", arguments, asked.out, "fits", asked.data.stem)
    with job.at_work():
        from fewstep.commands.data import show
        from fewstep.commands.progress import fit_bar
        from fewstep.experiments.fit import fit as find

        with fit_bar() as progress:
            found = find(folder=job.folder, note=note, inspected=show, progress=progress, **options_of(asked, "out"))
        console.print(*found.tables())
        for line in found.failures():
            warn("without a result", line)
        for sentence in found.verdicts():
            say(sentence)
        for model in _save(found):
            point_to("model", job.folder / model.name)
        point_to("report", job.folder / "report.md")
        point_to("page", job.folder / "report.html")


def _untold(_: str) -> None:
    """A trial whose time was over was chosen as it is."""


def _save(found: FitResult) -> list[Path]:
    """Write a model for every number of shots."""
    from fewstep.data.features.export import extractor_beside
    from fewstep.data.images.files import Reading
    from fewstep.estimators.model import Model, SimpleModel, TrainedModel
    from fewstep.estimators.opened import opened
    from fewstep.estimators.sharing import write
    from fewstep.experiments.fit.report import model_name
    from fewstep.training.pretraining import FeatureExtractor

    network = extractor_beside(found.folder / "features.safetensors")
    extractor = FeatureExtractor.load(network) if network.is_file() else None
    reading = None if extractor is None else extractor.reading or Reading()
    written = []
    for shots in found.cells:
        winner, facts = found.winner(shots), found.facts(shots)
        model: Model = (
            opened(winner, note=_untold) if isinstance(winner, Path) else SimpleModel(winner, facts, extractor, reading)
        )
        if isinstance(model, TrainedModel) and model.origin is not None:
            model = replace(model, origin=replace(model.origin, facts={**model.origin.facts, **facts}))
        written.append(write(found.folder / model_name(shots, len(found.cells)), model))
    return written
