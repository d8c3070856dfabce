"""Image files with one folder a class, as the source of an image store."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageFile, features

from fewstep.data.checks import check_count
from fewstep.data.images.files import SUFFIXES, DamagedImage, Fit, pixels
from fewstep.data.images.store import ImageSource

_RECIPE = 2  # raise it when images are read or reduced in another way: it decides the store's name
_PASSED_OVER = frozenset({"__MACOSX", "@eaDir"})  # folders that systems put beside photographs, as hidden ones


@final
@dataclass(frozen=True)
class Contents:
    """What a folder holds, in the order of names, without what is hidden.

    Attributes:
        folders: links to folders among them.
        images: by their suffix. Whether they can be opened is not known.
        others: number of other files, by suffix.
        lost: links without an image's suffix that lead nowhere; they are others too.
    """

    folders: list[Path]
    images: list[Path]
    others: Counter[str]
    lost: list[Path]


def class_files(path: str | Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The images of some classes, in the order of their file names.

    A class folder lies in ``path`` or one folder further down (``path/train/n01532829``); other folders and hidden ones
    are passed over.

    Args:
        path: the folder.
        names: of the class folders.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if classes are missing (the first is named, and how many there are), a class has two folders, or a
            folder holds no images.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    wanted, found = set(names), dict[str, Path]()
    for folder in contents_of(root).folders:
        for candidate in [folder] if folder.name in wanted else contents_of(folder).folders:
            if candidate.name not in wanted:
                continue
            if (other := found.setdefault(candidate.name, candidate)) is not candidate:
                raise ValueError(
                    f"class {candidate.name} has two folders, {other} and {candidate}: "
                    "give the folder that holds only one of them, or remove one"
                )
    check_complete(root, found, names)
    files = {name: [path for path in contents_of(found[name]).images if path.is_file()] for name in names}
    if empty := [name for name in names if not files[name]]:
        raise ValueError(f"the class folder {found[empty[0]]} holds no images ({len(empty)} such folders): fill it")
    return files


def check_complete(root: Path, found: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse a folder that lacks classes.

    Raises:
        ValueError: naming the first missing class and the number of them.
    """
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{root} lacks {len(missing)} of {len(names)} classes, the first is {missing[0]}: "
            f"add a folder {missing[0]} with its images in {root} or in a folder of it{_instead(root, found)}"
        )


def _instead(root: Path, found: Mapping[str, object]) -> str:
    """What lies there, where none of the classes does."""
    held = [] if found else sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    return f"; it holds {', '.join(held[:5])}{', ...' if len(held) > 5 else ''}" if held else ""


def contents_of(folder: Path) -> Contents:
    """Look into one folder, not further down.

    Raises:
        PermissionError: if it may not be listed.
    """
    found = Contents([], [], Counter(), [])
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path, suffix = Path(entry.path), Path(entry.name).suffix.lower()
                if entry.name.startswith(".") or entry.name in _PASSED_OVER:
                    continue
                if os.path.isdir(entry):
                    found.folders.append(path)
                elif suffix in SUFFIXES:
                    found.images.append(path)
                else:
                    found.others[suffix or "without suffix"] += 1
                    if not os.path.exists(entry):
                        found.lost.append(path)
    except PermissionError as error:
        raise PermissionError(f"the folder {folder} may not be listed: change its permissions") from error
    return found


def folder_source(
    name: str,
    root: Path,
    files: Mapping[str, Sequence[Path]],
    size: int,
    *,
    grey: bool = False,
    fit: Fit = "squeeze",
    skips: bool = False,
) -> ImageSource:
    """The files of each class, reduced to ``[channels, size, size]`` by a Lanczos filter.

    What the store is made of is known by the files' names below ``root`` and their sizes in bytes, so that the folder
    may be moved. Where damaged files are skipped it is known by the names of class and file, which stay when a class is
    moved to another split, by size, and by the time of the last change, for a file that was repaired may have its old
    size; and by whatever else decides if Pillow reads a file.

    Args:
        name: of the store.
        root: the folder that all files lie in.
        files: by class.
        size: side of the images in pixels.
        grey: one channel instead of three of colour.
        fit: as in :func:`read_image`.
        skips: as in :class:`ImageSource`. A file that may not be read, or a link that leads nowhere, is damaged too.
    """
    check_count("size", size)
    paths = [path for of_class in files.values() for path in of_class]
    readable = [not skips or (os.path.isfile(path) and os.access(path, os.R_OK)) for path in paths]
    digest = hashlib.sha256()
    for path, can in zip(paths, readable, strict=True):
        if skips:
            state = f"{path.stat().st_size}\t{path.stat().st_mtime_ns}" if can else "unreadable"
            line = f"{path.name}\t{state}\n"
        else:
            line = f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    made_of: dict[str, Any] = {"recipe": _RECIPE, "files": digest.hexdigest(), "pillow": PIL.__version__}
    if fit != "squeeze":
        made_of["fit"] = fit
    if skips:
        formats = [*features.get_supported_codecs(), *(["webp"] if features.check("webp") else [])]
        made_of["read"] = [formats, Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]

    def read(i: int) -> UInt8[np.ndarray, "channels height width"]:
        if not readable[i]:
            raise DamagedImage(paths[i], "it may not be read, or is a link that leads nowhere")
        return pixels(paths[i], size, not grey, False, fit)

    return ImageSource(
        name=name,
        class_names=tuple(files),
        counts=tuple(map(len, files.values())),
        shape=(1 if grey else 3, size, size),
        made_of=made_of,
        open=lambda: read,
        skips=skips,
    )
