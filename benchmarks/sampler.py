"""The task sampler: drawing indices and gathering rows, timed apart, against the size of the data."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Case, Contender, Work
from fewstep.data import Dataset, EpisodeSampler

WIDTH = 8
"""Narrow rows, so that ten million of them (320 MB) stay in memory."""


def _sampler(rows: int) -> EpisodeSampler:
    path = Path(tempfile.mkdtemp()) / "rows.npy"
    made = np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH))
    made[:] = np.arange(rows, dtype=np.float32)[:, None]
    made.flush()
    x = np.load(path, mmap_mode="r")
    np.asarray(x).sum()  # bring the pages into memory: this is not a disk's benchmark
    labels = np.repeat(np.arange(rows // 100), 100)
    return EpisodeSampler(Dataset.from_labels(x, labels), ways=5, shots=1, queries=15, tasks=12, seed=0)


def _case(kind: str, what: str, sizes: tuple[int, ...]) -> Case:
    def build(rows: int) -> Work:
        sampler, steps = _sampler(rows), iter(range(10**9))

        def indices() -> None:
            sampler.indices(next(steps))

        def gather() -> None:
            sampler.assemble(ready[next(steps) % len(ready)])

        ready = [sampler.indices(step) for step in range(64)]
        return indices if kind == "indices" else gather

    contenders = [Contender(f"{rows:,} rows", lambda rows=rows: build(rows)) for rows in sizes]  # type: ignore[misc]
    return Case(f"sampler-{kind}", what, contenders, rounds=200, memory=False)


def indices(sizes: tuple[int, ...]) -> Case:
    """Which rows make up a batch."""
    return _case("indices", "drawing the indices of 12 tasks, 5-way 1-shot, 15 queries", sizes)


def gather(sizes: tuple[int, ...]) -> Case:
    """The rows themselves."""
    return _case("gather", f"gathering the rows of 12 such tasks, {WIDTH}-d, memory-mapped", sizes)
