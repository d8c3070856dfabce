"""``fewstep evaluate``: test a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from fewstep.commands.console import console, note, say


def evaluate(
    run: tyro.conf.Positional[Path],
    split: Literal["test", "val", "train"] = "test",
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    statistics: Literal["query", "support", "joined", "running"] | None = None,
    baselines: Literal["none", "quick", "all"] = "quick",
    out: str | None = None,
) -> None:
    """Test a trained run on fresh tasks, beside its own unadapted start and classifiers without meta-learning.

    Args:
        run: folder of the run.
        split: classes to draw tasks from.
        tasks: number of tasks; as in the recipe (2,000) when omitted.
        seed: of the tasks; as in the recipe (0) when omitted.
        ways: N, classes in a task; any number, whatever was trained.
        shots: K, support examples of each class; likewise.
        queries: query examples of each class; all that remain when omitted (regression: 100 points).
        statistics: what queries are batch-normalised by: all of them (transductive), the support, the support joined by
            that one query, or its running statistics along adaptation; as in the recipe when omitted.
        baselines: quick ones are nearest class mean and ridge regression; all adds nearest class mean on centred inputs
            of length 1, and logistic regression. Forecasts: autoregression, and with all the exact answer.
        out: also write OUT.json and OUT_tasks.csv into the run's folder and add it to its report.
    """
    from fewstep.commands.progress import test_bar
    from fewstep.experiments.run import Run

    opened = Run.open(run, note)
    with test_bar(tasks or opened.config.testing.tasks) as advance:
        evaluation = opened.test(
            split,
            tasks=tasks,
            seed=seed,
            ways=ways,
            shots=shots,
            queries=queries,
            statistics=statistics,
            baselines=baselines,
            progress=advance,
        )
    console.print(evaluation.table())
    say(" · ".join(f"{name}: {value}" for name, value in evaluation.protocol.items()))
    if out is not None:
        opened.record(evaluation, out)
