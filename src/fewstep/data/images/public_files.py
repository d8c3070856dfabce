"""miniImageNet and tieredImageNet as research code passes them around: a file of arrays for each split.

| files | from |
|---|---|
| ``mini-imagenet-cache-train.pkl``, ... | Ren et al. 2018: ``image_data`` ``[n, 84, 84, 3]``, ``class_dict`` |
| ``miniImageNet_category_split_train_phase_train.pickle``, ``..._val.pickle``, ``..._test.pickle`` | Gidaris and \
Komodakis 2018, MetaOptNet: ``data``, ``labels``, ``catname2label`` |
| ``train_images_png.pkl`` with ``train_labels.pkl``, ... | Ren et al. 2018, tieredImageNet: PNG files in a list |
| ``train_images.npz`` with ``train_labels.pkl``, ... | the same, not compressed |

Pickles are read without running anything that they ask for.
"""

import io
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import PIL
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from fewstep.data.checks import check_count
from fewstep.data.images.class_folders import contents_of
from fewstep.data.images.store import ImageSource
from fewstep.data.storage.cache import cache_folder, kept_in
from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.reading import reading
from fewstep.data.storage.unpickling import unpickle

_RECIPE = 1  # raise it when images are read or reduced in another way: it decides the store's name
_PARTS = ("train", "val", "test")
_WORDNET = re.compile(r"n\d{8}")
_LAYOUTS: dict[str, tuple[dict[str, tuple[str, ...]], ...]] = {
    "miniImageNet": (
        {split: (f"mini-imagenet-cache-{split}.pkl",) for split in _PARTS},
        {
            split: (f"miniImageNet_category_split_{phase}.pickle",)
            for split, phase in (("train", "train_phase_train"), ("val", "val"), ("test", "test"))
        },
    ),
    "tieredImageNet": (
        {split: (f"{split}_images_png.pkl", f"{split}_labels.pkl") for split in _PARTS},
        {split: (f"{split}_images.npz", f"{split}_labels.pkl") for split in _PARTS},
    ),
    # Known by name only: CIFAR's own archive serves instead.
    "CIFAR-FS": ({split: (f"CIFAR_FS_{split}.pickle",) for split in _PARTS},),
    "FC100": ({split: (f"FC100_{split}.pickle",) for split in _PARTS},),
}

_Images = Sequence[Any] | NDArray[Any]


@final
@dataclass(frozen=True)
class PublicFiles:
    """Files of one of these layouts.

    Attributes:
        files: of each split: the images, and their labels where they are in a file of their own.
        source: of the image store.
        splits: the classes of each split, as the files tell it.
    """

    files: Mapping[str, tuple[Path, ...]]
    source: ImageSource
    splits: Mapping[str, tuple[str, ...]]

    @property
    def by_name(self) -> bool:
        """Whether classes go by their WordNet ids, so that the split can be compared with the published one."""
        return any(_WORDNET.fullmatch(name) for name in self.source.class_names)


def public_files(dataset: str, path: Path, size: int, cache: str | Path | None) -> PublicFiles | None:
    """The files of a dataset in a folder or in one further down; None where there are none of these layouts.

    Args:
        dataset: "miniImageNet" or "tieredImageNet".
        path: the folder, or one of the files.
        size: side of the images in pixels.
        cache: as in :func:`image_store`.

    Raises:
        ValueError: if there are files of another dataset, files of some splits only, or damaged ones.
    """
    check_count("size", size)
    if (found := _files(dataset, path)) is None:
        return None
    classes = _classes(dataset, found, cache)
    names = [name for of_split in classes.values() for name, _ in of_split]
    source = ImageSource(
        name=dataset,
        class_names=tuple(names),
        counts=tuple(count for of_split in classes.values() for _, count in of_split),
        shape=(3, size, size),
        made_of={"recipe": _RECIPE, "files": _state(found), "pillow": PIL.__version__},
        open=lambda: _reader(found, classes, size),
    )
    return PublicFiles(found, source, {split: tuple(name for name, _ in of) for split, of in classes.items()})


def title_of(folder: Path) -> tuple[str, Path] | None:
    """The dataset that a file in a folder is known by its name to be of, and that file."""
    for title, layouts in _LAYOUTS.items():
        for layout in layouts:
            for images, *_ in layout.values():
                if (folder / images).is_file():
                    return title, folder / images
    return None


def _files(dataset: str, path: Path) -> dict[str, tuple[Path, ...]] | None:
    root = path.parent if path.is_file() else path
    if not root.is_dir():
        return None
    for folder in (root, *contents_of(root).folders):
        for title, layouts in _LAYOUTS.items():
            for layout in layouts:
                there = {split: tuple(folder / name for name in names) for split, names in layout.items()}
                images = [files[0] for files in there.values() if files[0].is_file()]
                if not images or (path.is_file() and path not in {file for files in there.values() for file in files}):
                    continue
                if title != dataset:
                    instead = (
                        "name that dataset instead"
                        if title == "tieredImageNet" or title == "miniImageNet"
                        else "give CIFAR-100's archive cifar-100-python.tar.gz to cifar-fs or fc100 instead"
                    )
                    raise ValueError(f"{images[0]} is a file of {title}, not of {dataset}: {instead}")
                if lost := [file for files in there.values() for file in files if not file.is_file()]:
                    raise ValueError(
                        f"{folder} holds {images[0].name} but no {lost[0].name}: {dataset} in this layout is "
                        f"{', '.join(file.name for files in there.values() for file in files)}, put all of them there"
                    )
                return there
    return None


def _state(files: Mapping[str, tuple[Path, ...]]) -> list[list[Any]]:
    """By which another content is known, wherever the files are moved."""
    every = [file for of_split in files.values() for file in of_split]
    return [[file.name, (found := file.stat()).st_size, found.st_mtime_ns] for file in every]


def _classes(
    dataset: str, files: Mapping[str, tuple[Path, ...]], cache: str | Path | None
) -> dict[str, list[tuple[str, int]]]:
    """The classes of each split with their numbers of images: read once, and kept, as the files are large."""
    state = _state(files)
    kept = cache_folder(cache) / f"{dataset}-{state[0][2]}-{state[0][1]}.classes.json"
    try:
        content = json.loads(kept.read_text())
        if content["files"] == state:
            return {split: [(str(name), int(n)) for name, n in content["classes"][split]] for split in _PARTS}
    except (OSError, ValueError, TypeError, KeyError):
        pass
    labels = {split: _read(of_split)[1] for split, of_split in files.items()}
    named = _distinct(labels, files)
    classes = {
        split: [(name, len(labels[split][name_in])) for name_in, name in named[split].items()] for split in _PARTS
    }
    with kept_in(kept.parent, f"the classes of {dataset}"):
        write_atomically(kept, json.dumps({"files": state, "classes": classes}))
    return classes


def _distinct(
    labels: Mapping[str, Mapping[str, Sequence[int]]], files: Mapping[str, tuple[Path, ...]]
) -> dict[str, dict[str, str]]:
    """A name of its own for each class: its own, or if files number the classes of each split anew, with the split."""
    every = [name for of_split in labels.values() for name in of_split]
    twice = {name for name in every if every.count(name) > 1}
    if twice and any(_WORDNET.fullmatch(name) for name in twice):
        name = min(twice)
        places = [str(files[split][0]) for split, of_split in labels.items() if name in of_split]
        raise ValueError(
            f"class {name} is in {places[0]} and in {places[1]}: classes of a test must not be trained on; take the "
            "files as they were published"
        )
    return {s: {name: f"{s} {name:0>3}" if twice else name for name in of_split} for s, of_split in labels.items()}


def _reader(
    files: Mapping[str, tuple[Path, ...]], classes: Mapping[str, Sequence[tuple[str, int]]], size: int
) -> Callable[[int], UInt8[np.ndarray, "3 height width"]]:
    """What gives image i; one file of images is in memory at a time."""
    ends = np.cumsum([sum(count for _, count in classes[split]) for split in _PARTS])
    lock = threading.Lock()
    opened: dict[str, tuple[_Images, list[int]]] = {}

    def of_split(split: str) -> tuple[_Images, list[int]]:
        with lock:
            if split not in opened:
                opened.clear()
                images, labels = _read(files[split])
                opened[split] = images, [row for rows in labels.values() for row in rows]
            return opened[split]

    def image(i: int) -> UInt8[np.ndarray, "3 height width"]:
        part = int(np.searchsorted(ends, i, side="right"))
        images, order = of_split(_PARTS[part])
        row = order[i - (int(ends[part - 1]) if part else 0)]
        return _pixels(images[row], size, f"{files[_PARTS[part]][0]}, image {row}")

    return image


def _pixels(image: Any, size: int, where: str) -> UInt8[np.ndarray, "3 height width"]:
    """An array ``[height, width, 3]``, or the bytes of a PNG file, squeezed to a square."""
    try:
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            shown = Image.fromarray(np.ascontiguousarray(image))
        else:
            with Image.open(io.BytesIO(np.asarray(image, np.uint8).tobytes())) as file:
                shown = file.convert("RGB")
    except Exception as error:  # Pillow's readers report damage in many ways
        raise ValueError(f"{where} is damaged or is no image ({error}): fetch the file again") from error
    if shown.size != (size, size):
        shown = shown.resize((size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.moveaxis(np.asarray(shown), -1, 0))


def _read(files: tuple[Path, ...]) -> tuple[_Images, dict[str, list[int]]]:
    """The images of a split, and the rows of each class in the order of the names."""
    where = str(files[0])
    if files[0].suffix == ".npz":
        holds = reading(where, "holds no array images", "fetch it again")
        with holds, np.load(files[0], allow_pickle=False) as archive:
            content: Any = {"images": archive["images"]}
    else:
        content = unpickle(files[0], encoding="latin1")
    images: Any = content if isinstance(content, list) else None
    if isinstance(content, dict):
        images = next((content[name] for name in ("image_data", "data", "images") if name in content), None)
    elif isinstance(content, np.ndarray):
        images = content
    told = unpickle(files[1], encoding="latin1") if len(files) > 1 else content
    try:
        rows = _rows(told) if isinstance(told, dict) else None
        images = None if images is None or not len(images) else images
    except (TypeError, ValueError, OverflowError):  # of another structure
        rows = None
    if images is None or rows is None:
        raise ValueError(f"{where} holds no images with labels as its name promises: fetch it again")
    if sorted(row for of_class in rows.values() for row in of_class) != list(range(len(images))):
        raise ValueError(f"{where} holds {len(images)} images, but labels of others: fetch both files again")
    return images, {name: rows[name] for name in sorted(rows)}


def _rows(told: Mapping[str, Any]) -> dict[str, list[int]] | None:
    """The rows of each class; a class that has no name goes by its number."""
    if isinstance(told.get("class_dict"), dict):
        return {str(name): np.ravel(rows).astype(int).tolist() for name, rows in told["class_dict"].items()}
    if (labels := next((told[name] for name in ("label_specific", "labels") if name in told), None)) is None:
        return None
    which = np.ravel(labels).astype(int)
    named = told.get("catname2label")
    names = {int(label): str(name) for name, label in named.items()} if isinstance(named, dict) else {}
    listed = told.get("label_specific_str")
    if listed is not None and len(set(map(str, listed))) == len(listed) > which.max(initial=-1):
        names = dict(enumerate(map(str, listed)))
    width = len(str(which.max(initial=0)))
    return {
        names.get(label, f"{label:0{width}}"): np.flatnonzero(which == label).tolist()
        for label in np.unique(which).tolist()
    }
