"""Stored feature vectors: LEO's published embeddings, and one's own."""

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fewstep.data.dataset import Dataset
from fewstep.data.features.formats import Source, parts_of, source_of
from fewstep.data.features.keys import keys_of
from fewstep.data.features.normalise import l2_normalise
from fewstep.data.features.readers import files_beside
from fewstep.data.features.report import remarks
from fewstep.data.features.store import (
    NUMBERED_APART,
    Part,
    Parts,
    are_numbered_apart,
    as_dataset,
    divided,
    join,
    keys_in,
    read_safetensors,
    shared_classes,
    write_rows,
    write_store,
)
from fewstep.data.images.class_splits import PARTS
from fewstep.data.storage.cache import Report, cache_folder, kept_in, npy
from fewstep.data.storage.files import folder_beside, replacing, write_atomically
from fewstep.data.storage.lock import one_at_a_time
from fewstep.data.storage.pickling import pickled_arrays

_READER = 2  # raise it when a file is read in another way: what was converted before is then converted again

_log = logging.getLogger(__name__)


def embeddings(
    path: str | Path,
    split: Literal["train", "val", "trainval", "test", "all"],
    *,
    normalise: bool = True,
    divide: tuple[int, int, int] | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """Feature vectors ``[n, d]`` with their classes, from a file of any of these formats.

    - DeepMind's published embeddings: a folder with ``{train,val,test}_embeddings.pkl``, or its place in their zip
      archive (``embeddings.zip/miniImageNet/center``). The class comes from the key, as in the authors' loader.
    - ``.npz``, ``.safetensors``, ``.h5`` or ``.hdf5`` (which needs ``h5py``), ``.mat`` or a pickle (``.pkl``,
      ``.pickle``, ``.plk``) with ``features`` ``[n, d]`` and ``labels`` ``[n]``, names or numbers; or with ``features``
      ``[classes, images, d]``. Either may have ``class_names``, ``keys`` ``[n]`` and ``split``, for each row or each
      class: 0, 1, 2 or train, val, test. ``x`` and ``y``, ``X`` and ``Y``, ``all_feats`` and ``all_labels`` are other
      names for features and labels. MATLAB's features may have a column for each example.
    - ``NAME.npy`` with the same beside it, as ``NAME_labels.npy`` and so on.
    - ``.csv``, ``.tsv`` or ``.parquet`` (which needs ``pyarrow``) with a line of names and a row for each example:
      ``label``, where there are such ``split`` and ``id``, and every other column is a feature. Parquet may have a
      column of vectors.
    - A pickle or HDF5 file of vectors ``[images, d]`` of each class, by its name.
    - A folder with one such file for each split: ``train.npz``, ``val.npz``, ``test.npz``; "base" may be said for
      train and "novel" for test. Where each numbers its classes anew, from 0 or 1, they are named "train 00", "val 00"
      and so on, and ``report`` is told.
    - The library's own ``.safetensors``, made by ``fewstep data convert``.

    The last, ``.npy`` and ``.safetensors`` are memory-mapped; others, and splits in several files that are wanted as
    one, are converted once into the cache folder and mapped there. Rows keep their dtype until they are gathered.
    Whatever the format, classes come in the order of their names, or of their numbers where all are whole numbers, and
    rows of a class in the file's: so the same seed draws the same tasks. Of "trainval", train's come first.

    The library's own files are known to be finite; any other is read through for that.

    Args:
        path: the file or folder.
        split: "trainval" is train and val together, "all" every class that there is.
        normalise: scale rows to unit length when they are gathered, as LEO's loader does.
        divide: numbers of classes for train, val and test, drawn at random from a file that does not say which class is
            for what; ``report`` is told.
        seed: of that draw.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives a sentence when a file is converted, divided, or numbers the classes of each split anew; it is
            logged when omitted. Of train and trainval, it is told what ``fewstep data inspect`` warns of: copies, rows
            of zeros, classes of one example; for that all splits are read, once.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if a file is damaged, asks for code to be run, or is of another structure; if features are not
            finite, splits share classes or differ in their dimensions, or there is no such split.
        OSError: if the cache folder cannot be written.

    Source: Rusu et al. 2019, code at google-deepmind/leo, ``data.py``, for their archive.
    """
    if split not in (*PARTS, "all"):
        raise ValueError(f"split must be one of {', '.join(PARTS)} or all, not {split!r}")
    source = given = source_of(Path(path))
    asked, report = report is not None, report or _log.info
    part = None
    if source.mapped:
        parts = _divided(_checked_parts(source, path), divide, seed, path, report)
        part = join(_chosen(parts, split, path))
    if part is None:
        source = source_of(_cached(given, cache_folder(cache), report))
        parts = _divided(parts_of(source), divide, seed, path, report)
        part = join(_chosen(parts, split, path))
    if len(given.read) > 1 and are_numbered_apart(parts):
        report(f"{path}: {NUMBERED_APART}")
    assert part is not None  # one file
    if asked and split in ("train", "trainval"):
        for remark in remarks(given, cache):
            report(f"warning: {path}: {remark}")
    own = source.path.is_file() and source.path.suffix == ".safetensors" and bool(read_safetensors(source.path)[1])
    if not own:
        for _ in part.finite_blocks(f"{path} {split}"):
            pass
    dataset = as_dataset(part, name=given.name, split="" if split == "all" else split)
    return dataset.transformed(l2_normalise) if normalise else dataset


def convert(
    source: str | Path,
    target: str | Path,
    *,
    divide: tuple[int, int, int] | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Path:
    """Turn features of one format into another, bit for bit.

    Rows are sorted as :func:`embeddings` does; classes, splits and keys are kept. DeepMind's pickles need keys of their
    form, and get them.

    Args:
        source: as in :func:`embeddings`.
        target: ``.safetensors`` for the library's own format, ``.npz``, or ``.npy`` with its labels beside it, all of
            which hold all splits; ``.pkl`` for one split alone; without a suffix, a folder of DeepMind's pickles.
        divide: as in :func:`embeddings`; the target then has splits.
        seed: as in :func:`embeddings`.
        report: as in :func:`embeddings`.

    Returns:
        The target.

    Raises:
        FileNotFoundError: if the source is not there.
        FileExistsError: if the target is.
        ValueError: as :func:`embeddings`; or if the target's format cannot hold what there is.
        OSError: if the target cannot be written.
    """
    target = Path(target)
    write = writer_for(target)
    given, report = source_of(Path(source)), report or _log.info
    parts = _divided(_checked_parts(given, source), divide, seed, source, report)
    if len(given.read) > 1 and are_numbered_apart(parts):
        report(f"{source}: {NUMBERED_APART}")
    dtype = next(iter(parts.values())).store.dtype
    if dtype == torch.bfloat16 and target.suffix != ".safetensors":
        raise ValueError(
            f"{source} holds bfloat16, which NumPy's formats and pickles have no name for: convert it to .safetensors"
        )
    write(target, parts, str(source))
    return target


def writer_for(target: Path) -> Callable[[Path, Parts, str], None]:
    """What writes parts to a target of this name: ``write(target, parts, where)``, whole or not at all.

    Raises:
        ValueError: for a suffix of no format that is written.
        FileExistsError: if the target is there.
    """
    if (write := _WRITERS.get(target.suffix)) is None:
        raise ValueError(f"{target}: a target ends in one of {', '.join(filter(None, _WRITERS))}, or in no suffix")
    if target.exists():
        raise FileExistsError(f"{target} exists: remove it, or choose another target")
    return write


def _chosen(parts: Parts, split: str, path: str | Path) -> list[Part]:
    if split == "all":
        return list(parts.values())
    if "" in parts:
        raise ValueError(
            f"{path} does not say which of its classes are for {split}: ask for 'all', add an array split, give a "
            "folder with files train, val and test, or have its "
            f"{len(parts[''].names)} classes divided at random: fewstep data convert {path} NEW --divide TRAIN VAL TEST"
        )
    if missing := [name for name in PARTS[split] if name not in parts]:
        raise ValueError(f"{path} has no classes for {missing[0]}, it has {', '.join(parts)}")
    return [parts[name] for name in PARTS[split]]


def _divided(parts: Parts, divide: tuple[int, int, int] | None, seed: int, path: str | Path, report: Report) -> Parts:
    """The parts, or those of a division at random that was asked for, which is then told."""
    if divide is None:
        return parts
    found = divided(parts, divide, seed, str(path))
    counts = ", ".join(f"{len(part.names)} for {split}" for split, part in found.items())
    report(f"{path}: its {sum(divide)} classes are divided at random (seed {seed}): {counts}")
    return found


def _checked_parts(source: Source, path: str | Path) -> Parts:
    """What a source holds, whose splits have no classes in common."""
    parts = parts_of(source)
    if shared := shared_classes(parts):
        raise ValueError(
            f"{path}: {shared[0]}: classes of a test must not be trained on; split by class, or if they are different "
            "classes, give them different names"
        )
    return parts


def _cached(source: Source, folder: Path, report: Report) -> Path:
    """The library's own file of a source, made where it is not there or the source has changed."""
    path = source.path.resolve()
    made_of = [_READER, *source.state]
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    store = folder / f"embeddings-{digest}.safetensors"
    if _made_of(store) == made_of:  # in a cache that can only be read, too
        return store
    with kept_in(folder, f"the features of {source.path}"):
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(store.with_suffix(".lock"), report):
            if _made_of(store) != made_of:
                report(f"converting {source.path}, once, to {store}")
                write_store(store, _checked_parts(source, source.path), str(source.path), made_of)
    return store


def _made_of(store: Path) -> Any:
    try:
        return (read_safetensors(store)[1] or {}).get("made_of") if store.is_file() else None
    except ValueError:
        return None


def _write_npz(target: Path, parts: Parts, where: str) -> None:
    with replacing(target) as whole, zipfile.ZipFile(whole, "w") as archive:
        with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as file:
            _write_features(file, parts, where)
        for name, values in _columns(parts).items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _write_npy(target: Path, parts: Parts, where: str) -> None:
    columns = {target.with_name(f"{target.stem}_{name}.npy"): npy(values) for name, values in _columns(parts).items()}
    # What would be read with the target is in its way, but not what a process has left that was killed before the end.
    if there := [path for path in files_beside(target)[1:] if path.read_bytes() != columns.get(path)]:
        raise FileExistsError(f"{there[0]} exists: remove it, or choose another target")
    for path, content in columns.items():
        write_atomically(path, content)
    with replacing(target) as file:
        _write_features(file, parts, where)


def _write_features(file: Any, parts: Parts, where: str) -> None:
    """Write all rows in NumPy's format."""
    store = next(iter(parts.values())).store
    shape = (sum(len(part.order) for part in parts.values()), store.shape[1])
    header = {"descr": f"<f{store.element_size()}", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    write_rows(file, parts, where)


def _columns(parts: Parts) -> dict[str, NDArray[np.character]]:
    """What there is to a row besides its features."""
    columns = {"labels": np.concatenate([part.labels for part in parts.values()])}
    if "" not in parts:
        columns["split"] = np.repeat(list(parts), [len(part.order) for part in parts.values()])
    if (keys := keys_in(parts)) is not None:
        columns["keys"] = keys
    return columns


def _write_pickle(target: Path, parts: Parts, where: str) -> None:
    if len(parts) > 1:
        raise ValueError(f"{target} can hold one split, there are {', '.join(parts)}: give a target without a suffix")
    (part,) = parts.values()
    rows = torch.cat(list(part.finite_blocks(where))).numpy()
    record = {"embeddings": rows, "keys": np.array(keys_of(part)), "labels": part.labels}
    write_atomically(target, pickled_arrays(record))


def _write_folder(target: Path, parts: Parts, where: str) -> None:
    if "" in parts:
        raise ValueError(f"{where} does not say which of its classes are for what: give a target that ends in .pkl")
    with folder_beside(target) as folder:
        for split, part in parts.items():
            _write_pickle(folder / f"{split}_embeddings.pkl", {split: part}, f"{where} {split}")
        folder.rename(target)


_WRITERS: dict[str, Callable[[Path, Parts, str], None]] = {
    ".safetensors": write_store,
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".pkl": _write_pickle,
    "": _write_folder,
}
