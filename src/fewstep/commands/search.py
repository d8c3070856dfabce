"""The command ``fewstep search``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from fewstep.commands.arguments import chosen, options_of, without
from fewstep.commands.console import console, note, point_to, say
from fewstep.commands.long_running import LongRunning, OnRecipe
from fewstep.core.ranges import CountOrZero, Whole
from fewstep.recipes import RECIPES, Config, Range

if TYPE_CHECKING:
    from fewstep.experiments.search import SearchResult


SearchSeed: TypeAlias = Annotated[int, Whole(0, 2**32 - 1)]
"""What Optuna's samplers take."""


@dataclass(frozen=True)
class Search(OnRecipe):
    """Train random configurations of a recipe's space and keep the one that validates best.

    Every field of the recipe can be overridden; what the space names is drawn. The same command continues a search
    that was stopped or killed, and joins one that runs elsewhere. --threads is of each process, 1 when omitted.
    """

    trials: CountOrZero = 0
    """Configurations to train, with those that the study has already: to be given."""
    storage: str | None = None
    """For several machines: postgresql://USER@HOST/NAME, or journal:///FILE in a folder that they share. None: SQLite
    in the folder."""
    name: str | None = None
    """Of the study in that database. None: the recipe's."""
    search_seed: SearchSeed = 0
    """Of what is drawn."""
    prune: bool = True
    """Stop most trials early: after a ninth and a third of the meta-steps the best third goes on."""


def search(arguments: Sequence[str]) -> None:
    """``fewstep search RECIPE --trials N [options]``."""
    asked = chosen("search", Search, arguments, "--trials 40")
    if asked is None:
        return
    space = _space(asked.config)
    if asked.trials < 1:
        raise ValueError(f"trials must be at least 1, got {asked.trials}: say with --trials how many to train.")
    if asked.engine == "slurm-script":
        return _print_script(asked, arguments)
    job = LongRunning("search", arguments, asked.out, "searches", asked.config.recipe)
    if asked.detach:
        return job.detach()
    with job.at_work():
        from fewstep.commands.progress import search_bar
        from fewstep.experiments.engines import engine_of
        from fewstep.experiments.search import search as find

        with search_bar(spoken=True) as progress:
            found = find(
                asked.config,
                space,
                out=job.folder,
                seed=asked.search_seed,
                threads=asked.config.threads_of_each,
                engine=engine_of(asked.engine, asked.address),
                note=note,
                progress=progress,
                **options_of(asked, "config", "out", "search_seed", "detach", "engine", "address"),
            )
        _show(found, job.folder)


def _print_script(asked: Search, arguments: Sequence[str]) -> None:
    from fewstep.commands.slurm import array_script

    folder = asked.out or Path("searches", f"{asked.config.recipe}-slurm")
    words = ["search", *without(arguments, "--engine", "--workers", "--threads", "--out", "--storage")]
    jobs, threads = asked.workers or 8, asked.config.threads_of_each
    print(array_script(words, folder, asked.storage, jobs, threads), end="")


def _space(config: Config) -> tuple[Range, ...]:
    recipe = RECIPES.get(config.recipe)
    if recipe is None or not recipe.space:
        have = [known.name for known in RECIPES.values() if known.space]
        raise ValueError(
            f"{config.recipe} has no space to search; these have one: {', '.join(have) or 'none'}. "
            "fewstep.experiments.search.search takes ranges of your own."
        )
    return recipe.space


def _show(found: SearchResult, folder: Path) -> None:
    from fewstep.evaluation.tables import terminal_table

    # A column for each configuration: that many settings do not fit beside each other.
    cells = [["trial", found.score, "at meta-step", *(one.setting.removeprefix("method.") for one in found.space)]]
    for row in found.ranked[:5]:
        drawn = (f"{row.settings[one.setting]:.3g}" for one in found.space)
        cells.append([str(row.index), f"{row.value:.4f}", str(row.best_step), *drawn])
    title = f"the best of {len(found.rows)} configurations by validation"
    console.print(terminal_table(title, list(zip(*cells, strict=True)), "fr"))
    say(", ".join(f"{number} {state}" for state, number in found.trials.items()))
    say(found.importance_text())
    point_to("report", folder / "search.md")
    say(f"train the best: fewstep train {shlex.quote(str(folder / 'best.json'))}")
