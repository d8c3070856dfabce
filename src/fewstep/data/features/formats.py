"""Feature vectors in the formats of others: which files there are, and what they hold."""

import functools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.data.checks import check_unit_range
from fewstep.data.dataset import as_tensor
from fewstep.data.features.frames import TABLES
from fewstep.data.features.named_arrays import (
    array_of,
    named,
    parts_of_arrays,
    parts_of_classes,
    parts_of_pickle,
    vectors_by_class,
)
from fewstep.data.features.readers import entries_of, files_beside
from fewstep.data.features.store import (
    SPLITS,
    Part,
    Parts,
    check_alike,
    join,
    numbered_apart,
    plain_labels,
    read_safetensors,
    read_store,
)
from fewstep.data.storage.reading import reading
from fewstep.data.storage.unpickling import unpickle

SUFFIXES = (".safetensors", ".npz", ".npy", ".pkl", ".pickle", ".plk", ".h5", ".hdf5", ".mat", *TABLES)
PICKLES = (".pkl", ".pickle", ".plk")
_MAPPED = (".safetensors", ".npy")
_SPLIT_FILES = {"train": ("train", "base"), "val": ("val", "validation"), "test": ("test", "novel")}


@final
@dataclass(frozen=True, eq=False)
class Source:
    """Files that :func:`parts_of` reads.

    Attributes:
        path: as it was given.
        files: those that are there, whose change is a change of the features.
        read: reads one file for each split, or one under "" that knows of its splits itself.
        mapped: whether features are mapped instead of read.
    """

    path: Path
    files: tuple[Path, ...]
    read: Mapping[str, Callable[[], Parts]]
    mapped: bool

    @property
    def name(self) -> str:
        """For messages: the file, or the folder with the one above it ("miniImageNet/center")."""
        return self.path.name if self.path.suffix in SUFFIXES else "/".join(self.path.parts[-2:])

    @property
    def state(self) -> list[list[Any]]:
        """The place, the size and the last change of each file, by which another content is known."""
        return [[str(f.resolve()), (found := f.stat()).st_size, found.st_mtime_ns] for f in self.files]


def source_of(path: Path) -> Source:
    """What lies at a place.

    Args:
        path: a file; a folder with one file for each split; a zip archive of such folders, with the folder's place in
            it after its name: ``embeddings.zip/miniImageNet/center``.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if what is there holds no features, or several sets of them (named in the message).
    """
    if path.is_file() and path.suffix in SUFFIXES:
        return Source(path, files_beside(path), {"": functools.partial(_read, path)}, path.suffix in _MAPPED)
    for archive in (path, *path.parents):
        if archive.suffix == ".zip" and archive.is_file():
            return _in_archive(path, archive, path.relative_to(archive).as_posix())
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        raise ValueError(f"{path} is none of the files that hold features: {', '.join(SUFFIXES)}, or a .zip of .pkl")
    raise FileNotFoundError(f"there is no file or folder {path}")


def parts_of(source: Source) -> Parts:
    """Read a source; features in memory-mapped formats are left where they are.

    Whether they are finite, and whether splits have classes in common, is not looked at.

    Raises:
        ValueError: if a file is damaged, asks for code to be run, or is of another structure; or if splits differ in
            their dimensions or dtype.
    """
    parts: Parts = {}
    for split, read in source.read.items():
        found = read()
        if not split:
            parts = found
            continue
        if list(found) not in ([""], [split]):
            raise ValueError(f"{source.path}: the file for {split} says itself that it holds {', '.join(found)}")
        parts[split] = next(iter(found.values()))
    check_alike(parts, str(source.path))
    return numbered_apart(parts) if len(source.read) > 1 else parts


def rows_in(path: str | Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Rows and, where there are any, their labels, from a file of any format that holds features.

    What a prediction is made from and for: nothing is grouped or sorted, rows may have any shape, labels are as they
    were given. Rows of three axes are images, bytes or from 0 to 1.

    Args:
        path: as for :func:`source_of`, one file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, of no known format, or without rows; or if it holds images beyond [0, 1].
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is none of the files that hold features: {', '.join(SUFFIXES)}")
    with reading(path, "holds no features", "make it again"):
        return _rows_in(path)


def arrays_in(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name, as they are, those alone whose names are known: ``x``, ``y``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds anything but numbers.
    """
    arrays = {name: array for name, array in entries_of(path).items() if array is not None}
    if wrong := [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]:
        raise ValueError(f"{path}: {wrong[0]} must be numbers, it is {arrays[wrong[0]].dtype}")
    return arrays


def _rows_in(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    if path.suffix in PICKLES:
        content = unpickle(path)
        entries = named(content) if isinstance(content, dict) else {}
    elif path.suffix == ".safetensors":
        entries, index = read_safetensors(path)
        entries = entries if index is None else {}
    else:
        entries = entries_of(path)
    rows, labels = (array_of(entries, what) for what in ("features", "labels"))
    if rows is None or (labels is None and array_of(entries, "keys") is not None):
        part = _whole(_read(path), str(path))
        return part.store[torch.from_numpy(part.order)].numpy(), part.labels
    if not isinstance(rows, Tensor):
        if rows.dtype.kind not in "fiub":
            raise ValueError(f"{path}: rows must be numbers, they are {rows.dtype}")
        rows = as_tensor(rows)  # in the machine's order of bytes
    if rows.ndim == 4 and rows.is_floating_point():
        check_unit_range(rows, str(path))
    return rows.numpy(), None if labels is None else plain_labels(labels, str(path))


def _in_folder(folder: Path) -> Source:
    read: dict[str, Callable[[], Parts]] = {}
    files: list[Path] = []
    for split in SPLITS:
        stems = [f"{name}{end}" for name in _SPLIT_FILES[split] for end in ("", "_embeddings", "_features")]
        places = (folder / f"{stem}{suffix}" for suffix in SUFFIXES for stem in stems)
        there = [file for file in places if file.is_file()]
        if len(there) > 1:
            raise ValueError(f"{folder} has {there[0].name} and {there[1].name} for {split}: leave one of them there")
        if there:
            read[split] = functools.partial(_read, there[0])
            files += files_beside(there[0])
    if not read:
        below = {str(file.parent) for file in folder.rglob("*_embeddings.pkl")}
        raise ValueError(_no_features(str(folder), sorted(below)))
    return Source(folder, tuple(files), read, all(file.suffix in _MAPPED for file in files))


def _in_archive(path: Path, archive: Path, inside: str) -> Source:
    with reading(archive, "is no zip archive", "fetch it again"), zipfile.ZipFile(archive) as opened:
        members = [name for name in opened.namelist() if name.endswith("_embeddings.pkl")]
    folders = sorted({str(PurePosixPath(name).parent) for name in members})
    chosen = [place for place in folders if place == inside or place.endswith(f"/{inside}")]
    if len(chosen) != 1:
        raise ValueError(_no_features(str(path), [f"{archive}/{place}" for place in folders]))
    read = {
        split: functools.partial(_read_member, archive, member)
        for split in SPLITS
        if (member := f"{chosen[0]}/{split}_embeddings.pkl") in members
    }
    return Source(path, (archive,), read, False)


def _no_features(where: str, below: list[str]) -> str:
    if below:
        return f"{where} holds {len(below)} sets of features; give one of them: {', '.join(below)}"
    return (
        f"{where} holds no features: expected train, val and test as train.npz, train_embeddings.pkl or the like "
        f"({', '.join(SUFFIXES)})"
    )


def _read_member(archive: Path, member: str) -> Parts:
    where = f"{archive}/{member}"
    with reading(where, "holds no features", f"fetch {archive.name} again"):
        with zipfile.ZipFile(archive) as opened:
            content = opened.read(member)
        return parts_of_pickle(unpickle(content), where)


def _read(path: Path) -> Parts:
    with reading(path, "holds no features", "make it again"):
        return _read_as_is(path)


def _read_as_is(path: Path) -> Parts:
    if path.suffix in PICKLES:
        return parts_of_pickle(unpickle(path), str(path))
    if path.suffix == ".safetensors":
        entries, index = read_safetensors(path)
        if index is not None:
            return read_store(path, entries, index)
    else:
        entries = entries_of(path)
    if array_of(entries, "features") is None and (by_class := vectors_by_class(entries)):
        return parts_of_classes(by_class, str(path))
    return parts_of_arrays(entries, str(path))


def _whole(parts: Parts, where: str) -> Part:
    if (whole := join(list(parts.values()))) is None:
        raise ValueError(f"{where} holds its splits apart: give one of them")
    return whole
