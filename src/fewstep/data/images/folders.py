"""Photographs of one's own as a dataset: a folder for each class, and a split of the classes."""

import csv
import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fewstep.data.checks import check_choice, check_count
from fewstep.data.dataset import Dataset
from fewstep.data.images.class_folders import contents_of, folder_source
from fewstep.data.images.class_splits import PARTS, Split
from fewstep.data.images.copies import Copies, settle_copies
from fewstep.data.images.files import SUFFIXES, Fit
from fewstep.data.images.public_files import title_of
from fewstep.data.images.store import copied_images, image_store, skipped_images
from fewstep.data.storage.cache import Report

Damaged: TypeAlias = Literal["stop", "skip"]
"""What becomes of images that cannot be read: an error that lists them, or a report."""

_Bad: TypeAlias = Sequence[tuple[str, Path, str]]
"""Images that cannot be read: class, file and reason."""

_NAMES = {"train": ("train", "base"), "val": ("val", "validation"), "test": ("test", "novel")}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_FILES = ("split.csv", "split.json")
_COMMANDS = {
    "miniImageNet": "mini-imagenet with that folder as --path",
    "tieredImageNet": "tiered-imagenet with that folder as --path",
    "CIFAR-FS": "cifar-fs, whose archive is fetched,",
    "FC100": "fc100, whose archive is fetched,",
}
_NAMED = 5  # of many, in a message

_log = logging.getLogger(__name__)


def photographs(
    split: Split,
    path: str | Path,
    *,
    split_file: str | Path | None = None,
    size: int = 84,
    grey: bool = False,
    fit: Fit = "crop",
    damaged: Damaged = "stop",
    least: int = 2,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """Images of one's own: classes are folders, and each class is in one split.

    Rows are uint8 ``[n, channels, size, size]``. Classes come in the order of their names and have those of their
    folders; the images of a class come in the order of their file names. The first load checks the layout, decodes the
    images of all splits once, and keeps them in the cache folder; changing the split needs no second decoding.

    The split is told in one of two ways, ::

        photos/train/cat/1.jpg      photos/cat/1.jpg
        photos/train/dog/1.jpg      photos/dog/1.jpg
        photos/val/owl/1.jpg        photos/owl/1.jpg
        photos/test/fox/1.jpg       photos/fox/1.jpg
                                    photos/split.csv or photos/split.json

    where ``split.csv`` has the columns class and split, and ``split.json`` is ``{"train": ["cat", "dog"], "val":
    ["owl"], "test": ["fox"]}``. Splits may be missing. "base" may be said for train, "validation" for val and "novel"
    for test.

    Images of any shape, size and colours are taken, as :func:`read_image` says. Hidden files are passed over, and so
    are files that are no images by their suffix, which ``report`` is told. Links are followed.

    Args:
        split: part of the classes; "trainval" is train and val together.
        path: the folder.
        split_file: a split file at another place, or of another name.
        size: side of the images in pixels.
        grey: one channel instead of three of colour.
        fit: "crop" scales the short side to ``size`` and cuts out the middle, which keeps the proportions of things:
            what is at the ends of the long side is lost. "squeeze" keeps all of the image, as the usual copies of
            miniImageNet do, and takes longer for large photographs.
        damaged: "stop" refuses the whole folder if images cannot be read, and lists them; "skip" leaves them out, and
            tells at each load how many of how many. They are found in the one decoding, whose result serves both.
        least: images that each class must have, without those that are skipped. A task needs one to learn from and one
            to be tested on.
        copies: "drop" leaves images out that are the same as others, bit for bit; of each group, one of the test
            classes is kept before one of validation before one of training. ``report`` is told of them either way.
        cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives sentences on the progress of the first load, and on what was left out; they are logged when
            omitted.

    Raises:
        FileNotFoundError: if there is no such folder or split file.
        ValueError: if no split is told, or told twice; there is no such split; a class is in two splits; the split file
            is damaged or does not fit the folders; a folder is empty or holds what it should not; images cannot be
            read; or a class has too few.
        OSError: if the cache folder cannot be written, or a folder cannot be listed.
    """
    check_count("size", size)
    check_choice("damaged", damaged, get_args(Damaged))
    check_choice("fit", fit, get_args(Fit))
    root = Path(path)
    layout = _layout(root, split_file)
    parts = _parts(split, layout, root)
    _check_sizes(layout, Counter(), least)
    source = folder_source("photographs", root, layout.files, size, grey=grey, fit=fit, skips=True)
    dataset = image_store(source, cache=cache, report=report)
    owners = [(name, file) for name, files in layout.files.items() for file in files]
    bad = [(*owners[i], reason) for i, reason in skipped_images(source, cache=cache).items()]
    if bad and damaged == "stop":
        counts = ", ".join(f"{part} {_bad_of_all(layout, part, bad)}" for part in layout.splits)
        lines = "".join(f"\n  {file.relative_to(root).as_posix()}: {reason}" for _, file, reason in bad[:_NAMED])
        more = f"\n  and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
        raise ValueError(
            f"{root}: {len(bad):,} of {len(owners):,} images cannot be read ({counts}):{lines}{more}\n"
            "Repair or remove them, or have them left out: --damaged skip (in Python damaged='skip')."
        )
    _check_sizes(layout, Counter(name for name, _, _ in bad), least)
    for part in parts:
        _report_left_out(layout, part, bad, root, report or _log.warning)
    groups = copied_images(source, cache=cache)
    dataset = settle_copies(dataset, groups, layout.splits, split, copies, report or _log.warning, _name(root))
    chosen = sorted(name for part in parts for name in layout.splits[part])
    return replace(dataset.subset(chosen, split=split), name=_name(root))


def photograph_splits(path: str | Path, *, split_file: str | Path | None = None) -> tuple[str, ...]:
    """Those of train, val and test that a folder for :func:`photographs` has. Its layout is checked, no image is read.

    Args:
        path: the folder.
        split_file: as in :func:`photographs`.

    Raises:
        FileNotFoundError: as :func:`photographs`, and so is the other.
        ValueError: if the layout is not as it should be.
    """
    return tuple(_layout(Path(path), split_file).splits)


def photograph_files(path: str | Path, *, split_file: str | Path | None = None) -> dict[str, dict[str, list[Path]]]:
    """The files of a folder for :func:`photographs`, by split and class; none is opened.

    A folder of class folders that tells no split is taken too: all its classes are under "".

    Args:
        path: the folder.
        split_file: as in :func:`photographs`.

    Raises:
        FileNotFoundError: as :func:`photographs`, and so is the other.
        ValueError: if the layout is not as it should be.
    """
    layout = _layout(Path(path), split_file, split_needed=False)
    return {split: {name: layout.files[name] for name in names} for split, names in layout.splits.items()}


@dataclass(frozen=True)
class _Layout:
    """What a folder holds.

    Attributes:
        splits: classes of each split that there is, in the order of their names.
        files: images of each class; all classes in the order of their names.
        others: number of files of each class that are no images by their suffix, by suffix.
    """

    splits: dict[str, tuple[str, ...]]
    files: dict[str, list[Path]]
    others: dict[str, Counter[str]]


def _layout(root: Path, split_file: str | Path | None, *, split_needed: bool = True) -> _Layout:
    if not root.is_dir():
        is_file = f"{root} is a file: give a folder of images, if need be unpack it"
        raise FileNotFoundError(is_file if root.is_file() else f"there is no folder {root}")
    if (known := title_of(root)) is not None:
        title, array_file = known
        raise ValueError(
            f"{array_file} is a file of {title}, and {root} no folder of one's own images: give "
            f"{_COMMANDS[title]} instead"
        )
    top, file = _class_folders_of(root), _split_file(root, split_file)
    if file is None and not split_needed and top and not any(_class(f).casefold() in _SPLIT_OF for f in top):
        folders = {"": top}
    else:
        folders = _split_by_folders(root, top) if file is None else _split_by_file(root, top, file)
    _check_distinct([(split, folder) for split, of_split in folders.items() for folder in of_split])
    contents = {folder: contents_of(folder) for of_split in folders.values() for folder in of_split}
    if nested := [inner for found in contents.values() for inner in found.folders]:
        raise ValueError(
            f"class folders must hold images and no folders, but there are {_some(nested)}: move their images up, or "
            "give them names that begin with a dot to have them passed over"
        )
    if empty := [folder for folder, found in contents.items() if not found.images]:
        instead = f" (but {_by_suffix(contents[empty[0]].others)})" if contents[empty[0]].others else ""
        raise ValueError(
            f"{len(empty)} of {len(contents)} class folders hold no images: {_some(empty)}{instead}. Fill or remove "
            f"them; images are known by their suffix: {', '.join(sorted(SUFFIXES))}"
        )
    by_name = sorted((_class(folder), found) for folder, found in contents.items())
    return _Layout(
        {split: tuple(sorted(map(_class, of_split))) for split, of_split in folders.items()},
        {name: found.images for name, found in by_name},
        {name: found.others for name, found in by_name},
    )


def _class_folders_of(folder: Path) -> list[Path]:
    """The folders in a folder that should hold no images itself."""
    found = contents_of(folder)
    if found.images:
        raise ValueError(
            f"{folder} holds {len(found.images):,} images ({found.images[0].name}, ...) outside class folders: move "
            "each into the folder of its class"
        )
    if found.lost:
        raise ValueError(f"{_some(found.lost)} in {folder} leads nowhere: repair or remove the link")
    return found.folders


def _split_by_folders(root: Path, top: Sequence[Path]) -> dict[str, list[Path]]:
    by_split = {split: [f for f in top if _SPLIT_OF.get(f.name.casefold()) == split] for split in _NAMES}
    others = [folder for folder in top if folder.name.casefold() not in _SPLIT_OF]
    if len(others) == len(top):
        raise ValueError(
            f"{root} does not say which classes are for training and which for testing. Give it split folders with the "
            "class folders in them,\n"
            f"  {root}/train/cat/1.jpg, {root}/val/owl/1.jpg, {root}/test/fox/1.jpg,\n"
            f"or class folders ({root}/cat/1.jpg, ...) and a file {root}/split.csv:\n"
            "  class,split\n  cat,train\n  owl,val\n  fox,test\n"
            f'or {root}/split.json: {{"train": ["cat"], "val": ["owl"], "test": ["fox"]}}. Only train is needed.'
        )
    if others:
        raise ValueError(
            f"{root} holds split folders ({_some([f for f in top if f not in others])}) beside other folders "
            f"({_some(others)}): move those into a split folder or away; or, if all are classes, add {root}/split.csv "
            "with the columns class and split"
        )
    if twice := [folders for folders in by_split.values() if len(folders) > 1]:
        raise ValueError(f"{_some(twice[0])} in {root} are names of the same split: merge them into one folder")
    inner = {split: _class_folders_of(folders[0]) for split, folders in by_split.items() if folders}
    if empty := [by_split[split][0] for split, classes in inner.items() if not classes]:
        raise ValueError(f"the split folder {empty[0]} holds no class folders: fill or remove it")
    return inner


def _split_file(root: Path, given: str | Path | None) -> Path | None:
    if given is not None:
        file = Path(given)
        if not file.is_file():
            raise FileNotFoundError(f"there is no split file {file}")
        if file.suffix.lower() not in (".csv", ".json"):
            raise ValueError(f"the split file {file} must be .csv, with the columns class and split, or .json")
        return file
    found = [root / name for name in _FILES if (root / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{root} holds both {' and '.join(_FILES)}: remove one, or say by split_file which is meant")
    return found[0] if found else None


def _split_by_file(root: Path, top: Sequence[Path], file: Path) -> dict[str, list[Path]]:
    read = _csv_entries if file.suffix.lower() == ".csv" else _json_entries
    split_of: dict[str, str] = {}
    for where, name, said in read(file):
        split = _SPLIT_OF.get(said.casefold())
        if not name or split is None:
            raise ValueError(
                f"{where}: a class must have a name and a split, train, val or test; got {name!r} and {said!r}"
            )
        if split_of.setdefault(name, split) != split:
            raise ValueError(
                f"{where}: class {name} is in {split}, and was in {split_of[name]} before: classes of a test must not "
                "be trained on, leave it in one split"
            )
    if top and not any(_class(f) in split_of for f in top) and all(f.name.casefold() in _SPLIT_OF for f in top):
        raise ValueError(
            f"{root} holds split folders ({_some(top)}), and {file} tells the split too: remove that file, or move the "
            f"class folders into {root}"
        )
    names = {_class(folder) for folder in top}
    if missing := [name for name in split_of if name not in names]:
        raise ValueError(
            f"{file} names {len(missing)} classes of {len(split_of)} that have no folder in {root}: {_some(missing)}. "
            "Add the folders or remove the names; capitals matter"
        )
    if unnamed := [folder for folder in top if _class(folder) not in split_of]:
        raise ValueError(
            f"{root} holds {len(unnamed)} folders that {file} does not name: {_some(unnamed)}. Name them, or move "
            "them away"
        )
    by_split = {split: [folder for folder in top if split_of[_class(folder)] == split] for split in _NAMES}
    if not top:
        raise ValueError(f"{root} holds no class folders, and {file} names no classes: add both")
    return {split: folders for split, folders in by_split.items() if folders}


def _csv_entries(file: Path) -> list[tuple[str, str, str]]:
    """Place, class and split of each line."""
    entries = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            if not {"class", "split"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{file} must have the columns class,split (with a comma), it has {rows.fieldnames}")
            for row in rows:
                name, split = (_plain(row[column] or "") for column in ("class", "split"))
                entries.append((f"{file}, line {rows.line_num}", name, split))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged or not in UTF-8 ({error}): save it as CSV in UTF-8") from error
    return entries


def _json_entries(file: Path) -> list[tuple[str, str, str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged or not in UTF-8 ({error}): save it as JSON in UTF-8") from error
    fits = isinstance(content, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()
    )
    if not fits:
        raise ValueError(f'{file} must hold lists of class names, {{"train": [...], "val": [...], "test": [...]}}')
    return [(str(file), _plain(name), split) for split, names in content.items() for name in names]


def _check_distinct(folders: Sequence[tuple[str, Path]]) -> None:
    """Refuse classes that would be in two places, whatever a file system makes of capitals and of links."""
    for alike in (lambda folder: _class(folder).casefold(), os.path.realpath):
        groups: dict[str, list[tuple[str, Path]]] = {}
        for split, folder in folders:
            groups.setdefault(alike(folder), []).append((split, folder))
        if twice := [group for group in groups.values() if len(group) > 1]:
            (one, first), (other, second) = twice[0][:2]
            more = f" ({len(twice)} classes are)" if len(twice) > 1 else ""
            raise ValueError(
                f"the same class is in {one} ({first}) and in {other} ({second}){more}: classes of a test must not be "
                "trained on. Remove one; if they are different classes, give them different names"
            )


def _check_sizes(layout: _Layout, bad: Mapping[str, int], least: int) -> None:
    left = {name: len(files) - bad.get(name, 0) for name, files in layout.files.items()}
    of = {name: f" of {len(layout.files[name])} can be read" for name in bad}
    if few := [f"{name} ({n}{of.get(name, '')})" for name, n in left.items() if n < least]:
        raise ValueError(
            f"{len(few)} of {len(left)} classes have fewer than {least} images: {_some(few)}. Add images to their "
            "folders, or remove the folders"
        )


def _parts(split: str, layout: _Layout, root: Path) -> tuple[str, ...]:
    check_choice("split", split, tuple(PARTS))
    if missing := [part for part in PARTS[split] if part not in layout.splits]:
        raise ValueError(f"{root} has no classes for {missing[0]}, only for {', '.join(layout.splits)}: add some")
    return PARTS[split]


def _bad_of_all(layout: _Layout, part: str, bad: _Bad) -> str:
    """How many of how many images of a split: "3 of 200"."""
    n = sum(len(layout.files[name]) for name in layout.splits[part])
    return f"{sum(name in layout.splits[part] for name, _, _ in bad):,} of {n:,}"


def _report_left_out(layout: _Layout, part: str, bad: _Bad, root: Path, report: Report) -> None:
    """Say what was left out of a split."""
    if here := [f"{f.relative_to(root).as_posix()} ({why})" for name, f, why in bad if name in layout.splits[part]]:
        report(f"{_name(root)} {part}: skipped {_bad_of_all(layout, part, bad)} images: {_some(here)}")
    if others := sum((layout.others[name] for name in layout.splits[part]), Counter[str]()):
        report(f"{_name(root)} {part}: passed over what is no image by its suffix: {_by_suffix(others)}")


def _by_suffix(others: Counter[str]) -> str:
    return ", ".join(f"{suffix} ({n:,})" for suffix, n in others.most_common(_NAMED))


def _some(what: Sequence[str | Path]) -> str:
    """The first few by name, and how many more."""
    names = ", ".join(f"{one.parent.name}/{one.name}" if isinstance(one, Path) else one for one in what[:_NAMED])
    return names + (f" and {len(what) - _NAMED:,} more" if len(what) > _NAMED else "")


def _class(folder: Path) -> str:
    """A name as it is typed: some file systems keep é as two characters."""
    return unicodedata.normalize("NFC", folder.name)


def _plain(written: str) -> str:
    """A name of a split file as :func:`_class` has it."""
    return unicodedata.normalize("NFC", written).strip()


def _name(root: Path) -> str:
    return root.resolve().name
