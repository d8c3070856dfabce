"""A search's report: its table, page and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fewstep.data.storage.files import write_atomically
from fewstep.experiments.search.plot import draw
from fewstep.experiments.search.result import SearchResult, Trial
from fewstep.recipes import Range, to_json

SHOWN = 10
"""Trials in the table of the best."""


def write_table(rows: Sequence[Trial], space: Sequence[Range], path: Path) -> None:
    """Every configuration as a line of a CSV file."""
    names = [range.setting for range in space]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", "best_step", "steps", "seconds", *names, "reason"])
    for row in rows:
        numbers = (row.value, row.best_step, row.steps, row.seconds)
        shown = ["" if number is None else repr(number) for number in numbers]
        writer.writerow([row.index, row.state, *shown, *(repr(row.settings[name]) for name in names), row.reason])
    write_atomically(path, text.getvalue())


def write(found: SearchResult, folder: Path) -> None:
    """Write ``best.json``, which ``fewstep train`` takes, ``trials.csv``, ``search.md``, and the pictures."""
    write_atomically(folder / "best.json", to_json(found.config))
    write_table(found.rows, found.space, folder / "trials.csv")
    write_atomically(folder / "search.md", markdown(found))
    for form in ("png", "svg"):
        write_atomically(folder / f"search.{form}", draw(found, form))


def markdown(found: SearchResult) -> str:
    """The report: protocol, the best configurations, importances."""
    names = [range.setting for range in found.space]
    lines = [f"# Search: {found.config.recipe}", ""]
    lines += [f"- {name}: {value}" for name, value in found.protocol.items()]
    lines += [f"- configurations: {', '.join(f'{n} {state}' for state, n in found.trials.items())}", ""]
    lines += [f"Drawn: {range}  " for range in found.space]
    lines += [
        "",
        "![search](search.svg)",
        "",
        "## The best",
        "",
        f"| trial | {found.score} | at meta-step | {' | '.join(names)} |",
    ]
    lines += ["|" + "---|" * (3 + len(names))]
    for row in found.ranked[:SHOWN]:
        settings = " | ".join(f"{row.settings[name]:.4g}" for name in names)
        lines.append(f"| {row.index} | {row.value:.4f} | {row.best_step} | {settings} |")
    lines += [
        "",
        f"The best of {len(found.ranked)} validation scores is optimistic: part of what sets it apart is the "
        "chance of its validation tasks. Test the configuration on other tasks before you compare it with "
        "anything: `fewstep train best.json`.",
        "",
        "## Importances",
        "",
        found.importance_text(),
        "",
    ]
    failed = [row for row in found.rows if row.state == "failed"]
    if failed:
        lines += ["## Failed", ""] + [f"- trial {row.index}: {row.reason}" for row in failed] + [""]
    return "\n".join(lines)
