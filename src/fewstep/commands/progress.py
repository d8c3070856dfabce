"""Live progress on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fewstep.training import State

SMOOTHING = 0.98
"""Weight of the past in the displayed averages; the log holds plain means."""


@contextmanager
def training_bar(
    console: Console, steps: int, what: str = "meta-training"
) -> Iterator[Callable[[State, dict[str, float]], None]]:
    """A bar with smoothed loss and score, steps per second, time left, and the best validation so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    smooth: dict[str, float] = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(what, total=steps, text="")

        def advance(state: State, metrics: dict[str, float]) -> None:
            for name in metrics:
                smooth[name] = SMOOTHING * smooth.get(name, metrics[name]) + (1 - SMOOTHING) * metrics[name]
            shown = [f"{name} {smooth[name]:.4f}" for name in ("loss", "accuracy") if name in smooth]
            speed = progress.tasks[bar].speed
            shown.append(f"{speed:.1f} steps/s" if speed else "")
            if state.best is not None:
                shown.append(f"best {state.best:.4f}")
            progress.update(bar, completed=state.step, text=" ".join(shown))
            if state.stale == 0 and state.best_step == state.step and state.best is not None:
                progress.log(f"step {state.step}: best validation so far, {state.best:.4f}")

        yield advance


@contextmanager
def test_bar(console: Console, tasks: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over test tasks that leaves nothing behind."""
    with Progress(
        TextColumn("testing"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as progress:
        bar = progress.add_task("testing", total=tasks)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
