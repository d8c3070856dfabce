"""From photographs to a classifier of photographs, by the commands that the README shows."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
import torch

import fewstep
from fewstep.commands.main import main
from fewstep.data import embeddings, l2_normalise
from fewstep.data.images.files import Reading
from fewstep.experiments.run import Run
from fewstep.training.pretraining import FeatureExtractor

SIZE = 16
NETWORK = [
    "--network",
    "convnet",
    "--network.widths",
    "8",
    "16",
    "--network.pools",
    "1",
    "--size",
    str(SIZE),
    "--epochs",
    "2",
    "--batch",
    "16",
    "--validation-tasks",
    "5",
]
LEO = [
    "--data.ways",
    "3",
    "--data.queries",
    "3",
    "--method.latents",
    "4",
    "--training.steps",
    "6",
    "--training.tasks",
    "3",
    "--training.validate-every",
    "3",
    "--training.validation-tasks",
    "4",
    "--training.compile",
    "off",
    "--testing.tasks",
    "10",
    "--method.finetuning-rate",
    "0.5",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pre-training, features and LEO, by three commands in a folder that holds ``photos``."""
    folder = tmp_path_factory.mktemp("place")
    photos.photographs_in(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        main(["pretrain", "photos/", *NETWORK, "--out", "pretrained"])
        main(["embed", "pretrained", "photos/", "--out", "photos.npz"])
        main(["train", "leo-features-1shot", "--data.path", "photos.npz", *LEO, "--out", "leo"])
        yield folder


@pytest.fixture(scope="module")
def asked(place: Path) -> Path:
    """A folder with new photographs of the test classes: ``support`` in class folders, ``query`` without."""
    for c, name in enumerate(photos.CLASSES["test"]):
        for number in range(100, 103):
            photos.photograph(place / "asked/support" / name / f"{number}.jpg", 9 + c, number)
        for number in range(200, 204):
            photos.photograph(place / "asked/query" / f"{name}-{number}.jpg", 9 + c, number)
    return place / "asked"


def predictions(run: Path, support: Path, query: Path, out: Path) -> list[dict[str, str]]:
    main(["predict", str(run), "--support", str(support), "--query", str(query), "--out", str(out)])
    return list(csv.DictReader(io.StringIO(out.read_text())))


def test_new_photographs_are_classified_from_the_runs_folder_alone(place: Path, asked: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "leo", tmp_path / "leo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path / "no cache"))
        patch.chdir(tmp_path)  # neither photos nor features are where they were
        rows = predictions(tmp_path / "leo", asked / "support", asked / "query", tmp_path / "out.csv")
        model = fewstep.load(tmp_path / "leo")
    assert len(rows) == 12
    assert [row["label"] for row in rows] == [row["query"].split("-")[0] for row in rows]

    # The same by the features of the same photographs, made without the run's copy of the network.
    extractor = FeatureExtractor.load(place / "photos.extractor.safetensors")
    assert extractor.reading == model.reading == Reading(SIZE, grey=False, invert=False, fit="crop")
    assert not extractor.normalise
    for name in ("support", "query"):
        images, labels, _ = extractor.reading.folder(asked / name)
        features = l2_normalise(extractor(torch.from_numpy(images) / 255)).numpy()
        np.savez(tmp_path / f"{name}.npz", x=features, **({"y": labels} if labels else {}))
        np.savez(tmp_path / f"{name} images.npz", x=images, **({"y": labels} if labels else {}))
    for kind in ("", " images"):
        support, query = tmp_path / f"support{kind}.npz", tmp_path / f"query{kind}.npz"
        again = predictions(place / "leo", support, query, tmp_path / "again.csv")
        for one, other in zip(rows, again, strict=True):
            assert other["label"] == one["label"]
            assert float(other["p(kiwi)"]) == pytest.approx(float(one["p(kiwi)"]), abs=1e-5)


def test_the_run_keeps_the_network_as_its_recipe_uses_it(place: Path, tmp_path: Path) -> None:
    kept = FeatureExtractor.load(place / "leo/extractor.safetensors")
    assert kept.normalise
    assert json.loads((place / "leo/problem.json").read_text())["features"] is True
    x = torch.rand(3, 3, SIZE, SIZE)
    raw = FeatureExtractor.load(place / "photos.extractor.safetensors")(x)
    assert torch.allclose(kept(x), l2_normalise(raw), atol=1e-6)
    main(
        [
            "train",
            "leo-features-1shot",
            "--data.path",
            "photos.npz",
            *LEO,
            "--training.steps",
            "1",
            "--training.validate-every",
            "1",
            "--data.no-normalise",
            "--out",
            str(tmp_path / "raw"),
        ]
    )
    assert not FeatureExtractor.load(tmp_path / "raw/extractor.safetensors").normalise
    model = fewstep.load(tmp_path / "raw").model
    assert not model.normalise
    assert model.extractor is not None
    assert torch.allclose(model.extractor(x), raw, atol=1e-6)


def test_a_network_of_other_features_is_left_aside(
    place: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["embed", "pretrained", "--layer", "last", "--out", str(tmp_path / "photos.npz")])
    shutil.copy(place / "photos.extractor.safetensors", tmp_path)  # of the middle layer
    short = [*LEO, "--training.steps", "1", "--training.validate-every", "1"]
    command = ["train", "leo-features-1shot", "--data.path", str(tmp_path / "photos.npz"), *short]
    capsys.readouterr()
    main([*command, "--out", str(tmp_path / "leo")])
    out = "".join(capsys.readouterr().out.split())
    assert "photos.extractor.safetensorsbelongstootherfeaturesthan" in out
    assert not (tmp_path / "leo/extractor.safetensors").exists()
    with pytest.raises(SystemExit):
        predictions(tmp_path / "leo", asked / "support", asked / "query", tmp_path / "out.csv")
    error = " ".join(capsys.readouterr().err.split())
    assert "support holds images, but the run was trained on features and does not know the network" in error
    # Features of one's own can be classified all the same.
    found = embeddings(tmp_path / "photos.npz", "test")
    np.savez(tmp_path / "f.npz", x=found.gather(np.arange(len(found))), y=found.labels)
    assert len(predictions(tmp_path / "leo", tmp_path / "f.npz", tmp_path / "f.npz", tmp_path / "out.csv")) == 24

    (tmp_path / "photos.extractor.safetensors").write_bytes(b"damaged")
    main([*command, "--out", str(tmp_path / "second")])
    assert "photos.extractor.safetensorsisdamaged" in "".join(capsys.readouterr().out.split())


def test_a_runs_own_copy_outlives_the_file_beside_the_features(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    beside = place / "photos.extractor.safetensors"
    kept = beside.read_bytes()
    beside.write_bytes(b"damaged")
    try:
        run = Run.open(place / "leo", told.append)
    finally:
        beside.write_bytes(kept)
    assert run.problem.extractor is not None
    assert not [line for line in told if "warning" in line]


def test_features_in_another_format_keep_their_network(place: Path, tmp_path: Path) -> None:
    main(["data", "convert", "photos.npz", "converted.safetensors"])
    shutil.copy(place / "photos.extractor.safetensors", place / "converted.extractor.safetensors")
    problem = Run(Run.open(place / "leo").config, tmp_path / "nothing").problem
    assert problem.extractor is not None
    config = Run.open(place / "leo").config
    config = replace(config, data=replace(config.data, path="converted.safetensors"))  # type: ignore[arg-type]
    assert Run(config, tmp_path / "nothing").problem.extractor is not None


@pytest.mark.parametrize("where", ["query", "support/kiwi"])
def test_a_damaged_photograph_is_named(
    place: Path, asked: Path, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(asked, tmp_path / "asked")
    whole = next((tmp_path / "asked" / where).iterdir())
    (tmp_path / "asked" / where / "half.jpg").write_bytes(whole.read_bytes()[:300])
    with pytest.raises(SystemExit):
        predictions(place / "leo", tmp_path / "asked/support", tmp_path / "asked/query", tmp_path / "out.csv")
    assert f"{where}/half.jpg is damaged or is no image" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.csv").exists()
