"""Items of datasets of (image, label) pairs, as PyTorch has them: what they are, or what is wrong with them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fewstep.data.images.files import opaque

_TOGETHER = 64  # items that a worker hands over at once


def pairs_of(dataset: Any, owner: str, workers: int) -> Iterator[tuple[NDArray[Any], int | str]]:
    """Row and label of every item, in order.

    Raises:
        ValueError: for what is no pair, no image, or no label, and for rows that differ in shape or dtype or are not
            finite; the message names the item.
    """
    first: NDArray[Any] | None = None
    loader: DataLoader[Any] = DataLoader(dataset, _TOGETHER, collate_fn=list, num_workers=workers)
    for item, pair in enumerate(pair for together in loader for pair in together):
        where = f"{owner}: item {item}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"a {type(pair).__name__}" + (f" of {len(pair)}" if isinstance(pair, tuple | list | dict) else "")
            raise ValueError(f"{where} is {what}: items must be pairs (image, label), wrap the dataset in one of pairs")
        row = _row(pair[0], where)
        first = row if first is None else first
        if (row.shape, row.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{where} is {row.dtype} {list(row.shape)}, item 0 is {first.dtype} {list(first.shape)}: give all one "
                "size and type, images by a transform such as Resize((84, 84))"
            )
        if row.dtype.kind == "f" and not np.isfinite(row).all():
            raise ValueError(f"{where} holds NaN or infinity: repair it or leave it out")
        yield row, _label(pair[1], where)


def count_of(dataset: Any, owner: str) -> int:
    """Number of items.

    Raises:
        ValueError: if there are none, or the dataset cannot be indexed.
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ValueError(
            f"{owner}: a {type(dataset).__name__} is no map-style dataset: it needs __getitem__ and __len__; make a "
            "list of an iterable one"
        )
    if not len(dataset):
        raise ValueError(f"{owner}: the dataset has no items")
    return len(dataset)


def _row(image: Any, where: str) -> NDArray[Any]:
    if isinstance(image, Image.Image):
        pixels = np.asarray(image.convert("L") if image.mode in ("1", "L") else opaque(image).convert("RGB"))
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    row = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if not isinstance(row, np.ndarray) or row.dtype.kind not in "fiub":
        raise ValueError(f"{where} has a {type(image).__name__} for an image: give a PIL image, an array or a tensor")
    if row.ndim == 3 and row.shape[2] in (1, 3, 4) and row.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"{where} is an image {list(row.shape)} with its channels at the end: they come first, transpose(2, 0, 1)"
        )
    return np.ascontiguousarray(row, row.dtype.newbyteorder("="))


def _label(label: Any, where: str) -> int | str:
    plain = label.item() if isinstance(label, Tensor | np.ndarray | np.generic) and _single(label) else label
    if isinstance(plain, int | str) and plain != "":
        return plain
    raise ValueError(f"{where} has the label {label!r}: labels must be whole numbers or names")


def _single(values: Any) -> bool:
    return bool((values.numel() if isinstance(values, Tensor) else values.size) == 1)
