"""``fewstep compare``: several methods on the same tasks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import tyro

from fewstep.commands.console import console


def compare(
    methods: tyro.conf.Positional[tuple[str, ...]],
    split: Literal["test", "val", "train"] = "test",
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    reference: str | None = None,
    out: Path | None = None,
) -> None:
    """Judge runs, and recipes that are trained first, on the same tasks: table, paired differences and a picture.

    Args:
        methods: folders of runs, or names of recipes; a recipe is trained in OUT/runs, or continued there.
        split: classes to draw tasks from.
        tasks: number of tasks; what is omitted, here and below, is as in the first method's test.
        seed: of the tasks.
        ways: N, classes in a task.
        shots: K, support examples of each class.
        queries: query examples of each class.
        reference: the method whose difference to each is shown; the first one when omitted.
        out: folder for comparison.md, .csv, .png and .svg, tasks.csv and differences.csv; a new one under comparisons/
            when omitted.
    """
    import shlex
    from functools import partial

    from fewstep.commands.progress import test_bar, training_bar
    from fewstep.experiments.compare.procedure import compare as judge

    folder = out or Path("comparisons") / f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        comparison = judge(
            methods,
            out=folder,
            split=split,
            tasks=tasks,
            seed=seed,
            ways=ways,
            shots=shots,
            queries=queries,
            reference=reference,
            note=console.log,
            training_bar=partial(training_bar, console),
            test_bar=partial(test_bar, console),
        )
    except KeyboardInterrupt:
        console.print(
            f"\nstopped; continue with the same command and --out {shlex.quote(str(folder))}: "
            "what has been trained is kept"
        )
        raise SystemExit(130) from None
    for table in comparison.tables():
        console.print(table)
    for caveat in comparison.caveats():
        console.print(f"- {caveat}", highlight=False, markup=False)
    console.print(f"comparison: [bold]{folder / 'comparison.md'}[/]")
