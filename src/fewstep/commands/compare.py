"""``fewstep compare``: several methods on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fewstep.commands.arguments import OfTasks, options_of, parsed
from fewstep.commands.console import console, note, point_to, say
from fewstep.commands.long_running import LongRunning
from fewstep.experiments.engines import EngineName


@dataclass(frozen=True)
class Compare(OfTasks):
    """Score runs, and recipes that are trained first, on the same tasks: table, paired differences and a picture."""

    methods: tyro.conf.Positional[tuple[str, ...]]
    """Folders of runs, or names of recipes; a recipe is trained in OUT/runs, or continued there."""
    reference: str | None = None
    """The method whose difference to each is shown; the first one when omitted."""
    engine: EngineName = "local"
    """Where recipes are trained: one after another in this process, or on a Dask or Ray cluster (docs/cluster.md)."""
    address: str | None = None
    """Of the cluster's scheduler or head. None: one of processes of this machine."""
    out: Path | None = None
    """Folder for comparison.md, .csv, .png and .svg, tasks.csv and differences.csv; a new one under comparisons/ when
    omitted."""


def compare(arguments: Sequence[str]) -> None:
    """``fewstep compare RUN RECIPE … [options]``."""
    asked = parsed(Compare, arguments, "fewstep compare")
    job = LongRunning("compare", arguments, asked.out, "comparisons")
    with job.at_work():
        from fewstep.commands.progress import test_bar, training_bar
        from fewstep.experiments.compare.procedure import compare as run
        from fewstep.experiments.engines import engine_of

        options = options_of(asked, "out", "engine", "address")
        options["engine"] = engine_of(asked.engine, asked.address)
        comparison = run(**options, out=job.folder, note=note, training_bar=training_bar, test_bar=test_bar)
        console.print(*comparison.tables())
        say("\n".join(f"- {caveat}" for caveat in comparison.caveats()))
        point_to("comparison", job.folder / "comparison.md")
        point_to("page", job.folder / "report.html")
