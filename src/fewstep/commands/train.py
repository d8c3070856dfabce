"""``fewstep train``: meta-train a recipe, then test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fewstep.commands.arguments import explained, named, overridden, split_name, value_of
from fewstep.commands.console import console, note, point_to, say, styled
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.commands.recipes import list_recipes
from fewstep.recipes import Config

if TYPE_CHECKING:
    from fewstep.evaluation import Evaluation
    from fewstep.experiments.run import Run
    from fewstep.training.trackers import Service, Tracker


@dataclass(frozen=True)
class Train:
    """Meta-train a recipe, then test it; every field of the recipe can be overridden."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    out: Path | None = None
    """Folder of the run. None: a new one under runs/."""
    resume: Path | None = None
    """Continue the stopped run in this folder, to the same bits."""
    dry_run: bool = False
    """Show what would be done and how long it takes here, by a few meta-steps and a batch of tasks; write nothing."""
    track: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Services that follow the run too; each is configured by its own environment variables."""


def train(arguments: Sequence[str]) -> None:
    """``fewstep train RECIPE [options]``, or ``fewstep train [RECIPE] --resume RUN``."""
    if explained(arguments, "fewstep train RECIPE [options]; fewstep train RECIPE --help shows every option"):
        return list_recipes()
    given = arguments
    name, arguments = split_name(arguments)
    resumed = value_of(arguments, "--resume")
    if resumed is not None:
        from fewstep.experiments.folder import stored_config

        default = stored_config(Path(resumed))
        if name not in (None, default.recipe):
            raise ValueError(f"{resumed} is a run of {default.recipe}, not of {name}.")
    else:
        default = named(name)
    asked = overridden(Train(default), arguments, f"fewstep train {name or default.recipe}")
    config = asked.config
    if None not in (asked.resume, asked.out):
        raise ValueError(f"a resumed run stays in its folder, {asked.resume}: leave --out out.")
    from fewstep.experiments.folder import all_or_nothing, new_folder
    from fewstep.experiments.run import Run

    if asked.dry_run:
        from fewstep.experiments.forecast import forecast

        for what, words in forecast(config, note).items():
            say(f"{what}: {words}")
    elif asked.resume is None:
        folder = asked.out or new_folder("runs", config.recipe)
        again = ("train", *given, *([] if asked.out else ["--out", str(folder)]))
        with removed_if_empty(asked.out, folder), stoppable(*again), all_or_nothing(folder):
            _train_and_test(Run.create(config, folder, note), asked.track)
    elif replace(config, device=default.device) == default:
        with stoppable("train", "--resume", str(asked.resume)), all_or_nothing(asked.resume):
            run = Run.resume(asked.resume, note, "auto" if config == default else config.device)
            _train_and_test(run, asked.track)
    else:
        allowed = f"--resume {asked.resume}, --device and --track"
        raise ValueError(f"a resumed run keeps its configuration; give no options besides {allowed}.")


def _train_and_test(run: Run, track: tuple[Service, ...]) -> None:
    from fewstep.experiments.results import tests_of
    from fewstep.recipes import dotted
    from fewstep.training.trackers import tracked

    point_to("run folder", run.folder)
    again = "train", "--resume", str(run.folder)
    with stoppable(*again), tracked(track, run.folder, dotted(run.config)) as trackers:
        step = _train(run, trackers)
        for name, shots in tests_of(run.config).items():
            evaluation = _test(run, name, shots)
            means = {score: evaluation.interval(score).mean for score in evaluation.scores}
            for tracker in trackers:
                tracker(step, name, means)
    point_to("report", run.folder / "report.md")


def _train(run: Run, trackers: Sequence[Tracker]) -> int:
    from fewstep.commands.progress import training_bar

    with training_bar(run.config.training.steps) as progress:
        state = run.train(progress, trackers).state
    styled(
        f"{state.step} meta-steps in {state.seconds:.0f} s; best validation {state.best:.4f} at step {state.best_step}",
        (f"; {state.nonfinite} non-finite meta-steps" if state.nonfinite else "", "red"),
    )
    return state.step


def _test(run: Run, name: str, shots: int | None) -> Evaluation:
    from fewstep.commands.progress import test_bar

    with test_bar(run.config.testing.tasks) as advance:
        evaluation = run.test(shots=shots, progress=advance)
    run.record(evaluation, name)
    if shots is not None:
        say(f"{shots}-shot")
    console.print(evaluation.table())
    return evaluation
