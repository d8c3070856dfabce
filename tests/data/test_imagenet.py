import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.data import Dataset, mini_imagenet, tiered_imagenet
from fewstep.data.images import class_splits
from fewstep.data.images.files import read_image

LISTS = {"train": ["n03", "n01"], "val": ["n02"], "test": ["n04"]}
IMAGES = {"n01": 3, "n02": 2, "n03": 2, "n04": 4}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(class_splits, "_lists", lambda: {"miniImageNet": LISTS, "tieredImageNet": LISTS})
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


pytestmark = pytest.mark.filterwarnings("ignore:.*classes have not the 600 images")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(path)


def flat(root: Path) -> None:
    for c, (name, count) in enumerate(IMAGES.items()):
        for i in range(count):
            picture(root / name / f"{name}_{i}.png", 10 * c + i)
    picture(root / "n09" / "another class.png", 99)
    (root / "n01" / "notes.txt").touch()


def by_part(root: Path) -> None:
    flat(root)
    for part, names in LISTS.items():
        (root / part).mkdir()
        for name in names:
            (root / name).rename(root / part / name)


def listed(root: Path) -> None:
    flat(root)
    (root / "images").mkdir()
    for part, names in LISTS.items():
        with (root / f"{part}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["filename", "label"])
            for name in names:
                for path in sorted((root / name).glob("*.png"), reverse=True):
                    path.rename(root / "images" / path.name)
                    lines.writerow([path.name, name])


def listed_apart(root: Path) -> None:
    """As many repositories have it: the lists in a folder of their own."""
    listed(root)
    (root / "split").mkdir()
    for part in LISTS:
        (root / f"{part}.csv").rename(root / "split" / f"{part}.csv")


def listed_by_class(root: Path) -> None:
    """The images that lists name in a folder for each class."""
    listed(root)
    for path in list((root / "images").glob("*.png")):
        (inner := root / "images" / path.name[:3]).mkdir(exist_ok=True)
        path.rename(inner / path.name)


def rows(dataset: Dataset) -> np.ndarray:
    return dataset.gather(np.arange(len(dataset))).numpy()


@pytest.mark.parametrize(
    ("load", "layout"),
    [
        (mini_imagenet, flat),
        (mini_imagenet, by_part),
        (mini_imagenet, listed),
        (mini_imagenet, listed_apart),
        (mini_imagenet, listed_by_class),
        (tiered_imagenet, by_part),
    ],
)
def test_layouts(load: Callable[..., Dataset], layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path / "files")
    train, both = (load(split, tmp_path / "files", size=8) for split in ("train", "trainval"))
    assert train.class_names == ("n03", "n01")
    assert both.class_names == ("n03", "n01", "n02")
    assert train.sizes.tolist() == [2, 3]
    assert train.feature_shape == (3, 8, 8)
    assert train.store.dtype == np.uint8
    files = {path.name: path for path in (tmp_path / "files").rglob("*.png")}
    names = ["n03_0", "n03_1", "n01_0", "n01_1", "n01_2"]
    wanted = np.stack([read_image(files[f"{name}.png"], 8, colour=True).numpy() for name in names])
    assert np.array_equal(rows(train), wanted)
    assert len(list((tmp_path / "cache").glob("*imagenet-*[0-9a-f]"))) == 1, "one store for all parts"


def test_a_reduction_is_pillows_lanczos_on_rgb(tmp_path: Path) -> None:
    flat(tmp_path / "files")
    with Image.open(tmp_path / "files" / "n04" / "n04_2.png") as image:
        small = np.asarray(image.convert("RGB").resize((7, 7), Image.Resampling.LANCZOS))
    row = rows(mini_imagenet("test", tmp_path / "files", size=7))[2]
    assert np.array_equal((row * 255).round(), small.transpose(2, 0, 1))


def test_jpegs_of_any_kind_are_read(tmp_path: Path) -> None:
    """ImageNet holds grey ones and ones for print."""
    flat(tmp_path / "files")
    for i, mode in enumerate(("L", "CMYK")):
        with Image.open(tmp_path / "files" / "n04" / "n04_0.png") as image:
            image.convert(mode).save(tmp_path / "files" / "n04" / f"n04_{i}.JPEG")
    assert mini_imagenet("test", tmp_path / "files", size=6).sizes.tolist() == [6]


def test_another_size_and_other_files_are_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path / "files")
    told: list[str] = []
    for size, made in ((6, 1), (6, 1), (5, 2)):
        assert mini_imagenet("test", tmp_path / "files", size=size, report=told.append).feature_shape == (3, size, size)
        assert len([line for line in told if "once" in line]) == made
    picture(tmp_path / "files" / "n01" / "n01_7.png", 7)
    assert mini_imagenet("train", tmp_path / "files", size=6).sizes.tolist() == [2, 4]
    (tmp_path / "files").rename(tmp_path / "moved")
    told.clear()
    mini_imagenet("train", tmp_path / "moved", size=6, report=told.append)
    assert not told
    changed = tmp_path / "moved" / "n01" / "n01_0.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    mini_imagenet("train", tmp_path / "moved", size=6, report=told.append)
    monkeypatch.setattr("PIL.__version__", "0")
    mini_imagenet("train", tmp_path / "moved", size=6, report=told.append)
    assert len([line for line in told if "once" in line]) == 2


def test_a_number_of_images_that_is_not_miniimagenets_is_told(tmp_path: Path) -> None:
    flat(tmp_path / "files")
    with pytest.warns(UserWarning, match="4 classes have not the 600 images of miniImageNet, the first is n01 with 3"):
        mini_imagenet("test", tmp_path / "files", size=6)


def test_missing_classes_are_named_and_counted(tmp_path: Path) -> None:
    by_part(tmp_path)
    for name in ("train/n03", "test/n04"):
        (tmp_path / name).rename(tmp_path / f"{name} copy")
    with pytest.raises(ValueError, match=r"lacks 2 of 4 classes, the first is n03: add a folder n03"):
        tiered_imagenet("val", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        tiered_imagenet("val", tmp_path / "none")


def test_unclear_folders_are_refused(tmp_path: Path) -> None:
    flat(tmp_path)
    picture(tmp_path / "val" / "n02" / "1.png", 0)
    with pytest.raises(ValueError, match=r"class n02 has two folders, .*n02 and .*val.n02: give the folder"):
        mini_imagenet("val", tmp_path)
    (tmp_path / "val" / "n02").rename(tmp_path / "val" / "else")
    for path in (tmp_path / "n03").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"class folder .*n03 holds no images"):
        mini_imagenet("val", tmp_path)


def test_damaged_images_are_named(tmp_path: Path) -> None:
    flat(tmp_path / "files")
    (tmp_path / "files" / "n02" / "n02_1.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"^.*n02_1.png is damaged or is no image"):
        mini_imagenet("test", tmp_path / "files")


def test_lists_are_checked(tmp_path: Path) -> None:
    listed(tmp_path)
    lines = (tmp_path / "val.csv").read_text()
    (tmp_path / "val.csv").write_text(lines.replace("n02_0.png", "../n02_0.png"))
    with pytest.raises(ValueError, match=r"val.csv, line 3: '../n02_0.png' is no name of a file in .*images"):
        mini_imagenet("val", tmp_path)
    (tmp_path / "val.csv").write_text(lines.replace("n02_0.png", "n02_8.png"))
    with pytest.raises(FileNotFoundError, match=r"n02_8.png"):
        mini_imagenet("val", tmp_path)
    (tmp_path / "val.csv").write_text("file,class\n")
    with pytest.raises(ValueError, match=r"val.csv must have the columns filename and label"):
        mini_imagenet("val", tmp_path)
    (tmp_path / "val.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no list .*val.csv"):
        mini_imagenet("val", tmp_path)


def test_lists_are_the_users_statement_of_the_split(tmp_path: Path) -> None:
    listed(tmp_path)
    train, val = ((tmp_path / f"{part}.csv").read_text() for part in ("train", "val"))
    head, *lines = val.splitlines()
    (tmp_path / "val.csv").write_text("\n".join([head, *lines, lines[0]]))
    assert mini_imagenet("val", tmp_path, size=6).sizes.tolist() == [2], "a line that is given twice is one image"
    (tmp_path / "val.csv").write_text(val + train.splitlines()[1])
    with pytest.raises(
        ValueError, match=r"val.csv, line 4: n03_1.png of class n03 was named before, in .*train.csv, l"
    ):
        mini_imagenet("val", tmp_path, size=6)
    (tmp_path / "val.csv").write_text(val + lines[0].replace("n02,", "n04,").replace(",n02", ",n04"))
    with pytest.raises(ValueError, match=r"line 4: n02_1.png of class n04 was named before, in .*line 2, of class n02"):
        mini_imagenet("val", tmp_path, size=6)
    picture(tmp_path / "images" / "n03_8.png", 5)
    (tmp_path / "val.csv").write_text(val + "n03_8.png,n03")
    with pytest.raises(ValueError, match=r"class n03 is in val.csv, and was in train.csv before"):
        mini_imagenet("val", tmp_path, size=6)
    (tmp_path / "val.csv").write_text(val + "n03_8.png,n77")
    with pytest.raises(ValueError, match=r"name 1 that are not miniImageNet's, the first is n77: give"):
        mini_imagenet("val", tmp_path, size=6)
    (tmp_path / "val.csv").write_text(f"{head}\n")
    with pytest.raises(ValueError, match=r"lack 1 of 4 classes, the first is n02: give"):
        mini_imagenet("val", tmp_path, size=6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.csv").write_text(train)
    with pytest.raises(ValueError, match=r"several sets of lists, in .* and in .*other: leave the one"):
        mini_imagenet("val", tmp_path, size=6)


def test_another_split_of_the_lists_is_taken_and_told(tmp_path: Path) -> None:
    listed(tmp_path)
    (tmp_path / "val.csv").rename(tmp_path / "kept.csv")
    (tmp_path / "test.csv").rename(tmp_path / "val.csv")
    (tmp_path / "kept.csv").rename(tmp_path / "test.csv")
    with pytest.warns(
        UserWarning, match=r"not the published one of miniImageNet, it differs in val \(1 other classes\), "
    ):
        assert mini_imagenet("trainval", tmp_path, size=6).class_names == ("n03", "n01", "n04")
