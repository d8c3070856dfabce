"""``fewstep analyse``: what the adaptation of a trained run does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from fewstep.commands.arguments import checked
from fewstep.commands.console import console, note, point_to
from fewstep.commands.long_running import removed_if_empty
from fewstep.core.ranges import CountOrZero, Positive, Seed, Several


@checked
def analyse(
    run: tyro.conf.Positional[Path],
    against: tuple[Path, ...] = (),
    tasks: Several = 1000,
    seed: Seed = 0,
    loss: Literal["support", "query"] = "support",
    reduction: Literal["sum", "mean"] = "sum",
    perplexity: Positive = 30.0,
    training_steps: tuple[CountOrZero, ...] = (),
    out: Path | None = None,
) -> None:
    """Draw and measure codes before and after adaptation, curvature, and how far steps reach (LEO's Figures 4 and 5).

    Args:
        run: folder of the run.
        against: runs on the same data, ways and shots to put beside it, such as of meta-sgd-features-1shot.
        tasks: of validation, for the codes, and as many of the test.
        seed: of the tasks and of t-SNE.
        loss: whose curvature: of the support's rows, which adaptation descends, or of the query's.
        reduction: of their losses; steps are as they were trained.
        perplexity: of t-SNE.
        training_steps: meta-steps of the run's training to measure curvature at, 0 before the first; up to the last of
            them the training is done again.
        out: folder of the pictures, codes.csv, curvature.csv, curvature_tasks.csv, analysis.md and .json; a new one
            under analyses/ when omitted.
    """
    from fewstep.experiments.analyse.files import write
    from fewstep.experiments.analyse.procedure import analyse as look_at
    from fewstep.experiments.folder import all_or_nothing, new_folder, require_new

    folder = new_folder("analyses") if out is None else out
    require_new(folder, "an analysis")
    with removed_if_empty(out, folder), all_or_nothing(folder):
        found = look_at(
            run,
            against,
            tasks=tasks,
            seed=seed,
            rows=loss,
            reduction=reduction,
            perplexity=perplexity,
            training_steps=training_steps,
            note=note,
        )
        write(found, folder)
    console.print(found.table())
    point_to("report", folder / "analysis.md")
