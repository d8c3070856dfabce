"""miniImageNet and tieredImageNet, from image files of one's own: ImageNet may not be passed on."""

import csv
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fewstep.data.dataset import Dataset
from fewstep.data.images.class_folders import class_files, contents_of, folder_source
from fewstep.data.images.class_splits import PARTS, Split, all_classes, class_split
from fewstep.data.images.copies import Copies, settle_copies
from fewstep.data.images.public_files import public_files
from fewstep.data.images.store import ImageSource, copied_images, image_store
from fewstep.data.storage.cache import Report

_MINI_IMAGES = 600  # of each class
_LISTED = ("train", "val", "test")

_log = logging.getLogger(__name__)


def mini_imagenet(
    split: Split,
    path: str | Path,
    *,
    size: int = 84,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """miniImageNet: 64 / 16 / 20 classes of 600 images (Vinyals et al. 2016), split by Ravi and Larochelle 2017.

    Rows are uint8 ``[n, 3, size, size]``. The first load decodes every image of all three parts, squeezes it to a
    square with a Lanczos filter and keeps the result in the cache folder (1.3 GB at 84 × 84); a class keeps the order
    of its file names.

    Args:
        split: part of the classes; "trainval" is train and val together.
        path: a folder with one folder a class, named by WordNet id, in it or one level further down
            (``train/n01532829/*.jpg``); or Ravi's layout, a folder ``images`` beside ``train.csv``, ``val.csv`` and
            ``test.csv`` with the columns filename and label, which may lie in a folder of their own. The lists tell the
            split: a line that is there twice is one image. Or with ``mini-imagenet-cache-train.pkl``, or
            ``miniImageNet_category_split_train_phase_train.pickle``, and so on for val and test.
        size: side of the images in pixels.
        copies: "drop" leaves images out that are the same as others, bit for bit; of each group, one of the test
            classes is kept before one of validation before one of training. ``report`` is told of them either way.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives sentences on the progress of the first load; they are logged when omitted.

    Raises:
        FileNotFoundError: if there is no such folder, or no image that a list names.
        ValueError: if the split is unknown, classes are missing, an image or a class is in two lists, or an image is
            damaged (named in the message).
        OSError: if the cache folder cannot be written.

    Warns:
        UserWarning: if a class has another number of images than 600, or lists tell another split than Ravi's: results
            are then not those of the benchmark.
    """
    published = {part: class_split("miniImageNet", part) for part in _LISTED}
    chosen: Sequence[str] = class_split("miniImageNet", split)
    splits: Mapping[str, Sequence[str]] = published
    names, root = all_classes("miniImageNet"), Path(path)
    if (found := public_files("miniImageNet", root, size, cache)) is not None:
        _check_numbers(root, dict(zip(found.source.class_names, found.source.counts, strict=True)))
        chosen = _published_order("miniImageNet", split, found.splits, str(root), by_name=found.by_name)
        return _settled(found.source, found.splits, split, chosen, copies, cache, report)
    _check_folder(root)
    if (lists := _lists(root)) is None:
        files = class_files(root, names)
    else:
        files, splits = _listed(lists, names)
        chosen = _published_order("miniImageNet", split, splits, str(lists.files["train"].parent))
    _check_numbers(root, {name: len(files[name]) for name in names})
    source = folder_source("miniImageNet", root, files, size)
    return _settled(source, splits, split, chosen, copies, cache, report)


def tiered_imagenet(
    split: Split,
    path: str | Path,
    *,
    size: int = 84,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """tieredImageNet: 351 / 97 / 160 classes that were split by superclass (Ren et al. 2018), 779,165 images in all.

    As :func:`mini_imagenet`, from a folder with one folder a class; the store takes 16 GB at 84 × 84. Classes differ in
    size.

    Args:
        split: as in :func:`mini_imagenet`.
        path: a folder with one folder a class, named by WordNet id, in it or one level further down; or with
            ``train_images_png.pkl`` and ``train_labels.pkl``, and so on for val and test, as tieredImageNet is
            published (or ``train_images.npz``). Classes then have the names, or numbers, of the files.
        size: as in :func:`mini_imagenet`.
        copies: as in :func:`mini_imagenet`.
        cache: as in :func:`mini_imagenet`.
        report: as in :func:`mini_imagenet`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the split is unknown, classes are missing or an image is damaged (named in the message).
        OSError: if the cache folder cannot be written.
    """
    chosen, root = class_split("tieredImageNet", split), Path(path)
    if (found := public_files("tieredImageNet", root, size, cache)) is not None:
        told = _published_order("tieredImageNet", split, found.splits, str(root), by_name=found.by_name)
        return _settled(found.source, found.splits, split, told, copies, cache, report)
    _check_folder(root)
    source = folder_source("tieredImageNet", root, class_files(root, all_classes("tieredImageNet")), size)
    splits = {part: class_split("tieredImageNet", part) for part in _LISTED}
    return _settled(source, splits, split, chosen, copies, cache, report)


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise FileNotFoundError(
            f"{root} is a file: give a folder of images, if need be unpack it, or one of the files of arrays by the "
            "name that they were published under, such as mini-imagenet-cache-train.pkl or train_images_png.pkl"
        )


def _check_numbers(root: Path, counts: Mapping[str, int]) -> None:
    if other := [name for name, count in counts.items() if count != _MINI_IMAGES]:
        warnings.warn(
            f"{root}: {len(other)} classes have not the {_MINI_IMAGES} images of miniImageNet, the first is {other[0]} "
            f"with {counts[other[0]]}: results cannot be compared with published ones",
            stacklevel=3,
        )


def _settled(
    source: ImageSource,
    splits: Mapping[str, Sequence[str]],
    split: str,
    chosen: Sequence[str],
    copies: Copies,
    cache: str | Path | None,
    report: Report | None,
) -> Dataset:
    """The chosen classes of a store, with or without images that are the same as others."""
    dataset = image_store(source, cache=cache, report=report)
    groups = copied_images(source, cache=cache)
    dataset = settle_copies(dataset, groups, splits, split, copies, report or _log.info, source.name)
    return dataset.subset(chosen, split=split)


@final
@dataclass(frozen=True)
class _Lists:
    """Where Ravi's lists are, and the images that they name."""

    files: Mapping[str, Path]
    images: Path


def _lists(root: Path) -> _Lists | None:
    """The lists beside a folder ``images``, or in a folder that is beside it; None where there are none."""
    if not root.is_dir():
        return None
    places = [root, *(folder for folder in contents_of(root).folders if folder.name != "images")]
    found = [folder for folder in places if any((folder / f"{part}.csv").is_file() for part in _LISTED)]
    images = [folder for folder in (root / "images", *(place / "images" for place in found)) if folder.is_dir()]
    if not found or not images:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{root} holds several sets of lists, in {' and in '.join(map(str, found))}: leave the one that tells your "
            "split there"
        )
    return _Lists({part: found[0] / f"{part}.csv" for part in _LISTED}, images[0])


def _listed(lists: _Lists, names: Sequence[str]) -> tuple[dict[str, list[Path]], dict[str, tuple[str, ...]]]:
    """The images of each class in Ravi's layout, and the classes of each list."""
    found: dict[str, list[Path]] = {}
    seen: dict[str, tuple[str, str]] = {}  # of each image: the place of its line, and its class
    owner: dict[str, Path] = {}
    for file in lists.files.values():
        for where, image, label in _lines(file, lists.images):
            if (before := seen.get(image)) is not None:
                if before[1] == label and owner[label] == file:
                    continue
                raise ValueError(
                    f"{where}: {image} of class {label} was named before, in {before[0]}, of class {before[1]}: an "
                    "image of a test must not be trained on, and has one class; leave it in one list"
                )
            if (other := owner.setdefault(label, file)) != file:
                raise ValueError(
                    f"{where}: class {label} is in {file.name}, and was in {other.name} before: classes of a test must "
                    "not be trained on, leave it in one list"
                )
            seen[image] = (where, label)
            plain = lists.images / image
            found.setdefault(label, []).append(plain if plain.is_file() else _in_class(plain, label))
    missing, unknown = [name for name in names if name not in found], sorted(found.keys() - set(names))
    if missing or unknown:
        what = f"lack {len(missing)} of {len(names)} classes, the first is {missing[0]}" if missing else ""
        more = f"name {len(unknown)} that are not miniImageNet's, the first is {unknown[0]}" if unknown else ""
        raise ValueError(
            f"the lists in {lists.files['train'].parent} {' and '.join(filter(None, (what, more)))}: give "
            "miniImageNet's classes by their WordNet ids; other images are a folder of your own, with split.csv"
        )
    splits = {part: tuple(sorted(c for c in names if owner[c] == file)) for part, file in lists.files.items()}
    return {name: sorted(found[name]) for name in names}, splits


def _in_class(image: Path, label: str) -> Path:
    """An image in the folder of its class, where it is there; else as it was named, whose absence is then told."""
    return inner if (inner := image.parent / label / image.name).is_file() else image


def _lines(file: Path, images: Path) -> Iterator[tuple[str, str, str]]:
    """The place, the image and the class of each line."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no list {file}: Ravi's layout has train.csv, val.csv and test.csv")
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines, skipinitialspace=True)
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{file} must have the columns filename and label, it has {rows.fieldnames}")
        for row in rows:
            image, label = (row["filename"] or "").strip(), (row["label"] or "").strip()
            where = f"{file}, line {rows.line_num}"
            if not image or Path(image).name != image:
                raise ValueError(f"{where}: {image!r} is no name of a file in {images}")
            if not label:
                raise ValueError(f"{where}: {image} has no label: give its class, a WordNet id")
            yield where, image, label


def _published_order(
    dataset: str, split: str, splits: Mapping[str, Sequence[str]], told_by: str, *, by_name: bool = True
) -> list[str]:
    """The classes of a split that files tell, in the published order where they are the published ones.

    Where classes go by numbers, only how many there are can be compared.
    """
    chosen: list[str] = []
    differing = []
    for part in _LISTED:
        of_part, published = splits[part], class_split(dataset, part)
        same = set(of_part) == set(published)
        if not same and (len(of_part) != len(published) or by_name):
            differing.append(f"{part} ({len(set(of_part) - set(published))} other classes)")
        if part in PARTS[split]:
            chosen += published if same else of_part
    if differing:
        warnings.warn(
            f"{told_by}: the split is not the published one of {dataset}, it differs in {', '.join(differing)}: it is "
            "taken as it is told, and results cannot be compared with published ones",
            stacklevel=3,
        )
    return chosen
