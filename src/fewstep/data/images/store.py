"""Decoded images in one memory-mapped file, made once.

A store is a folder ``<name>-<hash>`` of the cache: ``images.npy``, uint8 ``[n, channels, height, width]`` in the order
of the classes, and ``index.json``, which says what it holds and what it was made of. The hash is of the latter, so
what is found under a name is what would be made. Where damaged images are skipped, which is known only when all have
been decoded, they are rows of zeros, and ``skipped.json`` says which they are and why: the name need not know.
``copies.json`` lists the images that are the same.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fewstep.data.dataset import Dataset
from fewstep.data.images.copies import Groups, same_rows
from fewstep.data.images.files import DamagedImage
from fewstep.data.storage.cache import Report, cache_folder, kept_in
from fewstep.data.storage.files import folder_beside, write_atomically
from fewstep.data.storage.lock import one_at_a_time

_FORMAT = 1  # of the store itself
_SKIPPED = "skipped.json"
_COPIES = "copies.json"
_TOGETHER = 512  # images that are decoded before they are written
_SECONDS = 10.0  # between two reports

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSource:
    """Images that a store can be made of.

    Attributes:
        name: for messages, and the beginning of the store's name.
        class_names: one distinct name per class.
        counts: number of images of each class.
        shape: of an image, (channels, height, width).
        made_of: everything that decides the store's content besides these, for JSON: a hash of the files, the recipe's
            number, and the release of Pillow where images are decoded or reduced by it.
        open: called once when the store is made. What it returns gives image i, from 0, in the order of the classes,
            and is called by several threads at once.
        skips: an image that raises :class:`DamagedImage` is left out, and listed, instead of ending the making. What
            decides whether it does belongs to ``made_of``.
    """

    name: str
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    shape: tuple[int, int, int]
    made_of: Mapping[str, Any]
    open: Callable[[], Callable[[int], UInt8[np.ndarray, "channels height width"]]]
    skips: bool = False

    @property
    def index(self) -> dict[str, Any]:
        """What ``index.json`` holds."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "shape": [sum(self.counts), *self.shape],
            "made_of": dict(self.made_of),
            "class_names": list(self.class_names),
            "counts": list(self.counts),
        } | ({"skips": True} if self.skips else {})

    @property
    def folder(self) -> str:
        """The store's name in the cache folder."""
        text = json.dumps(self.index, sort_keys=True)
        return f"{self.name.lower().replace(' ', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find_store(source: ImageSource, *, cache: str | Path | None = None) -> Dataset | None:
    """All classes of a store that is there, without the images that were skipped.

    None if there is none, or none that can be used.
    """
    folder = cache_folder(cache) / source.folder
    try:
        if json.loads((folder / "index.json").read_text()) != source.index:
            raise ValueError("it holds something else")
        images: NDArray[np.generic] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or list(images.shape) != source.index["shape"]:
            raise ValueError(f"its images are {images.dtype} {list(images.shape)}")
        skipped = list(skipped_images(source, cache=cache))
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy reports damage in many ways
        _log.info("the image store %s cannot be used (%s); it is made again", folder, error)
        return None
    offsets = np.concatenate([[0], np.cumsum(source.counts)])
    dataset = Dataset.from_sorted(images, offsets, source.class_names, name=source.name)
    if not skipped:
        return dataset
    kept = np.delete(np.arange(len(dataset)), skipped)
    return replace(dataset, order=kept, offsets=np.searchsorted(kept, offsets))


def skipped_images(source: ImageSource, *, cache: str | Path | None = None) -> dict[int, str]:
    """The images that its store, which is there, has left out, and what is wrong with each."""
    if not source.skips:
        return {}
    listed = json.loads((cache_folder(cache) / source.folder / _SKIPPED).read_text())
    if not isinstance(listed, dict) or not all(key.isdecimal() for key in listed):
        raise ValueError(f"its {_SKIPPED} is no list of images")
    skipped = {int(key): str(reason) for key, reason in listed.items()}
    if max(skipped, default=-1) >= sum(source.counts):
        raise ValueError(f"its {_SKIPPED} lists images that it does not hold")
    return skipped


def copied_images(source: ImageSource, *, cache: str | Path | None = None) -> Groups:
    """The images of its store, which is there, that are the same, bit for bit; without those that were left out.

    A store of before this was kept is read through for it, once.
    """
    folder = cache_folder(cache) / source.folder
    if (groups := _kept_copies(folder / _COPIES, sum(source.counts))) is None:
        images: NDArray[np.generic] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        groups = same_rows(image.tobytes() for image in images)
        with contextlib.suppress(OSError):
            write_atomically(folder / _COPIES, json.dumps(groups))
    skipped = skipped_images(source, cache=cache)
    kept = ([row for row in group if row not in skipped] for group in groups)
    return [group for group in kept if len(group) > 1]


def _kept_copies(file: Path, images: int) -> Groups | None:
    """What a store lists, None where that is not there or makes no sense."""
    try:
        groups: Groups = json.loads(file.read_text())
        fits = all(type(row) is int and 0 <= row < images for group in groups for row in group)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return groups if fits else None


def image_store(source: ImageSource, *, cache: str | Path | None = None, report: Report | None = None) -> Dataset:
    """All classes of a source, from its store, which is made first where there is none or a damaged one.

    Images are decoded by a thread pool and written as they come: memory does not grow with their number. The store gets
    its name when it is complete. Another process that wants the same store meanwhile waits for it.

    A store is known by its index and by the size of its images; bits that were flipped in it go unnoticed.

    Args:
        source: the images.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives sentences on the progress of the making; they are logged when omitted.

    Raises:
        OSError: if the cache folder cannot be written or is full.
        ValueError: whatever ``source`` raises for a damaged image, or if an image has another shape.
    """
    if (found := find_store(source, cache=cache)) is not None:
        return found
    root, report = cache_folder(cache), report or _log.info
    size = sum(source.counts) * int(np.prod(source.shape))
    try:
        with kept_in(root, f"the images of {source.name}", f"{size / 1e9:.2g} GB left"):
            root.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(root / f"{source.folder}.lock", report):
                if (found := find_store(source, cache=cache)) is not None:  # another process may have made it
                    return found
                _make(source, root, report)
    except _SourceError as error:
        raise error.error from None
    if (found := find_store(source, cache=cache)) is None:
        raise OSError(f"the image store {root / source.folder} was changed while it was made: load it again")
    return found


class _SourceError(Exception):
    """Carries an error of the source past the handling of the cache's own: both are OSErrors."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _make(source: ImageSource, root: Path, report: Report) -> None:
    """Write the store beside its place, then rename it."""
    target = root / source.folder
    with folder_beside(target) as part:
        skipped, copies = _write_images(source, part / "images.npy", report)
        if source.skips:
            write_atomically(part / _SKIPPED, json.dumps(skipped))
        write_atomically(part / _COPIES, json.dumps(copies))
        write_atomically(part / "index.json", json.dumps(source.index))
        try:
            part.rename(target)
        except OSError:
            # Something is there: a damaged store, or, without locks, one that another process has just made.
            if find_store(source, cache=root) is None:
                with folder_beside(target) as aside:
                    target.rename(aside / "damaged")
                    part.rename(target)


def _write_images(source: ImageSource, path: Path, report: Report) -> tuple[dict[int, str], Groups]:
    """Write the images; those that were skipped, and why; and those that are the same."""
    n, skipped = sum(source.counts), dict[int, str]()

    def written(image: NDArray[Any]) -> bytes:
        if image.dtype != np.uint8 or image.shape != source.shape:
            raise ValueError(
                f"{source.name}: an image is {image.dtype} {list(image.shape)}, not uint8 {list(source.shape)}"
            )
        content = image.tobytes()
        file.write(content)
        return content

    started = reported = time.monotonic()
    with path.open("wb") as file, ThreadPoolExecutor() as pool:
        report(f"{source.name}: reading {n:,} images, once, into {path.parent.parent}")
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, *source.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        read = _reader(source, skipped)

        def contents() -> Iterator[bytes]:
            nonlocal reported
            for start in range(0, n, _TOGETHER):
                yield from map(written, pool.map(read, range(start, min(n, start + _TOGETHER))))
                if time.monotonic() - reported > _SECONDS:
                    reported = time.monotonic()
                    report(f"{source.name}: {min(n, start + _TOGETHER):,} of {n:,} images")

        copies = same_rows(contents())
        file.flush()
        os.fsync(file.fileno())
    report(f"{source.name}: {n:,} images read in {time.monotonic() - started:.0f} s")
    return dict(sorted(skipped.items())), copies


def _reader(source: ImageSource, skipped: dict[int, str]) -> Callable[[int], NDArray[Any]]:
    """What gives image i: zeros for one that is left out, which ``skipped`` then holds."""

    try:
        read = source.open()
    except OSError as error:
        raise _SourceError(error) from error

    def image(i: int) -> NDArray[Any]:
        try:
            return read(i)
        except DamagedImage as error:
            if not source.skips:
                raise
            skipped[i] = error.reason
            return np.zeros(source.shape, np.uint8)
        except OSError as error:
            raise _SourceError(error) from error

    return image
