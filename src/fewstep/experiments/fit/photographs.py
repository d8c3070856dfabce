"""Features of photographs for a fit: a network that is trained on their training classes alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from fewstep.data import Dataset, draws
from fewstep.data.features.export import export_features, extractor_beside
from fewstep.data.images.by_name import ImageData
from fewstep.data.images.class_folders import contents_of
from fewstep.data.images.files import Reading
from fewstep.data.storage.files import write_atomically
from fewstep.experiments.fit.prepare import held_out
from fewstep.experiments.folder import all_or_nothing
from fewstep.experiments.pretraining import PretrainingConfig, PretrainingRun
from fewstep.experiments.workers import Throttle
from fewstep.training import State
from fewstep.training.device import device_here, same_threads
from fewstep.training.pretraining import Pretrainer, Pretraining
from fewstep.training.pretraining.presets import PHOTOGRAPH_SIZE, preset

EMBEDDED, NETWORK, SPLIT = "embedded.safetensors", "pretrained", "split.json"

SMALL = 32
"""Side of photographs on a CPU, where larger ones would take hours."""

PRETRAINING = 0.4
"""Share of the time for the network; its features take some more."""

MOST_EPOCHS = 60

BATCHES = 20
"""Of an epoch at least, as far as batches of sixteen images can be smaller."""

Doing = Callable[[str, str], None]
"""Is told what is being done, and how far it is."""


def is_photographs(data: Path) -> bool:
    """Whether a place is a folder with photographs, in folders of classes or of splits."""
    if not data.is_dir():
        return False
    folders = contents_of(data).folders
    return any(contents_of(f).images or any(contents_of(g).images for g in contents_of(f).folders) for f in folders)


def embedded(
    photographs: Path, folder: Path, *, seconds: float, ways: int, seed: int, note: Callable[[str], None], doing: Doing
) -> Path:
    """Features of photographs by a network of nine layers, as far as it can be trained in the time.

    Args:
        photographs: a folder as :func:`~fewstep.data.photographs` takes; or class folders without a split, whose
            classes are then divided at random.
        folder: of the fit; what is there is taken, or gone on with.
        seconds: for the whole fit.
        ways: of tasks, for the division.
        seed: of the division, and of the network.
        note: told, in a line, what has been decided.
        doing: told how far it is.

    Returns:
        A file of features, with the network beside it.

    Raises:
        ValueError: as :func:`~fewstep.data.photographs` says, and when there are no validation or no test classes.
    """
    target, began = folder / EMBEDDED, time.monotonic()
    if target.exists():
        return target
    device = device_here("auto")
    side = SMALL if device == "cpu" else PHOTOGRAPH_SIZE
    images = ImageData(str(photographs), size=side, split=_split(photographs, folder, ways, seed, note))
    if missing := [split for split in ("train", "val", "test") if split not in images.splits()]:
        raise ValueError(
            f"{photographs} has no classes for {' and '.join(missing)}: add a folder of them, or take all classes out "
            "of their split folders, and they are divided at random"
        )
    place = folder / NETWORK
    with same_threads(), all_or_nothing(place):
        if (place / "pretraining.json").exists():
            run = PretrainingRun.resume(place, note)
        else:
            doing("pre-training", "reading images")
            base = images.examples("train", note)
            options = _affordable(
                preset("resnet-9", side), base, PRETRAINING * seconds - (time.monotonic() - began), seed
            )
            config = PretrainingConfig(images, options, validation_tasks=200, seed=seed)
            run = PretrainingRun.create(config, place, note)
            note(f"a network of nine layers learns the {base.classes} training classes: {options.epochs} epochs")
        due = Throttle(1.0)

        def progress(state: State, _: dict[str, float]) -> None:
            if due():
                doing("pre-training", f"batch {state.step} of {trainer.total}")

        trainer = run.trainer
        trainer.run(progress)
    extractor = run.extractor("last")
    extractor.reading = Reading(side, grey=False, invert=False, fit="crop")
    of: dict[str, Dataset] = {split: run.images(split) for split in images.splits()}  # which must not have changed
    export_features(
        extractor,
        of,
        target,
        device=run.device,
        progress=lambda done, total: doing("embedding", f"{done} of {total} images"),
        before_writing=lambda digest: extractor.save(extractor_beside(target), features=digest),
    )
    return target


def _split(photographs: Path, folder: Path, ways: int, seed: int, note: Callable[[str], None]) -> str | None:
    """A file with a division of the classes, where the photographs have none."""
    file = folder / SPLIT
    folders = contents_of(photographs).folders
    told = any((photographs / f"split.{kind}").exists() for kind in ("csv", "json"))
    if told or not all(contents_of(one).images for one in folders):
        return None
    names = sorted(one.name for one in folders)
    if not file.exists():
        held = held_out(len(names), 2, ways, photographs, "")
        order = np.argsort(draws.words(seed, 0, "class split", (len(names),)), kind="stable").tolist()
        ends = (len(names) - 2 * held, len(names) - held, len(names))
        split: dict[Literal["train", "val", "test"], list[str]] = {
            "train": sorted(names[i] for i in order[: ends[0]]),
            "val": sorted(names[i] for i in order[ends[0] : ends[1]]),
            "test": sorted(names[i] for i in order[ends[1] :]),
        }
        write_atomically(file, json.dumps(split, indent=1, ensure_ascii=False) + "\n")
    counts = ", ".join(f"{len(of)} {name}" for name, of in json.loads(file.read_text(encoding="utf-8")).items())
    note(f"classes divided at random (seed {seed}): {counts}")
    return str(file)


def _affordable(options: Pretraining, base: Dataset, seconds: float, seed: int) -> Pretraining:
    """As many epochs as there is time for, by the time of a few batches."""
    batch = max(16, min(options.batch, len(base) // BATCHES))
    options = replace(options, batch=batch)
    trainer = Pretrainer(base, options, seed=seed)
    trainer.network.train()
    with trainer.batches.ahead(0, 4) as fetch:
        trainer.advance(*fetch())
        began = time.monotonic()
        for _ in range(3):
            trainer.advance(*fetch())
        epoch = (time.monotonic() - began) / 3 * len(trainer.batches)
    return replace(options, epochs=max(1, min(MOST_EPOCHS, int(0.85 * seconds / epoch))))
