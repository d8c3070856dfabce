"""Tables with a row for each example: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.data.features.store import FEATURES

TABLES = (".csv", ".tsv", ".parquet")

LABEL_COLUMNS = ("label", "labels", "y", "class", "target")
"""Names of the column of classes, in small letters; the first of them that there is."""

KEY_COLUMNS = ("key", "keys", "id", "index", "")
"""Names of a column that names rows, in small letters; pandas writes an index under none."""

_DELIMITERS = ",;\t"


def read_table(path: Path) -> dict[str, Any]:
    """Features, labels, splits and keys of a table, under these names.

    A column named ``label`` (``labels``, ``y``, ``class``, ``target``) has the classes, one named ``split`` the splits,
    and ``id``, ``key`` or ``index`` the names of rows. Every other column must hold numbers, and is a feature; Parquet
    may have all of them in one column of vectors, ``features`` or ``embeddings``. Labels are taken as they are written:
    "007" is not "7".

    Raises:
        ValueError: for a table without features, or with a cell that is no number; the message names it.
        ImportError: for Parquet without pyarrow.
    """
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _roles(names: Sequence[str], path: Path) -> dict[str, str]:
    """What the columns are that hold no features, by their names."""
    plain = [name.strip().lower() for name in names]
    if twice := sorted({name for name in plain if plain.count(name) > 1}):
        raise ValueError(f"two columns are named {twice[0]!r}: give each a name of its own")
    found: dict[str, str] = {}
    for what, known in (("labels", LABEL_COLUMNS), ("split", ("split",)), ("keys", KEY_COLUMNS)):
        if (first := next((name for name in known if name in plain), None)) is not None:
            found[names[plain.index(first)]] = what
    return found


def _csv(path: Path) -> dict[str, Any]:
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8-sig") as file:  # with or without Excel's mark
        head = file.readline()
        file.seek(0)
        lines = csv.reader(file, delimiter=max(_DELIMITERS, key=head.count))
        names = [name.strip() for name in next(lines, [])]
        if not names or all(_is_number(name) for name in names):
            raise ValueError("it must begin with a line of names, label among them, one for each column")
        roles = _roles(names, path)
        which = [i for i, name in enumerate(names) if name not in roles]
        columns: dict[str, list[str]] = {what: [] for what in roles.values()}
        rows: list[NDArray[np.float64]] = []
        for number, line in enumerate(filter(None, lines), 2):
            if len(line) != len(names):
                raise ValueError(f"line {number} has {len(line)} cells, but there are {len(names)} columns")
            for i, name in enumerate(names):
                if name in roles:
                    columns[roles[name]].append(line[i].strip())
            try:
                rows.append(np.array([float(line[i]) for i in which]))
            except ValueError:
                bad = next(i for i in which if not _is_number(line[i]))
                raise ValueError(
                    f"line {number} has {line[bad]!r} for {names[bad]!r}, which is no number: a column that is neither "
                    f"a feature nor the label ({', '.join(LABEL_COLUMNS)}) is to be left out"
                ) from None
    if not rows or not which:
        raise ValueError("it has no rows of numbers")
    return {"features": np.stack(rows), **{what: np.array(values) for what, values in columns.items()}}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> dict[str, Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(
            f"{path} is a Parquet file, which the package pyarrow reads: pip install 'fewstep[parquet]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except arrow.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    names = list(table.column_names)
    roles = _roles(names, path)
    entries: dict[str, Any] = {}
    for name, what in roles.items():
        values = table[name].to_pylist()
        # A missing class stays missing, for a later complaint that names its row.
        entries[what] = np.array(["" if value is None else str(value) for value in values])
    columns = {name: table[name].combine_chunks() for name in names if name not in roles}
    if vectors := {name: column for name, column in columns.items() if name.lower() in FEATURES and _is_list(column)}:
        (name, column), *others = vectors.items()
        if others:
            raise ValueError(f"{name} and {others[0][0]} are both columns of vectors: leave one of them")
        return entries | {"features": _vectors(name, column)}
    return entries | {"features": _numbers(columns)}


def _is_list(column: Any) -> bool:
    return "list" in str(column.type)


def _vectors(name: str, column: Any) -> NDArray[Any]:
    """A column of lists as rows."""
    if column.null_count or column.flatten().null_count:
        raise ValueError(f"column {name!r} has empty cells: give every row its features")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if not len(column) or len(flat) % len(column) or {len(row) for row in column} != {len(flat) // len(column)}:
        raise ValueError(f"column {name!r} must hold vectors of one length")
    rows: NDArray[Any] = flat.reshape(len(column), -1)
    return rows


def _numbers(columns: Mapping[str, Any]) -> NDArray[Any]:
    """A feature a column, as rows."""
    arrays = []
    for name, column in columns.items():
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind not in "fiu":
            raise ValueError(
                f"column {name!r} holds {column.type}, no numbers: a column that is neither a feature nor the label "
                f"({', '.join(LABEL_COLUMNS)}) is to be left out"
            )
        if column.null_count:
            raise ValueError(f"column {name!r} has {column.null_count} empty cells: give every row its features")
        arrays.append(values if values.dtype.kind == "f" else values.astype(np.float64))
    if not arrays:
        raise ValueError("it has no columns of numbers")
    return np.stack(arrays, 1)
