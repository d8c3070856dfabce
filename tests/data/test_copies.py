"""The same image twice, and what is said and done about it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.data import Dataset, omniglot, photographs
from fewstep.data.images.by_name import ImageData
from fewstep.data.images.class_splits import all_classes, class_split
from fewstep.data.images.copies import Groups, copied_pairs, same_rows, settle_copies
from fewstep.data.storage.cache import cache_folder

PARTS = ("train", "val", "test")


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def photos(root: Path) -> Path:
    """owl/0 is cat/0, fox/1 is dog/1 and cat/1, dog/2 is dog/0."""
    same = {"owl/0": 0, "cat/0": 0, "fox/1": 1, "dog/1": 1, "cat/1": 1, "dog/2": 2, "dog/0": 2}
    for i, name in enumerate(f"{name}/{k}" for name in ("cat", "dog", "owl", "fox") for k in range(4)):
        picture(root / f"{name}.png", same.get(name, 100 + i))
    (root / "split.csv").write_text("class,split\ncat,train\ndog,train\nowl,val\nfox,test\n")
    return root


def sizes(dataset: Dataset) -> dict[str, int]:
    return dict(zip(dataset.class_names, dataset.sizes.tolist(), strict=True))


@pytest.mark.usefixtures("_cache")
def test_copies_are_told_before_training_and_left_out_on_request(tmp_path: Path) -> None:
    root, told = photos(tmp_path / "photos"), list[str]()
    assert sizes(photographs("train", root, size=8, report=told.append)) == {"cat": 4, "dog": 4}
    (said,) = [line for line in told if "bit for bit" in line]
    assert said == (
        "photos: images that are the same, bit for bit: 2 pairs between train and test (cat and fox, dog and fox); "
        "1 pair between train and val (cat and owl); 2 pairs within train (cat and dog, dog); leave them out by "
        "copies='drop' (pretrain and embed: --copies drop)"
    )
    told.clear()
    photographs("test", root, size=8, report=told.append)
    assert not told, "once is enough"
    left = [photographs(split, root, size=8, copies="drop", report=told.append) for split in PARTS]
    assert [sizes(dataset) for dataset in left] == [{"cat": 2, "dog": 2}, {"owl": 4}, {"fox": 4}]
    assert told[-1].endswith("; left out")
    rows = np.concatenate([dataset.gather(np.arange(len(dataset))).numpy() for dataset in left])
    assert len(np.unique(rows.reshape(len(rows), -1), axis=0)) == len(rows) == 12


@pytest.mark.usefixtures("_cache")
def test_embed_and_pretrain_are_told_too(tmp_path: Path) -> None:
    told: list[str] = []
    data = ImageData(str(photos(tmp_path / "photos")), size=8, copies="drop")
    assert sizes(data.examples("train", told.append)) == {"cat": 2, "dog": 2}
    assert any("bit for bit" in line for line in told)


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("content", [None, "[[0, 9999]]", "[7]", "{"])
def test_a_store_of_before_is_looked_through_once(content: str | None, tmp_path: Path) -> None:
    root, told = photos(tmp_path / "photos"), list[str]()
    photographs("train", root, size=8)
    (kept,) = cache_folder(None).glob("photographs-*/copies.json")
    made = kept.read_text()
    if content is None:
        kept.unlink()
    else:
        kept.write_text(content)
    photographs("train", root, size=8, report=told.append)
    assert "2 pairs between train and test" in told[-1]
    assert json.loads(kept.read_text()) == json.loads(made)


@pytest.mark.usefixtures("_cache")
def test_damaged_images_are_no_copies_of_each_other(tmp_path: Path) -> None:
    root, told = photos(tmp_path / "photos"), list[str]()
    for name in ("cat/2", "fox/2"):
        (root / f"{name}.png").write_bytes(b"broken")
    train = photographs("train", root, size=8, damaged="skip", copies="drop", report=told.append)
    assert sizes(train) == {"cat": 1, "dog": 2}
    assert "2 pairs between train and test" in next(line for line in told if "bit for bit" in line)


def test_omniglot_holds_one_drawing_twice(shared: Path) -> None:
    drawings = omniglot("train"), omniglot("val"), omniglot("test")
    (holder,) = [d for d in drawings if "Braille/character01" in d.class_names]
    c = holder.class_names.index("Braille/character01")
    rows = holder.gather(np.arange(holder.offsets[c], holder.offsets[c + 1])).numpy()
    assert np.array_equal(rows[2], rows[18]), "numbers 3 and 19"
    for split in ("trainval", "test"):
        whole, left = omniglot(split), omniglot(split, copies="drop")  # type: ignore[arg-type]
        assert len(whole) - len(left) == ("Braille/character01" in whole.class_names)
    turned = omniglot("trainval", rotations=True, copies="drop")
    assert len(omniglot("trainval", rotations=True)) - len(turned) == 4 * ("Braille/character01" in turned.class_names)
    told: list[str] = []
    omniglot("train", report=told.append)
    assert told == [
        "Omniglot (vinyals): images that are the same, bit for bit: 1 pair within "
        f"{holder.split} (Braille/character01); leave them out by copies='drop' (pretrain and embed: --copies drop)"
    ]


def by_features(shared: Path) -> Groups:
    """A network gives the same numbers for the same image, and hardly for others."""
    with np.load(shared / "data" / "features_cifar_fs_resnet9.npz") as file:
        return same_rows(row.tobytes() for row in file["features"].reshape(60000, -1))


def by_pixels(shared: Path) -> Groups:
    """Residuals are the same where, and only where, images are."""
    import lzma

    with np.load(shared / "data" / "cifar100_med_xz.npz") as file:
        planes = np.frombuffer(lzma.decompress(file["residual_xz"].tobytes()), np.uint8).reshape(3, -1, 32, 32)
    return same_rows(planes[:, i].tobytes() for i in range(planes.shape[1]))


@pytest.mark.parametrize("found", [by_features, pytest.param(by_pixels, marks=pytest.mark.slow)])
def test_the_table_of_cifar_100(found: Callable[[Path], Groups], shared: Path) -> None:
    names = list(all_classes("CIFAR-FS"))
    dataset = Dataset.from_sorted(np.arange(60000), np.arange(101) * 600, names)
    pairs = copied_pairs(dataset, found(shared))
    assert pairs.total() == 26
    assert sum(count for (one, other), count in pairs.items() if one != other) == 17

    def crossing(name: str) -> Counter[frozenset[str]]:
        split_of = {c: part for part in PARTS for c in class_split(name, part)}
        return Counter({frozenset(p): count for p, count in pairs.items() if split_of[p[0]] != split_of[p[1]]})

    two = {"otter seal": 7, "baby girl": 4, "snake worm": 2, "crab spider": 1, "shark whale": 1}
    assert crossing("CIFAR-FS") == {frozenset(names.split()): count for names, count in two.items()}
    assert crossing("FC100") == {frozenset(("shark", "whale")): 1, frozenset(("snake", "worm")): 2}
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text().splitlines()
    for names, count in two.items():
        cells = [", ".join(names.split()), str(count)]
        for name in ("CIFAR-FS", "FC100"):
            splits = [next(part for part in PARTS if c in class_split(name, part)) for c in names.split()]
            cells.append(", ".join(splits) if len(set(splits)) > 1 else "")
        assert "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" in page


def test_copies_are_left_out_of_rows_that_are_not_in_the_order_of_classes() -> None:
    rows = np.array([[5.0], [1.0], [5.0], [2.0]])
    dataset = Dataset.from_labels(rows, ["seal", "owl", "otter", "owl"])
    splits = {"train": ["seal", "owl"], "test": ["otter"]}
    left = settle_copies(dataset, [[0, 2]], splits, "test", "drop", print, "photographs")
    assert left.gather(np.arange(len(left)))[:, 0].tolist() == [5.0, 1.0, 2.0]  # the otter, and both owls
    assert left.sizes.tolist() == [1, 2, 0]
