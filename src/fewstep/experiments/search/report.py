"""The report of a search: its table, page and files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.evaluation.figures import images
from fewstep.evaluation.tables import markdown_lines, record_rows, write_files
from fewstep.experiments.search.plot import draw
from fewstep.experiments.search.result import SearchResult, Trial
from fewstep.recipes import to_json

SHOWN = 10
"""Trials in the table of the best."""


def write_table(rows: Sequence[Trial], folder: Path) -> None:
    """Write every configuration as a line of ``trials.csv``."""
    write_files(folder, {"trials.csv": _cells(rows)})


def write(found: SearchResult, folder: Path) -> None:
    """Write ``best.json``, which ``fewstep train`` takes, trials, ``result.json``, ``search.md`` and the pictures."""
    files = {
        "best.json": to_json(found.config),
        "trials.csv": _cells(found.rows),
        "result.json": found.to_json(),
        **images("search", partial(draw, found)),
        "search.md": markdown(found),  # last: it points to the picture
    }
    write_files(folder, files)


def markdown(found: SearchResult) -> str:
    """The report: protocol, the best configurations, importances."""
    names = [range.setting for range in found.space]
    best = [
        [str(row.index), f"{row.value:.4f}", str(row.best_step), *(f"{row.settings[name]:.4g}" for name in names)]
        for row in found.ranked[:SHOWN]
    ]
    found_by_state = ", ".join(f"{n} {state}" for state, n in found.trials.items())
    facts = [*(f"- {name}: {value}" for name, value in found.protocol.items()), f"- configurations: {found_by_state}"]
    blocks = [
        f"# Search: {found.config.recipe}",
        "\n".join(facts),
        "\n".join(f"Drawn: {range}  " for range in found.space),
        "![search](search.svg)",
        "## The best",
        "\n".join(markdown_lines([["trial", found.score, "at meta-step", *names], *best])),
        f"The best of {len(found.ranked)} validation scores is optimistic: part of what sets it apart is the "
        "chance of its validation tasks. Test the configuration on other tasks before you compare it with "
        "anything: `fewstep train best.json`.",
        "## Importances",
        found.importance_text(),
    ]
    if failed := [f"- trial {row.index}: {row.reason}" for row in found.rows if row.state == "failed"]:
        blocks += ["## Failed", "\n".join(failed)]
    return "\n\n".join(blocks) + "\n"


def _cells(rows: Sequence[Trial]) -> list[list[Any]]:
    """Every configuration as a row of a CSV file, below their head."""
    return record_rows(
        {
            "trial": row.index,
            **{name: getattr(row, name) for name in ("state", "value", "best_step", "steps", "seconds")},
            **row.settings,
            "reason": row.reason,
        }
        for row in rows
    )
