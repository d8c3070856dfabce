"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn once by 20 people.

The data are those of Lake, Salakhutdinov and Tenenbaum 2015, "Human-level concept learning through probabilistic
program induction", Science 350. They are packaged here in full and without loss, under the MIT licence, Copyright (c)
2015 Brenden Lake (``files/OMNIGLOT_LICENSE.txt``).
"""

import hashlib
import io
import json
import logging
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from fewstep.data import draws
from fewstep.data.checks import check_choice
from fewstep.data.dataset import Dataset
from fewstep.data.images.class_splits import PARTS, Split
from fewstep.data.images.copies import Copies, same_rows, settle_copies
from fewstep.data.storage.cache import Report, cache_folder, npz
from fewstep.data.storage.files import write_atomically

_DRAWERS = 20
_ORIGINAL = 105
_SIDE = 28
_RANDOM_SPLIT = {"train": (0, 1100), "val": (1100, 1200), "trainval": (0, 1200), "test": (1200, 1623)}
_RECIPE = 1  # raise it when the way of making the small images changes: it is part of the cache file's name

_log = logging.getLogger(__name__)


def omniglot(
    split: Split,
    *,
    scheme: Literal["vinyals", "random"] = "vinyals",
    seed: int = 0,
    rotations: bool = False,
    copies: Copies = "keep",
    cache: str | Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """Omniglot at 28 × 28, one class for each character.

    Rows are uint8 ``[n, 1, 28, 28]`` with 255 for ink and 0 for paper, so a gather gives ink 1 and paper 0. Images are
    reduced from 105 × 105 by a Lanczos filter. (The script of Finn et al. asks for that filter too, but on images of
    one bit a pixel, for which Pillow takes the nearest pixel instead; theirs are therefore black and white, these have
    grey edges.)

    The first load reduces all images, which takes seconds, and keeps the result in the cache folder.

    Args:
        split: part of the classes; "trainval" is train and val together.
        scheme: "vinyals": 1028 / 172 / 423 characters, the lists that torchmeta and many papers use. "random": a
            shuffle of all characters cut into 1100 / 100 / 423, the sizes in the code of Finn et al. 2017. Their own
            shuffle depends on the order of a folder listing, so papers that follow it share no one split; this one
            depends on ``seed`` only.
        seed: of the random scheme; the other ignores it.
        rotations: also add every class turned counter-clockwise by 90°, 180° and 270° as new classes, named
            "Alphabet/character01@90": four times the classes. A task may then hold a character and its own rotation.
            (Finn et al. instead turn each class of a task by a random angle.)
        copies: "drop" leaves a drawing out that is the same as another, bit for bit: Braille/character01 holds one
            twice, numbers 3 and 19.
        cache: folder for the reduced images; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: is told of such drawings; it is logged when omitted.

    Raises:
        ValueError: if the split or the scheme is unknown.
    """
    images, names = _small_images(cache_folder(cache))
    chosen = _chosen_classes(names, split, scheme, seed)
    title = f"Omniglot ({scheme})"
    counts = np.arange(len(names) + 1) * _DRAWERS
    whole = Dataset.from_sorted(images, counts, names, name=title, split=split)
    splits = {part: [names[c] for c in _chosen_classes(names, part, scheme, seed)] for part in ("train", "val", "test")}
    wanted = copies == "drop" or split in ("train", "trainval")
    groups = same_rows(image.tobytes() for image in images) if wanted else []
    upright = settle_copies(whole, groups, splits, split, copies, report or _log.info, title).subset(chosen)
    if not rotations:
        return upright
    rows = images if upright.order is None else images[upright.order]
    turned = np.concatenate([np.rot90(rows, quarter, axes=(-2, -1)) for quarter in range(4)])
    turned_names = [f"{names[c]}{angle}" for angle in ("", "@90", "@180", "@270") for c in chosen]
    counts = np.concatenate([[0], np.cumsum(np.tile(upright.sizes, 4))])
    return Dataset.from_sorted(turned, counts, turned_names, name=title, split=split)


def omniglot_originals() -> tuple[Bool[np.ndarray, "1623 20 105 105"], list[str]]:
    """Every image at its original size, True for ink, and the names "Alphabet/character01" of the characters."""
    with np.load(io.BytesIO(_packaged("omniglot105_bits.npz")), allow_pickle=False) as file:
        packed, names = file["bits"], file["names"].tolist()
    bits = np.unpackbits(packed, axis=-1, count=_ORIGINAL**2)
    return bits.reshape(len(names), _DRAWERS, _ORIGINAL, _ORIGINAL).view(bool), names


def _packaged(name: str) -> bytes:
    return (resources.files("fewstep") / "data" / "files" / name).read_bytes()


def _chosen_classes(names: list[str], split: str, scheme: str, seed: int) -> Int[np.ndarray, " classes"]:
    check_choice("split", split, tuple(_RANDOM_SPLIT))
    if scheme == "random":
        start, stop = _RANDOM_SPLIT[split]
        return np.argsort(draws.words(seed, 0, "omniglot split", (len(names),)), kind="stable")[start:stop]
    if scheme == "vinyals":
        lists = json.loads(_packaged("omniglot_vinyals.json"))
        index = {name: c for c, name in enumerate(names)}
        return np.array([index[name] for part in PARTS[split] for name in lists[part]])
    raise ValueError(f"scheme must be 'vinyals' or 'random', not {scheme!r}")


def _small_images(folder: Path) -> tuple[UInt8[np.ndarray, "n 1 28 28"], list[str]]:
    """All images at 28 × 28 in the archive's order, from the cache where it can be used, and the characters' names."""
    archive = _packaged("omniglot105_bits.npz")
    # Another release of Pillow may round otherwise: what is cached must be what would be computed.
    key = hashlib.sha256(archive + f"{_RECIPE} {PIL.__version__}".encode()).hexdigest()[:16]
    path = folder / f"omniglot{_SIDE}-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:  # a zip archive carries checksums
            return file["images"], file["names"].tolist()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.info("the cached Omniglot images in %s are unreadable (%s); reducing them again", path, error)
    bits, names = omniglot_originals()
    images = reduced(bits)
    try:
        write_atomically(path, npz({"images": images, "names": np.array(names)}, compressed=False))
    except OSError as error:
        _log.info("cannot keep the reduced Omniglot images in %s (%s); the next load reduces them again", path, error)
    return images, names


def reduced(bits: Bool[np.ndarray, "characters drawers side side"]) -> UInt8[np.ndarray, "n 1 28 28"]:
    """Drawings at 28 × 28, in grey, by a Lanczos filter."""
    small = np.empty((*bits.shape[:2], _SIDE, _SIDE), np.uint8)

    def reduce_character(c: int) -> None:
        for image, target in zip(bits[c].view(np.uint8) * np.uint8(255), small[c], strict=True):
            target[:] = np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))

    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter while it filters
        list(pool.map(reduce_character, range(len(bits))))
    return small.reshape(-1, 1, _SIDE, _SIDE)
