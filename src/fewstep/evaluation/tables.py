"""Cells and settings as CSV and as Markdown."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a CSV file: floats read back to the same bits, and None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [repr(cell) if isinstance(cell, float) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def markdown_lines(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as the lines of a table in Markdown; the first one is its head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def settings_lines(values: Mapping[str, Any], absence: str = "") -> list[str]:
    """Nested settings as a table in Markdown, with dotted names; ``absence`` where there are none."""
    return markdown_lines([("setting", "value"), *_flat(values)]) if values else [absence]


def setting_text(value: Any) -> str:
    """One setting, for reading."""
    if isinstance(value, str):
        return value
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", setting_text(value)
