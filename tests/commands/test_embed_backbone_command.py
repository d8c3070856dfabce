"""``fewstep embed --backbone``: files of features, through stand-ins for the libraries of networks."""

import sys
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image

from fewstep.commands.main import main
from fewstep.data import embeddings

pytestmark = pytest.mark.usefixtures("own_cache")

TIMM = """
import types
import numpy as np
import torch
data = types.SimpleNamespace(
    resolve_model_data_config=lambda model: {"size": 6},
    create_transform=lambda size, is_training: lambda image: torch.from_numpy(np.array(image.resize((size, size)))),
)
def create_model(name, pretrained, num_classes):
    assert (name, pretrained, num_classes) == ("mean-colour", True, 0)
    class Mean(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            return x.float().mean((1, 2))
    return Mean()
"""
"""The mean colour of an image, which its own preparation has made six pixels wide."""

MODEL2VEC = """
import numpy as np
class StaticModel:
    @classmethod
    def from_pretrained(cls, name, force_download):
        return cls()
    def encode(self, texts):
        return np.array([[len(text), text.count(" ")] for text in texts], np.float32)
"""
"""Letters and spaces of a text."""

TABLE = """id,text,intent,part
1,"a, b",two,test
2,abc,one,train
3,abcd,one,train
4,a b c,two,test
"""


@pytest.fixture(autouse=True)
def _stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for name, code in (("timm", TIMM), ("model2vec", MODEL2VEC)):
        (libraries / f"{name}.py").write_text(code)
        monkeypatch.setitem(sys.modules, name, None)  # so that what a test imports is forgotten after it
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(libraries))
    monkeypatch.chdir(tmp_path)


def embed(*words: object) -> None:
    main(["embed", *map(str, words)])


def mean_colour(file: Path) -> np.ndarray:
    return np.array(Image.open(file).convert("RGB").resize((6, 6)), np.float32).mean((0, 1))


def test_photographs_are_prepared_as_the_library_does_and_keep_classes_and_splits() -> None:
    folder = photos.photographs_in(Path("fruit"), each=3)
    embed(folder, "--backbone", "timm:mean-colour", "--out", "fruit.npz", "--batch", 5, "--device", "cpu")
    for split, classes in photos.CLASSES.items():
        found = embeddings("fruit.npz", split, normalise=False)  # type: ignore[arg-type]
        assert list(found.class_names) == classes
        files = [folder / split / name / f"{i}.jpg" for name in classes for i in range(3)]
        wanted = np.stack([mean_colour(file) for file in files])
        np.testing.assert_allclose(found.gather(np.arange(len(found))), wanted, rtol=1e-6)


def test_class_folders_without_a_split_are_features_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos.photographs_in(Path("fruit"), each=2) / "train"
    embed(folder, "--backbone=timm:mean-colour", "--out", "fruit.safetensors", "--device", "cpu")
    assert list(embeddings("fruit.safetensors", "all").class_names) == photos.CLASSES["train"]
    with pytest.raises(ValueError, match="does not say which of its classes are for train"):
        embeddings("fruit.safetensors", "train")
    assert "next: fewstep fit fruit.safetensors" in capsys.readouterr().out


def test_texts_of_a_table_keep_classes_and_splits() -> None:
    Path("texts.csv").write_text(TABLE)
    words = "--text", "text", "--labels", "intent", "--split", "part"
    embed("texts.csv", *words, "--backbone", "model2vec:any", "--out", "texts.npz", "--device", "cpu")
    train, test = (embeddings("texts.npz", split, normalise=False) for split in ("train", "test"))  # type: ignore[arg-type]
    assert (train.class_names, test.class_names) == (("one",), ("two",))
    assert train.gather(np.arange(2)).tolist() == [[3, 0], [4, 0]]
    assert test.gather(np.arange(2)).tolist() == [[4, 1], [5, 2]]


def test_texts_without_classes_are_rows_in_their_order() -> None:
    Path("texts.csv").write_text(TABLE)
    embed("texts.csv", "--text", "text", "--backbone", "model2vec:any", "--out", "rows.npy", "--batch", 3)
    assert np.load("rows.npy").tolist() == [[4, 1], [3, 0], [4, 0], [5, 2]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("texts.csv --backbone model2vec:any --out a.npz", "say which column of texts.csv holds the texts"),
        ("texts.csv --text body --backbone model2vec:any --out a.npz", "no column 'body', it has id, text, intent"),
        ("texts.csv --text text --backbone timm:any --out a.npz", "timm:any takes images, and texts.csv is a table"),
        ("texts.csv --text text --labels intent --split id --backbone model2vec:any --out a.npz", "test, it has '1'"),
        ("texts.csv --out a.npz", "say which network, --backbone sentence-transformers:NAME"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.csv").write_text(TABLE)
    with pytest.raises(SystemExit):
        embed(*words.split())
    assert told in " ".join(capsys.readouterr().err.split())
    assert not Path("a.npz").exists()
