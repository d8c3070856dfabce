"""``fewstep train``: meta-train a recipe, then test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fewstep.commands.arguments import explained, named, overridden, split_name, value_of
from fewstep.commands.console import console, note, point_to, say, styled
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.commands.recipes import list_recipes
from fewstep.commands.sharing import as_many_as_fit, begin, in_folder, is_to_begin, sharing
from fewstep.core.ranges import Threads
from fewstep.recipes import Config
from fewstep.training.launched import launched, may_restart, restarted
from fewstep.training.timing import watched

if TYPE_CHECKING:
    from fewstep.core.ranks import Ranks
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
    processes: Threads | Literal["auto"] | None = None
    """Processes of this machine that share the tasks of every meta-step, and its cores, out among them; auto is one for
    each core (or --threads of them) or GPU. None: 1; of a run that is continued, as many as before. On several
    machines: torchrun ... -m fewstep train RECIPE."""
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
    if asked.dry_run:
        from fewstep.experiments.forecast import forecast

        for what, told in forecast(config, note).items():
            say(f"{what}: {told}")
        return
    if asked.resume is not None and replace(config, device=default.device) != default:
        allowed = f"--resume {asked.resume}, --device, --processes and --track"
        raise ValueError(f"a resumed run keeps its configuration; give no options besides {allowed}.")
    from fewstep.data.storage.files import read_json
    from fewstep.experiments.environment import processes_before
    from fewstep.experiments.folder import ENVIRONMENT, new_folder

    kept = asked.resume or asked.out
    before = 1 if asked.resume is None else processes_before(read_json(asked.resume / ENVIRONMENT))
    number = asked.processes
    if number == "auto":
        number = None if launched() else as_many_as_fit(config.training.tasks, config.threads, config.device)
    if several := is_to_begin(number, before):
        folder = kept or new_folder("runs", config.recipe)
        words = ["train", *given, *([] if kept else ["--out", str(folder)])]
        with removed_if_empty(kept, folder):
            begin(words, several, config.threads, ["train", "--resume", str(folder)])
        return
    with sharing(config.device) as ranks:
        _work(asked, given, "auto" if config == default else config.device, ranks)


def _work(asked: Train, given: Sequence[str], device: str, ranks: Ranks) -> None:
    """Train and test in this process, alone or with others, and say where the time went."""
    with watched("data and start") as watch:
        _trained_and_tested(asked, given, device, ranks)
    say(f"time: {watch}")


def _trained_and_tested(asked: Train, given: Sequence[str], device: str, ranks: Ranks) -> None:
    from fewstep.experiments.folder import new_folder
    from fewstep.experiments.run import Run

    kept = asked.resume or asked.out
    if kept is None and may_restart():
        raise ValueError("torchrun --max-restarts goes on in a folder that it must know: give --out RUN.")
    new = "" if kept or not ranks.first else str(new_folder("runs", asked.config.recipe))
    folder = kept or Path(ranks.told(new))
    if asked.resume is None:
        again = ["train", *given, *([] if kept else ["--out", str(folder)])]
        begun = partial(Run.continued if restarted() else Run.create, asked.config, folder, note)
    else:
        again, begun = ["train", "--resume", str(folder)], partial(Run.resume, folder, note, device)
    with in_folder(folder, kept, again, ranks):
        _train_and_test(Run.joined(begun, folder, ranks, device), asked.track)


def _train_and_test(run: Run, track: tuple[Service, ...]) -> None:
    from fewstep.experiments.results import tests_of
    from fewstep.recipes import dotted
    from fewstep.training.trackers import tracked

    point_to("run folder", run.folder)
    again = "train", "--resume", str(run.folder)
    followed = track if run.ranks.first else ()
    with stoppable(*again), tracked(followed, run.folder, dotted(run.config)) as trackers:
        step = _train(run, trackers)
        for name, shots in tests_of(run.config).items():
            evaluation = _test(run, name, shots)
            means = {score: evaluation.interval(score).mean for score in evaluation.scores}
            for tracker in trackers:
                tracker(step, name, means)
    point_to("report", run.folder / "report.md")
    point_to("page", run.folder / "report.html")


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
    if run.ranks.first:
        run.record(evaluation, name)
    if shots is not None:
        say(f"{shots}-shot")
    console.print(evaluation.table())
    return evaluation
