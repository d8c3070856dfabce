"""Live progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich import progress as rich

from fewstep.commands.console import console, note

if TYPE_CHECKING:
    from fewstep.experiments.repeat.procedure import RunProgress
    from fewstep.experiments.search import Status
    from fewstep.training import State

SMOOTHING = 0.98
"""Weight of the past in the displayed averages; the log holds plain means."""


def bars(*, transient: bool = True, disable: bool = False) -> rich.Progress:
    """Bars with a name, a count, a text, the time that has passed and the time that is left."""
    counted = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn()
    timed = rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn()
    columns = *counted, rich.TextColumn("{task.fields[text]}"), *timed
    return rich.Progress(*columns, console=console, transient=transient, disable=disable)


@contextmanager
def counting_bar(what: str, total: int, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """A bar that leaves nothing behind; with a unit it says how many of them pass in a second."""
    with bars() as shown:
        bar = shown.add_task(what, total=total, text="")

        def advance(done: int, total: int) -> None:
            speed = shown.tasks[bar].speed
            shown.update(bar, completed=done, total=total, text=f"{speed:,.0f} {unit}/s" if speed and unit else "")

        yield advance


test_bar = partial(counting_bar, "testing")
"""A bar over test tasks."""


@contextmanager
def training_bar(steps: int, what: str = "meta-training") -> Iterator[Callable[[State, dict[str, float]], None]]:
    """A bar with smoothed loss and score, steps per second, time left, and the best validation so far."""
    smooth: dict[str, float] = {}
    with bars(transient=False) as shown:
        bar = shown.add_task(what, total=steps, text="")

        def advance(state: State, metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                smooth[name] = SMOOTHING * smooth.get(name, value) + (1 - SMOOTHING) * value
            text = [f"{name} {smooth[name]:.4f}" for name in ("loss", "accuracy") if name in smooth]
            speed = shown.tasks[bar].speed
            text.append(f"{speed:.1f} steps/s" if speed else "")
            if state.best is not None:
                text.append(f"best {state.best:.4f}")
                if state.stale == 0 and state.best_step == state.step:
                    shown.log(f"step {state.step}: best validation so far, {state.best:.4f}")
            shown.update(bar, completed=state.step, text=" ".join(text))

        yield advance


@contextmanager
def seed_bars() -> Iterator[Callable[[RunProgress], None]]:
    """A bar for every run that goes on."""
    with bars() as shown:
        of: dict[int, tuple[str, rich.TaskID]] = {}

        def advance(at: RunProgress) -> None:
            if at.seed in of and of[at.seed][0] != at.doing:
                shown.remove_task(of.pop(at.seed)[1])
            best = "" if at.best is None else f"best validation {at.best:.4f}"
            if at.doing == "finished":
                note(f"seed {at.seed}: trained and tested{', ' if best else ''}{best}")
                return
            if at.seed not in of:
                of[at.seed] = at.doing, shown.add_task(f"seed {at.seed}, {at.doing}", total=at.total, text="")
            shown.update(of[at.seed][1], completed=at.done, total=at.total, text=best)

        yield advance


@contextmanager
def search_bar(*, spoken: bool = False) -> Iterator[Callable[[Status], None]]:
    """A bar over the trials of a search; ``spoken``, in a file it is a line whenever something has changed."""
    said, lines = "", spoken and not console.is_terminal
    with bars(transient=not spoken, disable=lines) as shown:
        bar = shown.add_task("trials", total=None, text="")

        def advance(status: Status) -> None:
            nonlocal said
            counts = ((status.running, "running"), (status.pruned, "pruned"), (status.failed, "failed"))
            text = [f"{n} {what}" for n, what in counts if n]
            if status.best is not None and status.best.value is not None:
                drawn = (f"{name.rpartition('.')[2]} {value:.3g}" for name, value in status.best.settings.items())
                text.append(f"best {status.best.value:.4f} (trial {status.best.index}: {', '.join(drawn)})")
            line = f"{status.finished}/{status.total} trials, {', '.join(text)}"
            shown.update(bar, completed=status.finished, total=status.total, text=", ".join(text))
            if lines and line != said:
                said = line
                note(line)

        yield advance


@contextmanager
def download_bar() -> Iterator[Callable[[int, int | None], None]]:
    """A bar over bytes, while there are some to come."""
    columns = rich.BarColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()
    with rich.Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task("fetching", visible=False)
        yield lambda here, total: shown.update(bar, completed=here, total=total, visible=here != total)
