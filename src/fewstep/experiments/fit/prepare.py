"""The features of a fit: inspected, with classes for training, validation and test, in a file of its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fewstep.data import embeddings
from fewstep.data.features.export import extractor_beside, features_digest
from fewstep.data.features.formats import parts_of, source_of
from fewstep.data.features.report import EmbeddingReport, report_on
from fewstep.data.features.store import SPLITS, Parts, divided, only, write_store
from fewstep.data.storage.files import json_text, read_json, sealed, write_atomically
from fewstep.training.pretraining import FeatureExtractor
from fewstep.training.pretraining.extractor import features_of as network_features

FEATURES, PREPARED = "features.safetensors", "prepared.json"

QUERIES = (15, 10, 5, 2, 1)
"""Of each class in a task: the most that nine in ten classes have beside the shots."""

MOST_LEFT_OUT = 0.1
"""Share of classes that may be left out for the sake of more queries."""


@dataclass(frozen=True)
class Prepared:
    """What tasks are made of.

    Attributes:
        ways: classes of a task.
        queries: of each class.
        classes: by split.
        remarks: what was decided about the data, in sentences.
    """

    ways: int
    queries: int
    classes: dict[str, int]
    remarks: tuple[str, ...]


def prepare(
    data: Path,
    folder: Path,
    *,
    ways: int,
    shots: Sequence[int],
    seed: int,
    inspected: Callable[[EmbeddingReport], None],
) -> Prepared:
    """Write ``features.safetensors`` with three splits into the folder, once, and say what it holds.

    Classes that have fewer examples than tasks need are left out. Where the file does not say which classes are for
    what, they are divided at random; where it has none for validation or for test, those are taken from the training
    classes, at random too.

    Args:
        data: features in any format of :func:`~fewstep.data.embeddings`.
        folder: of the fit.
        ways: classes of a task, as far as there are so many.
        shots: that tasks will have.
        seed: of the division.
        inspected: is given what ``fewstep data inspect`` says, before anything is refused.

    Raises:
        ValueError: for features that are not finite, splits that share classes, and too few classes or examples; and
            for files of the folder that are not what was written.
    """
    if kept := read_json(folder / PREPARED):
        if kept.pop(_OF, None) not in (None, _digest(folder / FEATURES)):
            raise ValueError(
                f"{folder / FEATURES} is not what was written: restore it, or delete {folder / PREPARED}, and the same "
                "command makes both again."
            )
        return Prepared(**kept | {"remarks": tuple(kept["remarks"])})
    source = source_of(data)
    parts = parts_of(source)
    report = report_on(source, parts)
    inspected(report)
    if report.refusals:
        raise ValueError(f"{data}: {'; '.join(report.refusals)}")
    queries = _queries([size for part in parts.values() for size in part.sizes], max(shots))
    parts, remarks = _large_enough(parts, max(shots) + queries, data)
    parts, more = _with_splits(parts, ways, seed, data)
    remarks += more
    classes = {split: len(parts[split].names) for split in SPLITS}
    if (most := min(classes.values())) < ways:
        remarks.append(f"tasks have {most} classes: there are no more in {min(classes, key=classes.__getitem__)}")
    found = Prepared(min(ways, most), queries, classes, tuple(remarks))
    write_store(folder / FEATURES, parts, str(data))
    _keep_network(data, folder / FEATURES)
    write_atomically(folder / PREPARED, json_text(sealed({**asdict(found), _OF: _digest(folder / FEATURES)})))
    return found


_OF = "features"


def _digest(path: Path) -> str:
    """Of all bytes of a file; empty where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _queries(sizes: Sequence[int], shots: int) -> int:
    """The most queries that nearly all classes can give beside the shots."""

    def short(queries: int) -> float:
        return sum(size < shots + queries for size in sizes) / len(sizes)

    return next((queries for queries in QUERIES if short(queries) <= MOST_LEFT_OUT), QUERIES[-1])


def _large_enough(parts: Parts, needed: int, data: Path) -> tuple[Parts, list[str]]:
    """The classes with so many examples, and what is said of the others."""
    found, gone = {}, 0
    for split, part in parts.items():
        kept = [c for c, size in enumerate(part.sizes) if size >= needed]
        gone += len(part.sizes) - len(kept)
        if kept:
            found[split] = part if len(kept) == len(part.sizes) else only(part, kept)
    if not found:
        largest = max(size for part in parts.values() for size in part.sizes)
        raise ValueError(
            f"{data}: no class has the {needed} examples that its tasks need (shots and at least one query; the "
            f"largest has {largest}): give more examples of each class, or fewer --shots"
        )
    text = f"{gone} {'class' if gone == 1 else 'classes'} with fewer than {needed} examples left out"
    return found, [text] if gone else []


def _with_splits(parts: Parts, ways: int, seed: int, data: Path) -> tuple[Parts, list[str]]:
    """All three splits, and what is said of those that had to be made."""
    missing = [split for split in SPLITS[1:] if split not in parts]
    whole = parts.get("", parts.get("train"))
    if whole is None:
        raise ValueError(f"{data} has no classes for training, it has {', '.join(parts)}: add some, or no splits")
    n = len(whole.names)
    found = parts
    remarks = []
    if missing:
        held = held_out(n, len(missing), ways, data, "" if "" in parts else " for training")
        counts = (n - held * len(missing), *(held if split in missing else 0 for split in SPLITS[1:]))
        found = {**parts, **divided({"": whole}, counts, seed, str(data))}
        found = {split: found[split] for split in SPLITS}
        what = "classes divided at random"
        if "" not in parts:
            what = f"no classes for {' and '.join(missing)}, which are taken from training's at random"
        remarks = [f"{what} (seed {seed}): {', '.join(f'{len(found[s].names)} {s}' for s in SPLITS)}"]
    if few := [split for split in SPLITS if len(found[split].names) < 2]:
        raise ValueError(f"{data} has one class for {few[0]} with enough examples: give at least two of each split")
    return found, remarks


def held_out(classes: int, missing: int, ways: int, data: Path, which: str) -> int:
    """How many of some classes become those of each missing split: a fifth, and enough for a task.

    Raises:
        ValueError: when there are fewer than two for each.
    """
    held = max(min(ways, classes // (missing + 1)), classes // 5)
    if held < 2:
        raise ValueError(
            f"{data} has {classes} classes with enough examples{which}, and {2 * (missing + 1)} are needed: two for "
            "each of training, validation and test. Give more classes"
        )
    return held


def _keep_network(data: Path, features: Path) -> None:
    """Copy the network that made the features, where it lies beside them, so that images can be classified."""
    beside = extractor_beside(data)
    if not beside.is_file():
        return
    with suppress(ValueError):  # of another network, or damaged: features can do without
        if network_features(beside) == features_digest(embeddings(data, "all", normalise=False)):
            digest = features_digest(embeddings(features, "all", normalise=False))
            FeatureExtractor.load(beside).save(extractor_beside(features), features=digest)
