"""Feature vectors in the formats of others: which files there are, and what they hold."""

import contextlib
import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final
from urllib.parse import unquote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.data.checks import check_unit_range
from fewstep.data.dataset import as_tensor
from fewstep.data.features.store import (
    FEATURES,
    SPLITS,
    Part,
    Parts,
    check_alike,
    group,
    join,
    numbered_apart,
    plain_labels,
    read_safetensors,
    read_store,
)
from fewstep.data.storage.matlab import OfVersion73, read_mat
from fewstep.data.storage.unpickling import unpickle

SUFFIXES = (".safetensors", ".npz", ".npy", ".pkl", ".pickle", ".plk", ".h5", ".hdf5", ".mat")
_PICKLES = (".pkl", ".pickle", ".plk")
_HDF5 = (".h5", ".hdf5")
_MAPPED = (".safetensors", ".npy")
_NAMES = {
    "features": FEATURES,
    "labels": ("labels", "y", "all_labels"),
    "split": ("split",),
    "class_names": ("class_names",),
    "keys": ("keys",),
}
_SPLIT_FILES = {"train": ("train", "base"), "val": ("val", "validation"), "test": ("test", "novel")}
_ENTRIES = {name for names in _NAMES.values() for name in names}
# zipfile raises NotImplementedError for a compression that it lacks, RuntimeError for an encrypted file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, OSError, RuntimeError)


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
        return Source(path, _beside(path), {"": functools.partial(_read, path)}, path.suffix in _MAPPED)
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
            files += _beside(there[0])
    if not read:
        below = {str(file.parent) for file in folder.rglob("*_embeddings.pkl")}
        raise ValueError(_no_features(str(folder), sorted(below)))
    return Source(folder, tuple(files), read, all(file.suffix in _MAPPED for file in files))


def _in_archive(path: Path, archive: Path, inside: str) -> Source:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if name.endswith("_embeddings.pkl")]
    except _DAMAGE as error:
        raise ValueError(f"{archive} is damaged, truncated or no zip archive ({error}): fetch it again") from error
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
    try:
        with zipfile.ZipFile(archive) as opened:
            content = opened.read(member)
    except _DAMAGE as error:
        raise ValueError(f"{where} is damaged or truncated ({error}): fetch {archive.name} again") from error
    try:
        return _pickled(unpickle(content), where)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _read(path: Path) -> Parts:
    if path.suffix in _PICKLES:
        return _pickled(unpickle(path), str(path))
    if path.suffix == ".safetensors":
        entries, index = read_safetensors(path)
        if index is not None:
            return read_store(path, entries, index)
    else:
        entries = _entries(path)
    if _array_of(entries, "features") is None and (by_class := _by_class(entries)):
        return _classes(by_class, str(path))
    return _arrays(entries, str(path))


def _entries(path: Path) -> dict[str, Any]:
    """The arrays of a file by name, None where a name is none that is known."""
    read = _hdf5 if path.suffix in _HDF5 else {".npz": _npz, ".npy": _npy, ".mat": _mat}[path.suffix]
    try:
        return read(path)
    except ImportError as error:
        raise ValueError(str(error)) from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged, truncated or holds no plain arrays ({error}): make it again") from error


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
    if path.suffix in _PICKLES:
        content = unpickle(path)
        entries = _named(content) if isinstance(content, dict) else {}
    elif path.suffix == ".safetensors":
        entries, index = read_safetensors(path)
        entries = entries if index is None else {}
    else:
        entries = _entries(path)
    rows, labels = (_array_of(entries, what) for what in ("features", "labels"))
    if rows is None or (labels is None and _array_of(entries, "keys") is not None):
        part = _whole(_read(path), str(path))
        return part.store[torch.from_numpy(part.order)].numpy(), part.labels
    if not isinstance(rows, Tensor):
        if rows.dtype.kind not in "fiub":
            raise ValueError(f"{path}: rows must be numbers, they are {rows.dtype}")
        rows = as_tensor(rows)  # in the machine's order of bytes
    if rows.ndim == 4 and rows.is_floating_point():
        check_unit_range(rows, str(path))
    return rows.numpy(), None if labels is None else plain_labels(labels, str(path))


def _whole(parts: Parts, where: str) -> Part:
    if (whole := join(list(parts.values()))) is None:
        raise ValueError(f"{where} holds its splits apart: give one of them")
    return whole


def _array_of(entries: Mapping[str, Any], what: str) -> Any:
    """The array of a kind by any of its names, in small letters or capitals; None where there is none."""
    lower = {name.lower(): value for name, value in reversed(list(entries.items())) if value is not None}
    named = {name: entries[name] for name in _NAMES[what] if entries.get(name) is not None}
    return next((found[name] for found in (named, lower) for name in _NAMES[what] if name in found), None)


def _known(name: str) -> bool:
    return name.lower() in _ENTRIES


def _npz(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        entries: dict[str, Any] = dict.fromkeys(names)
        for name in filter(_known, names):
            entries[name] = _array(functools.partial(archive.open, f"{name}.npy"))
    return entries


def _array(opened: Callable[[], Any]) -> NDArray[Any]:
    """An array in NumPy's format; objects are read where they are plain."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with opened() as file:
        if (read_header := headers.get(np.lib.format.read_magic(file))) is not None:
            *_, dtype = read_header(file)
            if dtype == np.dtype(object):
                return np.asarray(unpickle(file.read()))
    with opened() as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _npy(path: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {"features": np.load(path, mmap_mode="r", allow_pickle=False)}
    for beside in _beside(path)[1:]:
        entries[beside.stem.removeprefix(f"{path.stem}_").lower()] = _array(functools.partial(beside.open, "rb"))
    return entries


def _hdf5(path: Path) -> dict[str, Any]:
    """The arrays at the top of an HDF5 file; of "all_feats" as many as "count" says are filled."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            arrays = {str(name): item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            wanted = [name for name in arrays if _known(name)]
            entries: dict[str, Any] = dict.fromkeys(map(str, file)) | {n: arrays[n][()] for n in wanted or arrays}
            if "all_feats" in entries and "count" in arrays:
                filled = int(np.ravel(arrays["count"][()])[0])
                entries |= {name: entries[name][:filled] for name in wanted}
    except (RuntimeError, TypeError, MemoryError, IndexError) as error:  # as HDF5 reports damage
        raise ValueError(str(error)) from error
    return entries


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path} is an HDF5 file, which the package h5py reads: pip install 'fewstep[hdf5]'"
        ) from error
    return h5py


def _mat(path: Path) -> dict[str, Any]:
    """MATLAB's arrays: features by row or by column, as there are labels."""
    entries: dict[str, Any]
    try:
        entries = dict(read_mat(path, _known))
    except OfVersion73:  # HDF5, where axes come in another order
        entries = {n: v.T if isinstance(v, np.ndarray) else v for n, v in _hdf5(path).items() if not n.startswith("#")}
    labels = _array_of(entries, "labels")
    for name, value in entries.items():
        if not isinstance(value, np.ndarray):
            entries[name] = None
        elif name.lower() in FEATURES:
            by_column = labels is not None and value.ndim == 2 and value.shape[0] != labels.size == value.shape[1]
            entries[name] = value.T if by_column else value
        else:
            entries[name] = plain_labels(value.reshape(-1))
    return entries


def _beside(path: Path) -> tuple[Path, ...]:
    """A file, and those that belong to it."""
    if path.suffix != ".npy":
        return (path,)
    plain = path.stem.lower() in FEATURES
    places = (
        [path.with_name(f"{path.stem}_{name}.npy"), *([path.with_name(f"{name}.npy")] if plain else [])]
        for what, names in _NAMES.items()
        if what != "features"
        for known in names
        for name in (known, known.upper(), known.capitalize())
    )
    found: dict[str, Path] = {}  # by name without capitals, which some file systems do not tell apart
    for some in places:
        if there := [file for file in some if file.is_file()]:
            found.setdefault(there[0].name.lower(), there[0])
    return (path, *found.values())


def _arrays(entries: Mapping[str, Any], where: str) -> Parts:
    """Arrays by the names that all formats share."""
    given = {what: _array_of(entries, what) for what in _NAMES}
    if given["features"] is None:
        raise ValueError(f"{where} holds {sorted(entries)}, but no array of {' or '.join(FEATURES)}")
    features = _features(given["features"], where)
    names = (
        None
        if given["class_names"] is None
        else _text(plain_labels(given["class_names"], where, "class_names"), "class_names", where)
    )
    keys = None if given["keys"] is None else _text(plain_labels(np.ravel(given["keys"]), where, "keys"), "keys", where)
    if names is not None and len(set(names.tolist())) < len(names):
        raise ValueError(f"{where}: class_names must be distinct")
    if features.ndim == 3:
        classes, images, _ = features.shape
        if given["labels"] is not None:
            raise ValueError(f"{where}: features [classes, images, d] need no labels, their place is their class")
        names = np.arange(classes).astype(np.str_) if names is None else names
        if len(names) != classes:
            raise ValueError(f"{where}: {classes} classes of features but {len(names)} class_names")
        labels = np.repeat(names, images)
        which = np.repeat(np.arange(classes), images)
        features = features.reshape(-1, features.shape[-1])
    else:
        if given["labels"] is None:
            raise ValueError(
                f"{where} has no labels: give an array of {' or '.join(_NAMES['labels'])}, one label for each row"
                + (" (as NAME_labels.npy beside NAME.npy)" if where.endswith(".npy") else "")
            )
        labels = which = plain_labels(given["labels"], where)
        if names is not None:
            if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0 or labels.max() >= len(names):
                raise ValueError(f"{where}: with class_names, labels must be whole numbers from 0 to {len(names) - 1}")
            labels = names[labels]
    splits = None if given["split"] is None else _splits(given["split"], where)
    if splits is not None and len(splits) != len(features) and (features.shape[0] == len(which)):
        if names is None or len(splits) != len(names):
            raise ValueError(
                f"{where}: {len(features)} rows of features but {len(splits)} entries of split: give one for each row, "
                "or one for each class of class_names"
            )
        splits = splits[which]
    return group(features, labels, where, splits=splits, keys=keys)


def _by_class(entries: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Vectors ``[images, d]`` of each class, where a file holds nothing but these; else nothing."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in entries.items():
        try:
            vectors = np.asarray(value)
            vectors = np.stack(list(vectors)) if vectors.dtype == object and vectors.ndim == 1 else vectors
        except ValueError:  # of unequal lengths
            return {}
        if _known(name) or vectors.dtype.kind != "f" or vectors.ndim != 2 or not vectors.size:
            return {}
        found[name] = vectors
    return found if len({vectors.shape[1] for vectors in found.values()}) == 1 else {}


def _classes(by_class: Mapping[str, NDArray[Any]], where: str) -> Parts:
    """Class → vectors."""
    labels = np.repeat(np.array(list(by_class), np.str_), [len(vectors) for vectors in by_class.values()])
    return group(_features(np.concatenate(list(by_class.values())), where), labels, where)


def _features(features: Any, where: str) -> Tensor:
    if not isinstance(features, Tensor) and features.dtype == object and features.ndim == 1:
        with contextlib.suppress(ValueError, TypeError):  # vectors one by one
            features = np.stack([np.asarray(row) for row in features])
    kind = features.dtype
    if not isinstance(features, Tensor) and (kind.kind != "f" or kind.itemsize > 8):
        raise ValueError(f"{where}: features must be floating-point numbers of 16, 32 or 64 bits, they are {kind}")
    tensor = as_tensor(features)
    if tensor.ndim not in (2, 3) or not tensor.numel():
        shape = list(tensor.shape)
        raise ValueError(
            f"{where}: features must be [rows, d] or [classes, images, d], none of them 0, they are {shape}"
        )
    return tensor


def _splits(values: Any, where: str) -> NDArray[np.character]:
    """Names of splits, from names or from 0, 1, 2."""
    values = plain_labels(values, where, "split")
    if values.dtype.kind in "iu" and values.ndim == 1 and (not values.size or 0 <= values.min() <= values.max() <= 2):
        named: NDArray[np.character] = np.array(SPLITS)[values]
        return named
    if values.dtype.kind in "US" and values.ndim == 1:
        texts = _text(values, "split", where)
        if np.isin(texts, SPLITS).all():
            return texts
    raise ValueError(
        f"{where}: split must hold 0 (train), 1 (val) and 2 (test), or these names; it holds "
        f"{np.unique(values)[:5].tolist()}"
    )


def _text(values: Any, what: str, where: str) -> NDArray[np.character]:
    try:
        array: NDArray[Any] = np.asarray(values)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
    except ValueError as error:
        raise ValueError(f"{where}: {what} must be text ({error})") from error
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"{where}: {what} must be a list of text, it is {array.dtype} {list(array.shape)}")
    return array


def _pickled(content: Any, where: str) -> Parts:
    """DeepMind's record: "embeddings" and "keys", from which the classes come."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds a {type(content).__name__}, expected a dict with 'embeddings' and 'keys'")
    entries = _named(content)
    if not isinstance(entries.get("embeddings"), np.ndarray):
        if isinstance(_array_of(entries, "features"), np.ndarray):
            return _arrays(entries, where)
        if by_class := _by_class(entries):
            return _classes(by_class, where)
        if images := [n for n, value in entries.items() if isinstance(value, np.ndarray) and value.ndim == 4]:
            raise ValueError(
                f"{where} holds images ({images[0]} {list(entries[images[0]].shape)}) and no features: give it to "
                "`fewstep pretrain mini-imagenet --path` if it is miniImageNet's, and `fewstep embed` makes features"
            )
        raise ValueError(
            f"{where} must hold an array 'embeddings', it holds {_shown(entries)}. Read are DeepMind's "
            "'embeddings' and 'keys', 'features' and 'labels', or vectors [images, d] of each class by its name"
        )
    features = _features(entries["embeddings"], where)
    if features.ndim != 2:
        raise ValueError(f"{where}: embeddings must be [rows, d], they are {list(features.shape)}")
    if "keys" not in entries:
        if "labels" not in entries:
            raise ValueError(f"{where} must hold 'keys' or 'labels', one for each row; it holds {_shown(entries)}")
        return _arrays(entries, where)
    keys = _text(plain_labels(entries["keys"], where, "keys"), "keys", where)
    return group(features, [class_of(key, where) for key in keys.tolist()], where, keys=keys)


def _named(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a dict under text; numbers are names of classes."""
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _shown(entries: Mapping[str, Any]) -> str:
    """The first few names."""
    names = sorted(entries)
    return f"{names[:8]}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def class_of(key: str, where: str) -> str:
    """The class in a key of DeepMind's, "<anything>-<class>-<class>_<image>".

    Raises:
        ValueError: if the key is of another form.
    """
    if (found := _class_in(key)) is None:
        raise ValueError(f"{where}: keys must be '<anything>-<class>-<class>_<image>', one is {key!r:.80}")
    return found


def _class_in(key: str) -> str | None:
    parts = key.split("-")
    return unquote(parts[1]) if len(parts) == 3 and parts[1] == parts[2].split("_")[0] else None


def keys_of(part: Part) -> list[str]:
    """Keys of DeepMind's form for the positions of a part: its own where they are, else made ones."""
    labels = part.labels.tolist()
    keys = [""] * len(labels) if part.ordered_keys is None else part.ordered_keys.tolist()
    for i, label in enumerate(labels):
        if _class_in(keys[i]) != label:
            code = label.replace("%", "%25").replace("-", "%2D").replace("_", "%5F")
            keys[i] = f"{i}-{code}-{code}_{i}"
    return keys
