import inspect
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data import Dataset, EpisodeSampler, omniglot
from fewstep.data.images import characters

Originals = tuple[np.ndarray, list[str]]
COUNTS = {"train": 1028, "val": 172, "test": 423, "trainval": 1200}


def rows(dataset: Dataset, classes: slice = slice(None)) -> torch.Tensor:
    positions = np.arange(len(dataset)).reshape(-1, 20)[classes]
    return dataset.gather(positions)


@pytest.mark.parametrize("split", COUNTS)
def test_vinyals_split(split: str) -> None:
    dataset = omniglot(split)
    assert dataset.classes == COUNTS[split]
    assert (dataset.sizes == 20).all()
    assert dataset.feature_shape == (1, 28, 28)
    assert str(dataset) == f"Omniglot (vinyals) {split}"


def test_vinyals_lists_are_the_published_ones(shared: Path) -> None:
    lists = json.loads((shared / "reference" / "splits.json").read_text())["Omniglot (Vinyals)"]
    for split in ("train", "val", "test"):
        assert omniglot(split).class_names == tuple(lists[split])


@pytest.mark.parametrize("scheme", ["vinyals", "random"])
def test_splits_are_disjoint_and_complete(scheme: str) -> None:
    named = {split: omniglot(split, scheme=scheme).class_names for split in COUNTS}
    apart = [*named["train"], *named["val"], *named["test"]]
    assert len(apart) == len(set(apart)) == 1623
    assert named["trainval"] == named["train"] + named["val"]


def test_random_split() -> None:
    first, again, other = (omniglot("train", scheme="random", seed=s).class_names for s in (0, 0, 1))
    assert len(first) == 1100
    assert first == again
    # Two random 1100 of 1623 share 1100 * 1100 / 1623 = 745 classes; the standard deviation is 9.
    assert 700 < len({*first} & {*other}) < 790


def test_ink_is_one_and_scarce() -> None:
    images = rows(omniglot("train"), slice(0, 100))
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert 0.05 < images.mean() < 0.12
    assert images[..., 0, 0].mean() < 0.01, "the corner is paper"


def test_rows_carry_the_names_of_their_characters(originals: Originals) -> None:
    """Each class's images are the originals of the character it is named after, reduced by Pillow's Lanczos filter."""
    bits, names = originals
    for split in ("train", "test"):
        dataset = omniglot(split)
        for c in (0, 7, dataset.classes - 1):
            grey = [Image.fromarray(ink).convert("L") for ink in bits[names.index(dataset.class_names[c])]]
            expected = np.stack([image.resize((28, 28), Image.Resampling.LANCZOS) for image in grey])[:, None]
            assert torch.equal(rows(dataset, slice(c, c + 1))[0], torch.from_numpy(expected) / 255)


def test_reduction_is_pillows_lanczos(originals: Originals) -> None:
    """By itself: what ``omniglot`` gives may have been reduced by an earlier run."""
    bits, _ = originals
    grey = Image.fromarray(bits[3, 4]).convert("L")
    assert np.array_equal(characters.reduced(bits[3:4, 4:5])[0, 0], grey.resize((28, 28), Image.Resampling.LANCZOS))


def test_originals_are_the_published_images(shared: Path, originals: Originals) -> None:
    with np.load(shared / "data" / "omniglot105_bits.npz") as file:
        packed, names = file["bits"], file["names"].tolist()
    bits, ours = originals
    assert ours == names
    assert bits.shape == (1623, 20, 105, 105)
    assert np.array_equal(np.packbits(bits[::40].reshape(-1, 20, 105 * 105), axis=-1), packed[::40])
    assert np.array_equal(bits.sum((2, 3)), np.bitwise_count(packed).sum(-1))


def test_rotations_are_new_classes() -> None:
    plain, turned = (omniglot("val", scheme="random", rotations=r) for r in (False, True))
    n = 100  # in shuffled order, unlike those of the other scheme
    assert turned.classes == 4 * n
    names = turned.class_names
    assert names[:n] == plain.class_names
    upright = rows(plain)
    for quarter in range(4):
        block = rows(turned, slice(n * quarter, n * (quarter + 1)))
        assert torch.equal(block, upright.rot90(quarter, (-2, -1)))
        assert names[n * quarter] == plain.class_names[0] + ("", "@90", "@180", "@270")[quarter]
    # Counter-clockwise: what was at the right is now at the top.
    assert torch.equal(rows(turned, slice(n, n + 1))[0, 0, 0, 0], upright[0, 0, 0, :, -1])


def test_tasks_have_a_channel_axis() -> None:
    task = EpisodeSampler(dataset=omniglot("test"), ways=5, shots=1, queries=None, tasks=2, seed=0).batch(0)
    assert task.support.x.shape == (2, 5, 1, 28, 28)
    assert task.query.x.shape == (2, 95, 1, 28, 28)


def test_unknown_choices() -> None:
    unchecked = inspect.unwrap(omniglot)  # types are checked first while tests run
    with pytest.raises(ValueError, match="split must be one of train, val, trainval, test, not 'dev'"):
        unchecked("dev")
    with pytest.raises(ValueError, match="scheme must be 'vinyals' or 'random', not 'lake'"):
        unchecked("val", scheme="lake")


class TestCache:
    """The reduction is replaced by a marked one of no cost: what matters is when it is called."""

    @pytest.fixture
    def reductions(self, monkeypatch: pytest.MonkeyPatch, originals: Originals) -> list[int]:
        calls: list[int] = []

        def reduce(bits: np.ndarray) -> np.ndarray:
            calls.append(1)
            return np.full((32460, 1, 28, 28), 7, np.uint8)

        monkeypatch.setattr(characters, "omniglot_originals", lambda: (np.zeros((1623, 20, 1, 1), bool), originals[1]))
        monkeypatch.setattr(characters, "reduced", reduce)
        return calls

    def test_second_load_reads_the_cache(self, tmp_path: Path, reductions: list[int], monkeypatch) -> None:
        monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "new"))
        for _ in range(2):
            assert (omniglot("val").store == 7).all()
        assert len(reductions) == 1
        (file,) = os.listdir(tmp_path / "new")
        assert file.startswith("omniglot28-")

    @pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
    def test_damage_is_noticed_and_repaired(
        self, damage: str, tmp_path: Path, reductions: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        omniglot("val", cache=tmp_path)
        (file,) = tmp_path.iterdir()
        content = bytearray(file.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
        file.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
        assert (omniglot("val", cache=tmp_path).store == 7).all()
        assert "unreadable" in caplog.text
        omniglot("val", cache=tmp_path)
        assert len(reductions) == 2

    def test_a_folder_that_cannot_be_written_is_no_error(
        self, tmp_path: Path, reductions: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        (tmp_path / "file").touch()
        assert omniglot("val", cache=tmp_path / "file").classes == 172
        assert "cannot keep" in caplog.text
        assert len(reductions) == 1

    def test_another_pillow_reduces_again(self, tmp_path: Path, reductions: list[int], monkeypatch) -> None:
        omniglot("val", cache=tmp_path)
        monkeypatch.setattr("PIL.__version__", "0")
        omniglot("val", cache=tmp_path)
        assert len(reductions) == 2
