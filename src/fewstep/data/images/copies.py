"""The same photograph twice: in two splits, under two classes, or simply twice."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from fewstep.data.checks import check_choice
from fewstep.data.dataset import Dataset
from fewstep.data.storage.cache import Report

Copies: TypeAlias = Literal["keep", "drop"]
"""What becomes of images that are the same as others, bit for bit."""

Groups: TypeAlias = list[list[int]]
"""Rows of a store that are the same; each group in the order of the store."""

_NAMED = 3  # pairs of classes in a sentence
_BEST = ("test", "val", "train")  # of which a copy is kept


def same_rows(rows: Iterable[bytes]) -> Groups:
    """Those of some rows that are the same, bit for bit."""
    found: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(hashlib.blake2b(row, digest_size=16).digest(), []).append(i)
    return [group for group in found.values() if len(group) > 1]


def settle_copies(
    dataset: Dataset,
    groups: Groups,
    splits: Mapping[str, Sequence[str]],
    split: str,
    copies: Copies,
    report: Report,
    title: str,
) -> Dataset:
    """All classes of a dataset, with or without images that are the same as others; before training, they are told.

    Where they are dropped, one of each group is kept: one of the test classes before one of validation before one of
    training, then the first. So a test stays the published one, but for copies inside it.

    Args:
        dataset: all classes.
        groups: rows of its store.
        splits: the classes of each.
        split: that is asked for: for train and trainval, ``report`` is told of the copies in all splits.
        copies: "keep" or "drop".
        report: receives a sentence.
        title: the dataset's name.

    Raises:
        ValueError: if ``copies`` is neither.
    """
    check_choice("copies", copies, get_args(Copies))
    if not groups:
        return dataset
    split_of = {name: part for part, names in splits.items() for name in names}
    owners = _owners(dataset, groups)
    known = [[row for row in group if owners.get(row) in split_of] for group in groups]
    if split in ("train", "trainval") and (told := _sentences(known, owners, split_of)):
        left = "left out" if copies == "drop" else "leave them out by copies='drop' (pretrain and embed: --copies drop)"
        report(f"{title}: images that are the same, bit for bit: {'; '.join(told)}; {left}")
    if copies == "keep":
        return dataset
    dropped = []
    for group in known:
        best = sorted(group, key=lambda row: _BEST.index(split_of[owners[row]]))
        dropped += best[1:]
    return _without(dataset, dropped)


def copied_pairs(dataset: Dataset, groups: Groups) -> Counter[tuple[str, str]]:
    """How many pairs of the same image there are between two classes, or within one."""
    owners = _owners(dataset, groups)
    pairs = (pair for group in groups for pair in itertools.combinations(group, 2))
    return Counter((owners[one], owners[other]) for one, other in pairs if one in owners and other in owners)


def _owners(dataset: Dataset, groups: Groups) -> dict[int, str]:
    """The class of each row of a group that the dataset has."""
    rows = np.array([row for group in groups for row in group], np.int64)
    if dataset.order is None:
        positions = rows
    else:
        place = np.full(len(dataset.store), -1, np.int64)
        place[dataset.order] = np.arange(len(dataset.order))
        positions = place[rows]
    classes = np.searchsorted(dataset.offsets, positions, side="right") - 1
    names = dataset.class_names
    return {int(r): names[c] for r, p, c in zip(rows, positions, classes, strict=True) if p >= 0}


def _sentences(groups: Groups, owners: Mapping[int, str], split_of: Mapping[str, str]) -> list[str]:
    """ "4 pairs between train and test (baby and girl)"."""
    found: dict[tuple[str, str], Counter[str]] = {}
    order = list(split_of.values())
    for group in groups:
        for pair in itertools.combinations(group, 2):
            names = sorted({owners[row] for row in pair}, key=lambda name: (order.index(split_of[name]), name))
            splits = [split_of[name] for name in names]
            found.setdefault((splits[0], splits[-1]), Counter())[" and ".join(names)] += 1
    sentences = []
    for (one, other), classes in sorted(found.items(), key=lambda item: (item[0][0] == item[0][1], item[0])):
        n = classes.total()
        where = f"within {one}" if one == other else f"between {one} and {other}"
        more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
        named = ", ".join(name for name, _ in classes.most_common(_NAMED))
        sentences.append(f"{n} {'pair' if n == 1 else 'pairs'} {where} ({named}{more})")
    return sentences


def _without(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """The dataset without some rows of its store."""
    order = np.arange(len(dataset)) if dataset.order is None else dataset.order
    kept = np.flatnonzero(~np.isin(order, rows))
    return replace(dataset, order=order[kept], offsets=np.searchsorted(kept, dataset.offsets).astype(np.int64))
