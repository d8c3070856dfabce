"""fewstep pretrain: presets, the folder that it leaves, going on after a stop, and what users get wrong."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fewstep.commands.main import main
from fewstep.commands.pretrain import default_config
from fewstep.experiments.pretraining import PretrainingRun
from fewstep.training.pretraining.presets import preset
from fewstep.training.pretraining.pretrainer import Pretrainer

TINY = [
    "--network",
    "convnet",
    "--network.widths",
    "4",
    "8",
    "--network.pools",
    "2",
    "--epochs",
    "3",
    "--batch",
    "8",
    "--size",
    "16",
    "--validation-tasks",
    "20",
    "--precision",
    "float32",
    "--threads",
    "1",
]
CLASSES = {"train": 4, "val": 3, "test": 2}


def draw(folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Photographs of stripes: classes differ in direction and colour."""
    source = np.random.default_rng(0)
    for split in splits:
        for c in range(CLASSES[split]):
            (folder / split / f"{split}{c}").mkdir(parents=True)
            for i in range(8):
                row, column = np.mgrid[:20, :24]
                wave = np.sin((row * (c + 1) + column * (len(split) - c)) / 3 + source.uniform(0, 6))
                pixels = 128 + 60 * wave[..., None] * [1, 0.2 * c, -1] + source.normal(0, 10, (20, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / f"{split}{c}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "net"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        main(["pretrain", str(photos), *TINY, "--out", str(folder)])
    return folder


def test_a_folder_is_complete_and_says_what_was_done(run: Path, photos: Path) -> None:
    for name in (
        "pretraining.json",
        "network.json",
        "environment.json",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "scores.json",
        "report.md",
        "learning_curves.png",
    ):
        assert (run / name).stat().st_size, name
    config = json.loads((run / "pretraining.json").read_text())
    assert config["images"]["size"] == 16
    assert config["training"]["network"]["widths"] == [4, 8]
    assert config["training"]["augmentation"]["crop"] == 2, "the preset is for images of 16 pixels"
    facts = json.loads((run / "network.json").read_text())
    assert facts["class_names"] == [f"train{c}" for c in range(4)], "base classes alone"
    scores = json.loads((run / "scores.json").read_text())
    assert {split for of in scores.values() for split in of} == {"val", "test"}
    report = (run / "report.md").read_text()
    for layer, of in scores.items():
        assert f"| {layer} | test | 1-shot | {100 * of['test']['1']['mean']:.2f} ±" in report
    assert "| digest |" not in report, "of its files, and of no use to a reader"


def test_a_folder_that_has_lost_what_is_known_of_its_network_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "network.json").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["embed", str(copy), "--out", str(tmp_path / "out.npz")])
    assert "has lost its network.json" in " ".join(capsys.readouterr().err.split())


def test_a_stopped_pretraining_is_used_as_it_is_and_goes_on_to_the_same_bits(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, step = tmp_path / "stopped", Pretrainer.advance

    def stopping(self: Pretrainer, *batch: torch.Tensor) -> torch.Tensor:
        if self.state.step == 6:  # in the second of three epochs of four batches
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Pretrainer, "advance", stopping)
    with pytest.raises(SystemExit, match="130"):
        main(["pretrain", str(photos), *TINY, "--out", str(folder)])
    monkeypatch.undo()
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    assert not (folder / "scores.json").exists()
    main(["embed", str(folder), "--out", str(tmp_path / "early.npz")])
    said = "has not finished training: it is used as it was best so far, at step 4"
    assert said in " ".join(capsys.readouterr().out.split())
    main(["pretrain", "--resume", str(folder)])
    assert "has not finished" not in capsys.readouterr().out
    whole, again = load_file(run / "best.safetensors"), load_file(folder / "best.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (run / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    assert (run / "scores.json").read_text() == (folder / "scores.json").read_text()


def test_without_validation_classes_the_last_network_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = draw(tmp_path / "photos", ("train", "test"))
    main(["pretrain", str(photos), *TINY, "--out", str(tmp_path / "net")])
    said = " ".join(capsys.readouterr().out.split())
    assert "no validation classes" in said
    assert re.search(r"pre-training: 4 of 12 batches \(33%\), 0:\d\d:\d\d left", said), "there is no terminal"
    best, last = (load_file(tmp_path / "net" / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in best.items())


def test_other_images_than_it_was_begun_on_are_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "photos"
    shutil.copytree(photos, moved)
    folder = tmp_path / "net"
    shutil.copytree(run, folder)
    config = (folder / "pretraining.json").read_text()
    (folder / "pretraining.json").write_text(config.replace(str(photos), str(moved)))
    (moved / "train" / "train0").rename(moved / "train" / "other")
    with pytest.raises(ValueError, match="have changed since it was begun: train"):
        PretrainingRun.open(folder).train()


def test_presets_are_what_the_documentation_says() -> None:
    wide = preset("wrn-28-10", 93)
    network = wide.network
    assert (network.depth, network.factor, network.dropout, network.strides) == (28, 10, 0.5, (2, 2, 2))
    assert (wide.batch, wide.rate, wide.decay, wide.weight_decay, wide.optimiser) == (1024, 0.1, 0.2, 5e-4, "sgd")
    # Table 4: 10,000 steps on the 38,400 images of miniImageNet's base classes, falling at 3, 5, 7, 8 and 9 thousand.
    total = wide.epochs * (38_400 // wide.batch)
    assert abs(total - 10_000) < 38_400 // wide.batch
    assert [wide.rate_at(int(share * total) + 1, total) for share in (0, 0.3, 0.5, 0.7, 0.8, 0.9)] == pytest.approx(
        [0.1 * 0.2**n for n in range(6)]
    )
    assert (wide.augmentation.side, wide.augmentation.area) == (80, (0.08, 1.0))
    tiered = preset("wrn-28-10", 93, "tiered-imagenet")
    total = tiered.epochs * (448_695 // tiered.batch)  # images of the 351 base classes
    assert abs(total - 50_000) < 448_695 // tiered.batch
    assert tiered.milestones == (0.4, 0.5, 0.6, 0.7, 0.8)
    small = preset("wrn-16-4", 32)
    assert (small.network.strides, small.augmentation.crop, small.augmentation.side) == ((1, 2, 2), 4, None)
    assert preset("resnet-9", 32, "cifar-fs").augmentation.flip
    assert not preset("resnet-9", 28, "omniglot").augmentation.flip, "a character in the mirror is another one"
    assert {preset(name, 32).network.kind for name in ("convnet", "resnet-9", "resnet-12")} == {
        "convnet",
        "resnet9",
        "resnet12",
    }


def test_photographs_are_kept_larger_than_the_view_of_the_network() -> None:
    config = default_config("photos", [])
    side = config.training.augmentation.side
    assert (config.images.size, side) == (93, 80)
    assert math.isclose(80 / 93, 0.8595, abs_tol=1e-3), "the paper's centre is 85.95% of the image"
    assert default_config("cifar-fs", []).training.augmentation.side is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "resnet-9"], "no dataset was given"),
        (["cifar-fss"], "did you mean cifar-fs"),
        (["omniglot", "--network", "resnet-50"], "there is no network 'resnet-50': give one of convnet, resnet-9"),
        (["omniglot", "--size", "64", "--epochs", "1"], "takes no option size"),
        (["photos", "--size", "big"], "--size must be a number of pixels"),
        (["--resume", "nowhere"], "is no pre-training"),
        (["omniglot", "--resume", "nowhere"], "keeps its configuration"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", *arguments])
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_with_files_is_not_overwritten(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "best.safetensors").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", str(photos), *TINY, "--out", str(run)])
    assert "--resume" in capsys.readouterr().err
    assert (run / "best.safetensors").read_bytes() == before
