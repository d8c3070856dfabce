"""miniImageNet and tieredImageNet, from image files of one's own: ImageNet may not be passed on."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

from fewstep.data.dataset import Dataset
from fewstep.data.images.class_folders import check_complete, class_files, folder_source
from fewstep.data.images.class_splits import Split, all_classes, class_split
from fewstep.data.images.store import image_store
from fewstep.data.storage.cache import Report

_MINI_IMAGES = 600  # of each class


def mini_imagenet(
    split: Split, path: str | Path, *, size: int = 84, cache: str | Path | None = None, report: Report | None = None
) -> Dataset:
    """miniImageNet: 64 / 16 / 20 classes of 600 images (Vinyals et al. 2016), split by Ravi and Larochelle 2017.

    Rows are uint8 ``[n, 3, size, size]``. The first load decodes every image of all three parts, squeezes it to a
    square with a Lanczos filter and keeps the result in the cache folder (1.3 GB at 84 × 84); a class keeps the order
    of its file names.

    Args:
        split: part of the classes; "trainval" is train and val together.
        path: a folder with one folder a class, named by WordNet id, in it or one level further down
            (``train/n01532829/*.jpg``); or Ravi's layout, a folder ``images`` beside ``train.csv``, ``val.csv`` and
            ``test.csv`` with the columns filename and label.
        size: side of the images in pixels.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives sentences on the progress of the first load; they are logged when omitted.

    Raises:
        FileNotFoundError: if there is no such folder, or no image that a list names.
        ValueError: if the split is unknown, classes are missing or an image is damaged (named in the message).
        OSError: if the cache folder cannot be written.

    Warns:
        UserWarning: if a class has another number of images than 600: results are then not those of the benchmark.
    """
    chosen, names, root = class_split("miniImageNet", split), all_classes("miniImageNet"), Path(path)
    lists = [root / f"{part}.csv" for part in ("train", "val", "test")]
    listed = (root / "images").is_dir() and any(file.is_file() for file in lists)
    files = _listed_files(root, lists, names) if listed else class_files(root, names)
    if other := [name for name in names if len(files[name]) != _MINI_IMAGES]:
        warnings.warn(
            f"{root}: {len(other)} classes have not the {_MINI_IMAGES} images of miniImageNet, the first is {other[0]} "
            f"with {len(files[other[0]])}: results cannot be compared with published ones",
            stacklevel=2,
        )
    source = folder_source("miniImageNet", root, files, size)
    return image_store(source, cache=cache, report=report).subset(chosen, split=split)


def tiered_imagenet(
    split: Split, path: str | Path, *, size: int = 84, cache: str | Path | None = None, report: Report | None = None
) -> Dataset:
    """tieredImageNet: 351 / 97 / 160 classes that were split by superclass (Ren et al. 2018), 779,165 images in all.

    As :func:`mini_imagenet`, from a folder with one folder a class; the store takes 16 GB at 84 × 84. Classes differ in
    size.

    Args:
        split: as in :func:`mini_imagenet`.
        path: a folder with one folder a class, named by WordNet id, in it or one level further down.
        size: as in :func:`mini_imagenet`.
        cache: as in :func:`mini_imagenet`.
        report: as in :func:`mini_imagenet`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the split is unknown, classes are missing or an image is damaged (named in the message).
        OSError: if the cache folder cannot be written.
    """
    chosen, root = class_split("tieredImageNet", split), Path(path)
    source = folder_source("tieredImageNet", root, class_files(root, all_classes("tieredImageNet")), size)
    return image_store(source, cache=cache, report=report).subset(chosen, split=split)


def _listed_files(root: Path, lists: Sequence[Path], names: Sequence[str]) -> dict[str, list[Path]]:
    """The images of each class in Ravi's layout."""
    found: dict[str, list[Path]] = {}
    for file in lists:
        if not file.is_file():
            raise FileNotFoundError(f"there is no list {file}: Ravi's layout has train.csv, val.csv and test.csv")
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{file} must have the columns filename and label, it has {rows.fieldnames}")
            for row in rows:
                image, label = row["filename"], row["label"]
                if not image or Path(image).name != image:
                    raise ValueError(
                        f"{file}, line {rows.line_num}: {image!r} is no name of a file in {root / 'images'}"
                    )
                found.setdefault(label, []).append(root / "images" / image)
    check_complete(root, found, names)
    return {name: sorted(found[name]) for name in names}
