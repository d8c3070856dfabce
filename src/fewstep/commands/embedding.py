"""What ``fewstep embed`` does: the features of a dataset's images, by the network of a pre-training."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fewstep.commands.console import note, point_to, say, warn
from fewstep.commands.progress import counting_bar
from fewstep.data import Dataset
from fewstep.data.features.datasets import writer_for
from fewstep.data.features.export import BESIDE, StoredAs, export_features, extractor_beside
from fewstep.data.features.formats import SUFFIXES
from fewstep.data.features.report import inspect_embeddings
from fewstep.data.images.by_name import TITLES, ImageData
from fewstep.data.images.files import Reading
from fewstep.experiments.pretraining import PretrainingRun
from fewstep.experiments.pretraining_config import Views

_SHAPES = {"cifar-fs": (3, 32), "fc100": (3, 32), "omniglot": (1, 28)}
"""Channels and side of data that come in one size."""

_RECIPES = {"cifar-fs": "leo-cifarfs", "mini-imagenet": "leo-miniimagenet", "tiered-imagenet": "leo-tieredimagenet"}
"""LEO's settings for features of each; other data take those of CIFAR-FS, which were found on a network of ours."""


_BATCH = 512
"""Images that are gathered at once; so many views pass through the network together."""


def default_images(run: PretrainingRun, dataset: str | None) -> ImageData:
    """A dataset as its images were for the network: those of its pre-training when omitted, with all of its options.

    Others come in the size and with the channels that the network was trained on, where they can.
    """
    own = run.config.images
    if dataset is None or (dataset == own.name if dataset in TITLES else _same_folder(dataset, own.name)):
        return own
    images = ImageData(dataset, cache=own.cache)
    if dataset in _SHAPES:
        return images
    images = replace(images, size=run.facts["size"])
    return images if dataset in TITLES else replace(images, grey=run.facts["inputs"] == 1)


def check_images(run: PretrainingRun, images: ImageData) -> None:
    """Refuse images that are unlike those that the network was trained on, before any is read.

    Raises:
        ValueError: for another size or other channels; as :meth:`ImageData.check` does.
    """
    images.check()
    facts, (channels, side) = run.facts, _shape(images)
    if (channels, side) == (facts["inputs"], facts["size"]):
        return
    trained = f"{facts['size']}×{facts['size']} pixels in {_channels(facts['inputs'])}"
    if images.name in _SHAPES:
        advice = "embed other data, or pre-train a network on this one"
    elif side != facts["size"]:
        advice = f"leave --size out, or give --size {facts['size']}"
    elif images.name in TITLES:
        advice = "pre-train a network on images in colour"
    else:
        advice = f"give {'--grey' if facts['inputs'] == 1 else '--no-grey'}"
    raise ValueError(
        f"the network of {run.folder} was trained on images of {trained}, and those of {images.title} would have "
        f"{side}×{side} in {_channels(channels)}: {advice}."
    )


def reading_of(images: ImageData) -> Reading:
    """How a file becomes an image like those of a dataset."""
    if images.name == "omniglot":
        return Reading()
    _, side = _shape(images)
    squeezed = images.name in ("mini-imagenet", "tiered-imagenet")
    return Reading(side, grey=images.grey, invert=False, fit=images.fit or ("squeeze" if squeezed else "crop"))


def trained_on(run: PretrainingRun, images: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """Classes for validation and test by whose names the network was trained on classes, by split."""
    known = set(run.facts["class_names"])
    seen = {split: [n for n in d.class_names if n in known] for split, d in images.items() if split != "train"}
    return {split: names for split, names in seen.items() if names}


def write_features(
    run: PretrainingRun, images: ImageData, out: Path, *, layer: str, views: Views, dtype: StoredAs
) -> None:
    """Write the features of all splits, and their network beside them.

    Args:
        run: whose network.
        images: what it is shown.
        out: the file or folder.
        layer: see :meth:`PretrainingRun.extractor`; so for ``views``.
        views: one or ten.
        dtype: of the numbers.

    Raises:
        ValueError: for images that the network was not made for, and a file that is none of features.
        FileExistsError: where the network of other features is in the place of theirs.
    """
    writer_for(out)  # what can be known to fail fails before any image is read
    beside = extractor_beside(out)
    _check_beside(out, beside)
    extractor = run.extractor(layer, views)
    check_images(run, images)
    extractor.reading = reading_of(images)
    datasets = {split: images.examples(split, note) for split in images.splits()}
    for split, names in trained_on(run, datasets).items():
        warn(
            "warning",
            f"the network was trained on {len(names)} of the {datasets[split].classes} {split} classes "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): results on them would be too good, and are "
            "none of few-shot learning. Embed the dataset with the split that it was trained on.",
        )
    rows = sum(map(len, datasets.values()))
    began = time.perf_counter()
    with counting_bar("embedding", rows, "images") as progress:
        export_features(
            extractor,
            datasets,
            out,
            dtype=dtype,
            device=run.device,
            batch=_BATCH,
            progress=progress,
            before_writing=lambda digest: extractor.save(beside, features=digest),
        )
    seconds = time.perf_counter() - began
    by_split = ", ".join(f"{split} {d.classes:,}" for split, d in datasets.items())
    say(
        f"{rows:,} images to {extractor.features} features of {extractor.layer} in {seconds:.1f} s "
        f"({rows / seconds:,.0f} images/s); classes: {by_split}"
    )
    point_to("features", out)
    point_to("their network", beside)
    for warning in inspect_embeddings(out).warnings:
        warn("warning", f"of the features, {warning}")
    if missing := [split for split in ("train", "val", "test") if split not in datasets]:
        no = " and no ".join(missing)
        warn("warning", f"{images.title} has no {no} classes, which `fewstep train` needs")
    say(f"next: {next_command(out, images, datasets)}")


def next_command(features: Path, data: ImageData, images: Mapping[str, Dataset]) -> str:
    """LEO on the features: five ways and shots, or as many as the classes allow.

    Training tasks have 15 queries of each class beside the support, or as many as its smallest class has left.
    """
    recipe = _RECIPES.get(data.name, "leo-features")
    train = images.get("train", next(iter(images.values())))
    smallest, ways = int(train.sizes.min()), min(d.classes for d in images.values())
    shots = 5 if smallest >= 10 else 1
    words = ["fewstep", "train", f"{recipe}-{shots}shot", "--data.path", str(features)]
    if recipe == "leo-features":
        words += ["--data.dataset", data.title]
    if ways < 5:
        words += ["--data.ways", str(ways)]
    if smallest < shots + 15:
        words += ["--data.queries", str(max(1, smallest - shots))]
    return shlex.join(words)


def _same_folder(one: str, other: str) -> bool:
    return other not in TITLES and Path(one).resolve() == Path(other).resolve()


def _shape(images: ImageData) -> tuple[int, int]:
    """Channels and side."""
    return _SHAPES.get(images.name, (1 if images.grey else 3, 84 if images.size is None else images.size))


def _channels(count: int) -> str:
    return {1: "grey", 3: "colour"}.get(count, f"{count} channels")


def _check_beside(out: Path, beside: Path) -> None:
    """Refuse to replace the network of other features: one of the same name in another format.

    Raises:
        FileExistsError: if there are such features.
    """
    stem = beside.name.removesuffix(BESIDE)
    others = [beside.with_name(f"{stem}{suffix}") for suffix in ("", *SUFFIXES)]
    if beside.exists() and (there := [other for other in others if other.exists()]):
        raise FileExistsError(
            f"{beside} is the network of {there[0]}, and would be replaced by that of {out}: choose another name, or "
            "turn those features into this format by `fewstep data convert`"
        )
