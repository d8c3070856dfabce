import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
import pytest
import tyro
from PIL import Image

from fewstep.data import Dataset
from fewstep.data.images import characters, cifar, folders, imagenet
from fewstep.data.images.by_name import TITLES, ImageData
from fewstep.data.images.class_splits import class_split

OF_ALL = {"path": "/x", "size": 9, "split": "s.csv", "damaged": "skip", "grey": True, "fit": "crop", "rotations": True}
TAKEN = {
    "cifar-fs": ["path"],
    "fc100": ["path"],
    "omniglot": ["rotations"],
    "mini-imagenet": ["path", "size"],
    "tiered-imagenet": ["path", "size"],
}
ANY = Dataset.from_labels(np.zeros((2, 1)), ["a", "b"])


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes to train on and one to test on, in the working folder."""
    for c, name in enumerate(("train/cat", "train/owl", "test/fox")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (12, 8), (100 * c, 10 * i, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_a_folder(photos: Path, tmp_path: Path) -> None:
    data, heard = ImageData("photos", size=4, cache="cache"), list[str]()
    assert data.splits() == ("train", "test")
    train = data.examples("train", heard.append)
    assert train.class_names == ("cat", "owl")
    assert train.feature_shape == (3, 4, 4)
    assert heard[0].startswith("photographs: reading 6 images, once, into cache")
    assert np.asarray(train.store)[:, 0, 0, 0].tolist() == [0, 0, 200, 200, 100, 100]  # of all classes, by name
    assert (tmp_path / "cache").is_dir()
    assert data.title == ImageData("photos/").title == str(train).split()[0] == "photos"
    assert ImageData(".").title == tmp_path.name


def test_a_folders_options_reach_it(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(*given: Any, **options: Any) -> Dataset:
        asked.update(options, given=given)
        return ANY

    monkeypatch.setattr(folders, "photographs", load)
    ImageData("photos").examples("test")
    assert asked == {
        "given": ("test", "photos"),
        "split_file": None,
        "size": 84,
        "grey": False,
        "fit": "crop",
        "damaged": "stop",
        "copies": "keep",
        "cache": None,
        "report": None,
    }
    ImageData("photos", None, 9, "s.csv", "skip", True, "squeeze", cache="c", copies="drop").examples("train", print)
    assert asked == {
        "given": ("train", "photos"),
        "split_file": "s.csv",
        "size": 9,
        "grey": True,
        "fit": "squeeze",
        "damaged": "skip",
        "copies": "drop",
        "cache": "c",
        "report": print,
    }
    (tmp_path / "other.json").write_text('{"val": ["train", "test"]}')
    with pytest.raises(ValueError, match="class folders must hold images"):
        ImageData("photos", split="other.json").splits()


@pytest.mark.parametrize("name", TITLES)
def test_names_and_their_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any, dict[str, Any]]] = []

    def loader(called: str) -> Callable[..., Dataset]:
        def load(*given: Any, **options: Any) -> Dataset:
            asked.append((called, given, options))
            return ANY

        return load

    loaders = {cifar: ("cifar_fs", "fc100"), characters: ("omniglot",), imagenet: ("mini_imagenet", "tiered_imagenet")}
    for module, names in loaders.items():
        for called in names:
            monkeypatch.setattr(module, called, loader(called))
    options = {key: value for key, value in OF_ALL.items() if key in TAKEN[name]}
    data = ImageData(name, cache="c", **options)  # type: ignore[arg-type]
    assert data.splits() == ("train", "val", "test")
    data.examples("train", print)
    data.examples("test", print)
    for split, (called, given, options) in zip(("train", "test"), asked, strict=True):
        assert called == name.replace("-", "_")
        assert options.pop("cache") == "c"
        assert options.pop("report") is print
        assert options.pop("copies") == "keep"
        wanted: dict[str, tuple[Any, dict[str, Any]]] = {
            "omniglot": ((split,), {"rotations": split == "train"}),
            "mini-imagenet": ((split, "/x"), {"size": 9}),
            "tiered-imagenet": ((split, "/x"), {"size": 9}),
        }
        assert (given, options) == wanted.get(name, ((split,), {"path": "/x"}))


def test_omniglot_is_upright_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[bool] = []

    def load(*_: Any, rotations: bool, **__: Any) -> Dataset:
        turned.append(rotations)
        return ANY

    monkeypatch.setattr(characters, "omniglot", load)
    ImageData("omniglot").examples("train")
    ImageData("omniglot", rotations=True).examples("trainval")
    assert turned == [False, True]


@pytest.mark.parametrize("name", [*TITLES, "photos"])
def test_options_that_make_no_sense_are_refused(name: str, photos: Path) -> None:
    taken = TAKEN.get(name, ["size", "split", "damaged", "grey", "fit"])
    refused = {key: value for key, value in OF_ALL.items() if key not in taken}
    assert refused
    for key, value in refused.items():
        data = ImageData(name, **{key: value})  # type: ignore[arg-type]
        for ask in (data.check, data.splits, lambda data=data: data.examples("train")):
            with pytest.raises(ValueError, match=rf"^{data.title} takes no option {key} \(got {value!r}\): .*Leave it"):
                ask()


def test_imagenet_needs_a_folder() -> None:
    for name in ("mini-imagenet", "tiered-imagenet"):
        with pytest.raises(ValueError, match=r"ImageNet cannot be downloaded freely: give the folder"):
            ImageData(name).examples("train")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cifar", r"; did you mean cifar-fs\?"),
        ("CIFAR_FS", r"; did you mean cifar-fs\?"),
        ("miniImageNet", r"; did you mean mini-imagenet.*\?"),
        ("omniglott", r"; did you mean omniglot\?"),
        ("fotos", r"; did you mean photos\?"),
        ("photos/trian", r"; did you mean photos/train\?"),
        ("/nowhere/at/all", r"\. Give"),
        ("", r"\. Give"),
    ],
)
def test_unknown_names(name: str, meant: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=rf"there is no image data '{name}'{meant}.*") as raised:
        ImageData(name).examples("train")
    assert "Give one of cifar-fs, fc100, omniglot, mini-imagenet, tiered-imagenet, or a folder" in str(raised.value)
    with pytest.raises(ValueError, match="there is no image data"):
        ImageData(name).splits()


def test_titles_are_those_of_the_datasets() -> None:
    assert ImageData("omniglot").title == "Omniglot"
    for name in set(TITLES) - {"omniglot"}:
        assert class_split(ImageData(name).title, "test")


def test_a_name_comes_before_a_folder(photos: Path) -> None:
    photos.rename(photos.parent / "omniglot")
    assert ImageData("omniglot").splits() == ("train", "val", "test")
    assert ImageData("./omniglot").splits() == ("train", "test")


def test_it_is_kept_and_read_again_where_the_folder_is_not() -> None:
    for data in (ImageData("gone", None, 9, "s.csv", "skip", True, "crop", True, "c"), ImageData("fc100")):
        text = json.dumps(cattrs.unstructure(data))
        assert cattrs.structure(json.loads(text), ImageData) == data


@dataclass(frozen=True)
class _Command:
    """A command that takes image data."""

    data: ImageData = field(default_factory=lambda: ImageData("cifar-fs"))
    """What to train on."""


def test_it_is_part_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert tyro.cli(_Command, args=[]) == _Command()
    options = "--data.name photos --data.size 9 --data.split s.csv --data.damaged skip --data.grey --data.fit squeeze"
    assert tyro.cli(_Command, args=options.split()).data == ImageData(
        "photos", None, 9, "s.csv", "skip", True, "squeeze"
    )
    with pytest.raises(SystemExit):
        tyro.cli(_Command, args=["--help"])
    shown = capsys.readouterr().out
    for told in ("folder of one's own", "--data.damaged {stop,skip}", "turned by 90°", "Side in pixels"):
        assert told in " ".join(shown.replace("│", " ").split())
