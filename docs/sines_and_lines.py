"""Measures a table of docs/results.md: `python docs/sines_and_lines.py --out FOLDER --methods leo cnp ...`.

Methods on sines and lines, each trained for as many meta-steps as one core takes in the same time, then measured beside
the exact posterior on the same tasks. What is in FOLDER is kept, and a command that was stopped goes on. `--table`
prints what is there.
"""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from fewstep.evaluation import interval
from fewstep.evaluation.statistics import Interval, finite_interval
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.procedure import measure_runs
from fewstep.experiments.uncertainty.result import EXACT
from fewstep.recipes import RECIPES, Config

TRIAL = 200, 1000
"""Meta-steps of two trials: what they differ by is without the time that it takes to begin."""


@dataclass(frozen=True)
class Options:
    """A table."""

    out: Path
    """Folder of all that is made."""
    methods: tuple[str, ...]
    """Recipes, without ``-sine-line``."""
    seeds: tuple[int, ...] = (0,)
    """Of training; the first one's meta-steps are those of all."""
    minutes: float = 10.0
    """Of one core, for the meta-steps of each."""
    validations: int = 20
    """Of each training, the best of which is measured."""
    table: bool = False
    """Print what there is, and compute nothing."""


def of(options: Options, method: str, steps: int, seed: int) -> Config:
    """A recipe, its length apart."""
    base = RECIPES[f"{method}-sine-line"]()
    training = replace(base.training, steps=steps, validate_every=-(-steps // options.validations), compile="on")
    return replace(base, training=training, seed=seed, threads=1)


def steps_within(options: Options, method: str) -> int:
    """As many meta-steps as the budget has room for, by the processor's time of some."""
    took = []
    for trial, steps in enumerate((TRIAL[0], *TRIAL)):  # the first one compiles
        config = of(options, method, steps, 0)
        training = replace(config.training, validation_tasks=2)
        run = Run(replace(config, training=training), options.out / "trials" / f"{method}-{trial}")
        began = time.process_time()
        run.train()
        took.append(time.process_time() - began)
    return round(60 * options.minutes * (TRIAL[1] - TRIAL[0]) / (took[2] - took[1]))


def measure(options: Options, method: str, seed: int) -> None:
    """Train, and measure beside the exact posterior."""
    folder = options.out / f"{method}-{seed}"
    if (folder / "measured").exists():
        return
    file = options.out / f"{method}.json"
    if not file.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(steps_within(options, method)))
    run = Run.continued(of(options, method, json.loads(file.read_text()), seed), folder / "run", print)
    began = time.process_time()
    run.train()
    print(method, seed, f"{run.config.training.steps:,} meta-steps, {time.process_time() - began:.0f} s", flush=True)
    measure_runs([folder / "run"], labels=["method"]).write(folder / "measured")


def columns(file: Path) -> dict[str, NDArray[np.float64]]:
    """A table of numbers with a line of names."""
    with file.open(newline="") as text:
        names, *rows = csv.reader(text)
    return dict(zip(names, np.array(rows, np.float64).T, strict=True))


def rows(options: Options) -> list[str]:
    """The table, in Markdown: what is measured of each seed, between strokes."""
    told = ["| | noise | NLL | NLL − exact | median | worst | in 50%, % | in 90%, % | MSE | mode mass | not finite |"]
    told.append("|---" * 11 + "|")
    for method in options.methods:
        found = [options.out / f"{method}-{seed}" / "measured" for seed in options.seeds]
        found = [folder for folder in found if folder.exists()]
        tasks = [columns(folder / "uncertainty_tasks.csv") for folder in found]
        modes = [columns(folder / "uncertainty_modes.csv") for folder in found]
        first = [json.loads((folder / "uncertainty.json").read_text())["rows"][0] for folder in found]
        failed = [
            (folder / "uncertainty.md").read_text().partition("method: ")[2].partition(" ")[0] for folder in found
        ]
        gaps = [t["method: negative_log_likelihood"] - t[f"{EXACT}: negative_log_likelihood"] for t in tasks]

        def mean(name: str, scale: float = 1, digits: int = 2, tasks: list[dict[str, Any]] = tasks) -> str:
            return _each([t[f"method: {name}"] * scale for t in tasks], lambda v: interval(v).text(decimals=digits))

        told.append(
            f"| {method} | {_each(first, lambda f: f['noise'])} | {mean('negative_log_likelihood')} | "
            f"{_each(gaps, lambda g: interval(g).text(decimals=3))} | {_each(gaps, lambda g: f'{np.median(g):.3f}')} | "
            f"{_each(gaps, lambda g: f'{g.max():.1f}')} | {mean('coverage_50', 100, 1)} | "
            f"{mean('coverage_90', 100, 1)} | {mean('squared_error')} | "
            f"{_each(modes, lambda m: _distance(m).text(decimals=3))} | {_each(failed, lambda f: f or '0')} |"
        )
    return told


def _each(values: list[Any], text: Callable[[Any], str]) -> str:
    return " / ".join(map(text, values))


def _distance(modes: dict[str, NDArray[np.float64]]) -> Interval:
    found = finite_interval(np.abs(modes["method: lines"] - modes[f"{EXACT}: lines"]))
    assert found is not None
    return found


def main(options: Options) -> None:
    """Measure what is not there yet, and print the table."""
    if not options.table:
        for seed in options.seeds:
            for method in options.methods:
                measure(options, method, seed)
    print("\n".join(rows(options)))


if __name__ == "__main__":
    main(tyro.cli(Options))
