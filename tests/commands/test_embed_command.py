"""``fewstep embed``: features of a network that a folder holds, against the network's own activations."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.commands.embedding import default_images, next_command, reading_of
from fewstep.commands.main import main
from fewstep.data import Augmentation, Dataset, embeddings
from fewstep.data.features.export import features_digest
from fewstep.data.images.by_name import ImageData
from fewstep.data.images.files import Reading
from fewstep.experiments.pretraining import PretrainingConfig, PretrainingRun
from fewstep.training import load_checkpoint
from fewstep.training.checkpoint import State, save_checkpoint
from fewstep.training.pretraining import Architecture, FeatureExtractor, Pretraining, Standardised
from fewstep.training.pretraining.extractor import features_of

SIZE, SIDE = 17, 12  # their difference is odd: the centre's place is a matter of rounding
ARCHITECTURE = Architecture("convnet", widths=(4, 6, 8), pools=1)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos.photographs_in(tmp_path_factory.mktemp("pictures") / "fruit", each=4)


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training whose network has weights and running statistics, by chance rather than by training."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    training = Pretraining(ARCHITECTURE, augmentation=Augmentation(side=SIDE))
    begun = PretrainingRun.create(PretrainingConfig(ImageData(str(pictures), size=SIZE), training), folder)
    torch.manual_seed(3)
    network = Standardised(ARCHITECTURE.build(6, 3))
    network.measure(begun.images("train"))
    network.train()(torch.rand(40, 3, SIDE, SIDE))
    save_checkpoint(folder / "best.safetensors", network, State())
    return folder


def activations(run: Path, layer: str, x: Tensor) -> Tensor:
    """What a forward hook sees, averaged over space."""
    network = Standardised(ARCHITECTURE.build(6, 3))
    load_checkpoint(run / "best.safetensors", network)
    network.eval()
    seen: list[Tensor] = []
    network.get_submodule(f"backbone.{layer}").register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        network(x)
    return seen[0].mean((2, 3))


def shown(pictures: Path, split: str) -> Dataset:
    return ImageData(str(pictures), size=SIZE).examples(split)


def everything(dataset: Dataset) -> Tensor:
    return dataset.gather(np.arange(len(dataset)))


def read(path: Path, split: str) -> Dataset:
    return embeddings(path, split, normalise=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("middle", "blocks.block2"),
        ("last", "blocks.block3"),
        ("1", "blocks.block1"),
        ("blocks.block2.convolution", None),
    ],
)
def test_features_are_what_a_hook_sees(run: Path, pictures: Path, layer: str, name: str | None, tmp_path: Path) -> None:
    main(["embed", str(run), "--layer", layer, "--out", str(tmp_path / "f.npz")])
    lengths = []
    for split in ("train", "val", "test"):
        images, found = shown(pictures, split), read(tmp_path / "f.npz", split)
        assert found.class_names == images.class_names == tuple(photos.CLASSES[split])
        assert found.sizes.tolist() == images.sizes.tolist()
        centre = everything(images)[:, :, 2:14, 2:14]
        expected = activations(run, name or layer, centre)
        torch.testing.assert_close(everything(found), expected, rtol=1e-5, atol=1e-6)
        lengths += everything(found).norm(dim=1).tolist()
    assert np.std(lengths) > 0.01, "raw, not scaled to length 1"


@pytest.mark.parametrize("side", [SIDE, None])
def test_multiview_is_the_mean_of_ten_crops(run: Path, pictures: Path, side: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    if side is None:  # a network that was shown whole images has views of 7/8 of their side
        config = json.loads((run / "pretraining.json").read_text())
        config["training"]["augmentation"]["side"] = None
        (folder / "pretraining.json").write_text(json.dumps(config))
    main(["embed", str(folder), str(pictures), "--views", "multiview", "--out", str(tmp_path / "f.safetensors")])
    x = everything(shown(pictures, "val"))
    s = side or 15
    m = (SIZE - s) // 2
    views = [x[..., :s, :s], x[..., :s, -s:], x[..., -s:, :s], x[..., -s:, -s:], x[..., m : m + s, m : m + s]]
    expected = sum(activations(run, "blocks.block2", view) for view in [*views, *(view.flip(3) for view in views)]) / 10
    torch.testing.assert_close(everything(read(tmp_path / "f.safetensors", "val")), expected, rtol=1e-5, atol=1e-6)


def test_every_format_and_type_holds_the_same(run: Path, tmp_path: Path) -> None:
    for target, dtype in [("f.safetensors", "float32"), ("g/deepmind", "float32"), ("h.npz", "float16")]:
        main(["embed", str(run), "--out", str(tmp_path / target), "--dtype", dtype])
    whole = read(tmp_path / "f.safetensors", "all")
    assert torch.equal(everything(read(tmp_path / "g/deepmind", "all")), everything(whole))
    assert torch.equal(everything(read(tmp_path / "h.npz", "all")), everything(whole).half().float())
    assert {file.name for file in (tmp_path / "g").iterdir()} == {"deepmind", "deepmind.extractor.safetensors"}


def test_the_network_lies_beside_with_what_it_needs(run: Path, pictures: Path, tmp_path: Path) -> None:
    main(["embed", str(run), "--layer", "last", "--views", "multiview", "--out", str(tmp_path / "f.npz")])
    file = tmp_path / "f.extractor.safetensors"
    assert features_of(file) == features_digest(read(tmp_path / "f.npz", "all"))
    extractor = FeatureExtractor.load(file)
    assert extractor.reading == Reading(SIZE, grey=False, invert=False, fit="crop")
    x = torch.from_numpy(extractor.reading.folder(pictures / "test").images) / 255
    assert torch.equal(x, everything(shown(pictures, "test"))), "files are read as those of the dataset were"
    torch.testing.assert_close(extractor(x), everything(read(tmp_path / "f.npz", "test")), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="must have 17 × 17 pixels, as in training, got 20 × 20"):
        extractor(torch.rand(1, 3, 20, 20))
    plain = FeatureExtractor(extractor.network, ARCHITECTURE)
    plain.save(tmp_path / "plain.safetensors")
    assert FeatureExtractor.load(tmp_path / "plain.safetensors").reading is None
    assert features_of(tmp_path / "plain.safetensors") is None


@pytest.mark.parametrize(
    ("data", "reading"),
    [
        (ImageData("omniglot", rotations=True), Reading(28, True, True, "squeeze")),
        (ImageData("cifar-fs"), Reading(32, False, False, "crop")),
        (ImageData("mini-imagenet", path="x", size=93), Reading(93, False, False, "squeeze")),
        (ImageData("tiered-imagenet", path="x"), Reading(84, False, False, "squeeze")),
        (ImageData("photos", size=40, grey=True, fit="squeeze"), Reading(40, True, False, "squeeze")),
        (ImageData("photos"), Reading(84, False, False, "crop")),
    ],
)
def test_files_are_read_as_the_datasets_were(data: ImageData, reading: Reading) -> None:
    assert reading_of(data) == reading


def test_squeezed_grey_pictures_are_read_like_their_dataset(pictures: Path) -> None:
    data = ImageData(str(pictures), size=9, grey=True, fit="squeeze")
    images = reading_of(data).folder(pictures / "val").images
    assert torch.equal(torch.from_numpy(images) / 255, everything(data.examples("val")))


def test_a_dataset_is_shown_as_in_training(run: Path, pictures: Path, tmp_path: Path) -> None:
    opened = PretrainingRun.open(run)
    assert default_images(opened, None) == opened.config.images
    assert default_images(opened, f"{pictures}/") == opened.config.images
    assert default_images(opened, str(tmp_path)) == ImageData(str(tmp_path), size=SIZE)
    assert default_images(opened, "mini-imagenet") == ImageData("mini-imagenet", size=SIZE)
    assert default_images(opened, "omniglot") == ImageData("omniglot")
    kept = replace(opened.config.images, damaged="skip", fit="squeeze")
    opened.config = replace(opened.config, images=kept)
    assert default_images(opened, str(pictures)) == kept


def test_classes_that_were_trained_on_are_told_of(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["embed", str(run), "--out", str(tmp_path / "own.npz")])
    assert "trained on" not in capsys.readouterr().out
    other = tmp_path / "other"
    for split, name in [("train", "grape"), ("val", "kiwi"), ("test", "apple"), ("test", "lemon"), ("test", "fig")]:
        for number in range(2):
            photos.photograph(other / split / name / f"{number}.jpg", 1, number)
    main(["embed", str(run), str(other), "--out", str(tmp_path / "other.npz")])
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: the network was trained on 2 of the 3 test classes (apple, fig): results" in out
    assert "of the 1 val" not in out
    assert read(tmp_path / "other.npz", "test").class_names == ("apple", "fig", "lemon")


def test_a_dataset_without_test_classes_is_embedded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red", "blue"):
        photos.photograph(tmp_path / "two/train" / name / "1.jpg", 1, 1)
        photos.photograph(tmp_path / "two/train" / name / "2.jpg", 1, 2)
    main(["embed", str(run), str(tmp_path / "two"), "--out", str(tmp_path / "f.npz")])
    assert "has no val and no test classes, which `fewstep train` needs" in " ".join(capsys.readouterr().out.split())
    assert read(tmp_path / "f.npz", "train").class_names == ("blue", "red")


def test_the_device_of_training_need_not_be_here(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = json.loads((run / "pretraining.json").read_text()) | {"device": "cuda:77"}
    (folder / "pretraining.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit):
        main(["embed", str(folder), "--out", str(tmp_path / "f.npz"), "--device", "cuda:78"])
    assert "cuda:78" in capsys.readouterr().err
    main(["embed", str(folder), "--out", str(tmp_path / "f.npz")])
    assert "trained on cuda:77, which this machine does not have" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "f.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--out", "NEW.npz", "--layer", "22"], "ConvNet has layers 1 to 3, not 22"),
        (["RUN", "--out", "NEW.npz", "--layer", "conv"], "such as blocks.block1, blocks.block2"),
        (["RUN", "--out", "there.npz"], "there.npz exists: remove it, or choose another target"),
        (
            ["RUN", "--out", "there.safetensors"],
            "there.extractor.safetensors is the network of there.npz, and would be replaced by that of there.safetens",
        ),
        (["RUN", "--out", "NEW.csv"], "a target ends in one of .safetensors, .npz"),
        (
            ["RUN", "--out", "NEW.npz", "--size", "20"],
            "trained on images of 17×17 pixels in colour, and those of fruit would have 20×20 in colour: leave --size",
        ),
        (["RUN", "--out", "NEW.npz", "--grey"], "would have 17×17 in grey: give --no-grey"),
        (["RUN", "cifar-fs", "--out", "NEW.npz"], "those of CIFAR-FS would have 32×32 in colour: embed other data"),
        (["RUN", "omniglott", "--out", "NEW.npz"], "there is no image data 'omniglott'; did you mean omniglot"),
        (["nowhere", "--out", "NEW.npz"], "nowhere is no pre-training"),
        (["nowhere", "--out", "NEW.npz", "--device", "cpu"], "nowhere is no pre-training"),
        (["EMPTY", "--out", "NEW.npz"], "has no trained network yet"),
        (["--out", "NEW.npz"], "no pre-training was given"),
        (["RUN"], "no file for the features was given: say --out features.npz"),
    ],
)
def test_mistakes_end_before_images_are_read(
    run: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: object) -> Dataset:
        raise AssertionError

    monkeypatch.setattr(ImageData, "examples", never)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "empty", ignore=shutil.ignore_patterns("best.safetensors"))
    for name in ("there.npz", "there.extractor.safetensors"):
        Path(name).write_bytes(b"mine")
    with pytest.raises(SystemExit) as stop:
        main(["embed", *({"RUN": str(run), "EMPTY": "empty"}.get(word, word) for word in arguments)])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "there.extractor.safetensors", "there.npz"]
    assert Path("there.extractor.safetensors").read_bytes() == b"mine"


def test_a_network_that_belongs_to_nothing_is_replaced(run: Path, tmp_path: Path) -> None:
    """As a stopped export leaves it, or features that were removed."""
    (tmp_path / "f.extractor.safetensors").write_bytes(b"old")
    main(["embed", str(run), "--out", str(tmp_path / "f.npz")])
    assert FeatureExtractor.load(tmp_path / "f.extractor.safetensors").features == 6


def test_damaged_pictures_are_named(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures, tmp_path / "fruit")
    (tmp_path / "fruit/val/grape/0.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        main(["embed", str(run), str(tmp_path / "fruit"), "--out", str(tmp_path / "f.npz")])
    assert "val/grape/0.jpg" in " ".join(capsys.readouterr().err.split())
    main(["embed", str(run), str(tmp_path / "fruit"), "--out", str(tmp_path / "f.npz"), "--damaged", "skip"])
    assert read(tmp_path / "f.npz", "val").sizes.tolist() == [3, 4, 4]


@pytest.mark.parametrize(
    ("name", "sizes", "classes", "expected"),
    [
        ("photos", 600, (64, 16, 20), "leo-features-5shot --data.path f.npz --data.dataset photos"),
        (
            "photos",
            12,
            (6, 4, 3),
            "leo-features-5shot --data.path f.npz --data.dataset photos --data.ways 3 --data.queries 7",
        ),
        ("photos", 4, (6, 5, 5), "leo-features-1shot --data.path f.npz --data.dataset photos --data.queries 3"),
        ("cifar-fs", 600, (64, 16, 20), "leo-cifarfs-5shot --data.path f.npz"),
        ("tiered-imagenet", 600, (64, 16, 20), "leo-tieredimagenet-5shot --data.path f.npz"),
    ],
)
def test_the_next_command_fits_the_data(name: str, sizes: int, classes: tuple[int, ...], expected: str) -> None:
    images = {
        split: Dataset.from_sorted(np.zeros((sizes * n, 1), np.uint8), np.arange(n + 1) * sizes)
        for split, n in zip(("train", "val", "test"), classes, strict=True)
    }
    assert next_command(Path("f.npz"), ImageData(name), images) == f"fewstep train {expected}"


def test_usage_and_summary(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["embed"])
    assert "fewstep embed RUN [DATASET] --out FEATURES [options]" in capsys.readouterr().out
    main(["embed", str(run), "--out", str(tmp_path / "f.npz")])
    out = capsys.readouterr().out
    assert re.search(r"48 images to 6 features of blocks.block2 in [\d.]+ s \([\d,]+ images/s\)", out)
    assert f"next: fewstep train leo-features-1shot --data.path {tmp_path / 'f.npz'} --data.dataset fruit" in out


def test_a_damaged_network_beside_is_no_extractor(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "f.png")
    with pytest.raises(ValueError, match="damaged or is no feature extractor"):
        features_of(tmp_path / "f.png")
    with pytest.raises(FileNotFoundError):
        features_of(tmp_path / "nothing")


def test_photographs_that_are_there_twice_are_told_and_left_out(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "twice")
    one, other = (sorted(sorted((folder / split).iterdir())[0].iterdir())[0] for split in ("train", "test"))
    shutil.copyfile(one, other)
    whole, left = (tmp_path / name for name in ("whole.npz", "left.npz"))
    main(["embed", str(run), str(folder), "--out", str(whole)])
    told = f"twice: images that are the same, bit for bit: 1 pair between train and test ({one.parent.name} and "
    assert told in " ".join(capsys.readouterr().out.split())
    main(["embed", str(run), str(folder), "--out", str(left), "--copies", "drop"])
    assert "left out" in capsys.readouterr().out
    sizes = [[len(read(path, split)) for split in ("train", "test")] for path in (whole, left)]
    assert sizes[1] == [sizes[0][0] - 1, sizes[0][1]]
