"""What is kept says where its data are, whatever the working directory is when it is read again."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.commands.main import main
from fewstep.recipes import RECIPES, from_json, to_json
from fewstep.recipes.problems.images import CifarImages, ImageNetImages
from fewstep.recipes.problems.stored_features import Embeddings

SHORT = [
    *("--data.path", "mine.npz", "--method.latent-rate", "0.1", "--training.steps", "2", "--testing.tasks", "2"),
    *("--training.validation-tasks", "2", "--training.tasks", "2", "--training.compile", "off", "--data.queries", "2"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with features in it, and another one."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = np.random.default_rng(0).normal(size=(18, 10, 8)).astype(np.float32)
    np.savez("mine.npz", features=rows, split=np.repeat([0, 1, 2], 6).astype(np.uint8))
    return tmp_path / "here"


def test_a_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["train", "leo-features-1shot", *SHORT, "--out", "run"])
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["data"]["path"] == str(here / "mine.npz")
    monkeypatch.chdir(here.parent / "elsewhere")
    main(["train", "--resume", "../here/run"])
    main(["evaluate", "../here/run", "--tasks", "2"])
    main(["compare", "../here/run", "--tasks", "2", "--out", "compared"])


def test_a_run_that_came_from_another_machine_with_its_data(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "leo-features-1shot", *SHORT, "--out", "run"])
    here.rename(here.parent / "moved")
    monkeypatch.chdir(here.parent / "moved")
    capsys.readouterr()
    main(["evaluate", "run", "--tasks", "2"])
    said = "".join(capsys.readouterr().out.split())
    assert f"{here / 'mine.npz'}isnothere:taking{here.parent / 'moved' / 'mine.npz'}" in said
    monkeypatch.chdir(here.parent / "elsewhere")
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "../moved/run"])
    assert f"there is no file or folder {here / 'mine.npz'}" in " ".join(capsys.readouterr().err.split())


def test_a_repetition_and_a_search(here: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["repeat", "leo-features-1shot", *SHORT, "--seeds", "1", "--out", "runs"])
    main(["search", "leo-features-1shot", *SHORT, "--trials", "1", "--workers", "1", "--out", "search"])
    monkeypatch.chdir(here.parent / "elsewhere")
    again = [word.replace("mine.npz", "../here/mine.npz") for word in SHORT]
    main(["repeat", "leo-features-1shot", *again, "--seeds", "1", "--out", "../here/runs"])
    main(["search", "leo-features-1shot", *again, "--trials", "1", "--workers", "1", "--out", "../here/search"])
    main(["train", "../here/search/best.json", "--out", "best"])


@pytest.mark.parametrize("kind", [CifarImages, ImageNetImages, Embeddings])
def test_every_path_of_a_configuration(here: Path, kind: type[Embeddings]) -> None:
    assert kind(path="data").path == str(here / "data")
    assert kind(path="/data").path == "/data"
    assert kind().path is None


def test_a_relative_path_that_an_older_version_kept(here: Path) -> None:
    text = to_json(RECIPES["leo-features-1shot"]()).replace('"path": null', '"path": "mine.npz"')
    (here / "config.json").write_text(text)
    data = from_json(here / "config.json").data
    assert isinstance(data, Embeddings)
    assert data.path == str(here / "mine.npz"), "of the working directory, as it was"


def test_a_pretraining(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("one", "two", "three")):
        (here / "photos" / name).mkdir(parents=True)
        for j, pixels in enumerate(np.random.default_rng(i).integers(0, 255, (4, 20, 20, 3), np.uint8)):
            Image.fromarray(pixels).save(here / "photos" / name / f"{j}.png")
    (here / "split.json").write_text(json.dumps({"train": ["one", "two"], "test": ["three"]}))
    options = ["--network", "convnet", "--size", "16", "--epochs", "1", "--split", "split.json", "--cache", "cache"]
    options += ["--network.widths", "4", "8", "--network.pools", "2", "--batch", "4", "--threads", "1"]
    main(["pretrain", "photos", *options, "--out", "net"])
    kept = json.loads((here / "net" / "pretraining.json").read_text())["images"]
    assert [kept[name] for name in ("name", "split", "cache")] == [
        str(here / name) for name in ("photos", "split.json", "cache")
    ]
    monkeypatch.chdir(here.parent / "elsewhere")
    main(["pretrain", "--resume", "../here/net"])
    main(["embed", "../here/net", "--out", "features.npz"])
