"""CIFAR-FS and FC100: the 100 classes of CIFAR-100 (Krizhevsky 2009), 600 images each, split in two ways."""

import hashlib
import logging
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fewstep.data.dataset import Dataset
from fewstep.data.images.class_folders import class_files, folder_source
from fewstep.data.images.class_splits import Split, all_classes, class_split
from fewstep.data.images.copies import Copies, settle_copies
from fewstep.data.images.store import ImageSource, copied_images, image_store
from fewstep.data.storage.cache import Report, cache_folder, kept_in
from fewstep.data.storage.download import fetch
from fewstep.data.storage.reading import reading
from fewstep.data.storage.unpickling import unpickle

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
"""By which the download is verified."""
PARTS = {"train": 500, "test": 100}
"""Images of a class in the archive's two files."""

_ARCHIVE = "cifar-100-python.tar.gz"
_FOLDER = "cifar-100-python"
_FILES = ("meta", "train", "test")
_SIDE = 32
_RECIPE = 1  # raise it when the order of the images changes: it decides the store's name
_LARGEST = 2**29  # bytes of a file that is read from an archive; the real ones are smaller by a factor of three

_log = logging.getLogger(__name__)


def cifar_fs(
    split: Split,
    *,
    path: str | Path | None = None,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """CIFAR-FS (Bertinetto et al. 2019): 64 / 16 / 20 classes of CIFAR-100, 600 images each.

    Rows are uint8 ``[n, 3, 32, 32]``, RGB. Of a class, first come its 500 images of CIFAR's train part in the order of
    the archive, then its 100 of the test part. 26 of CIFAR's images are exact copies of
    others, 15 of them of images in another split (docs/features.md has a table).

    The first load fetches the official archive (169 MB), verifies it, and keeps it and the sorted images (184 MB) in
    the cache folder.

    Args:
        split: part of the classes; "trainval" is train and val together.
        path: files of one's own instead of a download: the archive ``cifar-100-python.tar.gz``, the folder
            ``cifar-100-python`` or the one that holds it, or a folder with a folder of 600 images for each class, named
            as CIFAR names it ("dolphin"), as CIFAR-FS is published. The images of such a folder come in the order of
            their file names.
        copies: "drop" leaves images out that are the same as others, bit for bit; of each group, one of the test
            classes is kept before one of validation before one of training. ``report`` is told of them either way.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives sentences on the progress of the first load; they are logged when omitted.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        ConnectionError: if the archive cannot be fetched; the message says what to fetch and where to put it.
        ValueError: if the split is unknown, or the files are damaged or not those of CIFAR-100.
        OSError: if the cache folder cannot be written.
    """
    return _load("CIFAR-FS", split, path, copies, cache, report)


def fc100(
    split: Split,
    *,
    path: str | Path | None = None,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """FC100 (Oreshkin et al. 2018): 60 / 20 / 20 classes of CIFAR-100, 12 / 4 / 4 whole superclasses.

    The same images from the same files as :func:`cifar_fs`, so that one download and one store serve both.

    Args:
        split: as in :func:`cifar_fs`.
        path: as in :func:`cifar_fs`.
        copies: as in :func:`cifar_fs`.
        cache: as in :func:`cifar_fs`.
        report: as in :func:`cifar_fs`.

    Raises:
        FileNotFoundError: as :func:`cifar_fs`, and so are the others.
        ConnectionError: if the archive cannot be fetched.
        ValueError: if the split is unknown, or the files are damaged or not those of CIFAR-100.
        OSError: if the cache folder cannot be written.
    """
    return _load("FC100", split, path, copies, cache, report)


def _load(
    name: str, split: str, path: str | Path | None, copies: Copies, cache: str | Path | None, report: Report | None
) -> Dataset:
    chosen = class_split(name, split)
    if path is None:  # where the store is there, the archive need not be
        source = _source(MD5, lambda: _archived(_download(cache_folder(cache), report or _log.info)))
    else:
        source = _local(Path(path))
    dataset = image_store(source, cache=cache, report=report)
    groups = copied_images(source, cache=cache)
    splits = {part: class_split(name, part) for part in ("train", "val", "test")}
    dataset = settle_copies(dataset, groups, splits, split, copies, report or _log.info, name)
    return replace(dataset.subset(chosen, split=split), name=name)


def _local(path: Path) -> ImageSource:
    """Files of one's own."""
    if (other := next(iter(_of_repositories(path)), None)) is not None:
        raise ValueError(
            f"{other} holds classes of CIFAR-100 as MetaOptNet's authors share them, by numbers that are not CIFAR's: "
            f"leave the path out, and {_ARCHIVE} is fetched, or give that archive"
        )
    if path.is_file():
        return _source(_md5(path), lambda: _archived(path))
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or folder {path}")
    folder = path if all((path / name).is_file() for name in _FILES) else path / _FOLDER
    if all((folder / name).is_file() for name in _FILES):
        digest = " ".join(_md5(folder / name) for name in _FILES)
        return _source(digest, lambda: {name: unpickle(folder / name) for name in _FILES})
    if (path / _ARCHIVE).is_file():
        return _local(path / _ARCHIVE)
    try:
        classes = class_files(path, all_classes("CIFAR-FS"))
    except ValueError as error:
        raise ValueError(
            f"{path} holds neither {_ARCHIVE}, nor {_FOLDER} with the files meta, train and test, nor a folder of "
            f"images for each class: {error}"
        ) from error
    for name, of_class in classes.items():
        if len(of_class) != (expected := sum(PARTS.values())):
            raise ValueError(f"{of_class[0].parent}: class {name} has {len(of_class)} images, expected {expected}")
    return folder_source("CIFAR-100", path, classes, _SIDE)


def _of_repositories(path: Path) -> list[Path]:
    """Files of CIFAR-FS or FC100 of a layout that is not read."""
    files = [path] if path.is_file() else list(path.glob("*.pickle")) if path.is_dir() else []
    return sorted(file for file in files if re.fullmatch(r"(CIFAR_FS|FC100)_(train|val|test)\.pickle", file.name))


def _source(md5: str, files: Callable[[], dict[str, Any]]) -> ImageSource:
    """The images of CIFAR's own three files, which are read when the store is made."""
    names = all_classes("CIFAR-FS")
    return ImageSource(
        name="CIFAR-100",
        class_names=names,
        counts=(sum(PARTS.values()),) * len(names),
        shape=(3, _SIDE, _SIDE),
        made_of={"recipe": _RECIPE, "source": f"md5 {md5}"},
        open=lambda: _sorted_images(files()),
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(folder: Path, report: Report) -> Path:
    """The official archive in the cache folder, fetched where it is not there, and verified."""
    target = folder / _ARCHIVE
    if target.is_file() and _md5(target) != MD5:
        target.unlink()
    if not target.is_file():
        report(f"fetching {URL} into {folder}")
    tenths = 0

    def progress(here: int, total: int | None) -> None:
        nonlocal tenths
        if total and here * 10 // total > tenths:
            tenths = here * 10 // total
            report(f"{_ARCHIVE}: {here / 1e6:.0f} of {total / 1e6:.0f} MB")

    try:
        with kept_in(folder, f"CIFAR-100's {_ARCHIVE}", "0.2 GB left"):
            fetch(URL, target, progress)
        if (md5 := _md5(target)) != MD5:
            target.unlink()
            raise ConnectionError(f"its md5 hash {md5} does not match")
    except ConnectionError as error:
        raise ConnectionError(
            f"cannot fetch CIFAR-100 ({error}). Fetch {URL} (md5 {MD5}) elsewhere and put it at {target}, or give its "
            "place as path="
        ) from error
    return target


def _archived(path: Path) -> dict[str, Any]:
    """The three pickles of the archive, read where they are: nothing is extracted."""
    read: dict[str, Any] = {}
    with reading(path, f"is not {_ARCHIVE}", f"fetch {URL} again"), tarfile.open(path, "r:*") as archive:
        for member in archive:
            folder, _, name = member.name.removeprefix("./").partition("/")
            if folder != _FOLDER or name not in _FILES or not member.isreg():
                continue
            if member.size > _LARGEST:
                raise ValueError(f"{member.name} has {member.size} bytes, more than any file of CIFAR-100")
            file = archive.extractfile(member)
            assert file is not None  # it is a regular file
            read[name] = unpickle(file.read())
    if missing := [name for name in _FILES if name not in read]:
        raise ValueError(f"{path} holds no regular file {_FOLDER}/{missing[0]}: fetch {URL}")
    return read


def _sorted_images(files: dict[str, Any]) -> Callable[[int], UInt8[np.ndarray, "3 32 32"]]:
    """Image i in the order of the classes."""
    names = all_classes("CIFAR-FS")
    listed = _entry(files, "meta", "fine_label_names", list)
    if [name.decode("latin1") if isinstance(name, bytes) else name for name in listed] != list(names):
        raise ValueError(f"CIFAR-100's meta file must list its 100 classes, it lists {len(listed)}: {listed[:3]} ...")
    data = {part: _entry(files, part, "data", np.ndarray) for part in PARTS}
    orders: dict[str, list[list[int]]] = {}
    for part, count in PARTS.items():
        fine = np.asarray(_entry(files, part, "fine_labels", list))
        if data[part].dtype != np.uint8 or data[part].shape != (len(names) * count, 3 * _SIDE**2):
            raise ValueError(
                f"CIFAR-100's {part} file must hold data uint8 [{len(names) * count}, {3 * _SIDE**2}], "
                f"it holds {data[part].dtype} {list(data[part].shape)}"
            )
        labels = np.repeat(np.arange(len(names)), count)
        if fine.shape != labels.shape or not np.array_equal(np.sort(fine), labels):
            raise ValueError(f"CIFAR-100's {part} file must hold {count} images of each of its 100 classes")
        orders[part] = np.argsort(fine, kind="stable").reshape(len(names), count).tolist()
    rows = [data[part][row] for c in range(len(names)) for part in PARTS for row in orders[part][c]]
    return lambda i: rows[i].reshape(3, _SIDE, _SIDE)


def _entry(files: dict[str, Any], file: str, key: str, kind: type) -> Any:
    content = files[file]
    entry = content.get(key.encode(), content.get(key)) if isinstance(content, dict) else None
    if not isinstance(entry, kind):
        raise ValueError(
            f"CIFAR-100's {file} file must be a dict with {key!r}, a {kind.__name__}; it is something else"
        )
    return entry
