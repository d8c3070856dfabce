"""Measures a table of docs/results.md: `python docs/under_budget.py omniglot --out FOLDER --methods maml protonet ...`.

Methods on images, each trained for as many meta-steps as one core takes in the same time, then tested on the same
tasks; with queries normalised as the recipe has it, and by the support. What is in FOLDER is kept, and a command that
was stopped goes on. `--table` prints what is there.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import nn

from fewstep.evaluation import interval, paired
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config

TRIAL = 20

VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "protonet-of-5-ways": ("protonet", {"train_ways": 5}, {"tasks": 4, "decay": "cosine"}),
    "relation-of-20-ways": ("relation", {"train_ways": 20, "queries": 5}, {}),
    "tadam-of-20-ways": ("tadam", {"train_ways": 20}, {"tasks": 1}),
    "snail-after-protonet": ("snail", {}, {}),
}
"""Recipes with other tasks of training, another outer loop, or an embedding that another method has learned."""


@dataclass(frozen=True)
class Options:
    """A table."""

    images: tyro.conf.Positional[str]
    """What recipes are of: omniglot or cifarfs."""
    out: Path
    """Folder of all that is made."""
    methods: tuple[str, ...]
    """Stems of recipes or variants of them, the one that others are compared with first."""
    path: str | None = None
    """The images, where they are not in the package."""
    minutes: float = 10.0
    """Of one core, for the meta-steps of each."""
    validations: int = 6
    """Of each, the best of which is tested."""
    validation_tasks: int = 200
    """Of each validation."""
    tasks: int = 1000
    """Test tasks."""
    queries: int = 5
    """Queries of each class."""
    seed: int = 0
    """Of training."""
    table: bool = False
    """Print what there is, and compute nothing."""


def of(options: Options, method: str, steps: int) -> Config:
    """A recipe, its length apart."""
    stem, data, outer = VARIANTS.get(method, (method, {}, {}))
    base = RECIPES[f"{stem}-{options.images}-5way-1shot"]()
    base = replace(base, data=replace(base.data, **data), training=replace(base.training, **outer))
    if options.path:
        base = replace(base, data=replace(base.data, path=options.path))
    every = -(-steps // options.validations)
    tasks = 1 if steps == TRIAL else options.validation_tasks
    training = replace(base.training, steps=steps, validate_every=every, validation_tasks=tasks, compile="off")
    return replace(base, training=training, seed=options.seed, threads=1)


def steps_within(options: Options, method: str) -> int:
    """As many meta-steps as the budget has room for, by the processor's time of a few."""
    run = Run(of(options, method, TRIAL), options.out / method / "trial")
    began = time.process_time()
    run.train()
    return max(1, round(60 * options.minutes * TRIAL / (time.process_time() - began)))


def scored(options: Options, run: Run, statistics: str | None) -> NDArray[np.float64]:
    """Accuracies on the test tasks."""
    source = run.problem.source("test", tasks=20, seed=0, queries=options.queries)
    how = {} if statistics is None else {"statistics": statistics}
    with run.at_test():
        return run.score(source, options.tasks, **how).scores["adapted"]


def measure(options: Options, method: str) -> None:
    """Train and test a method."""
    folder = options.out / method
    if (folder / "scores.npz").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "steps.json"
    if not file.exists():
        file.write_text(json.dumps(steps_within(options, method)))
    config = of(options, method, json.loads(file.read_text()))
    scores = {"untrained": scored(options, Run(config, folder / "untrained"), None)}
    run = Run.continued(config, folder / "run", print)
    if method == "snail-after-protonet" and not (folder / "run" / "last.safetensors").exists():
        trained = Run.open(options.out / "protonet" / "run").method.learner.network
        cast("nn.Sequential", run.method.learner.network)[0].load_state_dict(trained.state_dict())
    began = time.process_time()
    run.train()
    print(method, config.training.steps, f"meta-steps, {(time.process_time() - began) / 60:.1f} min", flush=True)
    scores["as the recipe has it"] = scored(options, run, None)
    try:
        scores["by the support"] = scored(options, run, "support")
    except ValueError as error:  # a head that answers all queries jointly
        print(method, error)
    print(method, {name: f"{100 * s.mean():.2f}" for name, s in scores.items()}, flush=True)
    np.savez(folder / "scores.npz", **scores)  # type: ignore[arg-type]


def rows(options: Options) -> list[str]:
    """The table, in Markdown; differences are paired by task."""
    told = [
        "| | meta-steps × tasks | accuracy | − {0} | by the support | − {0} | untrained |".format(options.methods[0])
    ]
    told += ["|---|---|---|---|---|---|---|"]
    first: dict[str, NDArray[np.float64]] = {}
    for method in options.methods:
        if not (options.out / method / "scores.npz").exists():
            continue
        found = dict(np.load(options.out / method / "scores.npz"))
        first = first or found
        config = of(options, method, json.loads((options.out / method / "steps.json").read_text()))
        cells = [method, f"{config.training.steps:,} × {config.training.tasks}"]
        for how in ("as the recipe has it", "by the support"):
            cells.append(interval(found[how]).text(percent=True) if how in found else "")
            both = how in found and how in first and first is not found
            cells.append(paired(found[how], first[how]).text(percent=True, sign=True) if both else "")
        told.append(f"| {' | '.join([*cells, interval(found['untrained']).text(percent=True)])} |")
    return told


def main(options: Options) -> None:
    """Measure what is not there yet, and print the table."""
    if not options.table:
        for method in options.methods:
            measure(options, method)
    print("\n".join(rows(options)))


if __name__ == "__main__":
    main(tyro.cli(Options))
