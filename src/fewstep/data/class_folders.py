"""Image files with one folder a class, as the source of an image store."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from fewstep.data.image_store import ImageSource
from fewstep.data.images import SUFFIXES, pixels

_RECIPE = 1  # raise it when images are read or reduced in another way: it decides the store's name


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
    for folder in _folders(root):
        for candidate in [folder] if folder.name in wanted else _folders(folder):
            if candidate.name not in wanted:
                continue
            if (other := found.get(candidate.name)) is not None:
                raise ValueError(
                    f"class {candidate.name} has two folders, {other} and {candidate}: "
                    "give the folder that holds only one of them, or remove one"
                )
            found[candidate.name] = candidate
    check_complete(root, found, names)
    files = {name: _images(found[name]) for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise ValueError(f"the class folder {found[empty[0]]} holds no images ({len(empty)} such folders): fill it")
    return files


def check_complete(root: Path, found: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse a folder that lacks classes.

    Raises:
        ValueError: naming the first missing class and the number of them.
    """
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"{root} lacks {len(missing)} of {len(names)} classes, the first is {missing[0]}: "
            f"add a folder {missing[0]} with its images in {root} or in a folder of it"
        )


def folder_source(name: str, root: Path, files: Mapping[str, Sequence[Path]], size: int) -> ImageSource:
    """The files of each class, read in colour and reduced to ``[3, size, size]`` by a Lanczos filter.

    What the store is made of is known by the files' names below ``root`` and their sizes in bytes, so that the folder
    may be moved.
    """
    paths = [path for of_class in files.values() for path in of_class]
    lines = (f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n" for path in paths)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape"))

    def read(i: int) -> UInt8[np.ndarray, "channels height width"]:
        return pixels(paths[i], size, True, False)

    return ImageSource(
        name=name,
        class_names=tuple(files),
        counts=tuple(map(len, files.values())),
        shape=(3, size, size),
        made_of={"recipe": _RECIPE, "files": digest.hexdigest(), "pillow": PIL.__version__},
        open=lambda: read,
    )


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_file() and not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES
        )
