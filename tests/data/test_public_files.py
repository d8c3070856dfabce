"""miniImageNet and tieredImageNet in the files that repositories share."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewstep.data import Dataset, cifar_fs, embeddings, mini_imagenet, photographs, tiered_imagenet
from fewstep.data.images import class_splits

CLASSES = {"train": ["n00000003", "n00000001"], "val": ["n00000002"], "test": ["n00000004"]}
COUNTS = {"n00000001": 3, "n00000002": 2, "n00000003": 2, "n00000004": 4}
pytestmark = pytest.mark.filterwarnings("ignore:.*classes have not the 600 images")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        class_splits, "_lists", lambda: dict.fromkeys(("miniImageNet", "tieredImageNet", "CIFAR-FS"), CLASSES)
    )
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def pictures(split: str) -> tuple[np.ndarray, list[str]]:
    """Images of a split with their classes, mixed."""
    random = np.random.default_rng(len(split))
    labels = random.permutation([name for name in CLASSES[split] for _ in range(COUNTS[name])]).tolist()
    return random.integers(0, 256, (len(labels), 6, 6, 3), np.uint8), labels


def dump(path: Path, content: Any, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def mini_cache(root: Path) -> None:
    for split in CLASSES:
        images, labels = pictures(split)
        rows = {name: [i for i, label in enumerate(labels) if label == name] for name in CLASSES[split]}
        dump(root / f"mini-imagenet-cache-{split}.pkl", {"image_data": images, "class_dict": rows})


def category_split(root: Path, named: bool = True) -> None:
    first = 0
    for split, phase in (("train", "train_phase_train"), ("val", "val"), ("test", "test")):
        images, labels = pictures(split)
        numbers = {name: first + i for i, name in enumerate(sorted(CLASSES[split]))}
        first += len(numbers)
        content = {"data": images, "labels": [numbers[label] for label in labels]}
        dump(
            root / f"miniImageNet_category_split_{phase}.pickle",
            content
            | ({"catname2label": numbers, "label2catname": {v: k for k, v in numbers.items()}} if named else {}),
        )


def png(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)[:, None]  # as OpenCV gives it


def tiered(root: Path, named: bool = True, compressed: bool = True) -> None:
    for split in CLASSES:
        images, labels = pictures(split)
        names = sorted(CLASSES[split])
        told: dict[str, Any] = {"label_specific": np.array([names.index(label) for label in labels])}
        if named:
            told |= {"label_specific_str": names, "label_general": np.zeros(len(labels), int)}
        dump(root / f"{split}_labels.pkl", told, 4)
        if compressed:
            dump(root / f"{split}_images_png.pkl", [png(image) for image in images], 4)
        else:
            np.savez(root / f"{split}_images.npz", images=images)


def expected(name: str) -> np.ndarray:
    split = next(split for split, names in CLASSES.items() if name in names)
    images, labels = pictures(split)
    return np.moveaxis(images[[label == name for label in labels]], -1, 1)


LAYOUTS: list[tuple[Callable[..., Dataset], Callable[[Path], None]]] = [
    (mini_imagenet, mini_cache),
    (mini_imagenet, category_split),
    (tiered_imagenet, tiered),
    (tiered_imagenet, lambda root: tiered(root, compressed=False)),
]


@pytest.mark.parametrize(("load", "write"), LAYOUTS)
@pytest.mark.parametrize("below", ["", "mini-imagenet"])
def test_public_layouts_are_read(
    load: Callable[..., Dataset], write: Callable[[Path], None], below: str, tmp_path: Path
) -> None:
    root = tmp_path / "files"
    write(root / below)
    for split in ("train", "val", "trainval", "test"):
        told: list[str] = []
        dataset = load(split, root, size=6, report=told.append)
        names = [name for part in class_splits.PARTS[split] for name in CLASSES[part]]
        assert list(dataset.class_names) == names, "the published order"
        for c, name in enumerate(names):
            rows = dataset.gather(np.arange(dataset.offsets[c], dataset.offsets[c + 1]))
            assert np.array_equal((rows * 255).round().numpy(), expected(name))
        assert bool(told) == (split == "train"), "images are decoded once"
    one = next(path for path in sorted((root / below).iterdir()) if "label" not in path.name)
    assert load("val", one, size=4).feature_shape == (3, 4, 4), "one of the files stands for all"


@pytest.mark.parametrize(
    ("load", "write"),
    [
        (mini_imagenet, lambda root: category_split(root, named=False)),
        (tiered_imagenet, lambda root: tiered(root, named=False)),
    ],
)
@pytest.mark.filterwarnings("error:.*the split is not the published one")
def test_classes_without_names_go_by_number(
    load: Callable[..., Dataset], write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "files")
    found = [load(split, tmp_path / "files", size=6) for split in CLASSES]
    assert [d.classes for d in found] == [2, 1, 1]
    assert len({name for d in found for name in d.class_names}) == 4
    rows = found[2].gather(np.arange(4))
    assert np.array_equal((rows * 255).round().numpy(), expected("n00000004"))


def test_another_split_is_taken_as_the_files_tell_it(tmp_path: Path) -> None:
    mini_cache(tmp_path)
    val, test = (tmp_path / f"mini-imagenet-cache-{split}.pkl" for split in ("val", "test"))
    val.rename(tmp_path / "kept")
    test.rename(val)
    (tmp_path / "kept").rename(test)
    with pytest.warns(UserWarning, match="not the published one of miniImageNet, it differs in val"):
        assert mini_imagenet("val", tmp_path, size=6).class_names == ("n00000004",)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    mini_cache(tmp_path / "mini")
    tiered(tmp_path / "tiered")
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "CIFAR_FS_train.pickle").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mini-imagenet-cache-train.pkl is a file of miniImageNet, not of tiered"):
        tiered_imagenet("train", tmp_path / "mini")
    with pytest.raises(ValueError, match=r"train_images_png.pkl is a file of tieredImageNet, not of miniImageNet: n"):
        mini_imagenet("train", tmp_path / "tiered")
    with pytest.raises(ValueError, match=r"is a file of CIFAR-FS, not of miniImageNet: give CIFAR-100's archive"):
        mini_imagenet("train", tmp_path / "cifar")
    for path in (tmp_path / "cifar", tmp_path / "cifar" / "CIFAR_FS_train.pickle"):
        with pytest.raises(ValueError, match=r"CIFAR_FS_train.pickle holds classes of CIFAR-100 as MetaOpt"):
            cifar_fs("train", path=path)
    for folder, told in (
        ("mini", "miniImageNet, .* give mini-imagenet with that folder as --path"),
        ("tiered", "tieredImageNet, .* give tiered-imagenet with that folder as --path"),
        ("cifar", "CIFAR-FS, .* give cifar-fs, whose archive is fetched"),
    ):
        with pytest.raises(ValueError, match=rf"is a file of {told}"):
            photographs("train", tmp_path / folder)
    with pytest.raises(
        ValueError, match=r"train.pkl holds images \(image_data \[5, 6, 6, 3\]\) and no features: give it"
    ):
        embeddings(tmp_path / "mini" / "mini-imagenet-cache-train.pkl", "all")
    (tmp_path / "tiered" / "val_labels.pkl").unlink()
    with pytest.raises(ValueError, match=r"holds train_images_png.pkl but no val_labels.pkl: .* put all of them there"):
        tiered_imagenet("train", tmp_path / "tiered")
    (tmp_path / "mini" / "mini-imagenet-cache-val.pkl").unlink()
    with pytest.raises(ValueError, match=r"holds mini-imagenet-cache-train.pkl but no mini-imagenet-cache-val.pkl"):
        mini_imagenet("train", tmp_path / "mini")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match=r"photos.zip is a file: give a folder of images, if need be unpack it"):
        mini_imagenet("train", tmp_path / "photos.zip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mini.h5").touch()
    with pytest.raises(ValueError, match=r"lacks 4 of 4 classes, .*; it holds mini.h5"):
        mini_imagenet("train", tmp_path / "other")


def test_damaged_and_hostile_files_are_refused(tmp_path: Path) -> None:
    mini_cache(tmp_path)
    file = tmp_path / "mini-imagenet-cache-val.pkl"
    content = pickle.loads(file.read_bytes())
    for changed, told in (
        ({"image_data": content["image_data"][:1]}, "holds 1 images, but labels of others"),
        ({"class_dict": print}, r"asks for .*print"),
        ({"class_dict": 3}, "holds no images with labels as its name promises"),
        ({"class_dict": {"n": [None]}}, "holds no images with labels as its name promises"),
        ({"class_dict": {"n": ["a"]}}, "holds no images with labels as its name promises"),
        ({"image_data": 3}, "holds no images with labels as its name promises"),
        ({"image_data": ["a", None]}, "image 0 is damaged or is no image"),
    ):
        dump(file, content | changed)
        with pytest.raises(ValueError, match=told):
            mini_imagenet("val", tmp_path, size=6)
    shared = {"class_dict": {CLASSES["test"][0]: content["class_dict"][CLASSES["val"][0]]}}
    dump(file, content | shared)
    with pytest.raises(ValueError, match=r"class n00000004 is in .*val.pkl and in .*test.pkl: classes of a test"):
        mini_imagenet("val", tmp_path, size=6)
    tiered(tmp_path / "tiered")
    dump(tmp_path / "tiered" / "test_images_png.pkl", [np.zeros((9, 1), np.uint8)] * 4)
    with pytest.raises(ValueError, match=r"test_images_png.pkl, image 0 is damaged or is no image"):
        tiered_imagenet("test", tmp_path / "tiered", size=6)
