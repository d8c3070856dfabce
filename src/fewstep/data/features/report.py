"""What a file of features holds, and what is wrong with it."""

import contextlib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from fewstep.data.checks import without_length
from fewstep.data.features.formats import Source, parts_of, source_of
from fewstep.data.features.store import (
    NUMBERED_APART,
    Part,
    Parts,
    are_numbered_apart,
    bytes_of,
    dtype_name,
    shared_classes,
)
from fewstep.data.storage.cache import cache_folder
from fewstep.data.storage.files import write_atomically

_FORMAT = 2  # raise it when other things are warned of


SHORT = 1e-6
"""Length below which :func:`~fewstep.data.l2_normalise` does not make a row one of length 1."""


@final
@dataclass(frozen=True)
class SplitSummary:
    """One split of a file.

    Attributes:
        split: "train", "val" or "test"; "" where the file does not say.
        classes: how many.
        rows: how many.
        smallest: examples of the smallest class.
        largest: examples of the largest class.
        norms: smallest, median and largest Euclidean length of the finite rows; NaN if there are none.
    """

    split: str
    classes: int
    rows: int
    smallest: int
    largest: int
    norms: tuple[float, float, float]


@final
@dataclass(frozen=True)
class EmbeddingReport:
    """What :func:`inspect_embeddings` found.

    Attributes:
        path: the file or folder.
        dimensions: length of a feature vector.
        dtype: of the stored numbers.
        splits: one entry for each.
        refusals: for which the file is not loaded: rows that are not finite or have no length in float32, classes that
            splits share.
        warnings: for which it is: zero vectors, rows that are copies of others, classes of one example.
    """

    path: Path
    dimensions: int
    dtype: str
    splits: tuple[SplitSummary, ...]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect_embeddings(path: str | Path) -> EmbeddingReport:
    """Read all of a file of features, a block of rows at a time.

    Args:
        path: as in :func:`~fewstep.data.embeddings`.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it cannot be read, or is of another structure.
    """
    source = source_of(Path(path))
    return report_on(source, parts_of(source))


def report_on(source: Source, parts: Parts) -> EmbeddingReport:
    """What :func:`inspect_embeddings` says of a source, of which all parts have been read."""
    store = next(iter(parts.values())).store
    refusals, warnings, summaries, hashes = shared_classes(parts), [], [], {}
    for split, part in parts.items():
        norms, finite, lost, hashes[split] = _examine(part)
        shown = norms[finite] if finite.any() else np.array([np.nan])
        three = (float(shown.min()), float(np.median(shown)), float(shown.max()))
        sizes = part.sizes
        summaries.append(SplitSummary(split, len(sizes), sum(sizes), min(sizes), max(sizes), three))
        of = f" of {split}" if split else ""
        if bad := int((~finite).sum()):
            first = int(np.argmin(finite))
            row, owner = part.order[first], part.owner(first)
            refusals.append(f"{_rows(bad)}{of} with NaN or infinity; the first is {row}, class {owner!r}")
        if gone := int((lost & finite).sum()):
            largest = float(np.max(norms[lost & finite]))
            refusals.append(
                f"{_rows(gone)}{of} without a length in float32, in which tasks are made (stored up to {largest:g}): "
                "scale the features, to lengths of about 1"
            )
        elif short := int(((norms > 0) & (norms < SHORT)).sum()):
            warnings.append(f"{_rows(short)}{of} shorter than {SHORT:g}: normalisation leaves them shorter than 1")
        if zeros := int((norms == 0).sum()):
            warnings.append(f"{_rows(zeros)}{of} of zeros: normalisation leaves them so")
        if single := sum(size == 1 for size in sizes):
            warnings.append(f"{single} classes{of} with one example: no task can be made with them")
    warnings += _copies(parts, hashes)
    if len(source.read) > 1 and are_numbered_apart(parts):
        warnings.append(NUMBERED_APART)
    return EmbeddingReport(
        source.path, store.shape[1], dtype_name(store.dtype), tuple(summaries), tuple(refusals), tuple(warnings)
    )


def remarks(source: Source, cache: str | Path | None = None) -> list[str]:
    """What :func:`inspect_embeddings` warns of, read again only when a file has changed since.

    Args:
        source: features that are loaded, with splits that have no classes in common.
        cache: the cache folder, where what was found is kept.

    Raises:
        ValueError: as :func:`inspect_embeddings`; and for features that it refuses.
    """
    key = json.dumps([_FORMAT, source.state, *sorted(source.read)])
    kept = cache_folder(cache) / f"remarks-{hashlib.sha256(str(source.path.resolve()).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(kept.read_text())
        if content["made_of"] == key:
            return [str(sentence) for sentence in content["remarks"]]
    report = inspect_embeddings(source.path)
    if report.refusals:
        raise ValueError(f"{source.path}: {'; '.join(report.refusals)}")
    found = [warning for warning in report.warnings if warning != NUMBERED_APART]
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps({"made_of": key, "remarks": found}))
    return found


def _examine(part: Part) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint64]]:
    """Length of each row, whether it is finite, whether float32 has no length for it, and a hash of its bits."""
    norms, finite, lost, hashes = [], [], [], []
    odd = np.random.default_rng(0).integers(0, 2**63, part.store.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    for _, rows in part.blocks():
        norms.append(torch.linalg.vector_norm(rows.double(), dim=1).numpy())
        lost.append((without_length(rows.float()) & (rows != 0).any(1)).numpy())
        finite.append(torch.isfinite(rows).all(1).numpy())
        words = rows.contiguous().view(torch.uint8).numpy().view(f"u{rows.element_size()}")
        hashes.append((words.astype(np.uint64) * odd).sum(1))
    return np.concatenate(norms), np.concatenate(finite), np.concatenate(lost), np.concatenate(hashes)


def _copies(parts: Parts, hashes: dict[str, NDArray[np.uint64]]) -> list[str]:
    """Sentences on rows that agree in every bit with one before them."""
    splits = list(parts)
    whose = np.repeat(np.arange(len(splits)), [len(hashes[split]) for split in splits])
    place = np.concatenate([np.arange(len(hashes[split])) for split in splits])
    every = np.concatenate([hashes[split] for split in splits])
    order = np.argsort(every, kind="stable")
    repeated = np.flatnonzero(every[order][1:] == every[order][:-1]) + 1
    found: Counter[tuple[int, int]] = Counter()
    groups = np.split(repeated, np.flatnonzero(np.diff(repeated) > 1) + 1) if repeated.size else []
    for group in groups:
        # Those of one hash, which may deceive: their bits do not.
        seen: dict[bytes, set[int]] = {}
        for i in order[group[0] - 1 : group[-1] + 1].tolist():
            split = int(whose[i])
            part = parts[splits[split]]
            before = seen.setdefault(bytes_of(part.store[int(part.order[place[i]])]), set())
            if before:
                found[split if split in before else min(before), split] += 1
            before.add(split)
    sentences = []
    for (one, other), count in sorted(found.items()):
        if one == other:
            of = f" of {splits[one]}" if splits[one] else ""
            which = f"{of} that {'is a copy of another' if count == 1 else 'are copies of others'}"
        else:
            which = f" of {splits[other]} that {'is' if count == 1 else 'are'} in {splits[one]} too"
        sentences.append(f"{_rows(count)}{which}")
    return sentences


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
