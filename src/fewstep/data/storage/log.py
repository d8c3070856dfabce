"""The log of a training as a CSV file in long format: a row for each number."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from fewstep.data.storage.files import csv_text
from fewstep.data.storage.reading import reading

METRICS = "metrics.csv"
"""The name of the log in the folder of a training."""

Row: TypeAlias = tuple[int, str, str, float]
"""``step, split, name, value``."""

_COLUMNS = ("step", "split", "name", "value")


def log_text(rows: Iterable[Row]) -> str:
    """Rows as the file has them."""
    return csv_text([_COLUMNS, *rows])


def read_log(path: str | Path, advice: str = "") -> list[Row]:
    """The rows of a log.

    Args:
        path: of the file.
        advice: what to do when it is damaged.

    Raises:
        ValueError: when it is damaged, or has other columns.
        OSError: when it cannot be read.
    """
    with reading(path, "is no log of a training", advice), Path(path).open(newline="", encoding="utf-8") as file:
        return list(_rows(csv.reader(file, strict=True)))


def _rows(lines: Iterator[list[str]]) -> Iterator[Row]:
    if (head := tuple(next(lines, ()))) != _COLUMNS:
        raise ValueError(f"its columns are {', '.join(head) or 'none'}, not {', '.join(_COLUMNS)}")
    for number, line in enumerate(lines, start=2):
        try:
            step, split, name, value = line
            yield int(step), split, name, float(value)
        except ValueError as error:
            raise ValueError(f"line {number} is {','.join(line)!r}") from error
