"""Feature vectors grouped by split and class, and the library's own file of them.

The file is a ``.safetensors`` that any reader of that format opens: ``features`` ``[n, d]``, sorted by split (train,
val, test), then by class; ``keys``, where rows have names, as text that zeros divide; and in the metadata, under
"fewstep", the classes of each split with their sizes. It is mapped, not read.
"""

import itertools
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from fewstep.data import draws
from fewstep.data.dataset import AT_ONCE, Dataset, as_tensor, classes_of
from fewstep.data.storage.files import replacing
from fewstep.data.storage.reading import reading

SPLITS = ("train", "val", "test")
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""Of features, by the names of the safetensors format."""

FEATURES = ("features", "embeddings", "x", "all_feats", "feats")
"""Names of the array of features, in small letters, whatever the format."""

_FORMAT = 1
_WHOLE = re.compile(r"(\d+)\.0*")


@final
@dataclass(frozen=True, eq=False)
class Part:
    """The classes of one split, and which rows of a file are theirs.

    Attributes:
        store: ``[rows, d]``, all rows of the file, this split's or not.
        order: the row of each position, class after class.
        names: one for each class: in the order of numbers where all are whole numbers, else of text.
        sizes: examples of each class.
        keys: text, a name of each row of the file.
    """

    store: Tensor
    order: NDArray[np.int64]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    keys: NDArray[np.character] | None = field(default=None, repr=False)

    @property
    def labels(self) -> NDArray[np.character]:
        """The class of each position."""
        return np.repeat(np.array(self.names, np.str_), self.sizes)

    @property
    def ordered_keys(self) -> NDArray[np.character] | None:
        """The name of each position."""
        return None if self.keys is None else self.keys[self.order]

    def owner(self, position: int) -> str:
        """The class of a position."""
        return self.names[int(np.searchsorted(np.cumsum(self.sizes), position, side="right"))]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The first position, and rows ``[some, d]`` from there on, until all have come."""
        size = max(1, AT_ONCE // max(1, self.store.shape[1]))
        for start in range(0, len(self.order), size):
            yield start, self.store[torch.from_numpy(self.order[start : start + size])]

    def finite_blocks(self, where: str) -> Iterator[Tensor]:
        """The rows of :meth:`blocks`.

        Raises:
            ValueError: naming the first row that holds NaN or infinity.
        """
        for start, rows in self.blocks():
            if (bad := np.flatnonzero(~torch.isfinite(rows).all(1).numpy())).size:
                position = start + int(bad[0])
                raise ValueError(
                    f"{where}: row {self.order[position]} (class {self.owner(position)!r}) holds NaN or infinity; "
                    "remove the row or repair the features"
                )
            yield rows


Parts: TypeAlias = dict[str, Part]
"""By split, in the order train, val, test; or all under "", where it is not known which classes are for what."""


def group(
    store: Tensor,
    labels: Any,
    where: str,
    *,
    splits: NDArray[np.character] | None = None,
    keys: NDArray[np.character] | None = None,
) -> Parts:
    """Rows in any order, with the class of each, as parts.

    Args:
        store: ``[rows, d]``.
        labels: ``[rows]``, names or numbers.
        where: the file, for messages.
        splits: ``[rows]``, of "train", "val" and "test".
        keys: ``[rows]``.

    Raises:
        ValueError: if the lengths differ or a label is missing.
    """
    names, which = classes_of(plain_labels(labels, where), where)
    for what, values in (("labels", which), ("keys", keys), ("entries of split", splits)):
        if values is not None and len(values) != len(store):
            raise ValueError(f"{where}: {len(store)} rows of features but {len(values)} {what}: give one for each row")
    parts: Parts = {}
    for split in ("",) if splits is None else SPLITS:
        rows = np.arange(len(store)) if splits is None else np.flatnonzero(splits == split)
        if not len(rows):
            continue
        present = sorted(set(which[rows].tolist()), key=_sort_key([names[c] for c in np.unique(which[rows])], names))
        rank = np.zeros(len(names), np.int64)
        rank[present] = np.arange(len(present))
        order = rows[np.argsort(rank[which[rows]], kind="stable")]
        sizes = np.bincount(rank[which[rows]], minlength=len(present))
        parts[split] = Part(store, order, tuple(names[c] for c in present), tuple(sizes.tolist()), keys)
    return parts


def _sort_key(present: Sequence[str], names: Sequence[str]) -> Any:
    """The sort key of a class, the same whatever the file's format has made of its label."""
    numbers = all(name.isascii() and name.isdigit() for name in present)
    return lambda c: (int(names[c]), names[c]) if numbers else names[c]


def check_alike(parts: Parts, where: str) -> None:
    """Refuse parts that do not fit together.

    Raises:
        ValueError: if the dimensions or the dtype of two splits differ.
    """
    (first, part), *others = parts.items()
    for split, other in others:
        if part.store.shape[1] != other.store.shape[1]:
            raise ValueError(
                f"{where}: features of {first} have {part.store.shape[1]} dimensions, those of {split} "
                f"{other.store.shape[1]}: make all with the same network and layer"
            )
        if part.store.dtype != other.store.dtype:
            raise ValueError(
                f"{where}: features of {first} are {dtype_name(part.store.dtype)}, those of {split} "
                f"{dtype_name(other.store.dtype)}: make them one type"
            )


def shared_classes(parts: Parts) -> list[str]:
    """A sentence for each two splits that have classes in common; "0.0" is the class "0"."""
    sentences = []
    for one, other in itertools.combinations(parts, 2):
        there = set(map(_plain, parts[other].names))
        if both := [name for name in parts[one].names if _plain(name) in there]:
            more = f" and {len(both) - 1} others are" if len(both) > 1 else " is"
            sentences.append(f"class {both[0]!r}{more} in {one} and in {other}")
    return sentences


def _plain(name: str) -> str:
    """A class's name without what a table adds to whole numbers."""
    return found[1] if (found := _WHOLE.fullmatch(name.strip())) else name.strip()


def plain_labels(labels: Any, where: str = "the file", what: str = "labels") -> NDArray[Any]:
    """Labels ``[rows]`` as an array: of one axis where the others have length 1, whole numbers as such, text as text.

    Files of objects hold bytes, NumPy's numbers, and MATLAB's cells, arrays of one.

    Raises:
        ValueError: if bytes are no text in UTF-8.
    """
    values = labels.numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)
    try:
        values = np.char.decode(values) if values.dtype.kind == "S" else values
        values = _of_objects(values) if values.dtype.kind == "O" else values
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {what} must be numbers or text in UTF-8 ({error}): write them so") from error
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    return values


def _of_objects(values: NDArray[Any]) -> NDArray[Any]:
    plain = [
        item.item() if isinstance(item, np.ndarray | np.generic) and item.size == 1 else item for item in values.flat
    ]
    plain = [item.decode() if isinstance(item, bytes) else item for item in plain]
    kinds = {bool if isinstance(item, bool) else type(item) for item in plain}
    if kinds and (kinds <= {str} or kinds <= {int, float}):
        return np.array(plain).reshape(values.shape)
    array = np.empty(values.shape, object)
    for i, item in enumerate(plain):
        array.flat[i] = item
    return array


def numbered_apart(parts: Parts) -> Parts:
    """Classes with the name of their split, where files number the classes of each split anew; else as they are.

    Each split then has the labels 0, 1, ... (or 1, 2, ...), and not all have as many: files with the same classes in
    each would.
    """
    names = [part.names for part in parts.values()]
    for first in (0, 1):
        anew = all(of == tuple(str(first + i) for i in range(len(of))) for of in names)
        if anew and len(set(map(len, names))) > 1:
            return {split: replace(part, names=_with_split(split, part.names)) for split, part in parts.items()}
    return parts


NUMBERED_APART = (
    'its files number the classes of each split anew, and they are taken to be different ones, "train 0" and "val 0"; '
    "if they are the same, results are none of few-shot learning"
)
"""What is said of :func:`numbered_apart`."""


def are_numbered_apart(parts: Parts) -> bool:
    """Whether classes have the names that :func:`numbered_apart` gives."""
    return len(parts) > 1 and all(
        re.fullmatch(rf"{split} \d+", name) for split, part in parts.items() for name in part.names
    )


def _with_split(split: str, numbers: Sequence[str]) -> tuple[str, ...]:
    """ "val 07": of one length, so that the order of text is that of numbers."""
    width = max(map(len, numbers))
    return tuple(f"{split} {number:0>{width}}" for number in numbers)


def divided(parts: Parts, counts: Sequence[int], seed: int, where: str) -> Parts:
    """The classes of a file that does not say what they are for, divided at random.

    Args:
        parts: all under "".
        counts: classes for train, val and test, all of them together.
        seed: of the division, which depends on it and on the order of the classes' names alone.
        where: the file, for messages.

    Raises:
        ValueError: if the file tells a split itself, or the counts are not those of its classes.
    """
    if "" not in parts:
        raise ValueError(f"{where} says itself which classes are for {', '.join(parts)}: leave the division out")
    whole = parts[""]
    n = len(whole.names)
    if len(counts) != 3 or min(counts) < 0 or sum(counts) != n:
        raise ValueError(
            f"{where} has {n} classes, which cannot be divided into {' + '.join(map(str, counts))}: give three "
            f"numbers, for train, val and test, whose sum is {n}"
        )
    shuffled = np.argsort(draws.words(seed, 0, "class split", (n,)), kind="stable")
    ends, found = np.cumsum([0, *counts]), dict[str, Part]()
    for split, start, end in zip(SPLITS, ends, ends[1:], strict=False):
        if start < end:
            found[split] = only(whole, sorted(shuffled[start:end].tolist()))
    return found


def only(part: Part, classes: Sequence[int]) -> Part:
    """Some of the classes, by index, in the order given."""
    offsets = np.concatenate([[0], np.cumsum(part.sizes)])
    order = np.concatenate([part.order[offsets[c] : offsets[c + 1]] for c in classes])
    return replace(
        part, order=order, names=tuple(part.names[c] for c in classes), sizes=tuple(part.sizes[c] for c in classes)
    )


def join(parts: Sequence[Part]) -> Part | None:
    """Several parts as one, in their order; None if their rows are not in one file."""
    first, *others = parts
    if any(part.store is not first.store for part in others):
        return None
    order = np.concatenate([part.order for part in parts])
    names = tuple(name for part in parts for name in part.names)
    return Part(first.store, order, names, tuple(size for part in parts for size in part.sizes), first.keys)


def as_dataset(part: Part, *, name: str, split: str) -> Dataset:
    """The part as a dataset over the same memory; nothing is read."""
    store, order, offsets = part.store, part.order, np.concatenate([[0], np.cumsum(part.sizes)]).astype(np.int64)
    if len(order) and (np.diff(order) == 1).all():
        return Dataset(store[order[0] : order[-1] + 1], offsets, part.names, name=name, split=split)
    return Dataset(store, offsets, part.names, order, name=name, split=split)


def keys_in(parts: Parts) -> NDArray[np.character] | None:
    """The names of all positions of all parts, where every part has them."""
    keys = [part.ordered_keys for part in parts.values() if part.ordered_keys is not None]
    return np.concatenate(keys) if len(keys) == len(parts) else None


def write_store(path: Path, parts: Parts, where: str, made_of: object = None) -> None:
    """Write the library's file, whole or not at all, a block of rows at a time.

    Args:
        path: the file.
        parts: what to write.
        where: what they come from, for messages.
        made_of: kept with it, for JSON.

    Raises:
        ValueError: if a row is not finite.
        OSError: if the file cannot be written.
    """
    splits = {split: list(zip(part.names, part.sizes, strict=True)) for split, part in parts.items()}
    index = {"format": _FORMAT, "splits": splits} | ({} if made_of is None else {"made_of": made_of})
    store = next(iter(parts.values())).store
    n = sum(len(part.order) for part in parts.values())
    size = n * store.shape[1] * store.element_size()
    named = next(name for name, dtype in DTYPES.items() if dtype == store.dtype)
    header: dict[str, Any] = {
        "__metadata__": {"fewstep": json.dumps(index)},
        "features": {"dtype": named, "shape": [n, store.shape[1]], "data_offsets": [0, size]},
    }
    keys = b""
    if (named_rows := keys_in(parts)) is not None:
        keys = "\0".join(named_rows.tolist()).encode()
        header["keys"] = {"dtype": "U8", "shape": [len(keys)], "data_offsets": [size, size + len(keys)]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(8 + len(encoded)) % 64)  # rows begin where a processor likes them
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        write_rows(file, parts, where)
        file.write(keys)


def write_rows(file: Any, parts: Parts, where: str) -> None:
    """Write the bytes of all rows, a block of them at a time.

    Raises:
        ValueError: if a row is not finite.
    """
    for split, part in parts.items():
        for rows in part.finite_blocks(f"{where} {split}".rstrip()):
            file.write(bytes_of(rows))


def read_safetensors(path: Path) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """The entries of a file, its features mapped and the others read; and the index, where it is the library's own.

    Raises:
        ValueError: if the file is damaged, or not of this format.
    """
    with reading(path, "is no safetensors file", "fetch or make it again"):
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            with path.open("rb") as bytes_:
                (length,) = struct.unpack("<Q", bytes_.read(8))
                header = json.loads(bytes_.read(length))
            mapped = [name for name in names if name.lower() in FEATURES]
            entries = {name: file.get_tensor(name) for name in names if name not in mapped}
        index = json.loads(metadata["fewstep"]) if "fewstep" in metadata else None
        for name in mapped:
            entries[name] = _mapped(path, 8 + length, header[name])
    return entries, index if isinstance(index, dict) and "splits" in index else None


def read_store(path: Path, entries: Mapping[str, Any], index: Mapping[str, Any]) -> Parts:
    """The parts of the library's own file.

    Raises:
        ValueError: if it is of a later format, or contradicts itself.
    """
    if index.get("format") != _FORMAT:
        raise ValueError(f"{path} has format {index.get('format')}, this version of fewstep reads format {_FORMAT}")
    store, start, parts = entries["features"], 0, {}
    keys = np.array(entries["keys"].tobytes().decode().split("\0"), np.str_) if "keys" in entries else None
    for split, classes in index["splits"].items():
        sizes = tuple(int(size) for _, size in classes)
        rows = np.arange(start, start + sum(sizes))
        parts[split] = Part(store, rows, tuple(str(name) for name, _ in classes), sizes, keys)
        start += sum(sizes)
    if start != len(store) or (keys is not None and len(keys) != start):
        raise ValueError(f"{path} is damaged: its index tells of {start} rows, it holds {len(store)}. Make it again")
    return parts


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> Tensor:
    if (dtype := DTYPES.get(entry["dtype"])) is None:
        raise ValueError(f"features are {entry['dtype']}, expected one of {', '.join(DTYPES)}")
    offset = start + entry["data_offsets"][0]
    plain = np.dtype({"BF16": "<i2"}.get(entry["dtype"], f"<f{dtype.itemsize}"))
    if not all(entry["shape"]):
        return torch.empty(entry["shape"], dtype=dtype)
    array = np.memmap(path, plain, "r", offset, tuple(entry["shape"]))
    return as_tensor(array).view(dtype)


def bytes_of(rows: Tensor) -> bytes:
    """The bytes of some rows."""
    return rows.contiguous().view(torch.uint8).numpy().tobytes()


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
