"""``fewstep evaluate``: test a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.commands.arguments import OfTasks, options_of, parsed
from fewstep.commands.console import console, note, say
from fewstep.commands.sharing import begin, is_to_begin, sharing
from fewstep.core.ranges import Threads


@dataclass(frozen=True)
class Evaluate(OfTasks):
    """Test a trained run on fresh tasks, beside its own unadapted start and classifiers without meta-learning."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    statistics: Literal["query", "support", "joined", "running"] | None = None
    """What queries are batch-normalised by: all of them (transductive), the support, the support joined by that one
    query, or its running statistics along adaptation; as in the recipe when omitted."""
    baselines: Literal["none", "quick", "all"] = "quick"
    """Quick ones are nearest class mean and ridge regression; all adds nearest class mean on centred inputs of length
    1, and logistic regression. Forecasts: autoregression, and with all the exact answer."""
    out: str | None = None
    """Also write OUT.json and OUT_tasks.csv into the run's folder and add it to its report; a name that is new
    there."""
    processes: Threads | None = None
    """Processes of this machine that share the tasks, and its cores, out among them (1)."""


def evaluate(arguments: Sequence[str]) -> None:
    """``fewstep evaluate RUN [options]``."""
    asked = parsed(Evaluate, arguments, "fewstep evaluate")
    from fewstep.commands.progress import test_bar
    from fewstep.experiments.results import check_name
    from fewstep.experiments.run import Run

    if asked.out is not None:
        check_name(asked.out, asked.run)
    if several := is_to_begin(asked.processes):
        return begin(["evaluate", *arguments], several, None, ["evaluate", *arguments])
    with sharing(asked.device) as ranks:
        run = Run.open(asked.run, note, asked.device)
        run.ranks = ranks
        with test_bar(run.config.testing.tasks if asked.tasks is None else asked.tasks) as advance:
            evaluation = run.test(progress=advance, **options_of(asked, "run", "out", "device", "processes"))
        console.print(evaluation.table())
        say(" · ".join(f"{name}: {value}" for name, value in evaluation.protocol.items()))
        if asked.out is not None and ranks.first:
            check_name(asked.out, asked.run)  # another process may have taken it meanwhile
            run.record(evaluation, asked.out)
