"""The written forms of a result: CSV, JSON, Markdown, tables for a terminal, and the files that hold them."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fewstep.data.storage.files import csv_text, json_text, write_atomically
from fewstep.evaluation.statistics import Interval


def write_files(folder: str | os.PathLike[str], files: Mapping[str, Any]) -> None:
    """Write files by name, in their order, each whole or not at all.

    Args:
        folder: made where it is not there.
        files: text and bytes as they are; of anything else, rows as ``.csv`` and plain values as ``.json``.

    Raises:
        OSError: if a file cannot be written.
    """
    forms: Mapping[str, Callable[[Any], str]] = {".csv": csv_text, ".json": json_text}
    for name, content in files.items():
        done = isinstance(content, str | bytes)
        write_atomically(Path(folder, name), content if done else forms[Path(name).suffix](content))


def record_rows(records: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """Records as rows for ``csv_text``, below the names of the first; what another one lacks is empty."""
    records = list(records)
    head = list(records[0])
    return [head, *([record.get(name) for name in head] for record in records)]


def task_rows(scores: Mapping[str, Iterable[float]]) -> list[list[Any]]:
    """Scores by name as rows for ``csv_text``, one a task, which are counted from 0."""
    values = zip(*scores.values(), strict=True)
    return [["task", *scores], *([task, *row] for task, row in enumerate(values))]


def interval_cells(value: Interval | None, mean: str, half_width: str = "") -> dict[str, float | None]:
    """An interval as two cells of a row, by the names of their columns; both empty for None."""
    numbers = (None, None) if value is None else (value.mean, value.half_width)
    return dict(zip((mean, half_width or f"{mean}_half_width"), numbers, strict=True))


def markdown_lines(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as the lines of a table in Markdown; the first one is its head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def protocol_lines(protocol: Mapping[str, Any]) -> list[str]:
    """What the tasks were as a table in Markdown."""
    return markdown_lines([("protocol", ""), *((name, plain_text(value)) for name, value in protocol.items())])


def protocol_title(protocol: Mapping[str, Any]) -> str:
    """What the tasks were in a line."""
    return " · ".join(f"{name}: {plain_text(value)}" for name, value in protocol.items())


def settings_lines(values: Mapping[str, Any], absence: str = "") -> list[str]:
    """Nested settings as a table in Markdown, with dotted names; ``absence`` where there are none."""
    shown = ((name, setting_text(value)) for name, value in flat(values))
    return markdown_lines([("setting", "value"), *shown]) if values else [absence]


def setting_text(value: Any) -> str:
    """One setting, for reading."""
    if isinstance(value, str):
        return value
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def plain_text(value: Any) -> str:
    """A fact of a protocol, for reading: ``1, 2`` rather than ``[1, 2]``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_text, value))
    return f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value)


def counted(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def empty_table(title: str) -> Table:
    """A table for a terminal, with a rule below its head and no other lines; brackets in its title are no markup."""
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def terminal_table(title: str, cells: Sequence[Sequence[str]], columns: str) -> Table:
    """Cells, the head first, as a table for a terminal whose first column is bold; brackets in them are no markup.

    Args:
        title: above it.
        cells: rows of equal length.
        columns: a letter each: text that ``f``\\ olds where a terminal is narrow, or what stays in one piece, to the
            ``l``\\ eft or to the ``r``\\ ight. The last one counts for all that follow.
    """
    table, (head, *lines) = empty_table(title), cells
    for i, (name, kind) in enumerate(zip(head, columns.ljust(len(head), columns[-1]), strict=True)):
        table.add_column(
            Text(name),
            justify="right" if kind == "r" else "left",
            no_wrap=kind != "f",
            overflow="fold",
            style="" if i else "bold",
        )
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values with dotted names."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
