"""Measures a table of docs/results.md: `python docs/compared.py FEATURES --shots 1 --out FOLDER`, an hour for a cell.

The systems that LEO's paper is compared with, in the space of given features, beside LEO, ProtoNet and classifiers that
learn nothing, all on the same test tasks: for each a search of a few random trials on validation classes, then three
training seeds, and the same without a meta-step. What is in FOLDER is kept, and a command that was stopped goes on.
`--table` prints what is there.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from practice import families

from fewstep.core import Gaussian
from fewstep.data import mean_input
from fewstep.evaluation import evaluate, interval, paired
from fewstep.experiments.run import Run
from fewstep.experiments.search import search
from fewstep.recipes import RECIPES, Config
from fewstep.recipes.methods.others import GaussianPrior

BASELINES = "class means", "centred class means", "logistic regression"
METHODS = "leo", "protonet", "matching", "relation", "tpn", "tadam", "ppa", "gaussian-prior", "dfsl"
BATCH = 100


@dataclass(frozen=True)
class Options:
    """A cell of the table."""

    features: tyro.conf.Positional[Path]
    """The features, with their splits."""
    shots: int
    """Examples of each class."""
    out: Path
    """Folder of all that is made."""
    methods: tuple[str, ...] = METHODS
    """Stems of recipes on features."""
    trials: int = 6
    """Random configurations of each."""
    trial_steps: int = 150
    """Meta-steps of a trial."""
    steps: int = 300
    """Meta-steps of the training that is tested."""
    meta_batch: int = 6
    """Tasks in a meta-step, at most."""
    seeds: int = 3
    """Of training."""
    validation_tasks: int = 300
    """On which a configuration, the best meta-step and penalties are chosen."""
    tasks: int = 5000
    """Test tasks."""
    queries: int = 15
    """Queries of each class."""
    table: bool = False
    """Print what there is, and compute nothing."""


def of(options: Options, method: str) -> Config:
    """A recipe on these features, with the budget that all have."""
    base = RECIPES[f"{method}-features-{options.shots}shot"]()
    outer = replace(
        base.training,
        tasks=min(base.training.tasks, options.meta_batch),
        steps=options.trial_steps,
        validate_every=options.trial_steps,
        validation_tasks=options.validation_tasks,
        checkpoint_every=100,
        patience=0,
    )
    data = replace(base.data, path=str(options.features))
    testing = replace(base.testing, tasks=options.tasks, queries=options.queries)
    return replace(base, data=data, training=outer, testing=testing, threads=1)


def scored(run: Run) -> NDArray[np.float64]:
    """Accuracies on the test tasks."""
    testing = run.config.testing
    source = run.problem.source("test", tasks=BATCH, seed=testing.seed, queries=testing.queries)
    with run.at_test():
        return run.score(source, testing.tasks).scores["adapted"]


def untrained(config: Config, folder: Path) -> NDArray[np.float64]:
    """The same without a meta-step; of a Gaussian that is fitted and not trained, with a standard normal one."""
    run = Run(config, folder / "untrained")
    if isinstance(start := run.method.learner.start, Gaussian):
        start.mean.zero_()
        start.factor.fill_(1.0)
    return scored(run)


def measure(options: Options, method: str) -> None:
    """Search, train and test a method."""
    folder = options.out / method
    if (folder / "scores.npz").exists():
        return
    config = of(options, method)
    space = RECIPES[f"{method}-features-{options.shots}shot"].space
    found = search(
        config, space, trials=options.trials, out=folder / "search", workers=1, prune=False, note=lambda _: None
    )
    drawn = {row.index: {"value": row.value, "at": row.best_step, **row.settings} for row in found.rows}
    best = replace(found.config, training=replace(found.config.training, steps=options.steps))
    scores = {"untrained": untrained(best, folder)}
    for seed in range(1 if isinstance(config.method, GaussianPrior) else options.seeds):  # it is the same for all
        seeded = replace(best, seed=seed)
        run = Run.continued(seeded, folder / f"seed-{seed}", print)
        run.train()
        scores[f"seed {seed}"] = scored(run)
        print(options.out, method, {name: f"{100 * s.mean():.2f}" for name, s in scores.items()}, flush=True)
    (folder / "found.json").write_text(json.dumps({"best": found.index, "trials": drawn}, indent=1) + "\n")
    np.savez(folder / "scores.npz", **scores)  # type: ignore[arg-type]


def measure_baselines(options: Options) -> None:
    """Score what learns nothing, with the penalty that validation tasks choose."""
    file = options.out / "baselines.npz"
    if file.exists():
        return
    run = Run(of(options, "protonet"), options.out / "untrained")
    assert run.problem.examples is not None
    candidates = families(mean_input(run.problem.examples()))
    wanted = {}
    for name in BASELINES:
        best = next(iter(candidates[name].values()))
        if len(candidates[name]) > 1:
            source = run.problem.source("val", tasks=BATCH, seed=0, queries=options.queries)
            on_validation = evaluate(run.method, source, options.validation_tasks, baselines=candidates[name])
            chosen = max(candidates[name], key=lambda label: on_validation.scores[label].mean())
            print(name, chosen)
            best = candidates[name][chosen]
        wanted[name] = best
    source = run.problem.source("test", tasks=BATCH, seed=0, queries=options.queries)
    scores = evaluate(run.method, source, options.tasks, baselines=wanted, unadapted=False).scores
    np.savez(file, **{name: scores[name] for name in BASELINES})


def rows(options: Options) -> list[str]:
    """The cell's rows, in Markdown: mean over seeds, deviation, and differences paired by task."""
    means, spread, plain = {}, {}, {}
    for name in options.methods:
        if (file := options.out / name / "scores.npz").exists():
            kept = dict(np.load(file))
            trained = [value for key, value in kept.items() if key.startswith("seed")]
            means[name] = np.mean(trained, axis=0)
            spread[name] = f" ({100 * np.std([t.mean() for t in trained], ddof=1):.2f})" if len(trained) > 1 else ""
            plain[name] = kept["untrained"]
    if (options.out / "baselines.npz").exists():
        means |= dict(np.load(options.out / "baselines.npz"))
    told = ["| | accuracy (s.d. over seeds) | − untrained | − LEO | − centred class means |", "|---|---|---|---|---|"]
    for name, mean in means.items():
        beside = [plain.get(name), means.get("leo"), means.get("centred class means")]
        cells = [
            "" if other is None or other is mean else paired(mean, other).text(percent=True, sign=True)
            for other in beside
        ]
        told.append(f"| {name} | {interval(mean).text(percent=True)}{spread.get(name, '')} | {' | '.join(cells)} |")
    return told


def main(options: Options) -> None:
    """Measure what is not there yet, and print the table."""
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        measure_baselines(options)
        for method in options.methods:
            measure(options, method)
    print("\n".join(rows(options)))


if __name__ == "__main__":
    main(tyro.cli(Options))
