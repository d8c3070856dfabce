"""The arrays of a file by their names, whatever its format."""

import functools
import math
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.data.features.frames import TABLES, read_table
from fewstep.data.features.named_arrays import NAMES, array_of, known
from fewstep.data.features.store import FEATURES, plain_labels
from fewstep.data.storage.matlab import OfVersion73, read_mat
from fewstep.data.storage.reading import reading
from fewstep.data.storage.unpickling import unpickle

HDF5 = (".h5", ".hdf5")


def entries_of(path: Path) -> dict[str, Any]:
    """The arrays of a file by name, None where a name is none that is known."""
    read = {".npz": _npz, ".npy": _npy, ".mat": _mat} | dict.fromkeys(HDF5, _hdf5) | dict.fromkeys(TABLES, read_table)
    what = "is no table" if path.suffix in TABLES else "holds no plain arrays"
    with reading(path, what, "make it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, and of damaged ones
        try:
            return read[path.suffix](path)
        except ImportError as error:
            raise ValueError(str(error)) from error
        except ValueError as error:
            if path.suffix in TABLES:  # whose lines and cells are told
                raise ValueError(f"{path}: {error}") from error
            raise


def files_beside(path: Path) -> tuple[Path, ...]:
    """A file, and those that belong to it."""
    if path.suffix != ".npy":
        return (path,)
    plain = path.stem.lower() in FEATURES
    places = (
        [path.with_name(f"{path.stem}_{name}.npy"), *([path.with_name(f"{name}.npy")] if plain else [])]
        for what, names in NAMES.items()
        if what != "features"
        for known in names
        for name in (known, known.upper(), known.capitalize())
    )
    found: dict[str, Path] = {}  # by name without capitals, which some file systems do not tell apart
    for some in places:
        if there := [file for file in some if file.is_file()]:
            found.setdefault(there[0].name.lower(), there[0])
    return (path, *found.values())


def _npz(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    with zipfile.ZipFile(path) as archive:
        _check_members(path, archive)
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        entries: dict[str, Any] = dict.fromkeys(names)
        for name in filter(known, names):
            size = archive.getinfo(f"{name}.npy").file_size
            entries[name] = _array(functools.partial(archive.open, f"{name}.npy"), size)
    return entries


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Look whether an archive's directory is whole: that its members are, is known when they are read to their ends."""
    for member in archive.infolist():
        archive.open(member).close()  # whose name stands before it too
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))
        end = file.read()
    (count,) = struct.unpack_from("<H", end, end.rfind(b"PK\5\6") + 10)
    if count not in (len(archive.infolist()), 2**16 - 1):
        raise ValueError(f"it says that it has {count} members, and has {len(archive.infolist())}")


def _array(opened: Callable[[], Any], size: int) -> NDArray[Any]:
    """An array in NumPy's format, which a file of so many bytes holds and nothing else.

    Objects are read where they are plain. The file is read to its end, where an archive checks what it has given.
    """
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with opened() as file:
        if (read_header := headers.get(np.lib.format.read_magic(file))) is not None:
            shape, _, dtype = read_header(file)
            if dtype == np.dtype(object):
                return np.asarray(unpickle(file.read()))
            if math.prod(shape) * dtype.itemsize > size:  # before memory is taken for it
                raise ValueError(f"its header tells of {shape} numbers of {dtype}, in {size} bytes")
    with opened() as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError("it goes on after its array")
        return array


def _npy(path: Path) -> dict[str, Any]:
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(features, np.memmap) and features.offset + features.nbytes != path.stat().st_size:
        raise ValueError("it goes on after its array")
    entries: dict[str, Any] = {"features": features}
    for beside in files_beside(path)[1:]:
        name = beside.stem.removeprefix(f"{path.stem}_").lower()
        with reading(beside, "holds no plain array", "make it again"):
            entries[name] = _array(functools.partial(beside.open, "rb"), beside.stat().st_size)
    return entries


def _hdf5(path: Path) -> dict[str, Any]:
    """The arrays at the top of an HDF5 file; of "all_feats" as many as "count" says are filled."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            arrays = {str(name): item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            wanted = [name for name in arrays if known(name)]
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
        entries = dict(read_mat(path, known))
    except OfVersion73:  # HDF5, where axes come in another order
        entries = {n: v.T if isinstance(v, np.ndarray) else v for n, v in _hdf5(path).items() if not n.startswith("#")}
    labels = array_of(entries, "labels")
    for name, value in entries.items():
        if not isinstance(value, np.ndarray):
            entries[name] = None
        elif name.lower() in FEATURES:
            by_column = labels is not None and value.ndim == 2 and value.shape[0] != labels.size == value.shape[1]
            entries[name] = value.T if by_column else value
        else:
            entries[name] = plain_labels(value.reshape(-1))
    return entries
