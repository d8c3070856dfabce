"""The command ``fewstep search``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from fewstep.commands.arguments import named, overridden, split_name
from fewstep.recipes import RECIPES, Config, Range

if TYPE_CHECKING:
    from fewstep.experiments.search import SearchResult, Status

console = Console(log_path=False)


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
    if list(arguments) in ([], ["--help"], ["-h"]):
        console.print(
            "fewstep search RECIPE --trials 40 [options]; fewstep search RECIPE --help shows every option; "
            "fewstep list shows the recipes",
            highlight=False,
            markup=False,
        )
        return
    name, rest = split_name(arguments)
    default = named(name)
    space = _space(default)
    parsed = overridden(Search(default), rest, f"fewstep search {name}")
    if parsed.trials < 1:
        raise ValueError(f"trials must be at least 1, got {parsed.trials}: say with --trials how many to train.")
    folder = parsed.out or Path("searches") / f"{default.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    again = ["search", *arguments, *([] if parsed.out else ["--out", str(folder)])]
    if parsed.detach:
        from fewstep.commands.detached import detach

        again = [argument for argument in again if argument not in ("--detach", "--no-detach")]
        console.print(f"search folder: {folder}", highlight=False, markup=False, soft_wrap=True)
        console.print(detach(again, folder).advice, highlight=False, markup=False, soft_wrap=True)
        return
    from fewstep.experiments.search import search as find

    console.print(f"search folder: {folder}", highlight=False, markup=False, soft_wrap=True)
    try:
        with _sigterm_as_interrupt(), _line(space) as progress:
            found = find(
                parsed.config,
                space,
                trials=parsed.trials,
                out=folder,
                storage=parsed.storage,
                name=parsed.name,
                seed=parsed.search_seed,
                workers=parsed.workers,
                threads=parsed.config.threads or 1,
                prune=parsed.prune,
                note=console.log,
                progress=progress,
            )
    except KeyboardInterrupt:
        again = [argument for argument in again if argument != "--detach"]
        console.print(
            f"\nstopped; continue with: fewstep {shlex.join(again)}", highlight=False, markup=False, soft_wrap=True
        )
        raise SystemExit(130) from None
    _show(found, folder)


def _space(config: Config) -> tuple[Range, ...]:
    recipe = RECIPES.get(config.recipe)
    if recipe is None or not recipe.space:
        have = [known.name for known in RECIPES.values() if known.space]
        raise ValueError(
            f"{config.recipe} has no space to search; these have one: {', '.join(have) or 'none'}. "
            "fewstep.experiments.search.search takes ranges of your own."
        )
    return recipe.space


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """``kill PID`` stops a search in order, as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _line(space: Sequence[Range]) -> Iterator[Callable[[Status], None]]:
    """One live line; where output is a file, a line whenever something has changed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("trials"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    said = ""
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("trials", total=None, text="")

        def progress(status: Status) -> None:
            nonlocal said
            text = _text(status, space)
            bar.update(shown, completed=status.finished, total=status.total, text=text)
            if not console.is_terminal and f"{status.finished} {text}" != said:
                said = f"{status.finished} {text}"
                console.log(f"{status.finished}/{status.total} trials, {text}", highlight=False, markup=False)

        yield progress


def _text(status: Status, space: Sequence[Range]) -> str:
    parts = [f"{status.running} running"]
    parts += [f"{n} {what}" for n, what in ((status.pruned, "pruned"), (status.failed, "failed")) if n]
    best = status.best
    if best is not None:
        settings = ", ".join(f"{r.setting.rpartition('.')[2]} {best.settings[r.setting]:.3g}" for r in space)
        parts.append(f"best {best.value:.4f} (trial {best.index}: {settings})")
    return ", ".join(parts)


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
    console.print(", ".join(f"{number} {state}" for state, number in found.trials.items()), highlight=False)
    console.print(found.importance_text(), highlight=False, markup=False)
    console.print(f"report: {folder / 'search.md'}", highlight=False, markup=False, soft_wrap=True)
    recipe = shlex.quote(str(folder / "best.json"))
    console.print(f"train the best: fewstep train {recipe}", highlight=False, markup=False, soft_wrap=True)
