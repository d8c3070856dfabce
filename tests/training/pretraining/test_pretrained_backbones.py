"""Networks of other libraries: real ones where they are installed, and what is said where they are not."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, embeddings
from fewstep.training.pretraining.backbones import Embedder, embedder
from fewstep.training.pretraining.examples import export_images

pytestmark = pytest.mark.usefixtures("own_cache")


def test_an_unknown_library_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no backbone 'keras:resnet'.*timm:NAME.*model2vec:NAME"):
        embedder("keras:resnet")


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(ValueError, match=r"model2vec .*pip install 'fewstep\[model2vec\]'"):
        embedder("model2vec:static")


@pytest.mark.parametrize(
    ("needs", "told"), [("torch (==1.0.0)", "made for torch 1.0.0, and torch"), ("torch", "built for CUDA")]
)
def test_a_torchvision_that_does_not_fit_torch_is_named_with_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: str, told: str
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    facts = tmp_path / "torchvision-0.1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\nRequires-Dist: {needs}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ValueError, match=rf"timm cannot be imported: torchvision 0\.1\.2 .*{told}"):
        embedder("timm:resnet18")


def test_images_of_a_dataset_are_given_as_pillow_would_read_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), np.uint8)
    images = {
        "train": Dataset.from_labels(pixels, list("aabbbb")),
        "test": Dataset.from_labels(pixels[:2, :1], list("cd")),
    }
    corner = Embedder(
        "corner", "images", lambda image: torch.tensor(image.convert("RGB").getpixel((3, 1))), torch.stack
    )
    export_images(corner, images, tmp_path / "corners.npz", batch=4)
    train, test = (embeddings(tmp_path / "corners.npz", split, normalise=False) for split in ("train", "test"))
    np.testing.assert_array_equal(train.gather(np.arange(6)), pixels[:, :, 1, 3])
    np.testing.assert_array_equal(
        test.gather(np.arange(2)), np.repeat(pixels[:2, :1, 1, 3], 3, 1)
    )  # grey is colour too


def test_a_static_model_gives_the_means_of_its_vectors(tmp_path: Path) -> None:
    model2vec, tokenizers = pytest.importorskip("model2vec"), pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "hot": 1, "cold": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    model2vec.StaticModel(vectors, tokenizer, normalize=False).save_pretrained(str(tmp_path / "static"))
    found = embedder(f"model2vec:{tmp_path / 'static'}")(["hot", "cold hot"])
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5]])


def test_a_network_that_is_not_here_is_told_where_to_fetch(tmp_path: Path) -> None:
    pytest.importorskip("model2vec")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"is a folder here.*hf download ORGANISATION/NAME --local-dir FOLDER"):
        embedder(f"model2vec:{tmp_path / 'empty'}")
