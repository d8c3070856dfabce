"""``fewstep train``: meta-train a recipe, then test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from fewstep.commands.arguments import named, overridden, split_name, value_of
from fewstep.commands.console import console
from fewstep.recipes import Config


@dataclass(frozen=True)
class Train:
    """Meta-train a recipe, then test it; every field of the recipe can be overridden."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    out: Path | None = None
    """Folder of the run. None: a new one under runs/."""
    resume: Path | None = None
    """Continue the stopped run in this folder, to the same bits."""


def train(arguments: Sequence[str]) -> None:
    """``fewstep train RECIPE [options]``, or ``fewstep train [RECIPE] --resume RUN``."""
    from fewstep.experiments.folder import stored_config
    from fewstep.experiments.run import Run

    name, arguments = split_name(arguments)
    resumed = value_of(arguments, "--resume")
    if resumed is not None:
        default = stored_config(Path(resumed))
        if name not in (None, default.recipe):
            raise ValueError(f"{resumed} is a run of {default.recipe}, not of {name}.")
    else:
        default = named(name)
    parsed = overridden(Train(default), arguments, f"fewstep train {name or default.recipe}")
    config = parsed.config
    if parsed.resume is not None:
        if config != default:
            raise ValueError(
                f"a resumed run keeps its configuration; give no options besides --resume {parsed.resume}."
            )
        run = Run.resume(parsed.resume, console.log)
    else:
        folder = parsed.out or Path("runs") / f"{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
        run = Run.create(config, folder, console.log)
    console.print(f"run folder: [bold]{run.folder}[/]")
    from fewstep.commands.progress import test_bar, training_bar

    try:
        with training_bar(console, config.training.steps) as progress:
            state = run.train(progress).state
    except KeyboardInterrupt:
        console.print(f"\nstopped; continue with: fewstep train --resume {run.folder}")
        raise SystemExit(130) from None
    console.print(
        f"{state.step} meta-steps in {state.seconds:.0f} s; best validation {state.best:.4f} at step {state.best_step}"
        + (f"; [red]{state.nonfinite} non-finite meta-steps[/]" if state.nonfinite else "")
    )
    for shots in config.testing.shots or (None,):
        with test_bar(console, config.testing.tasks) as advance:
            evaluation = run.test(shots=shots, progress=advance)
        run.record(evaluation, "test" if shots is None else f"test-{shots}-shot")
        if shots is not None:
            console.print(f"[bold]{shots}-shot[/]")
        console.print(evaluation.table())
    console.print(f"report: [bold]{run.folder / 'report.md'}[/]")
