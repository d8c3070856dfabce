import itertools
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from fewstep.data import Dataset, EpisodeSampler, embeddings, l2_normalise, unpickle
from fewstep.data.features.datasets import convert
from fewstep.data.features.readers import files_beside
from fewstep.data.features.report import inspect_embeddings

SPLITS = ("train", "val", "test")
CLASSES = {"train": ("n10", "n2", "n_3-x%"), "val": ("n4",), "test": ("n5", "n6")}
SIZES = {"n10": 4, "n2": 7, "n_3-x%": 2, "n4": 5, "n5": 3, "n6": 6}
FORMATS = ("store.safetensors", "arrays.npz", "rows.npy", "pickles")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def content(dtype: Any = np.float32) -> dict[str, Any]:
    """Rows of classes of unequal size, in a random order, splits mixed."""
    random = np.random.default_rng(0)
    labels = random.permutation([name for name, size in SIZES.items() for _ in range(size)])
    split_of = {name: split for split, names in CLASSES.items() for name in names}
    rows = random.normal(size=(len(labels), 5)).astype(dtype)
    return {"features": rows, "labels": labels, "split": np.array([split_of[label] for label in labels])}


def bits(dataset: Dataset) -> bytes:
    """All rows of a dataset, by position, as they are stored."""
    store = dataset.store
    assert isinstance(store, torch.Tensor)
    rows = store if dataset.order is None else store[torch.from_numpy(dataset.order)]
    return rows.contiguous().view(torch.uint8).numpy().tobytes()


def written(path: Path, entries: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **entries)
    elif path.suffix == ".npy":
        np.save(path, entries["features"])
        for name in entries.keys() - {"features"}:
            np.save(path.with_name(f"{path.stem}_{name}.npy"), entries[name])
    elif path.suffix == ".safetensors":
        save_file(entries, path)
    else:
        path.write_bytes(pickle.dumps(entries, 2))
    return path


def deepmind(folder: Path, rows: Callable[[str], dict[str, Any]] = lambda split: {}, **others: Any) -> Path:
    """Their layout: 3 rows of each of two classes in each split, unless changed."""
    for s, split in enumerate(SPLITS):
        names = [f"n{2 * s + c}" for c in (1, 0, 1, 0, 1, 0)]
        keys = np.array([f"{i}-{name}-{name}_{i}.JPEG" for i, name in enumerate(names)])
        features = np.arange(24, dtype=np.float32).reshape(6, 4) + 100 * s
        record = {"embeddings": features, "keys": keys, "labels": np.array(names), **others, **rows(split)}
        written(folder / f"{split}_embeddings.pkl", record)
    return folder


def expected(split: str, dtype: Any = np.float32) -> list[tuple[str, bytes]]:
    """Names and rows of the classes of ``content``, by a plain search."""
    made = content(dtype)
    return [(name, made["features"][made["labels"] == name].tobytes()) for name in CLASSES[split]]


def classes(dataset: Dataset) -> list[tuple[str, bytes]]:
    whole = bits(dataset)
    width = len(whole) // len(dataset)
    bounds = [int(bound) * width for bound in dataset.offsets]
    return [(n, whole[a:b]) for n, a, b in zip(dataset.class_names, bounds, bounds[1:], strict=False)]


@pytest.mark.parametrize("name", ["arrays.npz", "rows.npy", "features.npy"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_rows_in_any_order_are_sorted_by_class_and_keep_their_bits(name: str, dtype: Any, tmp_path: Path) -> None:
    path = written(tmp_path / name, content(dtype))
    native = np.dtype(dtype).newbyteorder("=")
    for split in SPLITS:
        dataset = embeddings(path, split, normalise=False)
        assert classes(dataset) == expected(split, native)
        assert str(dataset) == f"{name} {split}"
        assert dataset.gather(np.arange(2)).dtype == torch.float32
    assert classes(embeddings(path, "trainval")) == expected("train", native) + expected("val", native)
    assert [n for n, _ in classes(embeddings(path, "all"))] == [n for names in CLASSES.values() for n in names]
    rows = embeddings(path, "test").gather(np.arange(9))
    torch.testing.assert_close(rows, l2_normalise(embeddings(path, "test", normalise=False).gather(np.arange(9))))
    assert rows.square().sum(1).allclose(torch.ones(9))


def test_train_comes_before_val_wherever_they_lie(tmp_path: Path) -> None:
    labels = np.array([2, 2, 3, 0, 1])
    entries = {
        "features": np.arange(5, dtype=np.float32)[:, None],
        "labels": labels,
        "split": np.array([1, 1, 2, 0, 0]),
    }
    dataset = embeddings(written(tmp_path / "rows.npy", entries), "trainval", normalise=False)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.gather(np.arange(4)).flatten().tolist() == [3, 4, 0, 1]


@pytest.mark.parametrize("chain", [*itertools.permutations(FORMATS, 3)])
def test_conversions_between_all_formats_lose_nothing(chain: tuple[str, ...], tmp_path: Path) -> None:
    entries = content(np.float16)
    entries["features"][3] = [0.0, -0.0, 6e-8, 65504, -1e-3]
    first = convert(written(tmp_path / "source.npz", entries), tmp_path / "first.safetensors")
    path, asked = first, classes(embeddings(first, "trainval"))
    for i, target in enumerate(chain):
        path = convert(path, tmp_path / str(i) / target)
        assert classes(embeddings(path, "trainval")) == asked
        for split in SPLITS:
            assert classes(embeddings(path, split)) == classes(embeddings(first, split))
    last = convert(path, tmp_path / "last.safetensors")
    if "pickles" not in chain:  # which have keys
        assert last.read_bytes() == first.read_bytes()
    else:
        again = convert(convert(last, tmp_path / "again.npz"), tmp_path / "again.safetensors")
        assert again.read_bytes() == last.read_bytes()


def test_classes_have_one_order_whatever_their_labels_are(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(12, 1)
    numbers = written(tmp_path / "numbers.npz", {"features": rows, "labels": np.arange(12) % 11})
    text = convert(numbers, tmp_path / "text.pkl")
    for path in (numbers, text, convert(text, tmp_path / "back.safetensors")):
        assert embeddings(path, "all").class_names == tuple(map(str, range(11)))
    for label in ("10", "9"):  # "9x" makes it text
        assert classes(embeddings(numbers, "all"))[int(label)][1][:4] == np.float32(label).tobytes()


def test_the_same_seed_draws_the_same_tasks_from_every_format(tmp_path: Path) -> None:
    source = written(tmp_path / "source.npz", content())
    tasks = []
    for path in (source, *(convert(source, tmp_path / name) for name in FORMATS)):
        sampler = EpisodeSampler(embeddings(path, "train"), ways=2, shots=1, queries=1, tasks=8, seed=0)
        tasks.append(torch.cat([sampler.batch(0).support.x.flatten(), sampler.batch(0).query.x.flatten()]))
    for other in tasks[1:]:
        assert torch.equal(tasks[0], other)


def test_deepminds_layout_takes_classes_from_keys(tmp_path: Path) -> None:
    folder = deepmind(tmp_path / "embeddings" / "miniImageNet" / "center", labels=np.array(["x"] * 6))
    archive = tmp_path / "embeddings.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "embeddings").rglob("*.pkl"):
            file.write(path, path.relative_to(tmp_path))
    for place in (folder, archive / "miniImageNet" / "center", archive / "embeddings/miniImageNet/center"):
        val = embeddings(place, "val", normalise=False)
        assert val.class_names == ("n2", "n3")
        assert str(val) == "miniImageNet/center val"
        assert val.gather(np.arange(6))[:, 0].tolist() == [104, 112, 120, 100, 108, 116]
        assert embeddings(place, "trainval").class_names == ("n0", "n1", "n2", "n3")
    for place in (archive, tmp_path / "embeddings"):
        with pytest.raises(ValueError, match=r"1 sets of features; give one of them: .*miniImageNet/center"):
            embeddings(place, "val")
    again = unpickle(convert(folder, tmp_path / "again") / "val_embeddings.pkl", encoding="latin1")
    assert again["keys"].tolist() == [
        f"{i}-n{n}-n{n}_{i}.JPEG" for n, i in ((2, 1), (2, 3), (2, 5), (3, 0), (3, 2), (3, 4))
    ]


def test_pickles_are_of_the_form_that_deepminds_loader_asserts(tmp_path: Path) -> None:
    folder = convert(written(tmp_path / "source.npz", content()), tmp_path / "pickles")
    for split in SPLITS:
        record = unpickle(folder / f"{split}_embeddings.pkl")
        assert sorted(record) == ["embeddings", "keys", "labels"]
        for key, label in zip(record["keys"].tolist(), record["labels"].tolist(), strict=True):
            _, name, file = key.split("-")
            assert name == file.split("_")[0]
            assert label in CLASSES[split]


def test_the_python_2_sample(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "py2_sample" / "miniImageNet" / "center"
    sizes = {split: embeddings(folder, split).sizes.tolist() for split in SPLITS}
    assert sizes == {"train": [12] * 8, "val": [12] * 5, "test": [12] * 5}
    test = embeddings(folder, "test", normalise=False)
    record = unpickle(folder / "test_embeddings.pkl")
    for c, name in enumerate(test.class_names):
        rows = [i for i, key in enumerate(record[b"keys"].tolist()) if key.split(b"-")[1].decode() == name]
        assert bits(test.subset([c])) == record[b"embeddings"][rows].tobytes()
    store = convert(folder, tmp_path / "sample.safetensors")
    again = convert(store, tmp_path / "again")
    for split in SPLITS:
        ours, theirs = (unpickle(place / f"{split}_embeddings.pkl") for place in (again, folder))
        assert ours["embeddings"].tobytes() == theirs[b"embeddings"].tobytes()
        assert ours["keys"].tolist() == [key.decode() for key in theirs[b"keys"].tolist()]


@pytest.mark.parametrize("name", ["cube.npz", "cube.npy", "cube.safetensors"])
def test_features_by_class_and_image(name: str, tmp_path: Path) -> None:
    entries = {
        "features": np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float16),
        "split": np.array([2, 0, 1, 0], np.uint8),
    }
    if name != "cube.safetensors":
        entries["class_names"] = np.array(["d", "c", "b", "a"])
    path = written(tmp_path / name, entries)
    names = ("3", "1") if name == "cube.safetensors" else ("a", "c")
    train = embeddings(path, "train", normalise=False)
    assert dict(classes(train)) == dict(zip(names, (entries["features"][c].tobytes() for c in (3, 1)), strict=True))
    assert train.class_names == tuple(sorted(names))
    assert embeddings(path, "test").sizes.tolist() == [3]


def test_a_folder_with_a_file_for_each_split_may_mix_formats(tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    for split, name in (("train", "train.npz"), ("val", "val.npy"), ("test", "test.safetensors")):
        labels = np.array([0, 1, 0, 1]) + 2 * SPLITS.index(split)
        written(tmp_path / "set" / name, {"features": rows + SPLITS.index(split), "labels": labels})
    for s, split in enumerate(SPLITS):
        dataset = embeddings(tmp_path / "set", split, normalise=False)
        assert dataset.class_names == (str(2 * s), str(2 * s + 1))
        assert dataset.gather(np.arange(4))[:, 0].tolist() == [s, s + 4, s + 2, s + 6]
    assert embeddings(tmp_path / "set", "trainval").class_names == ("0", "1", "2", "3")
    (tmp_path / "set" / "val.npz").write_bytes((tmp_path / "set" / "train.npz").read_bytes())
    with pytest.raises(ValueError, match=r"has val.npz and val.npy for val: leave one of them"):
        embeddings(tmp_path / "set", "val")


def test_bfloat16_is_kept_where_a_format_has_it(tmp_path: Path) -> None:
    rows = torch.randn(6, 4).bfloat16()
    path = tmp_path / "rows.safetensors"
    save_tensors({"features": rows, "labels": torch.tensor([0, 1, 0, 1, 0, 1])}, path)
    store = convert(path, tmp_path / "store.safetensors")
    for file in (path, store):
        dataset = embeddings(file, "all", normalise=False)
        assert dataset.store.dtype == torch.bfloat16
        assert torch.equal(dataset.gather(np.arange(6)), rows[[0, 2, 4, 1, 3, 5]].float())
    assert inspect_embeddings(store).dtype == "bfloat16"
    with pytest.raises(ValueError, match=r"holds bfloat16, which NumPy's formats .* convert it to .safetensors"):
        convert(path, tmp_path / "rows.npz")


def sparse(path: Path, rows: int) -> Path:
    """A store of 640 numbers a row that takes no room on the disk: all zeros but the last row."""
    index = {
        "format": 1,
        "splits": {split: [[split, rows // 4 * n]] for split, n in zip(SPLITS, (1, 1, 2), strict=True)},
    }
    size = rows * 640 * 4
    header = json.dumps(
        {
            "__metadata__": {"fewstep": json.dumps(index)},
            "features": {"dtype": "F32", "shape": [rows, 640], "data_offsets": [0, size]},
        }
    )
    header += " " * (-(8 + len(header)) % 64)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(8 + len(header) + size)
        file.seek(-640 * 4, 2)
        file.write(np.arange(640, dtype=np.float32).tobytes())
    return path


def test_a_store_larger_than_memory_is_mapped_and_not_read(tmp_path: Path) -> None:
    rows = 100_000_000
    path = sparse(tmp_path / "large.safetensors", rows)
    assert path.stat().st_size > 2**37, "256 GB"
    dataset = embeddings(path, "test", normalise=False)
    assert len(dataset) == rows // 2
    assert dataset.gather(np.array([0, len(dataset) - 1]))[:, 639].tolist() == [0, 639]
    assert len(embeddings(path, "trainval")) == rows // 2
    assert embeddings(path, "trainval").order is None
    assert path.stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("name", ["rows.npy", "rows.safetensors"])
def test_arrays_are_mapped_too(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, {"features": np.ones((4, 3), np.float32), "labels": np.array([0, 0, 1, 1])})
    dataset = embeddings(path, "all", normalise=False)
    with path.open("rb+") as file:
        file.seek(-4, 2)
        file.write(np.float32(7).tobytes())
    assert dataset.gather(np.array([3]))[0].tolist() == [1, 1, 7]
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_mapped_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = written(tmp_path / "source.npz", content())
    told: list[str] = []
    for split in (*SPLITS, "trainval"):
        embeddings(path, split, report=told.append)  # type: ignore[arg-type]
    assert len(told) == 1
    assert "converting" in told[0]
    (store,) = (tmp_path / "cache").glob("*.safetensors")
    changed = content()
    changed["features"] += 1
    written(path, changed)
    rows = embeddings(path, "test", normalise=False, report=told.append)
    assert len(told) == 2
    assert classes(rows)[0][1] == changed["features"][changed["labels"] == "n5"].tobytes()
    store.write_bytes(store.read_bytes()[:-1])
    embeddings(path, "test", report=told.append)
    assert len(told) == 3, "a damaged one is made again"
    with pytest.raises(OSError, match=r"cannot keep the features of .*set \$FEWSTEP_CACHE"):
        embeddings(path, "test", cache=path)


class Harm:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.marker}",)


def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    folder = deepmind(tmp_path / "set")
    hostile = pickle.dumps({"embeddings": Harm(tmp_path / "marker"), "keys": []}, 2)
    (folder / "val_embeddings.pkl").write_bytes(hostile)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.write(folder / "val_embeddings.pkl", "set/val_embeddings.pkl")
    np.savez(tmp_path / "rows.npz", features=np.array([Harm(tmp_path / "marker")]), labels=[0])
    for path in (folder, tmp_path / "set.zip" / "set"):
        with pytest.raises(ValueError, match=r"val_embeddings.pkl.* asks for (posix|nt)\.system.*not loaded"):
            embeddings(path, "val")
    with pytest.raises(ValueError, match=r"rows.npz .*holds no plain arrays"):
        embeddings(tmp_path / "rows.npz", "all")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", [*FORMATS, "set.zip"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.97])
def test_truncated_files_are_damaged(name: str, left: float, tmp_path: Path) -> None:
    if name == "set.zip":
        deepmind(tmp_path / "set")
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in (tmp_path / "set").iterdir():
                archive.write(file, f"set/{file.name}")
        path = tmp_path / name / "set"
        file = tmp_path / name
    else:
        path = convert(written(tmp_path / "source.npz", content()), tmp_path / name)
        file = path / "test_embeddings.pkl" if path.is_dir() else path
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(ValueError, match=rf"{file.name} .*(damaged|truncated)"):
        embeddings(path, "test")


def test_a_flipped_bit_in_an_archive_is_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(deepmind(tmp_path / "set") / "val_embeddings.pkl", "set/val_embeddings.pkl")
    content = bytearray((tmp_path / "set.zip").read_bytes())
    content[200] ^= 1
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"set/val_embeddings.pkl is damaged or holds no features \(Bad CRC-32"):
        embeddings(tmp_path / "set.zip" / "set", "val")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["source.npz", "source.npy"])
def test_features_that_are_not_finite_are_refused_by_row_and_class(value: float, name: str, tmp_path: Path) -> None:
    entries = content()
    row = int(np.flatnonzero(entries["labels"] == "n6")[2])
    entries["features"][row, 1] = value
    path = written(tmp_path / name, entries)
    told = rf"{name} .*test.*: row {row} \(class 'n6'\) holds NaN or infinity"
    with pytest.raises(ValueError, match=told):
        embeddings(path, "test")
    for target in FORMATS:
        with pytest.raises(ValueError, match=told):
            convert(path, tmp_path / "out" / target)
        assert not list((tmp_path / "out").glob(f"*{target}*.part"))
    assert not list((tmp_path / "cache").glob("*.safetensors"))
    if name == "source.npy":
        assert len(embeddings(path, "train")), "only what is asked for is read"


def test_a_class_in_two_splits_is_refused(tmp_path: Path) -> None:
    entries = content()
    entries["split"][np.flatnonzero(entries["labels"] == "n5")[0]] = "train"
    told = "class 'n5' is in train and in test: classes of a test must not be trained on"
    with pytest.raises(ValueError, match=told):
        embeddings(written(tmp_path / "rows.npz", entries), "train")
    with pytest.raises(ValueError, match=told):
        embeddings(written(tmp_path / "rows.npy", entries), "train")
    with pytest.raises(ValueError, match=told):
        convert(tmp_path / "rows.npz", tmp_path / "store.safetensors")
    keys = {"keys": np.array(["0-n1-n1_0"] * 6)}
    with pytest.raises(ValueError, match="class 'n1' is in train and in val"):
        embeddings(deepmind(tmp_path / "set", lambda split: keys if split == "val" else {}), "test")


ROWS = np.ones((4, 3), np.float32)
LABELS = np.arange(4)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"features": ROWS, "labels": LABELS[:3]}, "4 rows of features but 3 labels: give one for each row"),
        ({"features": ROWS, "labels": LABELS, "keys": np.array(["a"])}, "4 rows of features but 1 keys"),
        ({"features": ROWS, "labels": LABELS, "split": np.zeros(3, int)}, "4 rows of features but 3 entries of split"),
        ({"features": ROWS}, "has no labels: give an array of labels or y"),
        ({"labels": LABELS}, r"holds \['labels'\], but no array of features or embeddings or x"),
        ({"features": ROWS[0], "labels": LABELS}, r"must be \[rows, d\] or .* they are \[3\]"),
        ({"features": ROWS[:0], "labels": LABELS[:0]}, r"none of them 0, they are \[0, 3\]"),
        ({"features": ROWS.astype(np.uint8), "labels": LABELS}, "must be floating-point .* they are uint8"),
        ({"features": ROWS, "labels": np.array([0, np.nan, 1, 2])}, "the label of row 1 is missing"),
        ({"features": ROWS, "labels": LABELS, "class_names": np.array(["a", "b"])}, "numbers from 0 to 1"),
        ({"features": ROWS[None], "labels": LABELS}, "need no labels"),
        ({"features": ROWS[None], "class_names": np.array(["a", "b"])}, "1 classes of features but 2 class_names"),
        ({"features": ROWS[:2, None], "class_names": np.array(["a", "a"])}, "class_names must be distinct"),
        ({"features": ROWS, "labels": LABELS, "split": np.array([0, 1, 2, 3])}, r"split must hold 0 \(train\).*3"),
        ({"features": ROWS, "labels": LABELS, "split": np.array(["dev"] * 4)}, "split must hold 0 .*'dev'"),
    ],
)
def test_other_structures_are_refused(entries: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"rows.npz.*{told}"):
        embeddings(written(tmp_path / "rows.npz", entries), "all")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"embeddings": np.ones((6, 5), np.float32)}, "features of train have 4 dimensions, those of val 5"),
        ({"embeddings": np.ones((6, 4))}, "features of train are float32, those of val float64"),
        ({"embeddings": np.ones((5, 4), np.float32)}, "val_embeddings.pkl: 5 rows of features but 6 labels"),
        ({"embeddings": np.ones((6, 2, 2), np.float32)}, r"embeddings must be \[rows, d\], they are \[6, 2, 2\]"),
        ({"embeddings": [1.0]}, "must hold an array 'embeddings', it holds"),
        ({"keys": np.array(["0-n2-n3_0.JPEG"] * 6)}, "keys must be .* one is '0-n2-n3_0.JPEG'"),
        ({"keys": np.array(["n2_0.JPEG"] * 6)}, "keys must be .* one is 'n2_0.JPEG'"),
        ({"keys": np.arange(6)}, "keys must be a list of text, it is int64"),
    ],
)
def test_other_pickles_are_refused(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = deepmind(tmp_path / "set", lambda split: changed if split == "val" else {})
    with pytest.raises(ValueError, match=told):
        embeddings(folder, "test")


def test_splits_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.npz", {"features": ROWS, "labels": LABELS})
    with pytest.raises(ValueError, match=r"does not say which of its classes are for test: ask for 'all'"):
        embeddings(path, "test")
    folder = deepmind(tmp_path / "set")
    (folder / "val_embeddings.pkl").unlink()
    for split in ("val", "trainval"):
        with pytest.raises(ValueError, match="has no classes for val, it has train, test"):
            embeddings(folder, split)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        embeddings(tmp_path / "nowhere.npz", "all")
    with pytest.raises(ValueError, match="holds no features: expected train, val and test"):
        embeddings(tmp_path / "cache", "all")
    (tmp_path / "rows.txt").touch()
    with pytest.raises(ValueError, match=r"rows.txt is none of the files that hold features"):
        embeddings(tmp_path / "rows.txt", "all")


def test_a_class_too_small_for_a_task_is_named(tmp_path: Path) -> None:
    test = embeddings(written(tmp_path / "source.npz", content()), "test")
    with pytest.raises(ValueError, match=r"source.npz test: class 'n5' has 3 examples, but 4 are needed"):
        EpisodeSampler(test, ways=2, shots=1, queries=3, tasks=1, seed=0)


def test_targets_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "source.npz", content())
    lone = written(tmp_path / "lone.npz", {"features": ROWS, "labels": LABELS})
    with pytest.raises(ValueError, match="can hold one split, there are train, val, test"):
        convert(source, tmp_path / "all.pkl")
    with pytest.raises(ValueError, match="does not say which of its classes are for what: give a target that ends"):
        convert(lone, tmp_path / "pickles")
    with pytest.raises(ValueError, match=r"a target ends in one of .safetensors, .npz, .npy, .pkl"):
        convert(source, tmp_path / "rows.csv")
    with pytest.raises(FileExistsError, match=r"lone.npz exists"):
        convert(source, lone)
    for name, values in (("labels", LABELS), ("y", LABELS)):  # what would be read with the rows
        np.save(tmp_path / f"rows_{name}.npy", values)
        with pytest.raises(FileExistsError, match=rf"rows_{name}.npy exists"):
            convert(source, tmp_path / "rows.npy")
        assert not (tmp_path / "rows.npy").exists()
        (tmp_path / f"rows_{name}.npy").unlink()


def test_rows_and_what_lies_beside_them_are_written_again_after_a_kill_between(tmp_path: Path) -> None:
    source = written(tmp_path / "source.npz", content())
    whole = convert(source, tmp_path / "rows.npy").read_bytes()
    beside = files_beside(tmp_path / "rows.npy")[1:]
    assert len(beside) > 1
    for gone in ((), beside[1:]):
        for path in (tmp_path / "rows.npy", *gone):
            path.unlink()
        assert convert(source, tmp_path / "rows.npy").read_bytes() == whole
        assert files_beside(tmp_path / "rows.npy")[1:] == beside


def test_a_store_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    store = convert(written(tmp_path / "source.npz", content()), tmp_path / "store.safetensors")
    whole = store.read_bytes()
    store.write_bytes(whole.replace(rb"[\"n10\", 4]", rb"[\"n10\", 5]"))
    with pytest.raises(ValueError, match="its index tells of 28 rows, it holds 27"):
        embeddings(store, "train")
    store.write_bytes(whole.replace(rb"{\"format\": 1", rb"{\"format\": 9"))
    with pytest.raises(ValueError, match="has format 9, this version of fewstep reads format 1"):
        embeddings(store, "train")


def test_inspection_finds_what_there_is_to_find(tmp_path: Path) -> None:
    entries = content()
    of = {name: np.flatnonzero(entries["labels"] == name) for name in SIZES}
    rows = entries["features"]
    rows[of["n10"][1:3]] = rows[of["n10"][0]]  # two copies within train
    rows[of["n5"][0]] = rows[of["n10"][0]]  # one of them in test
    rows[of["n6"][0]] = rows[of["n4"][0]]  # val and test
    rows[of["n2"][0]] = 0
    rows[of["n4"][1]] = [3, 4, 0, 0, 0]
    report = inspect_embeddings(written(tmp_path / "source.npz", entries))
    assert (report.dimensions, report.dtype, report.refusals) == (5, "float32", ())
    assert set(report.warnings) == {
        "1 row of train of zeros: normalisation leaves them so",
        "2 rows of train that are copies of others",
        "1 row of test that is in train too",
        "1 row of test that is in val too",
    }
    train, val, test = report.splits
    assert (train.split, train.classes, train.rows, train.smallest, train.largest) == ("train", 3, 13, 2, 7)
    assert (val.split, val.classes, val.rows, test.classes, test.rows) == ("val", 1, 5, 2, 9)
    lengths = np.linalg.norm(rows[of["n4"]].astype(np.float64), axis=1)
    assert val.norms == pytest.approx((lengths.min(), np.median(lengths), lengths.max()))
    assert val.norms[2] == pytest.approx(5)
    assert train.norms[0] == 0

    rows[of["n2"][3], 2] = np.nan
    rows[of["n2"][1], 2] = np.inf
    entries["split"][of["n4"][0]] = "test"
    report = inspect_embeddings(written(tmp_path / "source.npz", entries))
    assert report.refusals == (
        "class 'n4' is in val and in test",
        f"2 rows of train with NaN or infinity; the first is {of['n2'][1]}, class 'n2'",
    )
    assert "1 classes of test with one example: no task can be made with them" in report.warnings
    assert np.isfinite([norm for split in report.splits for norm in split.norms]).all()


def test_inspection_is_not_deceived_by_equal_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def integers(self, low: int, high: int, size: int, dtype: type) -> np.ndarray:
            return np.zeros(size, dtype)

    # With the same factor for every column, rows of the same numbers have the same hash in any order.
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Zeros())
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows[2], rows[4] = rows[1, ::-1], rows[1]
    report = inspect_embeddings(written(tmp_path / "rows.npz", {"features": rows, "labels": np.arange(6) // 2}))
    assert report.warnings == ("1 row that is a copy of another",)


def test_inspection_of_the_real_features(shared: Path) -> None:
    report = inspect_embeddings(shared / "data" / "features_cifar_fs_resnet9_middle.npz")
    assert [(split.classes, split.rows) for split in report.splits] == [(64, 38400), (16, 9600), (20, 12000)]
    assert sum(int(text.split()[0]) for text in report.warnings) == 26, "CIFAR-100's duplicates"
