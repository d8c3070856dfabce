"""Texts of a table, with their classes and splits, where it has such columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

TABLES = (".csv", ".tsv", ".parquet")
"""Suffixes of the files that :func:`read_texts` reads."""

_SPLITS = {"train": "train", "base": "train", "val": "val", "validation": "val", "test": "test", "novel": "test"}


class Texts(NamedTuple):
    """Texts, in the order of the table.

    Attributes:
        texts: one a row.
        labels: the class of each, None where no column was named.
        splits: "train", "val" or "test" of each, None where no column was named.
    """

    texts: list[str]
    labels: list[str] | None
    splits: list[str] | None


def read_texts(path: str | Path, text: str, labels: str | None = None, split: str | None = None) -> Texts:
    """A column of texts, and their classes and splits.

    Args:
        path: ``.csv`` or ``.tsv`` in UTF-8 with a line of names, or ``.parquet``, which needs ``pyarrow``.
        text: the column of texts.
        labels: the column of classes, which are taken as they are written: "007" is not "7".
        split: the column of splits: train, val or test; base, validation and novel mean the same.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind or damaged, has no such column or no rows, or a cell is empty or no split;
            the message names the column and the row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix not in TABLES:
        raise ValueError(f"{path} is no table of texts: give one that ends in {', '.join(TABLES)}")
    wanted = {"text": text, "labels": labels, "split": split}
    columns = [name for name in wanted.values() if name is not None]
    found = (_parquet if path.suffix == ".parquet" else _csv)(path, columns)
    for what, name in wanted.items():
        if name is not None and (empty := [row for row, cell in enumerate(found[name], 1) if not cell.strip()]):
            raise ValueError(f"{path}: row {empty[0]} has an empty {what} ({name}): fill or remove it")
    if split is not None and (bad := [cell for cell in found[split] if cell.strip().lower() not in _SPLITS]):
        raise ValueError(f"{path}: column {split} must hold train, val and test, it has {bad[0]!r}")
    return Texts(
        found[text],
        None if labels is None else [cell.strip() for cell in found[labels]],
        None if split is None else [_SPLITS[cell.strip().lower()] for cell in found[split]],
    )


def _csv(path: Path, columns: list[str]) -> dict[str, list[str]]:
    csv.field_size_limit(2**31 - 1)  # a text may be a book
    found: dict[str, list[str]] = {name: [] for name in columns}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # with or without Excel's mark
            rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            _check_columns(path, columns, rows.fieldnames or ())
            for row in rows:
                for name in columns:
                    found[name].append(row[name] or "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged or not in UTF-8 ({error}): save it as CSV in UTF-8") from error
    if not found[columns[0]]:
        raise ValueError(f"{path} has no rows")
    return found


def _parquet(path: Path, columns: list[str]) -> dict[str, list[str]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError(
            f"{path} is a Parquet file, which the package pyarrow reads: pip install 'fewstep[parquet]'"
        ) from error
    try:
        _check_columns(path, columns, parquet.read_schema(path).names)
        table = parquet.read_table(path, columns=columns)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is damaged or no Parquet file ({str(error).splitlines()[0]})") from error
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return {name: ["" if cell is None else str(cell) for cell in table[name].to_pylist()] for name in columns}


def _check_columns(path: Path, columns: list[str], there: object) -> None:
    names = [str(name) for name in there] if isinstance(there, list | tuple) else []
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"{path} has no column {missing[0]!r}, it has {', '.join(names) or 'none'}")
