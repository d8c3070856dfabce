"""The embeddings that LEO's authors published: fetched or found, laid out and checked."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath

from fewstep.data.features.datasets import embeddings
from fewstep.data.features.store import SPLITS
from fewstep.data.images.class_splits import Split
from fewstep.data.storage.cache import Report, cache_folder, kept_in
from fewstep.data.storage.download import fetch
from fewstep.data.storage.files import replacing

URL = "http://storage.googleapis.com/leo-embeddings/embeddings.zip"
SETS = ("miniImageNet/center", "miniImageNet/multiview", "tieredImageNet/center")

CLASSES: dict[str, dict[Split, int]] = {
    "miniImageNet": {"train": 64, "val": 16, "test": 20},
    "tieredImageNet": {"train": 351, "val": 97, "test": 160},
}
PER_CLASS = 600
"""Rows of each class; of tieredImageNet, at least."""
DIMENSIONS = 640

_ARCHIVE = "embeddings.zip"


def leo_embeddings(
    out: str | Path | None = None,
    *,
    path: str | Path | None = None,
    report: Report | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Path]:
    """DeepMind's embeddings of miniImageNet and tieredImageNet (Rusu et al. 2019), as files.

    They are laid out as they are published, ``OUT/embeddings/miniImageNet/center/train_embeddings.pkl`` and so on, and
    every set is read, which leaves a memory-mapped copy in the cache folder. A fetch that stops goes on at the next
    call; the archive is removed when everything in it has been found right.

    Args:
        out: folder to lay them out in; ``leo-embeddings`` in the cache folder when omitted.
        path: a copy of one's own instead of a download: the archive, which is laid out in ``out``, or a folder that
            holds sets already, which are checked where they are. It need not have all sets.
        report: receives sentences on the progress.
        progress: is told the bytes that are here, and how many there are in all, where the server says so.

    Returns:
        The folder of each set, for :func:`embeddings`.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        ConnectionError: if the archive cannot be fetched; the message says what to fetch and where to put it.
        ValueError: if a file is damaged, or its classes, rows or dimensions are not those that were published.
        OSError: if a folder cannot be written.
    """
    report = report or (lambda text: None)
    root = Path(out) if out is not None else cache_folder() / "leo-embeddings"
    archive = root / _ARCHIVE if path is None else Path(path)
    fetched = False
    if path is not None and archive.is_dir():
        if not (found := _sets(archive)):
            raise ValueError(
                f"{path} holds none of {', '.join(SETS)}: give {_ARCHIVE}, or the folder it was unpacked to"
            )
    elif path is None and len(found := _sets(root)) == len(SETS):
        report(f"{root} holds them already")
    else:
        if fetched := path is None:
            with kept_in(root, "the embeddings") if out is None else nullcontext():
                _download(archive, report, progress)
        elif not archive.is_file():
            raise FileNotFoundError(f"there is no file or folder {path}")
        _lay_out(archive, root, report)
        found = _sets(root)
        missing = [name for name in SETS if name not in found]
        if not found or (missing and fetched):
            raise ValueError(f"{archive} lacks {', '.join(missing)}: remove it, and fetch {URL}")
    folders = [_check(folder, name, report) for name, folder in found.items()]
    if fetched:
        archive.unlink()
    return folders


def _download(archive: Path, report: Report, progress: Callable[[int, int | None], None] | None) -> None:
    if not archive.is_file():
        report(f"fetching {URL} into {archive.parent}")
    try:
        fetch(URL, archive, progress)
    except ConnectionError as error:
        raise ConnectionError(
            f"cannot fetch the LEO embeddings ({error}). The same command goes on from there. Or fetch {URL} "
            f"elsewhere, and put it at {archive} or give its place by --path"
        ) from error


def _sets(root: Path) -> dict[str, Path]:
    """The published sets that lie whole under a folder."""
    return {
        name: folder  # the second of the two if both are there
        for name in SETS
        for folder in (root / name, root / "embeddings" / name)
        if all((folder / f"{split}_embeddings.pkl").is_file() for split in SPLITS)
    }


def _lay_out(archive: Path, root: Path, report: Report) -> None:
    """Unpack the files that are wanted, each whole or not at all, to places that do not depend on the archive."""
    wanted = {f"{name}/{split}_embeddings.pkl" for name in SETS for split in SPLITS}
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                place = "/".join(PurePosixPath(member.filename).parts[-3:])
                if place not in wanted:
                    continue
                report(f"unpacking {place}")
                with opened.open(member) as file, replacing(root / "embeddings" / place) as into:
                    shutil.copyfileobj(file, into, 2**20)
    # zipfile says RuntimeError of an encrypted file, and its subclass for a compression that it lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{archive} is damaged, truncated or not {_ARCHIVE} ({error}): remove it, and fetch {URL} again"
        ) from error


def _check(folder: Path, name: str, report: Report) -> Path:
    """The folder, when what it holds is what was published."""
    dataset, *_ = name.split("/")
    for split, classes in CLASSES[dataset].items():
        found = embeddings(folder, split, report=report)
        sizes, shape = found.sizes, found.feature_shape
        right = sizes.min() == sizes.max() == PER_CLASS if dataset == "miniImageNet" else sizes.min() >= PER_CLASS
        if found.classes != classes or shape != (DIMENSIONS,) or not right:
            least = "" if dataset == "miniImageNet" else "at least "
            raise ValueError(
                f"{folder / f'{split}_embeddings.pkl'} is not what was published: expected {classes} "
                f"classes of {least}{PER_CLASS} rows of {DIMENSIONS} dimensions, it holds {found.classes} of "
                f"{sizes.min()} to {sizes.max()} rows of {shape[0]}. Remove it, and fetch {URL}"
            )
    report(f"{name}: {', '.join(f'{n} {split}' for split, n in CLASSES[dataset].items())} classes, as published")
    return folder
