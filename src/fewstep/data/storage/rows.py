"""Rows in one memory-mapped file of the cache, written as they come."""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.data.storage.cache import cache_folder, kept_in
from fewstep.data.storage.files import folder_beside, write_atomically


def kept_rows(
    name: str, key: str, rows: int, *, cache: str | Path | None = None
) -> tuple[NDArray[Any], list[Any]] | None:
    """Rows that were kept under a key, and their labels; None if there are none, or not so many."""
    path = _place(name, key, cache)
    try:
        labels = json.loads(path.with_suffix(".json").read_text())
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy reports damage in many ways
        return None
    return (found, labels) if len(found) == len(labels) == rows else None


def keep_rows(
    name: str,
    examples: Iterable[tuple[NDArray[Any], Any]],
    rows: int,
    *,
    key: str | None = None,
    cache: str | Path | None = None,
) -> tuple[NDArray[Any], list[Any]]:
    """Write rows of one shape and dtype as they come; memory holds one of them.

    Args:
        name: the beginning of the file's name.
        examples: as many rows as announced, each with its label: a number or a text.
        rows: how many there will be.
        key: they are found again by. None: a hash of them, so that the same rows take room once.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.

    Returns:
        The rows, memory-mapped, and their labels.

    Raises:
        ValueError: whatever comes from ``examples``.
        OSError: if the cache folder cannot be written or is full.
    """
    root = cache_folder(cache)
    content, labels = hashlib.sha256(), list[Any]()
    keeping = partial(kept_in, root, f"the rows of {name}")  # not around what reads them: its errors are others
    with ExitStack() as stack:
        with keeping():
            folder = stack.enter_context(folder_beside(root / f"{_plain(name)}.rows"))
            file = stack.enter_context((folder / "rows.npy").open("xb"))
        for row, label in examples:
            if not labels:
                header = {"descr": row.dtype.str, "fortran_order": False, "shape": (rows, *row.shape)}
                np.lib.format.write_array_header_1_0(file, header)
                content.update(json.dumps(header).encode())
            written = row.tobytes()
            with keeping():
                file.write(written)
            content.update(written)
            labels.append(label)
        assert len(labels) == rows, "as many as announced"
        place = _place(name, content.hexdigest() if key is None else key, cache)
        with keeping():
            file.flush()
            os.fsync(file.fileno())
            if key is not None:
                write_atomically(place.with_suffix(".json"), json.dumps(labels))
            os.replace(folder / "rows.npy", place)
    return np.load(place, mmap_mode="r", allow_pickle=False), labels


def _place(name: str, key: str, cache: str | Path | None) -> Path:
    return cache_folder(cache) / f"{_plain(name)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()) or "rows"
