"""``fewstep repeat``: a recipe with several seeds."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from fewstep.commands.arguments import named, overridden, split_name, value_of
from fewstep.recipes import Config

if TYPE_CHECKING:
    from fewstep.experiments.repeat.procedure import RunProgress

console = Console(log_path=False)


@dataclass(frozen=True)
class Repeat:
    """Train a recipe with several seeds, test all runs on the same tasks, and report mean and s.d. over the runs.

    Every field of the recipe can be overridden, but for its seed; --threads is of each run, 1 when omitted.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    seeds: int = 5
    """How many, from --first-seed on."""
    first_seed: int = 0
    """The first of them."""
    baselines: Literal["none", "quick", "all"] = "quick"
    """Without meta-learning, on the same tasks: nearest class mean and ridge regression, or all, as fewstep evaluate
    explains."""
    workers: int | None = None
    """Runs at once. None: as many as cores and --threads allow; one on an accelerator."""
    out: Path | None = None
    """Folder of the runs and of the result; an earlier one goes on. None: a new one under repeats/."""
    detach: bool = False
    """Go on in the background when the terminal is gone; what would be shown goes to log.txt in the folder."""


def repeat(arguments: Sequence[str]) -> None:
    """``fewstep repeat RECIPE [options]``."""
    given = ["repeat", *arguments]
    if given[1:] in ([], ["--help"], ["-h"]):
        console.print(
            "fewstep repeat RECIPE --seeds 5 [options]; fewstep repeat RECIPE --help shows every option; "
            "fewstep list shows the recipes",
            highlight=False,
            markup=False,
        )
        return
    name, arguments = split_name(arguments)
    default = named(name)
    parsed = overridden(Repeat(default), arguments, f"fewstep repeat {name}")
    config = parsed.config
    if value_of(arguments, "--seed") is not None:
        raise ValueError("the runs of a repetition have their own seeds: give --seeds and --first-seed, not --seed.")
    if parsed.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {parsed.seeds}.")
    seeds = range(parsed.first_seed, parsed.first_seed + parsed.seeds)
    folder = parsed.out or Path("repeats") / f"{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    # The same again, for a process that takes over, and for a user who goes on after a stop.
    again = [argument for argument in given if argument not in ("--detach", "--no-detach")]
    if parsed.out is None:
        again += ["--out", str(folder)]
    console.print(f"folder: [bold]{escape(str(folder))}[/]", highlight=False)
    if parsed.detach:
        from fewstep.commands.detached import detach

        console.print(detach(again, folder).advice, highlight=False, markup=False, soft_wrap=True)
        return
    from fewstep.experiments.repeat.procedure import repeat as run

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill PID` stops it as Ctrl-C does
    try:
        with seed_bars(console) as progress:
            result = run(
                config,
                seeds=seeds,
                out=folder,
                workers=parsed.workers,
                threads=config.threads or 1,
                baselines=parsed.baselines,
                note=lambda line: console.log(line, markup=False),
                progress=progress,
            )
    except KeyboardInterrupt:
        console.print(
            f"\nstopped; what has been trained is kept; continue with: fewstep {shlex.join(again)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    console.print(result.table())
    console.print(f"report: [bold]{escape(str(folder / 'repeat.md'))}[/]", highlight=False)


@contextmanager
def seed_bars(console: Console) -> Iterator[Callable[[RunProgress], None]]:
    """A bar for every run that goes on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        shown: dict[int, tuple[str, TaskID]] = {}

        def advance(at: RunProgress) -> None:
            if at.seed in shown and shown[at.seed][0] != at.doing:
                bars.remove_task(shown.pop(at.seed)[1])
            best = "" if at.best is None else f"best validation {at.best:.4f}"
            if at.doing == "finished":
                console.log(f"seed {at.seed}: trained and tested{', ' if best else ''}{best}")
                return
            if at.seed not in shown:
                shown[at.seed] = at.doing, bars.add_task(f"seed {at.seed}, {at.doing}", total=at.total, text="")
            bars.update(shown[at.seed][1], completed=at.done, total=at.total, text=best)

        yield advance
