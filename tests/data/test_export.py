"""Features by any function: what is written, in which formats, and what is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewstep.data import Dataset, embeddings
from fewstep.data.features import datasets
from fewstep.data.features.datasets import convert
from fewstep.data.features.export import export_features, extractor_beside, features_digest
from fewstep.data.features.keys import class_of

CLASSES = {"test": ["fox", "a-b_c"], "train": ["10", "9", "2"], "val": ["owl"]}  # neither splits nor classes in order
IN_ORDER = {"train": ["2", "9", "10"], "val": ["owl"], "test": ["a-b_c", "fox"]}
WEIGHT = torch.linspace(-1, 1, 3 * 4 * 4 * 5).reshape(48, 5).cos() * 3


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHT


@pytest.fixture
def images() -> dict[str, Dataset]:
    random = np.random.default_rng(0)

    def dataset(split: str, names: list[str]) -> Dataset:
        sizes = [3 + c + len(split) for c in range(len(names))]
        rows = random.integers(0, 256, (sum(sizes), 3, 4, 4), dtype=np.uint8)
        return Dataset.from_sorted(rows, np.cumsum([0, *sizes]), names, split=split)

    return {split: dataset(split, names) for split, names in CLASSES.items()}


def of_class(dataset: Dataset, name: str) -> Tensor:
    c = dataset.class_names.index(name)
    return torch.from_numpy(np.asarray(dataset.store[dataset.offsets[c] : dataset.offsets[c + 1]])) / 255


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("target", ["features.npz", "features.safetensors", "features.npy", "in/a/folder"])
def test_features_come_back_with_their_classes_from_every_format(
    images: dict[str, Dataset], target: str, dtype: str, tmp_path: Path
) -> None:
    path = export_features(linear, images, tmp_path / target, dtype=dtype, batch=4)  # type: ignore[arg-type]
    assert path == tmp_path / target
    for split, names in IN_ORDER.items():
        read = embeddings(path, split, normalise=False, cache=tmp_path / "cache")  # type: ignore[arg-type]
        assert list(read.class_names) == names
        kind = read.store.dtype if isinstance(read.store, Tensor) else torch.from_numpy(read.store[:1].copy()).dtype
        assert kind == getattr(torch, dtype)
        for name in names:
            shown = of_class(images[split], name)
            # In the same batches, so that the bits are the same.
            positions = np.flatnonzero(images[split].labels == images[split].class_names.index(name))
            batches = [
                linear(images[split].gather(np.arange(s, min(s + 4, len(images[split])))))
                for s in range(0, len(images[split]), 4)
            ]
            expected = torch.cat(batches)[torch.from_numpy(positions)].to(getattr(torch, dtype))
            torch.testing.assert_close(expected.float(), linear(shown), rtol=2e-3, atol=2e-3)
            c = names.index(name)
            got = read.gather(np.arange(read.offsets[c], read.offsets[c + 1]), dtype=torch.float64)
            assert torch.equal(got, expected.double()), (split, name)
    assert not list(tmp_path.rglob("*.part")), "nothing is left over"


def test_the_folder_is_deepminds(images: dict[str, Dataset], tmp_path: Path) -> None:
    export_features(linear, images, tmp_path / "mini")
    assert sorted(file.name for file in (tmp_path / "mini").iterdir()) == [
        "test_embeddings.pkl",
        "train_embeddings.pkl",
        "val_embeddings.pkl",
    ]
    record = pickle.loads((tmp_path / "mini" / "test_embeddings.pkl").read_bytes(), encoding="latin1")
    assert record["embeddings"].dtype == np.float32
    assert [class_of(str(key), "") for key in record["keys"]] == ["a-b_c"] * 8 + ["fox"] * 7
    np.testing.assert_allclose(record["embeddings"][8:], linear(of_class(images["test"], "fox")), rtol=1e-5, atol=1e-5)


def test_a_folder_is_whole_or_not_there(
    images: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = datasets.write_atomically

    def killed(target: Path, content: bytes) -> None:
        assert target.parent != tmp_path / "mini", "a kill would leave a part of the splits there"
        if target.name.startswith("val"):
            raise OSError("no space left")
        write(target, content)

    monkeypatch.setattr(datasets, "write_atomically", killed)
    with pytest.raises(OSError, match="no space"):
        export_features(linear, images, tmp_path / "mini")
    assert list(tmp_path.iterdir()) == []


def test_an_extractor_gets_images_in_batches_in_evaluation_mode(images: dict[str, Dataset], tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.frozen, self.seen = nn.BatchNorm2d(3), nn.Dropout(0.5).eval(), list[int]()

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            assert 0 <= x.min() < 0.1
            assert 0.9 < x.max() <= 1
            assert not torch.is_grad_enabled()
            self.seen.append(len(x))
            return linear(self.frozen(self.norm(x)))

    model, told = Model(), list[tuple[int, int]]()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr]
    export_features(model, images, tmp_path / "f.npz", batch=10, progress=lambda *now: told.append(now))
    assert (model.norm.training, model.frozen.training) == (True, False), "as they were"
    assert torch.equal(model.norm.running_mean, before)  # type: ignore[arg-type]
    assert model.seen == [10, 10, 7, 6, 10, 5]
    assert told == [(10, 48), (20, 48), (27, 48), (33, 48), (43, 48), (48, 48)]
    single = {split: torch.cat([of_class(images[split], name) for name in names]) for split, names in IN_ORDER.items()}
    for split, x in single.items():
        read = embeddings(tmp_path / "f.npz", split, normalise=False, cache=tmp_path)  # type: ignore[arg-type]
        expected = linear(x / (1 + 1e-5) ** 0.5)
        torch.testing.assert_close(read.gather(np.arange(len(read))), expected, rtol=1e-4, atol=1e-4)


def nan_at(position: int) -> Callable[[Tensor], Tensor]:
    done = 0

    def extractor(x: Tensor) -> Tensor:
        nonlocal done
        rows = linear(x)
        if done <= position < done + len(x):
            rows[position - done, 2] = torch.nan
        done += len(x)
        return rows

    return extractor


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (lambda x: x, r"must map 4 images \[4, 3, 4, 4\] to features \[4, d\], but gave \[4, 3, 4, 4\]. Maps"),
        (lambda x: linear(x)[:-1], r"but gave \[3, 5\]"),
        (lambda x: linear(x)[:, : 5 if len(x) == 4 else 4], r"images .* to features \[\d, 5\], but gave \[\d, 4\]"),
        (lambda x: linear(x).numpy(), "must give a tensor, it gave a ndarray"),
        (lambda x: linear(x).long(), "must be floating-point numbers, the extractor gave torch.int64"),
        (nan_at(0), "features of image 1 of class '10' .train. hold NaN"),
        (nan_at(27 + 2 + 6), "features of image 3 of class 'fox' .test. hold NaN"),
        (lambda x: linear(x) * 1e5, "class '10' .train. reach 6.26e.06, too large for float16: store as float32"),
    ],
)
def test_what_an_extractor_may_not_give(
    images: dict[str, Dataset], extractor: Callable[[Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export_features(extractor, images, tmp_path / "f.npz", dtype="float16", batch=4)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_found_before_an_image_is_looked_at(images: dict[str, Dataset], tmp_path: Path) -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError

    (tmp_path / "there.npz").write_bytes(b"mine")
    shared = Dataset.from_sorted(np.zeros((2, 3, 4, 4), np.uint8), [0, 2], ["owl"])
    bare = Dataset.from_sorted(np.zeros((2, 3, 4, 4), np.uint8), [0, 2, 2], ["elk", "emu"])
    for target, given, options, error, message in [
        ("there.npz", images, {}, FileExistsError, "there.npz exists: remove it"),
        ("f.csv", images, {}, ValueError, "a target ends in one of .safetensors, .npz, .npy, .pkl, or in no suffix"),
        ("f.pkl", images, {}, ValueError, "can hold one split, there are train, val, test"),
        ("f.npz", images | {"test": shared}, {}, ValueError, "class 'owl' is in test and in val"),
        ("f.npz", images | {"test": bare}, {}, ValueError, "test has classes without images"),
        ("f.npz", {"novel": shared}, {}, ValueError, "some of train, val, test, got 'novel'"),
        ("f.npz", {}, {}, ValueError, "some of train, val, test, got none"),
        ("f.npz", images, {"batch": 0}, ValueError, "batch must be at least 1"),
    ]:
        with pytest.raises(error, match=message):
            export_features(never, given, tmp_path / target, **options)  # type: ignore[arg-type]
    assert (tmp_path / "there.npz").read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["there.npz"]


def test_the_digest_is_of_the_features_not_of_their_format(images: dict[str, Dataset], tmp_path: Path) -> None:
    told: list[str] = []

    def digest(path: Path) -> str:
        return features_digest(embeddings(path, "all", normalise=False, cache=tmp_path / "cache"))

    def tell(value: str) -> None:
        assert not (tmp_path / "f.npz").exists(), "what belongs to the features can be written before them"
        told.append(value)

    path = export_features(linear, images, tmp_path / "f.npz", before_writing=tell)
    assert told == [digest(path)]
    for target in ("f.safetensors", "f.npy", "folder"):
        assert digest(convert(path, tmp_path / target)) == told[0], target
    other = lambda x: linear(x) + torch.tensor([0, 0, 0, 0, 1e-4])  # noqa: E731
    assert digest(export_features(other, images, tmp_path / "other.npz")) != told[0]
    assert digest(export_features(linear, images, tmp_path / "half.npz", dtype="float16")) != told[0]
    fewer = {split: images[split] for split in ("train", "val")}
    assert digest(export_features(linear, fewer, tmp_path / "fewer.npz")) != told[0]


def test_nothing_is_written_if_what_comes_before_fails(images: dict[str, Dataset], tmp_path: Path) -> None:
    def full(digest: str) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        export_features(linear, images, tmp_path / "f.npz", before_writing=full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("features", "network"),
    [
        ("a/photos.npz", "a/photos.extractor.safetensors"),
        ("photos.safetensors", "photos.extractor.safetensors"),
        ("a/photos", "a/photos.extractor.safetensors"),
        ("v1.2/mini-0.5", "v1.2/mini-0.5.extractor.safetensors"),
    ],
)
def test_the_network_is_kept_beside_its_features(features: str, network: str) -> None:
    assert extractor_beside(features) == Path(network)
