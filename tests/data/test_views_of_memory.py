"""Arrays as users have them: mirrored, transposed, in another order of bytes, in another range."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, EpisodeSampler, TaskIndices, TaskList, assemble, embeddings, export_features
from fewstep.data.checks import check_unit_range
from fewstep.data.features.datasets import convert
from fewstep.data.features.formats import rows_in

ROWS = np.random.default_rng(0).random((12, 4), np.float32)
LABELS = np.arange(12) // 3
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda array: array,
    "mirrored": lambda array: array[::-1].copy()[::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "both": lambda array: array[::-1].astype(array.dtype.newbyteorder(">"))[::-1],
    "columns": lambda array: np.asfortranarray(array),
    "strided": lambda array: np.repeat(array, 2, -1)[..., ::2],
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_an_array_is_read_everywhere(view: str, tmp_path: Path) -> None:
    seen = VIEWS[view]
    dataset = Dataset.from_labels(seen(ROWS), seen(LABELS))
    positions = seen(np.arange(12).reshape(3, 4)[:, ::-1])
    wanted = torch.from_numpy(ROWS[positions])
    assert torch.equal(dataset.gather(positions), wanted)
    assert torch.equal(Dataset.from_sorted(seen(ROWS), seen(np.arange(5) * 3)).gather(positions), wanted)
    assert torch.equal(dataset.gather(positions[0], out=torch.empty(4, 4)), wanted[0])
    assert dataset.subset(seen(np.array([2, 0]))).class_names == ("2", "0")

    drawn = EpisodeSampler(dataset, ways=2, shots=1, queries=2, tasks=3, seed=0).indices(0)
    index = TaskIndices(*map(seen, (drawn.classes, drawn.support, drawn.query, drawn.query_weight)))
    expected = assemble(dataset, drawn)
    for ours, theirs in zip(assemble(dataset, index), expected, strict=True):
        assert all(map(torch.equal, ours, theirs))
    TaskList(dataset=dataset, index=index, tasks=3).save(tmp_path / "tasks.npz")
    assert torch.equal(
        TaskList.load(tmp_path / "tasks.npz", dataset).batch(0).query.x, assemble(dataset, drawn).query.x
    )

    np.savez(tmp_path / "f.npz", features=seen(ROWS), labels=seen(LABELS))
    np.save(tmp_path / "g.npy", seen(ROWS))
    np.save(tmp_path / "g_labels.npy", seen(LABELS))
    for file in ("f.npz", "g.npy"):
        read = embeddings(tmp_path / file, "all", normalise=False, cache=tmp_path)
        assert torch.equal(read.gather(np.arange(12)), torch.from_numpy(ROWS))
        rows, labels = rows_in(tmp_path / file)
        assert rows.dtype.isnative
        assert np.array_equal(rows, ROWS)
        assert labels is not None
        assert np.array_equal(labels, LABELS)
    (tmp_path / "h").mkdir()
    stored = convert(tmp_path / "f.npz", tmp_path / "h" / "h.npy")
    assert np.array_equal(np.load(stored), ROWS)


def extractor(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, :5] + 1


def test_floats_beyond_0_to_1_are_refused_where_images_are_meant(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((4, 3, 4, 4), np.float32)
    images[0, 0, 0, 0] = 1 + 1e-6  # a rounding
    for i, (bad, told) in enumerate(
        (
            (images * 255, r"from 0\.\d+ to 25\d.*: divide them by 255"),
            (images * 4 - 2, r"from -\d.* to \d.*before that"),
        )
    ):
        dataset = Dataset.from_labels(bad, [0, 0, 1, 1], name="mine")
        with pytest.raises(ValueError, match=rf"export: mine must be images from 0 to 1, they are {told}"):
            export_features(extractor, {"train": dataset}, tmp_path / f"{i}.npz")
        assert not (tmp_path / f"{i}.npz").exists()
        np.savez(tmp_path / "x.npz", x=bad)
        with pytest.raises(ValueError, match=rf"x.npz must be images from 0 to 1, they are {told}"):
            rows_in(tmp_path / "x.npz")
    for i, good in enumerate((images, (images * 255).clip(0, 255).astype(np.uint8))):
        export_features(extractor, {"train": Dataset.from_labels(good, [0, 0, 1, 1])}, tmp_path / f"good{i}.npz")
        np.savez(tmp_path / "x.npz", x=good)
        rows, labels = rows_in(tmp_path / "x.npz")
        assert (rows.dtype, labels) == (good.dtype, None)
    check_unit_range(images[:0], "nothing")
    with pytest.raises(ValueError, match="from nan to nan"):
        check_unit_range(torch.full((2,), torch.nan), "images")
