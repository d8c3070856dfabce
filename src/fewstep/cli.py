"""The command line: a thin face over recipes and runs."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from fewstep.arguments import named, overridden, split_name, value_of
from fewstep.recipes import RECIPES, Config, Recipe, to_json

USAGE = """\
[bold]fewstep[/]: learning to adapt in a few steps from a few examples

  [bold]fewstep pretrain[/] DATASET \\[…]      train a network on images, for its features
  [bold]fewstep embed[/] RUN DATASET \\[…]     features of images, by such a network
  [bold]fewstep train[/] RECIPE \\[options]    meta-train and test; --resume RUN goes on
  [bold]fewstep evaluate[/] RUN \\[options]    test a trained run beside baselines
  [bold]fewstep compare[/] RUN RECIPE …      several methods on the same tasks
  [bold]fewstep search[/] RECIPE --trials N  random search over a recipe's settings
  [bold]fewstep repeat[/] RECIPE --seeds N   several seeds at once: mean and deviation
  [bold]fewstep ablate[/] RECIPE --trials N  LEO taken apart, each part searched
  [bold]fewstep uncertainty[/] RUN …         regressions beside the exact posterior
  [bold]fewstep plot[/] sine-line RUN        functions that such a run samples
  [bold]fewstep plot[/] oscillations RUN …   forecasts of runs, and the best possible
  [bold]fewstep predict[/] RUN \\[options]     for your own images, features, numbers
  [bold]fewstep data[/] COMMAND              fetch, convert and inspect embeddings
  [bold]fewstep list[/]                      the methods and the recipes
  [bold]fewstep show[/] RECIPE               a recipe, whole, and what is published

Each command explains itself with [bold]--help[/].
"""

console = Console(log_path=False)


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
    from fewstep.run import Run, stored_config

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
    from fewstep.progress import test_bar, training_bar

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


def evaluate(
    run: tyro.conf.Positional[Path],
    split: Literal["test", "val", "train"] = "test",
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    statistics: Literal["query", "support", "joined", "running"] | None = None,
    baselines: Literal["none", "quick", "all"] = "quick",
    out: str | None = None,
) -> None:
    """Test a trained run on fresh tasks, beside its own unadapted start and classifiers without meta-learning.

    Args:
        run: folder of the run.
        split: classes to draw tasks from.
        tasks: number of tasks; as in the recipe (2,000) when omitted.
        seed: of the tasks; as in the recipe (0) when omitted.
        ways: N, classes in a task; any number, whatever was trained.
        shots: K, support examples of each class; likewise.
        queries: query examples of each class; all that remain when omitted (regression: 100 points).
        statistics: what queries are batch-normalised by: all of them (transductive), the support, the support joined by
            that one query, or its running statistics along adaptation; as in the recipe when omitted.
        baselines: quick ones are nearest class mean and ridge regression; all adds nearest class mean on centred inputs
            of length 1, and logistic regression. Forecasts: autoregression, and with all the exact answer.
        out: also write OUT.json and OUT_tasks.csv into the run's folder and add it to its report.
    """
    from fewstep.progress import test_bar
    from fewstep.run import Run

    opened = Run.open(run, console.log)
    with test_bar(console, tasks or opened.config.testing.tasks) as advance:
        evaluation = opened.test(
            split, tasks=tasks, seed=seed, ways=ways, shots=shots, queries=queries, statistics=statistics,
            baselines=baselines, progress=advance,
        )  # fmt: skip
    console.print(evaluation.table())
    console.print(" · ".join(f"{name}: {value}" for name, value in evaluation.protocol.items()))
    if out is not None:
        opened.record(evaluation, out)


def compare(
    methods: tyro.conf.Positional[tuple[str, ...]],
    split: Literal["test", "val", "train"] = "test",
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    reference: str | None = None,
    out: Path | None = None,
) -> None:
    """Judge runs, and recipes that are trained first, on the same tasks: table, paired differences and a picture.

    Args:
        methods: folders of runs, or names of recipes; a recipe is trained in OUT/runs, or continued there.
        split: classes to draw tasks from.
        tasks: number of tasks; what is omitted, here and below, is as in the first method's test.
        seed: of the tasks.
        ways: N, classes in a task.
        shots: K, support examples of each class.
        queries: query examples of each class.
        reference: the method whose difference to each is shown; the first one when omitted.
        out: folder for comparison.md, .csv, .png and .svg, tasks.csv and differences.csv; a new one under comparisons/
            when omitted.
    """
    import shlex
    from functools import partial

    from fewstep.compare import compare as judge
    from fewstep.progress import test_bar, training_bar

    folder = out or Path("comparisons") / f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        comparison = judge(
            methods, out=folder, split=split, tasks=tasks, seed=seed, ways=ways, shots=shots, queries=queries,
            reference=reference, note=console.log, training_bar=partial(training_bar, console),
            test_bar=partial(test_bar, console),
        )  # fmt: skip
    except KeyboardInterrupt:
        console.print(
            f"\nstopped; continue with the same command and --out {shlex.quote(str(folder))}: "
            "what has been trained is kept"
        )
        raise SystemExit(130) from None
    for table in comparison.tables():
        console.print(table)
    for caveat in comparison.caveats():
        console.print(f"- {caveat}", highlight=False, markup=False)
    console.print(f"comparison: [bold]{folder / 'comparison.md'}[/]")


def predict(
    run: tyro.conf.Positional[Path],
    support: Path,
    query: Path,
    samples: int | None = None,
    noise: float | None = None,
    interval: float | None = None,
    out: Path | None = None,
) -> None:
    """Predict for queries from a handful of examples: their classes, or in a regression their targets.

    Args:
        run: folder of a trained run.
        support: a folder with one sub-folder of images per class, or an .npz file with x [n, features] and y [n]; for a
            regression such a file, with y [n] or [n, outputs], or a .csv file whose columns are named x… and y….
        query: a folder of images, or an .npz file with x; for a regression also a .csv file.
        samples: regression: functions to draw, of a method that has a distribution of them; 100 when omitted.
        noise: regression: standard deviation of targets about a function. Intervals are then of targets; without it,
            of functions.
        interval: regression: probability of the interval that is written beside the mean; 0.9 when omitted.
        out: CSV file to write; printed when omitted.
    """
    from fewstep.files import write_atomically
    from fewstep.prediction import predict as predictions
    from fewstep.tables import csv_text

    remarks = Console(stderr=True)  # apart from what is printed to be read by programs
    header, rows = predictions(
        run, support, query, samples=samples, noise=noise, interval=interval,
        note=lambda line: remarks.print(f"note: {line}", highlight=False, markup=False),
    )  # fmt: skip
    text = csv_text([header, *rows])
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text)
        console.print(f"{len(rows)} predictions: [bold]{out}[/]")


def list_recipes() -> None:
    """The methods, with their papers, and the recipes, with their first line."""
    from typing import get_args

    from rich.table import Table

    from fewstep.recipes.config import Algorithm

    methods = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    methods.add_column("method", style="bold", no_wrap=True)
    methods.add_column("what it is")
    for kind in get_args(Algorithm):
        methods.add_row(re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), _first_line(inspect.getdoc(kind)))
    families: dict[str, Recipe] = {}
    for recipe in RECIPES.values():
        families.setdefault(recipe.family, recipe)
    console.print(methods)
    console.print("\n[bold]recipe[/]: what it is")
    for family, first in families.items():
        console.print(f"[bold]{escape(family)}[/]: {escape(_first_line(first.about))}", highlight=False)


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def show(recipe: tyro.conf.Positional[str]) -> None:
    """A recipe's description, what it needs, what is published for it, and its complete configuration.

    Args:
        recipe: its name, as ``fewstep list`` prints it, or a file: what a search wrote, or a run's config.json.
    """
    config = named(recipe)
    known = RECIPES.get(recipe)
    if known is not None:
        console.print(f"{known.about}\n", highlight=False, markup=False)
    console.print(f"[bold]data[/]       {config.data.needs}", highlight=False)
    if known is not None:
        published = "; ".join(map(str, known.published)) or "nothing that we know of"
        console.print(f"[bold]published[/]  {published}", highlight=False)
        if known.space:
            console.print(f"[bold]search[/]     {'; '.join(map(str, known.space))}", highlight=False)
    console.print()
    console.print_json(to_json(config))


_OF_ARGUMENTS = {
    "pretrain": "fewstep.pretrain_command:pretrain",
    "embed": "fewstep.embed_command:embed",
    "search": "fewstep.search_command:search",
    "repeat": "fewstep.repeat_command:repeat",
    "ablate": "fewstep.ablate_command:ablate",
}
"""Commands whose options depend on their first argument, as those of train do; each is imported when it is given."""

_GROUPS = {"data": "fewstep.data_commands:COMMANDS", "plot": "fewstep.uncertainty_command:PLOTS"}
"""Commands of commands."""

_FUNCTIONS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate, "compare": compare, "predict": predict, "list": list_recipes, "show": show,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command; a user's mistake ends in one line and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(USAGE, highlight=False)
        return
    command, *rest = arguments
    try:
        if command == "train" and rest[:1] in ([], ["--help"], ["-h"]):
            console.print(
                "fewstep train RECIPE [options]; fewstep train RECIPE --help shows every option", highlight=False
            )
            list_recipes()
        elif command == "train":
            train(rest)
        elif command in _OF_ARGUMENTS:
            module, _, function = _OF_ARGUMENTS[command].partition(":")
            getattr(importlib.import_module(module), function)(rest)
        elif command in _GROUPS:
            module, _, commands = _GROUPS[command].partition(":")
            known = getattr(importlib.import_module(module), commands)
            tyro.extras.subcommand_cli_from_dict(known, args=rest, prog=f"fewstep {command}")
        elif command == "uncertainty":
            from fewstep.uncertainty_command import uncertainty

            tyro.cli(uncertainty, args=rest, prog="fewstep uncertainty")
        elif command in _FUNCTIONS:
            tyro.cli(_FUNCTIONS[command], args=rest, prog=f"fewstep {command}")
        else:
            raise ValueError(
                f"there is no command {command!r}; the commands are train, "
                f"{', '.join([*_OF_ARGUMENTS, *_GROUPS, 'uncertainty', *_FUNCTIONS])}."
            )
    except (ValueError, OSError, FloatingPointError) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, markup=True, soft_wrap=True)
        raise SystemExit(2) from error
