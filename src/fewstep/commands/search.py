"""The command ``fewstep search``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fewstep.commands.arguments import chosen, options_of
from fewstep.commands.console import console, note, point_to, say
from fewstep.commands.long_running import LongRunning, new_folder, stoppable
from fewstep.recipes import RECIPES, Config, Range

if TYPE_CHECKING:
    from fewstep.experiments.search import SearchResult


@dataclass(frozen=True)
class Search:
    """Train random configurations of a recipe's space and keep the one that validates best.

    Every field of the recipe can be overridden; what the space names is drawn. The same command continues a search
    that was stopped or killed, and joins one that runs elsewhere.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    trials: int = 0
    """Configurations to train, with those that the study has already: to be given."""
    workers: int | None = None
    """Processes; 1 trains in this one. None: as many as there are cores (one on a GPU). With several, --threads is the
    number of each; None is one."""
    out: Path | None = None
    """Folder of the search; one that exists is continued. None: a new one under searches/."""
    storage: str | None = None
    """Optuna's URL of a database, for several machines. None: SQLite in the folder."""
    name: str | None = None
    """Of the study in that database. None: the recipe's."""
    search_seed: int = 0
    """Of what is drawn."""
    prune: bool = True
    """Stop trials early that validate worse than the median of those before."""
    detach: bool = False
    """Go on without this terminal; output goes to log.txt in the folder."""


def search(arguments: Sequence[str]) -> None:
    """``fewstep search RECIPE --trials N [options]``."""
    asked = chosen("search", Search, arguments, "--trials 40")
    if asked is None:
        return
    space = _space(asked.config)
    if asked.trials < 1:
        raise ValueError(f"trials must be at least 1, got {asked.trials}: say with --trials how many to train.")
    job = LongRunning("search", arguments, asked.out, new_folder("searches", asked.config.recipe))
    if asked.detach:
        return job.detach()
    from fewstep.commands.progress import search_bar
    from fewstep.experiments.search import search as find

    with stoppable(*job.words), search_bar(spoken=True) as progress:
        found = find(
            asked.config,
            space,
            out=job.folder,
            seed=asked.search_seed,
            threads=asked.config.threads or 1,
            note=note,
            progress=progress,
            **options_of(asked, "config", "out", "search_seed", "detach"),
        )
    _show(found, job.folder)


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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # A column for each configuration: that many settings do not fit beside each other.
    best = found.ranked[:5]
    table = Table(title=f"the best of {len(found.rows)} configurations by validation", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial")
    for row in best:
        table.add_column(str(row.index), justify="right")
    table.add_row(found.score, *(f"{row.value:.4f}" for row in best))
    table.add_row("at meta-step", *(str(row.best_step) for row in best))
    for range in found.space:
        table.add_row(range.setting.removeprefix("method."), *(f"{row.settings[range.setting]:.3g}" for row in best))
    console.print(table)
    say(", ".join(f"{number} {state}" for state, number in found.trials.items()))
    say(found.importance_text())
    point_to("report", folder / "search.md")
    say(f"train the best: fewstep train {shlex.quote(str(folder / 'best.json'))}")
