"""Live progress on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich import progress as rich

from fewstep.commands.console import console, note
from fewstep.training.pretraining.report import how_far

if TYPE_CHECKING:
    from fewstep.experiments.fit.procedure import Status as FitStatus
    from fewstep.experiments.repeat.procedure import RunProgress
    from fewstep.experiments.search import Status
    from fewstep.training import State

SMOOTHING = 0.98
"""Weight of the past in the displayed averages; the log holds plain means."""


SPOKEN_EVERY = 30.0
"""Seconds between two lines where there is no terminal, and so no bar."""


class Lines:
    """How far something is, in a line at intervals, where there is no terminal to show a bar on.

    Args:
        what: it is.
        unit: of what is counted.
        at_once: with a line at the first call.
    """

    def __init__(self, what: str, unit: str = "", *, at_once: bool = False) -> None:
        self.what, self.unit = what, unit
        self.told = -SPOKEN_EVERY if at_once else time.monotonic()
        self.first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, text: str = "", pace: float = 0.0) -> None:
        """Say it, if it is time; ``pace`` is a guess of the seconds for one, until it has been seen."""
        now = time.monotonic()
        before, since = self.first = self.first or (done, now)
        if console.is_terminal or now - self.told < SPOKEN_EVERY:
            return
        self.told = now
        seen = (now - since) / (done - before) if done > before else pace
        note(f"{self.what}: {how_far(done, total, seen, self.unit)}{', ' if text else ''}{text}")


_text = partial(rich.TextColumn, markup=False)
"""A column whose text is what it says, see :mod:`fewstep.commands.console`."""


def bars(*, transient: bool = True, disable: bool = False) -> rich.Progress:
    """Bars with a name, a count, a text, the time that has passed and the time that is left."""
    counted = _text("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn()
    timed = rich.TimeElapsedColumn(), _text("left"), rich.TimeRemainingColumn()
    columns = *counted, _text("{task.fields[text]}"), *timed
    return rich.Progress(*columns, console=console, transient=transient, disable=disable)


@contextmanager
def counting_bar(what: str, total: int, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """A bar that leaves nothing behind; with a unit it says how many of them pass in a second."""
    spoken = Lines(what, unit)
    with bars() as shown:
        bar = shown.add_task(what, total=total, text="")

        def advance(done: int, total: int) -> None:
            spoken(done, total)
            speed = shown.tasks[bar].speed
            shown.update(bar, completed=done, total=total, text=f"{speed:,.0f} {unit}/s" if speed and unit else "")

        yield advance


test_bar = partial(counting_bar, "testing")
"""A bar over test tasks."""


@contextmanager
def training_bar(
    steps: int, what: str = "meta-training", unit: str = "meta-steps"
) -> Iterator[Callable[[State, dict[str, float]], None]]:
    """A bar with smoothed loss and score, steps per second, time left, and the best validation so far.

    Without a terminal, lines with as much, at intervals.
    """
    smooth: dict[str, float] = {}
    spoken = Lines(what, unit, at_once=True)
    with bars(transient=False) as shown:
        bar = shown.add_task(what, total=steps, text="")

        def advance(state: State, metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                smooth[name] = SMOOTHING * smooth.get(name, value) + (1 - SMOOTHING) * value
            text = [f"{name} {smooth[name]:.4f}" for name in ("loss", "accuracy") if name in smooth]
            best = [] if state.best is None else [f"best validation {state.best:.4f}"]
            spoken(state.step, steps, ", ".join([*text, *best]), state.seconds / max(state.step, 1))
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
        spoken: dict[tuple[int, str], Lines] = {}

        def advance(at: RunProgress) -> None:
            if at.seed in of and of[at.seed][0] != at.doing:
                shown.remove_task(of.pop(at.seed)[1])
            best = "" if at.best is None else f"best validation {at.best:.4f}"
            if at.doing == "finished":
                note(f"seed {at.seed}: trained and tested{', ' if best else ''}{best}")
                return
            if at.seed not in of:
                of[at.seed] = at.doing, shown.add_task(f"seed {at.seed}, {at.doing}", total=at.total, text="")
            spoken.setdefault((at.seed, at.doing), Lines(f"seed {at.seed}, {at.doing}"))(at.done, at.total, best)
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


class _Left(rich.ProgressColumn):
    """The time until a moment that is known, whatever is being done meanwhile."""

    def render(self, task: rich.Task) -> str:
        """ "2:05 left"."""
        return _left(task.fields["ends"] - time.monotonic())


def _left(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d} left"


@contextmanager
def fit_bar() -> Iterator[Callable[[FitStatus], None]]:
    """A bar over the minutes of a fit, with what is being done; what ends is told in lines of its own.

    Without a terminal, a line at intervals.
    """
    columns = _text("{task.description}"), rich.BarColumn(20), _Left(), _text("{task.fields[text]}")
    said = time.monotonic()
    with rich.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        bar = shown.add_task("begin", total=None, text="", ends=said)

        def advance(status: FitStatus) -> None:
            nonlocal said
            text = "; ".join(f"{job}: {text}" if text else job for job, text in status.running.items())
            now, left = time.monotonic(), status.total - status.seconds
            done = min(status.seconds, status.total)
            shown.update(bar, description=status.phase, total=status.total, completed=done, text=text, ends=now + left)
            if not console.is_terminal and now - said >= SPOKEN_EVERY:
                said = now
                note(f"{status.phase}, {_left(left)}{': ' if text else ''}{text}")

        yield advance


@contextmanager
def download_bar() -> Iterator[Callable[[int, int | None], None]]:
    """A bar over bytes, while there are some to come."""
    columns = rich.BarColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()
    with rich.Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task("fetching", visible=False)
        yield lambda here, total: shown.update(bar, completed=here, total=total, visible=here != total)
