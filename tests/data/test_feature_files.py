"""Features as this field passes them around: every reader takes what the others take."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.io import loadmat, savemat

from fewstep.data import Dataset, embeddings
from fewstep.data.features import formats
from fewstep.data.features.datasets import convert
from fewstep.data.features.formats import rows_in
from fewstep.data.features.report import inspect_embeddings
from fewstep.data.features.store import group, numbered_apart
from fewstep.data.storage.matlab import read_mat

ROWS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
LABELS = np.repeat([3, 0, 10, 7], 3)
NAMES = (("features", "labels"), ("x", "y"), ("X", "Y"), ("all_feats", "all_labels"), ("Features", "Labels"))
CLASSES = ("0", "3", "7", "10")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def hdf5(path: Path, entries: dict[str, Any]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in entries.items():
            text = np.asarray(value).dtype.kind in "UO"
            file[name] = np.asarray(value, dtype=h5py.string_dtype()) if text else value


def npy(path: Path, entries: dict[str, Any]) -> None:
    (_, features), *others = entries.items()
    np.save(path, features)
    for name, value in others:
        np.save(path.with_name(f"{path.stem}_{name}.npy"), value, allow_pickle=True)


WRITERS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    ".npz": lambda path, entries: np.savez(path, **entries),
    ".npy": npy,
    ".safetensors": lambda path, entries: save_file(entries, path),
    ".pkl": lambda path, entries: path.write_bytes(pickle.dumps(entries, 2)),
    ".pickle": lambda path, entries: path.write_bytes(pickle.dumps(entries)),
    ".plk": lambda path, entries: path.write_bytes(pickle.dumps(entries, 0)),
    ".mat": savemat,
    ".h5": hdf5,
    ".hdf5": hdf5,
}


def write(path: Path, entries: dict[str, Any]) -> Path:
    WRITERS[path.suffix](path, entries)
    return path


def of_classes(dataset: Dataset) -> dict[str, list[list[float]]]:
    rows = dataset.gather(np.arange(len(dataset))).numpy()
    bounds = dataset.offsets
    return {name: rows[bounds[c] : bounds[c + 1]].tolist() for c, name in enumerate(dataset.class_names)}


EXPECTED = {name: ROWS[int(name) == LABELS].tolist() for name in CLASSES}


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_names_work_in_every_format(suffix: str, tmp_path: Path) -> None:
    for i, (features, labels) in enumerate(NAMES):
        path = write(tmp_path / f"rows{i}{suffix}", {features: ROWS, labels: LABELS})
        read = embeddings(path, "all", normalise=False)
        assert read.class_names == CLASSES
        assert of_classes(read) == EXPECTED
        rows, own = rows_in(path)  # what `fewstep predict` is given
        assert own is not None
        np.testing.assert_array_equal(rows, ROWS)
        assert list(map(str, own)) == list(map(str, LABELS))


@pytest.mark.parametrize("suffix", [suffix for suffix in WRITERS if suffix != ".safetensors"])
def test_labels_may_be_text_columns_numbers_with_a_point_and_objects(suffix: str, tmp_path: Path) -> None:
    named = np.array([f"class é{label}" for label in LABELS], object)
    for i, labels in enumerate((named, LABELS[:, None], LABELS.astype(np.float64), LABELS.astype(">i2"))):
        if suffix in (".h5", ".hdf5", ".mat") and i == 3:
            continue
        read = embeddings(write(tmp_path / f"rows{i}{suffix}", {"x": ROWS, "y": labels}), "all", normalise=False)
        assert of_classes(read) == {name if i else f"class é{name}": EXPECTED[name] for name in EXPECTED}


def test_objects_of_text_in_npz_are_read_and_code_is_not(tmp_path: Path) -> None:
    mixed = np.array([b"cat", np.str_("cat"), "owl", "owl"], object)
    np.savez(tmp_path / "o.npz", x=ROWS[:4], y=mixed, split=np.array(["train"] * 2 + ["val"] * 2, object))
    assert embeddings(tmp_path / "o.npz", "val").class_names == ("owl",)
    vectors = np.empty(4, object)
    vectors[:] = list(ROWS[:4])
    np.savez(tmp_path / "v.npz", x=vectors, y=mixed)
    assert embeddings(tmp_path / "v.npz", "all", normalise=False).feature_shape == (5,)
    np.savez(tmp_path / "bad.npz", x=ROWS[:2], y=np.array([print, 1], object))
    with pytest.raises(ValueError, match=r"bad.npz .*asks for (builtins|__builtin__)\.print"):
        embeddings(tmp_path / "bad.npz", "all")


@pytest.mark.parametrize("kind", [object, None])
def test_labels_of_another_encoding_are_not_merged(kind: type | None, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=ROWS[:2], y=np.array([b"caf\xe9", b"caf\xe8"], kind))
    with pytest.raises(ValueError, match=r"f.npz: labels must be numbers or text in UTF-8 \("):
        embeddings(tmp_path / "f.npz", "all")


def test_what_a_file_holds_is_said_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", X=ROWS, Z=LABELS)
    with pytest.raises(ValueError, match=r"z.npz has no labels: give an array of labels or y"):
        embeddings(tmp_path / "z.npz", "all")
    np.savez(tmp_path / "q.npz", Q=ROWS, Y=LABELS)
    with pytest.raises(ValueError, match=r"q.npz holds \['Q', 'Y'\], but no array of features"):
        embeddings(tmp_path / "q.npz", "all")
    with pytest.raises(ValueError, match=r"q.txt is none of the files that hold features"):
        rows_in((tmp_path / "q.npz").rename(tmp_path / "q.txt"))


@pytest.mark.parametrize("suffix", [".pkl", ".plk", ".h5", ".npz"])
def test_vectors_of_each_class_by_its_name(suffix: str, tmp_path: Path) -> None:
    by_class: dict[Any, Any] = {name: ROWS[int(name) == LABELS] for name in CLASSES}
    if suffix == ".npz":  # here arrays of any names stand for other things
        np.savez(tmp_path / "c.npz", **by_class)
        with pytest.raises(ValueError, match=r"c.npz holds \['0', '10', '3', '7'\]"):
            embeddings(tmp_path / "c.npz", "all")
        return
    if suffix == ".plk":  # numbers, and lists of vectors: as S2M2's are
        by_class = {int(name): list(vectors) for name, vectors in by_class.items()}
    read = embeddings(write(tmp_path / f"classes{suffix}", by_class), "all", normalise=False)
    assert of_classes(read) == EXPECTED
    rows, labels = rows_in(tmp_path / f"classes{suffix}")
    assert rows.shape == ROWS.shape
    assert labels is not None
    assert labels.tolist() == [name for name in CLASSES for _ in range(3)]


def test_hdf5_files_of_a_closer_look_end_where_they_say(tmp_path: Path) -> None:
    """``all_feats`` is as long as it might have been, and ``count`` says how much of it is filled."""
    longer = np.concatenate([ROWS, np.zeros((3, 5), np.float32)])
    entries = {"all_feats": longer, "all_labels": np.append(LABELS, [0, 0, 0]), "count": np.array([12])}
    hdf5(tmp_path / "novel.hdf5", entries)
    assert of_classes(embeddings(tmp_path / "novel.hdf5", "all", normalise=False)) == EXPECTED
    hdf5(tmp_path / "base.hdf5", {"all_feats": ROWS, "all_labels": LABELS + 20})
    assert embeddings(tmp_path, "train").class_names == ("20", "23", "27", "30")
    assert of_classes(embeddings(tmp_path, "test", normalise=False)) == EXPECTED
    (tmp_path / "novel.hdf5").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match=r"novel.hdf5 is damaged or holds no plain arrays"):
        embeddings(tmp_path / "novel.hdf5", "all")


def test_without_h5py_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "f.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"f.h5 is an HDF5 file, .* pip install 'fewstep\[hdf5\]'"):
        embeddings(tmp_path / "f.h5", "all")


def test_matlabs_columns_cells_and_numbers(tmp_path: Path) -> None:
    names = np.array(["bird é", "cat", "dog", "owl"], object)
    order = np.argsort(np.argsort([3, 0, 10, 7]))
    savemat(
        tmp_path / "res101.mat",
        {"features": ROWS.T, "labels": np.repeat(order, 3)[:, None].astype(float), "class_names": names},
    )
    read = of_classes(embeddings(tmp_path / "res101.mat", "all", normalise=False))
    assert read == dict(zip(names.tolist(), EXPECTED.values(), strict=True))
    savemat(tmp_path / "cells.mat", {"X": ROWS, "Y": np.array([f"n{label}" for label in LABELS], object)[:, None]})
    assert embeddings(tmp_path / "cells.mat", "all").class_names == ("n0", "n10", "n3", "n7")
    (tmp_path / "bad.mat").write_bytes(b"MATLAB" * 40)
    with pytest.raises(ValueError, match=r"bad.mat is damaged or holds no plain arrays"):
        embeddings(tmp_path / "bad.mat", "all")


@pytest.mark.parametrize("compressed", [False, True])
def test_matlabs_files_hold_what_scipy_says(compressed: bool, tmp_path: Path) -> None:
    cells = np.empty((2, 2), object)
    cells[:] = [["é", "b"], [np.arange(3.0), "dd"]]
    written = {
        "small": np.array([[1, 2]], np.uint8),
        "columns": np.arange(12, dtype=np.float32).reshape(3, 4),
        "cube": np.arange(24).reshape(2, 3, 4),
        "doubles": np.arange(300.0)[None] / 7,
        "text": np.array(["abc", "d", "é"]),
        "cells": cells,
        "record": {"a": 1},
        "none": np.zeros((0, 3)),
    }
    savemat(tmp_path / "m.mat", written, do_compression=compressed)
    found, theirs = read_mat(tmp_path / "m.mat", lambda name: name != "small"), loadmat(tmp_path / "m.mat")
    assert found.keys() == written.keys()
    for name, array in found.items():
        if name in ("small", "record"):
            assert array is None, "not wanted, and no array"
        elif name == "cells":
            assert array is not None
            assert [np.ravel(cell).tolist() for cell in array.flat] == [np.ravel(cell).tolist() for cell in cells.flat]
        else:
            expected = np.char.rstrip(theirs[name]) if name == "text" else theirs[name]
            assert array is not None
            assert array.dtype.kind == expected.dtype.kind
            np.testing.assert_array_equal(array, expected)


def test_damaged_mat_files_are_refused_and_end_nothing(tmp_path: Path) -> None:
    """SciPy's reader ends the process for some of these."""
    random, refused = np.random.default_rng(0), 0
    savemat(tmp_path / "a.mat", {"x": ROWS, "y": np.array([f"n{label}" for label in LABELS], object)})
    content = (tmp_path / "a.mat").read_bytes()
    for i in range(120):
        damaged = bytearray(content[: random.integers(len(content)) if i % 5 == 0 else None])
        for place in random.integers(len(damaged), size=3) if len(damaged) else ():
            damaged[place] = random.integers(256)
        (tmp_path / "b.mat").write_bytes(damaged)
        try:
            rows_in(tmp_path / "b.mat")
        except ValueError:
            refused += 1
    assert 12 < refused < 120


def test_matlabs_files_of_version_73_are_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["features"], file["labels"] = ROWS.T, LABELS[None].astype(float)  # as MATLAB writes [12, 5] and [12, 1]
    with (tmp_path / "v73.mat").open("r+b") as head:
        head.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    assert of_classes(embeddings(tmp_path / "v73.mat", "all", normalise=False)) == EXPECTED


def test_files_that_number_the_classes_of_each_split_anew(tmp_path: Path) -> None:
    for split, classes in (("train", 12), ("val", 2), ("test", 3)):
        np.savez(tmp_path / f"{split}.npz", x=np.eye(2 * classes, 24, dtype=np.float32), y=np.arange(2 * classes) // 2)
    told: list[str] = []
    assert embeddings(tmp_path, "val", report=told.append).class_names == ("val 0", "val 1")
    assert "number the classes of each split anew" in told[-1]
    trained = embeddings(tmp_path, "train").class_names
    assert trained == tuple(f"train {i:02}" for i in range(12))
    assert any("anew" in warning for warning in inspect_embeddings(tmp_path).warnings)
    again = convert(tmp_path, tmp_path / "all.npz")
    assert embeddings(again, "train").class_names == trained
    np.savez(tmp_path / "test.npz", x=np.eye(4, 24, dtype=np.float32), y=[3, 0, 10, 7])
    with pytest.raises(ValueError, match=r"class '0' and 1 others are in train and in val"):
        embeddings(tmp_path, "val")


def test_files_of_the_same_classes_stay_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=ROWS[:6], y=np.arange(6) // 3)
    with pytest.raises(ValueError, match=r"class '0' and 1 others are in train and in test.*give them different names"):
        embeddings(tmp_path, "train")


@pytest.mark.parametrize("other", ["0.0", "0.", " 0"])
def test_another_spelling_of_a_number_is_the_same_class(other: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=ROWS[:4], y=np.array(["0", "0", other, other]), split=[0, 0, 2, 2])
    with pytest.raises(ValueError, match=r"f.npz: class '0' is in train and in test: classes of a test"):
        embeddings(tmp_path / "f.npz", "train")
    np.savez(tmp_path / "train.npz", x=ROWS[:2], y=np.array([0, 0]))
    np.savez(tmp_path / "test.npz", x=ROWS[:4], y=np.array([0.0, 0, 0.5, 0.5]))
    with pytest.raises(ValueError, match=r"class '0' is in train and in test"):
        embeddings(tmp_path, "train")


def test_a_file_without_splits_is_divided_on_request(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, x=ROWS, y=LABELS)
    with pytest.raises(ValueError, match=r"or have its 4 classes divided at random: fewstep data convert .* --divide"):
        embeddings(path, "train")
    told: list[str] = []
    found = [embeddings(path, s, divide=(2, 1, 1), seed=1, normalise=False, report=told.append) for s in formats.SPLITS]
    assert [dataset.classes for dataset in found] == [2, 1, 1]
    assert {name: rows for dataset in found for name, rows in of_classes(dataset).items()} == EXPECTED
    assert told[-1].endswith("its 4 classes are divided at random (seed 1): 2 for train, 1 for val, 1 for test")
    draws = {embeddings(path, "train", divide=(2, 1, 1), seed=seed).class_names for seed in range(8)}
    assert len(draws) > 2, "the seed decides"
    for target in ("f.safetensors", "g.npz"):
        stored = convert(path, tmp_path / target, divide=(2, 1, 1), seed=1)
        assert [embeddings(stored, split).class_names for split in formats.SPLITS] == [d.class_names for d in found]
    for counts in ((2, 1, 2), (5, -1, 0)):
        with pytest.raises(ValueError, match=r"has 4 classes, which cannot be divided into .*whose sum is 4"):
            embeddings(path, "train", divide=counts)
    with pytest.raises(ValueError, match=r"says itself which classes are for train, val, test: leave the division out"):
        embeddings(tmp_path / "g.npz", "train", divide=(2, 1, 1))


def test_training_is_told_what_inspection_warns_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.safetensors"
    rows = np.vstack([ROWS, ROWS[:2], ROWS[:1] * 0])
    labels = np.append(LABELS, [20, 20, 21])
    np.savez(tmp_path / "f.npz", x=rows, y=labels, split=[0] * 6 + [1] * 3 + [2] * 6)
    for file in (tmp_path / "f.npz", convert(tmp_path / "f.npz", path)):
        expected = [f"warning: {file}: {warning}" for warning in inspect_embeddings(file).warnings]
        assert len(expected) == 3, "copies in two splits, a row of zeros, a class of one example"
        told: list[str] = []
        embeddings(file, "train", report=told.append)
        assert [line for line in told if line.startswith("warning")] == expected
        told.clear()
        embeddings(file, "test", report=told.append)
        assert not told, "once is enough"
        with monkeypatch.context() as patch:
            patch.setattr("fewstep.data.features.report.inspect_embeddings", lambda _: pytest.fail("it was read again"))
            embeddings(file, "trainval", report=told.append)
            assert told == expected
            embeddings(file, "train")
        convert(file, tmp_path / f"{file.suffix[1:]}.npz")
    path.unlink()
    np.savez(tmp_path / "f.npz", x=rows[:12], y=labels[:12], split=[0] * 6 + [1] * 3 + [2] * 3)
    told.clear()
    embeddings(tmp_path / "f.npz", "train", report=told.append)
    assert not [line for line in told if line.startswith("warning")]


@pytest.mark.parametrize("first", [0, 1])
def test_classes_that_each_split_numbers_anew_are_apart_from_either_number(first: int) -> None:
    labels, splits = np.array([0, 1, 2, 0, 1]) + first, np.array(["train"] * 3 + ["val"] * 2)
    found = numbered_apart(group(torch.ones(5, 2), labels, "a file", splits=splits))
    assert found["train"].names == tuple(f"train {first + i}" for i in range(3))
    assert found["val"].names == tuple(f"val {first + i}" for i in range(2))
