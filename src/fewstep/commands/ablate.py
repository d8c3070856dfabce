"""``fewstep ablate``: Table 2 of the LEO paper on the user's features."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from fewstep.commands.arguments import named, overridden, split_name
from fewstep.recipes import Config

if TYPE_CHECKING:
    from fewstep.experiments.search import Status

console = Console(log_path=False)


@dataclass(frozen=True)
class Ablate:
    """Table 2 of the LEO paper on your features: each row searched, trained and tested with the same budget.

    Every field of the recipe can be overridden; --seed is of the searches, --threads of each process, 1 when omitted.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe: LEO on features."""
    trials: int = 16
    """Configurations in the random search of each row."""
    seeds: int = 3
    """Final runs of each row's best configuration, with the seeds from --first-seed on."""
    first_seed: int = 1
    """The first of them; 0 is that of the trials."""
    rows: tuple[str, ...] = ()
    """Rows, by the names of their folders: meta-sgd, generator-only, generator-finetuning, random-prior, deterministic,
    no-finetuning, leo. Empty: all."""
    final_steps: int | None = None
    """Meta-steps of the final runs. None: those of a trial (--training.steps)."""
    train_on: Literal["train", "trainval"] | None = None
    """Classes of the final runs. None: trainval for stored features, as in the last stage of the paper."""
    prune: bool = True
    """Let a search stop trials early that validate worse than the median."""
    workers: int | None = None
    """Processes at once. None: as many as cores and --threads allow; one on an accelerator."""
    out: Path | None = None
    """Folder of everything; an earlier one goes on. None: a new one under ablations/."""
    detach: bool = False
    """Go on without this terminal; output goes to log.txt in the folder."""


def ablate(arguments: Sequence[str]) -> None:
    """``fewstep ablate RECIPE [options]``; status 1 when a row is missing at the end."""
    if list(arguments) in ([], ["--help"], ["-h"]):
        console.print(
            "fewstep ablate RECIPE --trials 16 --seeds 3 [options]; fewstep ablate RECIPE --help shows every "
            "option; fewstep list shows the recipes",
            highlight=False,
            markup=False,
        )
        return
    given = tuple(arguments)
    name, options = split_name(given)
    parsed = overridden(Ablate(named(name)), options, f"fewstep ablate {name}")
    if parsed.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {parsed.seeds}.")
    config = parsed.config
    folder = parsed.out or Path("ablations") / f"{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    again = [argument for argument in ("ablate", *given) if argument not in ("--detach", "--no-detach")]
    again += [] if parsed.out else ["--out", str(folder)]
    console.print(f"folder: {folder}", highlight=False, markup=False, soft_wrap=True)
    if parsed.detach:
        from fewstep.commands.detached import detach

        console.print(detach(again, folder).advice, highlight=False, markup=False, soft_wrap=True)
        return
    from fewstep.commands.progress import test_bar
    from fewstep.commands.repeat import seed_bars
    from fewstep.experiments.ablate.procedure import ablate as run

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill PID` stops it as Ctrl-C does
    try:
        table = run(
            config,
            out=folder,
            trials=parsed.trials,
            rows=parsed.rows,
            seeds=range(parsed.first_seed, parsed.first_seed + parsed.seeds),
            final_steps=parsed.final_steps,
            train_on=parsed.train_on,
            prune=parsed.prune,
            workers=parsed.workers,
            note=lambda line: console.log(line, markup=False, highlight=False),
            search_bar=partial(search_bar, console),
            run_bars=partial(seed_bars, console),
            test_bar=partial(test_bar, console),
        )
    except KeyboardInterrupt:
        command = shlex.join(["fewstep", *again])
        console.print(
            f"\nstopped; what has been done is kept. Continue with: {command}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    for shown in table.tables():
        console.print(shown)
    for line in table.notes():
        console.print(f"- {line}", highlight=False, markup=False)
    console.print(f"report: {folder / 'ablation.md'}", highlight=False, markup=False, soft_wrap=True)
    if not table.complete:
        raise SystemExit(1)


@contextmanager
def search_bar(console: Console) -> Iterator[Callable[[Status], None]]:
    """A bar over the trials of a search that leaves nothing behind."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("trials"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("trials", total=None, text="")

        def advance(status: Status) -> None:
            shown = [f"{status.running} running"] if status.running else []
            shown += [f"{status.pruned} pruned"] if status.pruned else []
            shown += [f"{status.failed} failed"] if status.failed else []
            shown += [f"best {status.best.value:.4f}"] if status.best and status.best.value is not None else []
            bars.update(bar, completed=status.finished, total=status.total, text=", ".join(shown))

        yield advance
