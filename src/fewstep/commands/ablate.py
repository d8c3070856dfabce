"""``fewstep ablate``: Table 2 of the LEO paper on the user's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewstep.commands.arguments import chosen, options_of
from fewstep.commands.console import console, note, point_to, say
from fewstep.commands.long_running import LongRunning, OnRecipe
from fewstep.core.ranges import Count, Seed


@dataclass(frozen=True)
class Ablate(OnRecipe):
    """Table 2 of the LEO paper on your features: each row searched, trained and tested with the same budget.

    The recipe is LEO on features, and every field of it can be overridden; --seed is of the searches, --threads of each
    process, 1 when omitted.
    """

    trials: Count = 16
    """Configurations in the random search of each row."""
    seeds: Count = 3
    """Final runs of each row's best configuration, with the seeds from --first-seed on."""
    first_seed: Seed = 1
    """The first of them; 0 is that of the trials."""
    rows: tuple[str, ...] = ()
    """Rows, by the names of their folders: meta-sgd, generator-only, generator-finetuning, random-prior, deterministic,
    no-finetuning, leo. Empty: all."""
    final_steps: Count | None = None
    """Meta-steps of the final runs. None: those of a trial (--training.steps)."""
    train_on: Literal["train", "trainval"] | None = None
    """Classes of the final runs. None: trainval for stored features, as in the last stage of the paper."""
    prune: bool = True
    """Let a search stop most trials early, by successive halving."""


def ablate(arguments: Sequence[str]) -> None:
    """``fewstep ablate RECIPE [options]``; status 1 when a row is missing at the end."""
    asked = chosen("ablate", Ablate, arguments, "--trials 16 --seeds 3")
    if asked is None:
        return
    job = LongRunning("ablate", arguments, asked.out, "ablations", asked.config.recipe)
    if asked.detach:
        return job.detach()
    with job.at_work():
        from fewstep.commands.progress import search_bar, seed_bars, test_bar
        from fewstep.experiments.ablate.procedure import ablate as run
        from fewstep.experiments.engines import engine_of

        table = run(
            asked.config,
            out=job.folder,
            seeds=range(asked.first_seed, asked.first_seed + asked.seeds),
            engine=engine_of(asked.engine, asked.address),
            note=note,
            search_bar=search_bar,
            run_bars=seed_bars,
            test_bar=test_bar,
            **options_of(asked, "config", "seeds", "first_seed", "out", "detach", "engine", "address"),
        )
        console.print(*table.tables())
        say("\n".join(f"- {line}" for line in table.notes()))
        point_to("report", job.folder / "ablation.md")
        point_to("page", job.folder / "report.html")
    if not table.complete:
        raise SystemExit(1)
