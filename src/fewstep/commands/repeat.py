"""``fewstep repeat``: a recipe with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewstep.commands.arguments import chosen, options_of, value_of
from fewstep.commands.console import console, note, point_to
from fewstep.commands.long_running import LongRunning, OnRecipe
from fewstep.core.ranges import Count, Seed


@dataclass(frozen=True)
class Repeat(OnRecipe):
    """Train a recipe with several seeds, test all runs on the same tasks, and report mean and s.d. over the runs.

    Every field of the recipe can be overridden, but for its seed; --threads is of each run, 1 when omitted.
    """

    seeds: Count = 5
    """How many, from --first-seed on."""
    first_seed: Seed = 0
    """The first of them."""
    baselines: Literal["none", "quick", "all"] = "quick"
    """Without meta-learning, on the same tasks: nearest class mean and ridge regression, or all, as fewstep evaluate
    explains."""


def repeat(arguments: Sequence[str]) -> None:
    """``fewstep repeat RECIPE [options]``."""
    asked = chosen("repeat", Repeat, arguments, "--seeds 5")
    if asked is None:
        return
    if value_of(arguments, "--seed") is not None:
        raise ValueError("the runs of a repetition have their own seeds: give --seeds and --first-seed, not --seed.")
    job = LongRunning("repeat", arguments, asked.out, "repeats", asked.config.recipe)
    if asked.detach:
        return job.detach()
    with job.at_work():
        from fewstep.commands.progress import seed_bars
        from fewstep.experiments.engines import engine_of
        from fewstep.experiments.repeat.procedure import repeat as run

        with seed_bars() as progress:
            result = run(
                asked.config,
                seeds=range(asked.first_seed, asked.first_seed + asked.seeds),
                out=job.folder,
                threads=asked.config.threads_of_each,
                engine=engine_of(asked.engine, asked.address),
                note=note,
                progress=progress,
                **options_of(asked, "config", "seeds", "first_seed", "out", "detach", "engine", "address"),
            )
        console.print(result.table())
        point_to("report", job.folder / "repeat.md")
