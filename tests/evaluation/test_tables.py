"""The written forms of results: bits of numbers, cells, and files."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fewstep.data.storage.files import csv_text
from fewstep.evaluation.statistics import Interval, Score, finite_interval
from fewstep.evaluation.tables import (
    counted,
    interval_cells,
    markdown_lines,
    plain_text,
    record_rows,
    task_rows,
    terminal_table,
    write_files,
)

HARD = [1 / 3, 0.1 + 0.2, 1e-17, 1e300, 5e-324, math.inf]


def test_numbers_of_a_csv_file_read_back_to_the_same_bits() -> None:
    text = csv_text(task_rows({"a": HARD, "b, c": np.array(HARD)[::-1]}))
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["task", "a", "b, c"]
    assert [row[0] for row in rows] == list("012345")
    assert [float(row[1]) for row in rows] == HARD
    assert [float(row[2]) for row in rows] == HARD[::-1]


def test_what_a_record_lacks_is_empty_and_none_too() -> None:
    records = [{"name": "a", **interval_cells(Interval(0.5, 0.1, 9), "mean")}, {"mean_half_width": None, "name": "b"}]
    assert csv_text(record_rows(records)) == "name,mean,mean_half_width\na,0.5,0.1\nb,,\n"


def test_files_are_written_by_their_kind(tmp_path: Path) -> None:
    files = {"a.json": {"é": [1]}, "b.csv": [["x"], [None]], "c.json": "as it is", "d.png": b"\x00", "e.md": "text"}
    write_files(tmp_path / "new", files)
    read = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert json.loads(read["a.json"]) == {"é": [1]}
    assert "é".encode() in read["a.json"], "letters stay readable"
    assert read["a.json"].endswith(b"}\n")
    assert (read["b.csv"], read["c.json"], read["d.png"], read["e.md"]) == (b'x\n""\n', b"as it is", b"\x00", b"text")


@pytest.mark.parametrize(
    ("value", "text"),
    [([1, 2.50], "1, 2.5"), (None, "–"), ({"a": 1, "b": None}, "a 1, b –"), ("x", "x"), (True, "True"), (0.3, "0.3")],
)
def test_facts_are_plain_text(value: object, text: str) -> None:
    assert plain_text(value) == text


def test_cells_of_markdown_do_not_break_its_table() -> None:
    assert markdown_lines([["a|b", ""], ["c\nd", "1"]]) == [r"| a\|b |  |", "| --- | --- |", "| c d | 1 |"]


def test_only_folding_columns_of_a_terminal_table_are_broken() -> None:
    console = Console(width=30, record=True, file=io.StringIO())
    console.print(terminal_table("title", [["name", "x", "y"], ["many words in a row", "89.96 ± 0.17", "1"]], "fr"))
    lines = console.export_text().splitlines()
    assert any("89.96 ± 0.17" in line for line in lines)
    assert not any("many words in a row" in line for line in lines)
    assert any(line.endswith("1") for line in (line.rstrip() for line in lines)), (
        "to the right, as the last letter says"
    )


def test_scores_are_shown_in_percent_and_errors_as_they_are() -> None:
    accuracy, error = Score("accuracy"), Score("mse", higher_is_better=False)
    value = Interval(0.8996, 0.0017, 600)
    assert (accuracy.text(value), error.text(value, sign=True)) == ("89.96 ± 0.17", "+0.8996 ± 0.0017")
    assert (accuracy.number(0.5), error.number(0.5), error.number(None)) == ("50.00", "0.5000", "–")
    assert (accuracy.unit, accuracy.better) == ("accuracy, %", "higher is better")
    assert (error.unit, error.better, error.text(None)) == ("mse", "lower is better", "n/a")
    assert finite_interval(np.array([0.5, math.nan])) is None
    assert finite_interval(np.array([0.5])) is None


def test_nouns_have_a_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
