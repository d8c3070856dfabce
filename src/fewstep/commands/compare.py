"""``fewstep compare``: several methods on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.commands.arguments import options_of
from fewstep.commands.console import console, note, point_to, say
from fewstep.commands.long_running import LongRunning, new_folder, stoppable


@dataclass(frozen=True)
class Compare:
    """Score runs, and recipes that are trained first, on the same tasks: table, paired differences and a picture."""

    methods: tyro.conf.Positional[tuple[str, ...]]
    """Folders of runs, or names of recipes; a recipe is trained in OUT/runs, or continued there."""
    split: Literal["test", "val", "train"] = "test"
    """Classes to draw tasks from."""
    tasks: int | None = None
    """Number of tasks; what is omitted, here and below, is as in the first method's test."""
    seed: int | None = None
    """Of the tasks."""
    ways: int | None = None
    """N, classes in a task."""
    shots: int | None = None
    """K, support examples of each class."""
    queries: int | None = None
    """Query examples of each class."""
    reference: str | None = None
    """The method whose difference to each is shown; the first one when omitted."""
    out: Path | None = None
    """Folder for comparison.md, .csv, .png and .svg, tasks.csv and differences.csv; a new one under comparisons/ when
    omitted."""


def compare(arguments: Sequence[str]) -> None:
    """``fewstep compare RUN RECIPE … [options]``."""
    asked = tyro.cli(Compare, args=arguments, prog="fewstep compare")
    job = LongRunning("compare", arguments, asked.out, new_folder("comparisons"))
    from fewstep.commands.progress import test_bar, training_bar
    from fewstep.experiments.compare.procedure import compare as run

    with stoppable(*job.words):
        options = options_of(asked, "out")
        comparison = run(**options, out=job.folder, note=note, training_bar=training_bar, test_bar=test_bar)
    for table in comparison.tables():
        console.print(table)
    for caveat in comparison.caveats():
        say(f"- {caveat}")
    point_to("comparison", job.folder / "comparison.md")
