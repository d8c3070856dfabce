"""``fewstep fit``, as users give it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import photograph
from sklearn.base import clone

from fewstep import FewShotClassifier
from fewstep.commands import main as cli
from fewstep.data import embeddings
from fewstep.experiments import fit as fitting
from fewstep.experiments.fit import Limits, report


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(report, "draw", lambda *_: b"")
    monkeypatch.chdir(tmp_path)
    begin = fitting.fit

    def limited(data: Path, folder: Path, **options: Any) -> fitting.FitResult:
        return begin(data, folder, limits=Limits(validation_tasks=4, test_tasks=10, rounds=1), **options)

    monkeypatch.setattr(fitting, "fit", limited)


def table(path: Path, classes: int = 15, each: int = 8) -> Path:
    """A CSV file of normal rows about normal means."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    rows = random.normal(size=(classes, 4))[labels] + 0.5 * random.normal(size=(len(labels), 4))
    lines = [f"kind {label},{','.join(map(str, row))}" for label, row in zip(labels, rows, strict=True)]
    path.write_text("\n".join(["label,a,b,c,d", *lines]))
    return path


def test_a_table_becomes_a_model_that_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["fit", str(table(tmp_path / "owls.csv")), "--minutes", "0.001", "--shots", "2"])
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "fits").iterdir()
    assert folder.name.startswith("owls-")
    assert "float64, 4 dimensions" in said  # what `data inspect` says
    assert "classes divided at random (seed 0): 5 train, 5 val, 5 test" in said
    assert "5-way accuracy on new classes" in said
    assert "without a result: LEO: not tried" in said
    assert "At 2 shots, use " in said
    assert f"model: fits/{folder.name}/model.fewstep.safetensors" in said.replace("\n", "")
    (tmp_path / "new.csv").write_text("a,b,c,d\n1,2,3,4\n")
    (tmp_path / "labelled.csv").write_text("label,a,b,c,d\nyes,1,2,3,4\nno,-1,0,1,-2\n")
    model = str(folder / "model.fewstep.safetensors")
    cli.main(["predict", model, "--support", "labelled.csv", "--query", "new.csv"])
    assert capsys.readouterr().out.splitlines()[1].startswith("0,yes,")


def test_where_a_simple_method_wins_its_file_takes_photographs(tmp_path: Path) -> None:
    for kind in range(6):
        for i in range(4):
            photograph(tmp_path / "photos" / f"kind {kind}" / f"{i}.jpg", kind, i)
    cli.main(["fit", "photos", "--minutes", "0.001", "--shots", "1", "--out", "out"])
    model = FewShotClassifier("out/model.fewstep.safetensors")
    assert model.reading is not None
    found = model.reading.folder(tmp_path / "photos")
    images = found.images / 255
    features = embeddings(tmp_path / "out" / "features.safetensors", "all", normalise=False)
    stored = features.gather(np.arange(len(images))).flatten(0, -2)
    names = [name for name in features.class_names or () for _ in range(4)]
    of_images = model.fit(images, found.labels).predict_proba(images)
    order = np.argsort(names, kind="stable")
    of_features = clone(model).fit(stored[order], np.array(names)[order]).predict_proba(stored[order])
    np.testing.assert_allclose(of_images, of_features, atol=1e-4)


def test_models_of_several_shots_have_names_of_their_own(tmp_path: Path) -> None:
    words = ["fit", str(table(tmp_path / "owls.csv")), "--minutes", "0.001", "--out", "out"]
    cli.main(words)
    found = sorted(path.name for path in (tmp_path / "out").glob("*.fewstep.safetensors"))
    assert found == ["model-1shot.fewstep.safetensors", "model-5shot.fewstep.safetensors"]
    before = (tmp_path / "out" / "result.json").read_bytes()
    cli.main(words)  # what is done is not done again
    assert (tmp_path / "out" / "result.json").read_bytes() == before


def test_mistakes_end_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(table(tmp_path / "owls.csv", classes=4))
    for words, what in (
        ([data, "--minutes", "0"], "--minutes must be positive and finite, got 0"),
        ([data, "--shots", "0"], "--shots must be at least 1, got 0"),
        ([data], "4 classes with enough examples, and 6 are needed"),
        ([data, "--shots", "9"], "no class has the 10 examples that its tasks need"),
        (["nowhere.npz"], "there is no file or folder"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["fit", *words, "--out", "out"])
        assert end.value.code == 2
        assert what in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
