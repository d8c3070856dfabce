"""Examples grouped by class, from which few-shot tasks are drawn."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Int, Num
from numpy.typing import NDArray
from torch import Tensor

from fewstep.data.checks import check_count

Store: TypeAlias = Tensor | NDArray[np.generic]
"""``[n, *features]``: a tensor, an array or a memory map, of any real dtype."""

Labels: TypeAlias = Sequence[object] | NDArray[np.generic] | Tensor
"""``[n]``, names or numbers."""

Indices: TypeAlias = Int[np.ndarray, " some"] | Sequence[int]

AT_ONCE = 2**22
"""Numbers that are looked at, or gathered, together by what goes through all rows."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples grouped by class: *position* ``p`` belongs to class ``c`` iff ``offsets[c] <= p < offsets[c + 1]``.

    Rows are never moved or copied: where the store is not sorted by class, or only some of its classes are wanted,
    ``order`` says which row lies at each position. So a memory map larger than memory serves as well as a tensor, and
    no operation after construction costs more than the rows it returns.

    Make one with :meth:`from_labels`, :meth:`from_sorted` or :meth:`from_torch`.

    Attributes:
        store: ``[n, *features]``, the rows as they were given.
        offsets: int64 ``[classes + 1]``, from 0 to the number of positions. Classes may differ in size.
        class_names: one distinct name per class.
        order: int64 ``[positions]``, the row of the store at each position; None where they are the same.
        transform: applied to the rows that :meth:`gather` returns, for example ``l2_normalise``.
        name: of the dataset, for messages.
        split: of the dataset, for messages.
        tokens: rows are indices into a table (``nn.Embedding``), of any integer type, and stay integers.
    """

    store: Store
    offsets: Int[np.ndarray, " bounds"]
    class_names: tuple[str, ...]
    order: Int[np.ndarray, " positions"] | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    name: str = "dataset"
    split: str = ""
    tokens: bool = False

    def __post_init__(self) -> None:
        if self.tokens and self._kind not in "iu":
            raise ValueError(
                f"{self}: tokens are integers, but the rows are {self.store.dtype}: give them in an integer type, or "
                "leave out tokens=True"
            )
        held = len(self.store) if self.order is None else len(self.order)
        if self.offsets.ndim != 1 or len(self.offsets) != len(self.class_names) + 1:
            raise ValueError(
                f"{self}: offsets must have one entry more than there are classes, "
                f"got shape {self.offsets.shape} for {len(self.class_names)} class names"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != held or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"{self}: offsets must rise from 0 to the number of rows, {held}, got {self.offsets}")
        if len(set(self.class_names)) < len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise ValueError(f"{self}: class names must be distinct, {twice!r} occurs more than once")

    @classmethod
    def from_sorted(
        cls,
        rows: Store,
        offsets: Indices,
        class_names: Sequence[str] | None = None,
        *,
        name: str = "dataset",
        split: str = "",
        tokens: bool = False,
    ) -> "Dataset":
        """Rows that are already grouped by class.

        Args:
            rows: ``[n, *features]``; class ``c`` is ``rows[offsets[c]:offsets[c + 1]]``.
            offsets: ``[classes + 1]``, rising from 0 to n.
            class_names: one per class; "0", "1", ... when omitted.
            name: of the dataset, for messages.
            split: of the dataset, for messages.
            tokens: rows are indices into a table, which stay integers.

        Raises:
            ValueError: if the offsets do not fit the rows, names repeat, or an in-memory row is not finite.
        """
        bounds = np.asarray(offsets, dtype=np.int64)
        names = tuple(map(str, range(len(bounds) - 1))) if class_names is None else tuple(class_names)
        dataset = cls(rows, bounds, names, name=name, split=split, tokens=tokens)
        if not isinstance(rows, np.memmap):
            dataset.check_finite()
        return dataset

    @classmethod
    def from_labels(
        cls, rows: Store, labels: Labels, *, name: str = "dataset", split: str = "", tokens: bool = False
    ) -> "Dataset":
        """Rows in any order, with the name of each row's class.

        Classes are ordered by label, numbers as numbers and names as text; within a class the rows keep their order.

        Args:
            rows: ``[n, *features]``.
            labels: ``[n]``, names or numbers.
            name: of the dataset, for messages.
            split: of the dataset, for messages.
            tokens: rows are indices into a table, which stay integers.

        Raises:
            ValueError: if there are no rows, the lengths differ, a label is missing (None, NaN or empty), or an
                in-memory row is not finite.
        """
        owner = f"{name} {split}".rstrip()
        known, which = classes_of(labels, owner)
        if len(which) != len(rows):
            raise ValueError(f"{owner}: {len(rows)} rows but {len(which)} labels: give one label for each row")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(which, minlength=len(known)))]).astype(np.int64)
        order = None if (np.diff(which) >= 0).all() else np.argsort(which, kind="stable")
        dataset = cls(rows, bounds, known, order, name=name, split=split, tokens=tokens)
        if not isinstance(rows, np.memmap):
            dataset.check_finite()
        return dataset

    @classmethod
    def from_torch(
        cls,
        dataset: Any,
        *,
        name: str = "dataset",
        split: str = "",
        key: str | None = None,
        workers: int = 0,
        cache: str | Path | None = None,
    ) -> "Dataset":
        """A map-style dataset of PyTorch, of (image, label) pairs: each item is read once, into a memory-mapped file.

        PIL images become bytes ``[channels, height, width]``, arrays and tensors stay what they are; all have one shape
        and dtype. Labels are whole numbers or names, tensors and arrays of one number included. Memory holds a batch.

        Args:
            dataset: anything with ``__getitem__`` and ``__len__``. Leave random transforms out: a row is drawn once.
            name: of the dataset, for messages and for the file.
            split: of the dataset, for messages.
            key: what the content is known by, such as ``"cub-200 train 84px"``: the rows are then found again without
                being read. None: they are read each time, and the same rows take room once.
            workers: processes that read items; 0: this one.
            cache: the cache folder; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.

        Raises:
            ValueError: if items are no such pairs, or differ in shape or dtype; the message names the item.
            OSError: if the cache folder cannot be written or is full.

        Example:
            >>> pairs = torch.utils.data.TensorDataset(torch.zeros(3, 1, 8, 8), torch.tensor([7, 4, 7]))
            >>> Dataset.from_torch(pairs, name="digits").class_names
            ('4', '7')
        """
        from fewstep.data.pairs import count_of, pairs_of
        from fewstep.data.storage.rows import keep_rows, kept_rows

        owner = f"{name} {split}".rstrip()
        rows = count_of(dataset, owner)
        found = None if key is None else kept_rows(owner, key, rows, cache=cache)
        store, labels = found or keep_rows(owner, pairs_of(dataset, owner, workers), rows, key=key, cache=cache)
        return cls.from_labels(store, labels, name=name, split=split)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __str__(self) -> str:
        return f"{self.name} {self.split}".rstrip()

    def __repr__(self) -> str:
        return f"<Dataset {self}: {len(self)} rows of {self.feature_shape}, {self.classes} classes>"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def sizes(self) -> Int[np.ndarray, " classes"]:
        """Number of examples of each class."""
        return np.diff(self.offsets)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row of the store (before ``transform``)."""
        return tuple(self.store.shape[1:])

    @property
    def holds_floats(self) -> bool:
        """Whether the store holds floating-point numbers, rather than bytes or other integers."""
        return self._kind == "f"

    @property
    def _kind(self) -> str:
        """The kind of the store's numbers, as numpy calls it."""
        none: Store = self.store[:0]
        return none.numpy(force=True).dtype.kind if isinstance(none, Tensor) else none.dtype.kind

    @property
    def labels(self) -> Int[np.ndarray, " positions"]:
        """Class index of each position."""
        return np.repeat(np.arange(self.classes), self.sizes)

    def gather(
        self,
        positions: Int[np.ndarray, "..."],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        out: Num[Tensor, "..."] | None = None,
    ) -> Num[Tensor, "..."]:
        """The rows at some positions, as floating-point numbers, or as int64 where they are ``tokens``.

        Bytes are images and are scaled to [0, 1] by 1/255 after the gather (and after the copy to the device, which
        then moves a quarter of the data); every other dtype keeps its values.

        Args:
            positions: any shape, each from 0 to ``len(self) - 1``.
            dtype: floating-point type of the result; tokens have none.
            device: where the result lies. The store stays where it is.
            out: contiguous, to be overwritten with the result and returned. Fresh memory costs more than the rows
                that are put in it, when there are megabytes of them.

        Returns:
            ``[*positions.shape, *features]``, memory of its own unless ``out`` was given.

        Raises:
            IndexError: if a position is out of range.
        """
        flat = positions.reshape(-1)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"{self}: positions {flat.min()} to {flat.max()} asked for, there are {len(self)}")
        index = flat if self.order is None else self.order[flat]
        target = None
        if _shares_memory(self.store):
            store = as_tensor(self.store)
            if out is not None and (out.dtype, out.device) == (store.dtype, store.device) and self.transform is None:
                target = out.view(-1, *store.shape[1:])
            # Three times as fast as indexing: whole rows are copied, by several threads.
            rows = torch.index_select(store, 0, as_tensor(index).to(store.device), out=target)
        else:
            # Indexing, not np.take: np.take copies the whole of a store that is not contiguous.
            rows = as_tensor(np.asarray(self.store)[index])
        values = rows.to(device).to(torch.int64 if self.tokens else dtype)
        if rows.dtype == torch.uint8 and not self.tokens:
            values /= 255
        if rows.dtype == torch.float64 != values.dtype and not bool(values.isfinite().all()):
            largest = float(rows.abs().max())
            raise ValueError(f"{self}: {largest:g} is beyond {dtype}: scale the features, or make tasks in float64")
        if self.transform is not None:
            values = self.transform(values)
        values = values.reshape(*positions.shape, *values.shape[1:])
        return values if out is None or target is not None else out.copy_(values)

    def subset(self, classes: Indices | Sequence[str], *, split: str | None = None) -> "Dataset":
        """Some of the classes, in the order given, over the same store.

        Args:
            classes: distinct classes, by index or by name.
            split: a new split name, for messages.

        Raises:
            ValueError: if there is no such class, a class is repeated, or there are none.
        """
        index = {name: c for c, name in enumerate(self.class_names)}
        if unknown := [name for name in classes if isinstance(name, str) and name not in index]:
            raise ValueError(f"{self}: there is no class {unknown[0]!r}")
        chosen = np.array([index[c] if isinstance(c, str) else c for c in classes], dtype=np.int64)
        if not chosen.size or chosen.min() < 0 or chosen.max() >= self.classes:
            raise ValueError(
                f"{self}: class indices must be from 0 to {self.classes - 1} and at least one, got {chosen}"
            )
        positions = np.concatenate([np.arange(self.offsets[c], self.offsets[c + 1]) for c in chosen])
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(self.sizes[chosen])]).astype(np.int64),
            class_names=tuple(self.class_names[c] for c in chosen),
            order=positions if self.order is None else self.order[positions],
            split=self.split if split is None else split,
        )

    def transformed(self, transform: Callable[[Tensor], Tensor] | None) -> "Dataset":
        """The same data with another ``transform``, a function of rows ``[rows, *features]``. None removes it."""
        return replace(self, transform=transform)

    def in_memory(self, dtype: torch.dtype = torch.float32, limit_bytes: int = 2**31) -> "Dataset":
        """The same data, with rows gathered once into one tensor of memory; itself where that would be too large.

        Each later :meth:`gather` then only copies: where a store of half precision would be converted and normalised
        again for every task it appears in, a row of a test appears in thousands.

        Args:
            dtype: of the rows, that of the tasks to be drawn. Gathers in this dtype have the same bits as before.
            limit_bytes: the most that the rows may take, as they are after ``transform``.

        Returns:
            A dataset of the same positions and classes, without ``order`` and ``transform``. It is a copy: what is
            written into the old store is not seen in it.
        """
        if not len(self):
            return self
        one = self.gather(np.zeros(1, np.int64), dtype=dtype)
        if len(self) * one.nbytes > limit_bytes:
            return self
        rows = one.new_empty(len(self), *one.shape[1:])
        for positions in self.blocks():
            self.gather(positions, dtype=dtype, out=rows[positions[0] : positions[-1] + 1])
        return replace(self, store=rows, order=None, transform=None)

    def blocks(self, rows: int | None = None) -> Iterator[Int[np.ndarray, " some"]]:
        """All positions, in order, a few at a time: for what goes through rows that may not fit in memory at once.

        Args:
            rows: how many at a time; as many as some millions of numbers when omitted.
        """
        check_count("rows", 1 if rows is None else rows)
        block = max(1, AT_ONCE // max(1, int(np.prod(self.feature_shape)))) if rows is None else rows
        for start in range(0, len(self), block):
            yield np.arange(start, min(start + block, len(self)))

    def check_finite(self) -> None:
        """Look for NaN and infinity in every row.

        Done at construction for stores in memory. For a memory map it reads the whole file, so it is left to the
        caller.

        Raises:
            ValueError: naming the first bad row of the store and its class.
        """
        if not self.holds_floats:
            return
        block = max(1, AT_ONCE // max(1, int(np.prod(self.feature_shape))))
        for start in range(0, len(self.store), block):
            finite = torch.isfinite(as_tensor(self.store[start : start + block])).flatten(1).all(1)
            for row in (start + torch.nonzero(~finite).flatten()).tolist():
                position = row if self.order is None else np.flatnonzero(self.order == row)
                if np.size(position) == 0:
                    continue  # a row of a class that was left out
                owner = int(np.searchsorted(self.offsets, np.min(position), side="right")) - 1
                raise ValueError(
                    f"{self}: row {row} (class {self.class_names[owner]!r}) holds NaN or infinity; "
                    "remove the row or repair the features"
                )


def as_tensor(rows: Store) -> Tensor:
    """Rows as a tensor: over the same memory where torch can, else a copy."""
    if isinstance(rows, Tensor):
        return rows
    if not _shares_memory(rows):
        rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        # Torch warns that it could write to a read-only array, a memory map for example. It is only read here.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(rows)


def _shares_memory(rows: Store) -> bool:
    """Whether torch can have the rows without a copy, which their byte order or their strides may forbid."""
    if isinstance(rows, Tensor):
        return True
    regular = all(stride >= 0 and stride % rows.itemsize == 0 for stride in rows.strides)
    return rows.dtype.isnative and rows.flags.aligned and regular


def classes_of(labels: Labels, owner: str) -> tuple[tuple[str, ...], Int[np.ndarray, " rows"]]:
    """Distinct class names in order, and the class index of each row."""
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{owner}: labels must be a list of at least one label, got shape {values.shape}")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    for row, label in enumerate(values.tolist()):
        if label is None or label != label or label == "":
            raise ValueError(f"{owner}: the label of row {row} is missing; give every row a label")
    if values.dtype.kind == "O":
        values = np.array([str(label) for label in values.tolist()])
    known, which = np.unique(values, return_inverse=True)
    return tuple(str(label) for label in known.tolist()), which
