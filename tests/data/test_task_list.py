import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, EpisodeSampler, TaskList, TaskSource


def dataset(**changes: object) -> Dataset:
    made = Dataset.from_sorted(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), [0, 20, 35, 60])
    return replace(made, **changes)  # type: ignore[arg-type]


def sampler(queries: int | None = None) -> EpisodeSampler:
    return EpisodeSampler(dataset=dataset(), ways=2, shots=1, queries=queries, tasks=4, seed=5)


@pytest.mark.parametrize("queries", [3, None])
def test_round_trip(tmp_path: Path, queries: int | None) -> None:
    source = sampler(queries)
    TaskList.draw(source, 3, start=2).save(tmp_path / "tasks.npz")
    loaded = TaskList.load(tmp_path / "tasks.npz", dataset())
    assert isinstance(loaded, TaskSource)
    assert (len(loaded), loaded.ways, loaded.tasks) == (3, 2, 4)
    for i, task in enumerate(loaded):
        for ours, theirs in zip((*task.support, *task.query), sum(source.batch(2 + i), ()), strict=True):
            assert torch.equal(ours, theirs)
    assert os.listdir(tmp_path) == ["tasks.npz"], "no temporary file is left"


def test_batches_can_be_cut_anew(tmp_path: Path) -> None:
    TaskList.draw(sampler(), 3).save(tmp_path / "t.npz")
    whole = TaskList.load(tmp_path / "t.npz", dataset(), tasks=12).batch(0)
    cut = TaskList.load(tmp_path / "t.npz", dataset(), tasks=5)
    assert [len(task.support.x) for task in cut] == [5, 5, 2]
    assert torch.equal(torch.cat([task.query.x for task in cut]), whole.query.x)
    assert torch.equal(cut.batch(1, slice(1, 3)).query.x, whole.query.x[6:8])
    assert cut.to(dtype=torch.float64).batch(0).query.x.dtype == torch.float64


def test_no_batch_beyond_the_end() -> None:
    tasks = TaskList.draw(sampler(), 2)
    for step in (-1, 2):
        with pytest.raises(IndexError, match=f"holds 2 batches of 4 tasks; there is no batch {step}"):
            tasks.batch(step)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            dataset(offsets=np.array([0, 21, 35, 60])),
            r"other offsets .* \[0, 20, 35, 60\] there, \[0, 21, 35, 60\] here",
        ),
        (dataset(class_names=("0", "1", "x")), "other class_names"),
        (dataset(store=torch.zeros(60, 4)), r"other feature_shape .* \[3\] there, \[4\] here"),
        (dataset().subset([0, 1]), "other offsets"),
    ],
)
def test_another_dataset_is_refused(tmp_path: Path, other: Dataset, message: str) -> None:
    TaskList.draw(sampler(), 1).save(tmp_path / "t.npz")
    with pytest.raises(ValueError, match=message):
        TaskList.load(tmp_path / "t.npz", other)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    TaskList.draw(sampler(), 1).save(path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[200] ^= 0xFF
    for damaged in (good[: len(good) // 2], b"", b"not a zip", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t.npz is damaged or is no task list"):
            TaskList.load(path, dataset())
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ValueError, match="is no task list"):
        TaskList.load(path, dataset())
    with pytest.raises(FileNotFoundError):
        TaskList.load(tmp_path / "none.npz", dataset())


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", classes=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        TaskList.load(tmp_path / "t.npz", dataset())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("format", np.array(2), "has format 2"), ("query", np.zeros((1, 3, 2), int), "query must be|parameter 'query'")],
)
def test_a_newer_format_and_shapes_that_disagree_are_refused(
    name: str, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    """Such a file can come from other software."""
    TaskList.draw(sampler(), 1).save(tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "t.npz", **(arrays | {name: value}))
    with pytest.raises(ValueError, match=message):
        TaskList.load(tmp_path / "t.npz", dataset())


def test_indices_must_fit() -> None:
    tasks = TaskList.draw(sampler(), 1)
    with pytest.raises(ValueError, match="support must be from 0 to 59"):
        replace(tasks, index=replace(tasks.index, support=tasks.index.support + 100))
    with pytest.raises(ValueError, match="tasks must be at least 1"):
        replace(tasks, tasks=0)
    with pytest.raises(ValueError, match="batches must be at least 1"):
        TaskList.draw(sampler(), 0)
