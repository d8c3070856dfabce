import errno
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from fewstep.data import Dataset, read_image
from fewstep.data.images import class_folders
from fewstep.data.images.files import DamagedImage
from fewstep.data.images.folders import photograph_splits, photographs

SPLITS = {"train": ["owl", "cat"], "val": ["dog"], "test": ["fox", "bee"]}
NAMES = [name for names in SPLITS.values() for name in names]
LANCZOS = Image.Resampling.LANCZOS


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded from here on."""
    files: list[str] = []
    decode = class_folders.pixels

    def counted(path: Path, *arguments: Any) -> np.ndarray:
        files.append(path.name)
        return decode(path, *arguments)

    monkeypatch.setattr(class_folders, "pixels", counted)
    return files


def picture(path: Path, size: tuple[int, int] = (16, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(path.parent.name.encode() + path.stem.encode())
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def flat(root: Path) -> Path:
    """Three images of each class, of three shapes."""
    for name in NAMES:
        for i, size in enumerate(((16, 8), (8, 12), (9, 9))):
            picture(root / name / f"{name}{i}.png", size)
    return root


def by_folder(root: Path, called: tuple[str, str, str] = ("train", "val", "test")) -> Path:
    flat(root)
    for split, folder in zip(SPLITS, called, strict=True):
        (root / folder).mkdir()
        for name in SPLITS[split]:
            (root / name).rename(root / folder / name)
    return root


def by_alias(root: Path) -> Path:
    return by_folder(root, ("base", "validation", "Novel"))


def with_csv(root: Path, lines: str | None = None, name: str = "split.csv") -> Path:
    flat(root)
    told = "".join(f"{name}, {split}\n" for split, names in SPLITS.items() for name in names)
    (root / name).write_text("\ufeffclass,split\n" + told if lines is None else lines, encoding="utf-8")
    return root


def with_json(root: Path) -> Path:
    flat(root)
    (root / "split.json").write_text(json.dumps({"novel": SPLITS["test"], "train": SPLITS["train"], "Val": ["dog"]}))
    return root


def rows(dataset: Dataset) -> np.ndarray:
    return (dataset.gather(np.arange(len(dataset))).numpy() * 255).round().astype(np.uint8)


def by_hand(path: Path, mode: str = "RGB") -> np.ndarray:
    """Scaled so that the short side has 4 pixels, then cropped."""
    with Image.open(path) as image:
        width, height = image.size
        scaled = (4 * width // min(image.size), 4 * height // min(image.size))
        small = np.asarray(image.convert(mode).resize(scaled, LANCZOS))
    y, x = (scaled[1] - 4) // 2, (scaled[0] - 4) // 2
    cut = small[y : y + 4, x : x + 4]
    return cut[None] if mode == "L" else cut.transpose(2, 0, 1)


@pytest.mark.parametrize("layout", [by_folder, by_alias, with_csv, with_json])
def test_layouts(layout: Callable[[Path], Path], tmp_path: Path, decoded: list[str]) -> None:
    root = layout(tmp_path / "My Photos")
    assert photograph_splits(root) == ("train", "val", "test")
    files = {path.name: path for path in root.rglob("*.png")}
    for split, names in SPLITS.items():
        dataset = photographs(split, root, size=4)  # type: ignore[arg-type]
        assert dataset.class_names == tuple(sorted(names))
        assert dataset.sizes.tolist() == [3] * len(names)
        assert str(dataset) == f"My Photos {split}"
        assert isinstance(dataset.store, np.memmap)
        assert dataset.store.dtype == np.uint8
        wanted = [by_hand(files[f"{name}{i}.png"]) for name in sorted(names) for i in range(3)]
        near = np.abs(rows(dataset).astype(int) - np.stack(wanted))
        exact = [i % 3 != 1 for i in range(len(wanted))]  # 4/8 of a side of 12 is 6: cut and scaled in one step
        assert not near[exact].any()
        assert near.max() <= 1
    assert photographs("trainval", root, size=4).class_names == ("cat", "dog", "owl")
    assert sorted(decoded) == sorted(files), "each image once, for all splits"
    assert len(list((tmp_path / "cache").glob("photographs-*[0-9a-f]"))) == 1


def test_squeezed_and_grey(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    with Image.open(root / "val" / "dog" / "dog0.png") as image:
        squeezed = np.asarray(image.resize((5, 5), LANCZOS)).transpose(2, 0, 1)
    assert np.array_equal(rows(photographs("val", root, size=5, fit="squeeze"))[0], squeezed)
    grey = photographs("val", root, size=4, grey=True)
    assert grey.feature_shape == (1, 4, 4)
    assert np.array_equal(rows(grey)[0], by_hand(root / "val" / "dog" / "dog0.png", "L"))
    file = root / "val" / "dog" / "dog1.png"
    assert np.array_equal(
        read_image(file, 4, colour=True, fit="crop").mul(255).round().numpy(), rows(photographs("val", root, size=4))[1]
    ), "one image is read as those of a dataset"


def test_the_split_file_may_lie_elsewhere(tmp_path: Path) -> None:
    root = with_csv(tmp_path / "p")
    (tmp_path / "other.json").write_text('{"train": ["cat", "dog", "owl", "fox", "bee"]}')
    assert photograph_splits(root, split_file=tmp_path / "other.json") == ("train",)
    assert photographs("train", root, split_file=tmp_path / "other.json", size=4).classes == 5
    with pytest.raises(FileNotFoundError, match=r"there is no split file .*none.csv"):
        photograph_splits(root, split_file=tmp_path / "none.csv")
    (tmp_path / "list.txt").touch()
    with pytest.raises(ValueError, match=r"the split file .*list.txt must be .csv, with the columns"):
        photograph_splits(root, split_file=tmp_path / "list.txt")


def test_splits_may_be_missing(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    (root / "val").rename(tmp_path / "val")
    assert photograph_splits(root) == ("train", "test")
    assert photographs("train", root, size=4).classes == 2
    for split in ("val", "trainval"):
        with pytest.raises(ValueError, match=r"p has no classes for val, only for train, test: add some"):
            photographs(split, root, size=4)


def test_changing_the_split_decodes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    root = by_folder(tmp_path / "p")
    photographs("train", root, size=4)
    (root / "train" / "owl").rename(root / "test" / "owl")
    root = root.rename(tmp_path / "q")
    decoded.clear()
    assert photographs("test", root, size=4).class_names == ("bee", "fox", "owl")
    assert not decoded


def names_are_normal(root: Path) -> Path:
    """A list in the usual form, a folder as a Mac writes it."""
    flat(root)
    (root / "cat").rename(root / "cafe\u0301")
    told = {"train": ["caf\u00e9", "owl"], "test": ["dog", "fox", "bee"]}
    (root / "split.json").write_text(json.dumps(told))
    return root


def test_names_match_however_they_are_encoded(tmp_path: Path) -> None:
    assert photographs("train", names_are_normal(tmp_path / "p"), size=4).class_names == ("caf\u00e9", "owl")


def test_a_folder_without_a_split_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say which classes are for training") as raised:
        photograph_splits(flat(tmp_path / "p"))
    for shown in ("p/train/cat/1.jpg", "split.csv", "class,split\n  cat,train", '{"train": ["cat"]', "split.json"):
        assert shown in str(raised.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="does not say which classes"):
        photograph_splits(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        photograph_splits(tmp_path / "none")
    (tmp_path / "p.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"p.zip is a file: give a folder"):
        photograph_splits(tmp_path / "p.zip")


def two_splits(root: Path) -> None:
    by_folder(root)
    picture(root / "test" / "Cat" / "1.png")


def one_folder_by_links(root: Path) -> None:
    by_folder(root)
    (root / "test" / "kitten").symlink_to(root / "train" / "cat")


def two_names_of_a_split(root: Path) -> None:
    by_folder(root)
    picture(root / "base" / "yak" / "1.png")


def extra_folder(root: Path) -> None:
    by_folder(root)
    picture(root / "yak" / "1.png")


def both(root: Path) -> None:
    by_folder(root)
    (root / "split.csv").write_text("class,split\ncat,train\n")


def two_files(root: Path) -> None:
    with_csv(root)
    (root / "split.json").write_text("{}")


def loose_above(root: Path) -> None:
    with_csv(root)
    picture(root / "stray.png")


def loose_in_a_split(root: Path) -> None:
    by_folder(root)
    picture(root / "val" / "stray.png")
    picture(root / "val" / "stray2.png")


def empty_class(root: Path) -> None:
    by_folder(root)
    for name in ("ape", "yak"):
        (root / "val" / name).mkdir()
    (root / "val" / "ape" / "1.HEIC").touch()


def empty_split(root: Path) -> None:
    by_folder(root)
    (root / "val" / "dog").rename(root / "test" / "dog")


def nested(root: Path) -> None:
    by_folder(root)
    picture(root / "val" / "dog" / "2019" / "1.png")


def lost_class(root: Path) -> None:
    by_folder(root)
    (root / "val" / "yak").symlink_to(root / "nowhere")


def one_image(root: Path) -> None:
    by_folder(root)
    picture(root / "val" / "yak" / "1.png")


def told(lines: str, name: str = "split.csv") -> Callable[[Path], object]:
    return lambda root: with_csv(root, lines, name)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (two_splits, r"same class is in train \(.*train.cat\) and in test \(.*test.Cat\): classes of a test must not"),
        (one_folder_by_links, r"same class is in train \(.*train.cat\) and in test \(.*test.kitten\)"),
        (two_names_of_a_split, r"p/base, p/train in .* are names of the same split: merge"),
        (extra_folder, r"split folders \(p/test, p/train, p/val\) beside other folders \(p/yak\): move those"),
        (both, r"holds split folders \(.*\), and .*split.csv tells the split too: remove that file"),
        (two_files, r"holds both split.csv and split.json: remove one"),
        (loose_above, r"p holds 1 images \(stray.png, ...\) outside class folders: move each"),
        (loose_in_a_split, r"val holds 2 images \(stray.png, ...\) outside class folders: move each"),
        (empty_class, r"2 of 7 class folders hold no images: val/ape, val/yak \(but .heic \(1\)\). Fill.*\.jpg"),
        (empty_split, r"the split folder .*val holds no class folders: fill or remove it"),
        (nested, r"class folders must hold images and no folders, but there are dog/2019: move"),
        (lost_class, r"val/yak in .*val leads nowhere: repair or remove the link"),
        (one_image, r"1 of 6 classes have fewer than 2 images: yak \(1\). Add images"),
        (told("class,split\ncat,train\ncat,test\n"), r"line 3: class cat is in test, and was in train before: classes"),
        (told("class,split\ncat,training\n"), r"split.csv, line 2: a class must have .* got 'cat' and 'training'"),
        (told("class,split\ncat\n"), r"split.csv, line 2: a class must have .* got 'cat' and ''"),
        (told("class,split\n ,train\n"), r"split.csv, line 2: a class must have .* got '' and 'train'"),
        (told("class;split\ncat;train\n"), r"must have the columns class,split \(with a comma\), it has \['class;spl"),
        (told(""), r"must have the columns class,split \(with a comma\), it has None"),
        (told("class,split\ncat,train\nOwl,val\n"), r"names 1 classes of 2 that have no folder in .*: Owl. Add"),
        (told("class,split\ncat,train\n"), r"holds 4 folders that .* does not name: p/bee, p/dog, p/fox, p/owl. Name"),
        (told("[", "split.json"), r"split.json is damaged or not in UTF-8 \(.*\): save it as JSON"),
        (told("[]", "split.json"), r"split.json must hold lists of class names, \{"),
        (told('{"train": "cat"}', "split.json"), r"split.json must hold lists of class names, \{"),
        (told('{"train": [3]}', "split.json"), r"split.json must hold lists of class names, \{"),
        (told('{"train": ["cat"], "test": ["cat"]}', "split.json"), r"split.json: class cat is in test, and was in tr"),
    ],
)
def test_unclear_folders_are_refused_before_any_image_is_read(
    build: Callable[[Path], object], message: str, tmp_path: Path, decoded: list[str]
) -> None:
    build(tmp_path / "p")
    with pytest.raises(ValueError, match=message):
        photographs("train", tmp_path / "p", size=4, damaged="skip")
    assert not decoded


def test_a_split_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    root = with_csv(tmp_path / "p")
    (root / "split.csv").write_bytes(b"class,split\ncaf\xe9,train\n")
    with pytest.raises(ValueError, match=r"split.csv is damaged or not in UTF-8"):
        photograph_splits(root)
    (root / "split.csv").rename(root / "split.json")
    with pytest.raises(ValueError, match=r"split.json is damaged or not in UTF-8"):
        photograph_splits(root)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, listed = by_folder(tmp_path / "p"), os.scandir

    def refuse(path: Path) -> Any:
        if path.name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"the folder .*dog may not be listed: change its permissions"):
        photograph_splits(root)


def test_what_is_hidden_or_no_image_is_passed_over(tmp_path: Path, decoded: list[str]) -> None:
    root, heard = by_folder(tmp_path / "p"), list[str]()
    for hidden in (
        ".git/1.png",
        "train/.thumbs/1.png",
        "train/cat/._cat1.png",
        "__MACOSX/1.png",
        "val/dog/@eaDir/1.png",
    ):
        picture(root / hidden)
    for other in ("README.txt", "train/cat/1.HEIC", "train/owl/2.heic", "train/owl/Thumbs.db", "val/dog/notes"):
        (root / other).touch()
    assert len(photographs("train", root, size=4, report=heard.append)) == 6
    assert heard[-1] == "p train: passed over what is no image by its suffix: .heic (2), .db (1)"
    photographs("val", root, size=4, report=heard.append)
    assert heard[-1] == "p val: passed over what is no image by its suffix: without suffix (1)"
    assert len(decoded) == 15


def test_links_are_followed(tmp_path: Path) -> None:
    flat(tmp_path / "store")
    picture(tmp_path / "elsewhere.png")
    for split, names in SPLITS.items():
        (tmp_path / "p" / split).mkdir(parents=True)
        for name in names:
            (tmp_path / "p" / split / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "dog" / "dog9.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(photographs("val", tmp_path / "p", size=4)) == 4


MODES = {  # the file, and its colour
    "1": ("png", 255, (255, 255, 255)),
    "L": ("jpg", 51, (51, 51, 51)),
    "P": ("gif", 1, (0, 0, 255)),
    "RGBA": ("png", (255, 0, 0, 0), (255, 255, 255)),
    "LA": ("png", (0, 102), (153, 153, 153)),
    "CMYK": ("tif", (0, 255, 255, 0), (255, 0, 0)),
    "I;16": ("png", 51 * 257, (51, 51, 51)),
    "I": ("tif", 51 * 257, (51, 51, 51)),
    "YCbCr": ("jpg", (128, 128, 128), (128, 128, 128)),
}


@pytest.mark.parametrize("mode", MODES)
def test_colours_of_all_kinds_are_converted(mode: str, tmp_path: Path) -> None:
    suffix, value, colour = MODES[mode]
    root = by_folder(tmp_path / "p")
    image = Image.new(mode, (8, 8), value)  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette([9, 9, 9, 0, 0, 255])
    image.save(root / "val" / "dog" / f"a.{suffix}")
    assert rows(photographs("val", root, size=4))[0, :, 2, 2].tolist() == list(colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert abs(rows(photographs("val", root, size=4, grey=True))[0, 0, 2, 2] - luminance) <= 1


def test_the_first_frame_and_the_camera_orientation(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(root / "val" / "dog" / "a.gif", save_all=True, append_images=frames[1:])
    image = Image.new("RGB", (32, 16), "white")
    image.paste("black", (0, 0, 16, 16))  # its left half
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left half is above
    image.save(root / "val" / "dog" / "b.jpg", exif=exif, quality=95)
    first, second = rows(photographs("val", root, size=8))[:2]
    assert first[:, 4, 4].tolist() in ([254, 0, 0], [255, 0, 0])
    assert second[:, :3].max() < 60
    assert second[:, -3:].min() > 200


def test_a_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    path = root / "val" / "dog" / "a.jpg"
    low = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(low).resize((512, 384), Image.Resampling.BICUBIC).save(path, quality=95)
    with Image.open(path) as image:
        whole = np.asarray(ImageOps.fit(image.convert("RGB"), (8, 8), LANCZOS)).transpose(2, 0, 1).astype(int)
    with Image.open(path) as image:
        image.draft(None, (32, 32))
        assert image.size == (64, 48)
        small = np.asarray(ImageOps.fit(image.convert("RGB"), (8, 8), LANCZOS)).transpose(2, 0, 1)
    row = rows(photographs("val", root, size=8))[0]
    assert np.array_equal(row, small)
    assert 0 < np.abs(row - whole).max() <= 2
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"1 of 16 images cannot be read"):
        photographs("val", root, size=8)


def damage(root: Path) -> None:
    """Two of train's seven images and five of test's thirteen."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("train/cat/cut.jpg", "test/bee/cut.png"):
        Image.fromarray(noise).save(root / name)
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
    (root / "train" / "owl" / "owl1.png").write_text("no image")
    (root / "test" / "bee" / "empty.webp").touch()
    Image.new("F", (4, 4)).save(root / "test" / "bee" / "float.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(root / "test" / "fox" / "wide.tif")
    Image.new("1", (300, 300)).save(root / "test" / "fox" / "a bomb.png")
    (root / "test" / "fox" / "link.png").symlink_to(root / "nowhere.png")


BAD = [
    "bee/cut.png",
    "bee/empty.webp",
    "bee/float.tif",
    "cat/cut.jpg",
    "fox/a bomb.png",
    "fox/link.png",
    "fox/wide.tif",
    "owl/owl1.png",
]


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    root = by_folder(tmp_path / "p")
    damage(root)
    return root


def test_all_damaged_images_are_found_at_once(damaged: Path, decoded: list[str]) -> None:
    for attempt in range(2):
        with pytest.raises(ValueError, match="cannot be read") as raised:
            photographs("val", damaged, size=4)
        first, *lines, more, do = str(raised.value).splitlines()
        assert first == f"{damaged}: 8 of 22 images cannot be read (train 2 of 7, val 0 of 3, test 6 of 12):"
        assert [line.split(":")[0].split("/", 1)[1] for line in lines] == BAD[:5]
        assert lines[0].startswith("  test/bee/cut.png: ")
        assert lines[1] == "  test/bee/empty.webp: cannot identify image file"
        assert lines[2].endswith("floating-point numbers, of no known range: save it with 8 or 16 bits")
        assert "truncated" in lines[3]
        assert "decompression bomb" in lines[4]
        assert more == "  and 3 more"
        assert "damaged='skip'" in do
        assert len(decoded) == 21, f"all but the link, once, at attempt {attempt}"


def test_damaged_images_are_left_out_and_told(damaged: Path, decoded: list[str]) -> None:
    heard: list[str] = []
    for load in range(2):
        test = photographs("test", damaged, size=4, damaged="skip", report=heard.append)
        assert test.class_names == ("bee", "fox")
        files = [damaged / "test" / name / f"{name}{i}.png" for name in ("bee", "fox") for i in (0, 2)]
        assert np.array_equal(rows(test)[[0, 2, 3, 5]], np.stack([by_hand(path) for path in files]))
        assert test.sizes.tolist() == [3, 3]
        assert heard[-1].startswith("p test: skipped 6 of 12 images: test/bee/cut.png (")
        assert "test/fox/link.png (it may not be read, or is a link that leads nowhere) and 1 more" in heard[-1]
        train = photographs("train", damaged, size=4, damaged="skip", report=heard.append)
        assert heard[-1].startswith("p train: skipped 2 of 7 images: train/cat/cut.jpg (image file is truncated")
        assert heard[-1].endswith("train/owl/owl1.png (cannot identify image file)")
        assert train.sizes.tolist() == [3, 2]
        files = [damaged / "train" / file for file in ("owl/owl0.png", "owl/owl2.png")]
        assert np.array_equal(rows(train)[3:], np.stack([by_hand(path) for path in files]))
        told = len(heard)
        assert photographs("val", damaged, size=4, damaged="skip", report=heard.append).sizes.tolist() == [3]
        assert len(heard) == told, "nothing to tell of val"
        assert len(decoded) == 21, f"once, at load {load}"
    with pytest.raises(ValueError, match="8 of 22 images cannot be read"):
        photographs("train", damaged, size=4)
    assert len(decoded) == 21, "the other choice needs no second look"
    (listed,) = (damaged.parent / "cache").glob("photographs-*/skipped.json")
    assert len(json.loads(listed.read_text())) == 8
    assert str(damaged) not in listed.read_text(), "the folder may be moved"


def test_skipped_images_are_logged_without_a_report(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    photographs("train", damaged, size=4, damaged="skip")
    assert "skipped 2 of 7 images" in caplog.text


def test_a_class_with_too_few_images_left_is_refused(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    for i in (0, 1):
        (root / "test" / "fox" / f"fox{i}.png").write_text("no image")
        (root / "train" / "cat" / f"cat{i}.png").write_text("no image")
    with pytest.raises(
        ValueError, match=r"2 of 5 classes have fewer than 2 images: cat \(1 of 3 can be read\), fox \(1 of 3 can"
    ):
        photographs("val", root, size=4, damaged="skip")
    assert photographs("test", root, size=4, damaged="skip", least=1).sizes.tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"4 images: bee \(3\), cat \(3\), dog \(3\), fox \(3\), owl \(3\)\. Add"):
        photographs("test", root, size=4, least=4)


def test_what_decides_on_damage_decides_on_the_store(
    damaged: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def skipped() -> tuple[int, int]:
        decoded.clear()
        heard: list[str] = []
        photographs("test", damaged, size=4, damaged="skip", report=heard.append)
        return int(heard[-1].split("skipped ")[1].split(" ")[0]), len(decoded)

    assert skipped() == (6, 21)
    assert skipped() == (6, 0)
    path = damaged / "test" / "bee" / "cut.png"
    size = path.stat().st_size
    sound = (damaged / "test" / "bee" / "bee0.png").read_bytes()
    path.write_bytes(sound.ljust(size, b"\0"))  # repaired, to the same size
    os.utime(path, ns=(1, 1))
    assert skipped() == (5, 21)
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "bee0.png" and may(path, mode))
    assert skipped() == (6, 20)
    monkeypatch.setattr(os, "access", may)
    assert skipped() == (5, 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90_000)
    assert skipped() == (4, 21)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert skipped()[1] == 21
    monkeypatch.setattr("PIL.__version__", "0")
    assert skipped()[1] == 21


def test_a_fault_of_the_system_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may pass, and must not be remembered."""
    root, opened = by_folder(tmp_path / "p"), Image.open

    faults: list[Exception] = [OSError(errno.EIO, "Input/output error"), MemoryError()]

    def fail(path: Path) -> Image.Image:
        if path.name == "dog1.png":
            raise faults[0]
        return opened(path)

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=r"dog1.png cannot be read \(Input/output error\): repair that") as raised:
        photographs("val", root, size=4, damaged="skip")
    assert not isinstance(raised.value, DamagedImage)
    faults.pop(0)
    with pytest.raises(MemoryError):
        photographs("val", root, size=4, damaged="skip")
    monkeypatch.setattr(Image, "open", opened)
    assert len(photographs("val", root, size=4)) == 3


@pytest.mark.parametrize("content", ["{", "[]", '{"a": "x"}', '{"22": "x"}', '{"-1": "x"}', None])
def test_a_damaged_list_of_skipped_images_is_made_again(content: str | None, damaged: Path, decoded: list[str]) -> None:
    for _ in range(2):
        assert photographs("test", damaged, size=4, damaged="skip").sizes.tolist() == [3, 3]
        (listed,) = (damaged.parent / "cache").glob("photographs-*/skipped.json")
        listed.unlink() if content is None else listed.write_text(content)
    assert len(decoded) == 42


def test_options_are_checked(tmp_path: Path) -> None:
    root = by_folder(tmp_path / "p")
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        photographs("train", root, size=0)
    unchecked = inspect.unwrap(photographs)  # types are checked first while tests run
    with pytest.raises(ValueError, match="split must be one of train, val, trainval, test, not 'dev'"):
        unchecked("dev", root)
    with pytest.raises(ValueError, match="damaged must be one of stop, skip, not 'ignore'"):
        unchecked("train", root, damaged="ignore")
    with pytest.raises(ValueError, match="fit must be one of squeeze, crop, not 'stretch'"):
        unchecked("train", root, fit="stretch")
