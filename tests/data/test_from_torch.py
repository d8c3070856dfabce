"""Datasets of (image, label) pairs, streamed into a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from fewstep.data import Dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


class Pairs(torch.utils.data.Dataset[Any]):
    """Counts how often it is read."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs, self.read = pairs, 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return self.pairs[i]


def everything(dataset: Dataset) -> np.ndarray:
    return dataset.gather(np.arange(len(dataset))).numpy()


@pytest.mark.parametrize(
    "image", [Image.fromarray, lambda pixels: pixels.transpose(2, 0, 1), lambda p: torch.from_numpy(p).permute(2, 0, 1)]
)
def test_images_become_rows_of_their_classes(image: Any, tmp_path: Path) -> None:
    pairs = Pairs([(image(pixels), name) for pixels, name in zip(PIXELS, "babac", strict=True)])
    dataset = Dataset.from_torch(pairs, name="letters", split="train", cache=tmp_path)
    assert isinstance(dataset.store, np.memmap)
    assert (dataset.class_names, dataset.sizes.tolist(), pairs.read) == (("a", "b", "c"), [2, 2, 1], 5)
    np.testing.assert_allclose(everything(dataset), PIXELS[[1, 3, 0, 2, 4]].transpose(0, 3, 1, 2) / 255, rtol=1e-6)


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, lambda n: torch.tensor([n]), lambda n: np.array([[n]])])
def test_numbers_are_labels_in_every_form(label: Any, tmp_path: Path) -> None:
    pairs = [(torch.full((2,), float(n)), label(n)) for n in (10, 9, 10)]
    dataset = Dataset.from_torch(pairs, cache=tmp_path)
    assert dataset.class_names == ("9", "10")
    assert everything(dataset)[:, 0].tolist() == [9, 10, 10]


def test_workers_read_the_same_and_the_same_rows_take_room_once(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(200, 3), torch.arange(200) % 7)
    one, two = (Dataset.from_torch(data, cache=tmp_path, workers=workers) for workers in (0, 1))
    np.testing.assert_array_equal(everything(one), everything(two))
    assert len(list(tmp_path.iterdir())) == 1


def test_with_a_key_rows_are_read_once(tmp_path: Path) -> None:
    pairs = Pairs([(torch.full((2,), float(n)), str(n)) for n in (10, 9)])
    found = [everything(Dataset.from_torch(pairs, key="numbers", cache=tmp_path)).tolist() for _ in range(2)]
    assert (found[0], pairs.read) == (found[1], 2)
    longer = Pairs([*pairs.pairs, pairs.pairs[0]])
    assert len(Dataset.from_torch(longer, key="numbers", cache=tmp_path)) == 3


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


IMAGE = torch.zeros(1, 2, 2)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (Stream(), "a Stream is no map-style dataset: it needs __getitem__ and __len__"),
        ([], "has no items"),
        ([{"image": IMAGE, "label": 1}], r"item 0 is a dict of 2: items must be pairs \(image, label\)"),
        ([(IMAGE, 1), (torch.zeros(1, 2, 3), 1)], r"item 1 is float32 \[1, 2, 3\], item 0 .*\[1, 2, 2\].*Resize"),
        ([(PIXELS[0, :2], 1)], r"item 0 is an image \[2, 6, 3\] with its channels at the end"),
        ([(IMAGE / 0, 1)], "item 0 holds NaN or infinity"),
        ([("a.jpg", 1)], "item 0 has a str for an image: give a PIL image, an array or a tensor"),
        ([(IMAGE, None)], "item 0 has the label None: labels must be whole numbers or names"),
        ([(IMAGE, torch.tensor([0, 1]))], "labels must be whole numbers or names"),
    ],
)
def test_what_is_no_pair_is_named_by_its_item(pairs: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        Dataset.from_torch(pairs, cache=tmp_path)
    assert not list(tmp_path.iterdir())
