"""Measures a cell of docs/practice.md: `python docs/practice.py FEATURES --shots 1 --out FOLDER`, for hours or minutes.

Residual prototypes, three training seeds, beside class means, centred class means, ridge regression and logistic
regression, whose penalties are chosen on validation tasks too. All on the same test tasks. What is in FOLDER is kept.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core import Batch
from fewstep.data import mean_input
from fewstep.evaluation import evaluate, interval, logistic_regression, nearest_mean, paired, ridge
from fewstep.evaluation.baselines import Baseline, centred_nearest_mean
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, with_settings

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
INVERSE_PENALTIES = (1.0, 10.0, 100.0)
BATCH = 100

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Options:
    """A cell."""

    features: tyro.conf.Positional[Path]
    """The features, with their splits."""
    shots: int
    """Examples of each class."""
    out: Path
    """Folder of the runs and of the result."""
    recipe: str = "residual-prototypes-features"
    """Stem of the recipe."""
    settings: tuple[tuple[str, float], ...] = ()
    """Settings that a search on validation classes has found: NAME VALUE ..."""
    seeds: int = 3
    """Of training."""
    tasks: int = 5000
    """Test tasks."""
    validation_tasks: int = 1000
    """On which penalties are chosen."""
    queries: int = 100
    """Test queries of each class."""
    baselines: bool = True
    """Score them too."""
    frozen: Path | None = None
    """Folder of this cell on the training classes alone: what it chose is taken, and validation classes train too."""


def centred(of: Baseline, centre: Tensor, support: Batch, query: Batch) -> Tensor:
    """A baseline on rows from a centre, of length 1."""
    seen = [side.x - centre.to(side.x) for side in (support, query)]
    rows = [x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12) for x in seen]
    return of(support._replace(x=rows[0]), query._replace(x=rows[1]))


def families(centre: Tensor) -> dict[str, dict[str, Baseline]]:
    """Every baseline, with what there is to choose about it."""
    made: dict[str, dict[str, Baseline]] = {
        "class means": {"": nearest_mean},
        "centred class means": {"": partial(centred_nearest_mean, centre=centre)},
    }
    kinds: dict[str, Callable[[Baseline], Baseline]] = {
        "": lambda of: of,
        "centred, ": lambda of: partial(centred, of, centre),
    }
    made["ridge"] = {f"{k}{p:g}": wrap(partial(ridge, penalty=p)) for k, wrap in kinds.items() for p in PENALTIES}
    made["logistic regression"] = {
        f"{k}{c:g}": wrap(partial(logistic_regression, inverse_penalty=c))
        for k, wrap in kinds.items()
        for c in INVERSE_PENALTIES
    }
    return made


def main(options: Options) -> None:
    """Train, choose, test, and print a table."""
    base = RECIPES[f"{options.recipe}-{options.shots}shot"]()
    base = replace(base, data=replace(base.data, path=str(options.features)), threads=1)
    base = with_settings(base, dict(options.settings))
    scores: dict[str, NDArray[np.float64]] = {}
    chosen: dict[str, Any] = {}
    frozen = {} if options.frozen is None else json.loads((options.frozen / "result.json").read_text())["chosen"]
    if options.frozen is not None:
        base = replace(base, data=replace(base.data, train_on="trainval"))
    for seed in range(options.seeds):
        config = replace(base, seed=seed)
        if choices := frozen.get(f"seed {seed}"):
            config = replace(config, method=replace(config.method, choices=tuple(choices.items())))
        run = Run.continued(config, options.out / f"seed-{seed}", print)
        run.train()
        found = run.test(tasks=options.tasks, queries=options.queries, baselines="none")
        scores[f"{base.recipe}, seed {seed}"] = found.scores["adapted"]
        if (kept := options.out / f"seed-{seed}" / "choices.json").exists():
            chosen[f"seed {seed}"] = {d["name"]: d["chosen"] for d in json.loads(kept.read_text())["decisions"]}
    method = np.mean(list(scores.values()), axis=0)
    if options.baselines:
        assert run.problem.examples is not None
        wanted, names = {}, families(mean_input(run.problem.examples()))
        score = partial(evaluate, run.method, unadapted=False)
        for name, candidates in names.items():
            best = frozen.get(name, next(iter(candidates)))
            if len(candidates) > 1 and not frozen:
                source = run.problem.source("val", tasks=BATCH, seed=0, queries=15)
                found = score(source, options.validation_tasks, baselines=candidates)
                best = max(candidates, key=lambda label: found.scores[label].mean())
            chosen[name] = best
            wanted[name] = candidates[best]
        source = run.problem.source("test", tasks=BATCH, seed=0, queries=options.queries)
        scores |= {n: v for n, v in score(source, options.tasks, baselines=wanted).scores.items() if n in wanted}
    np.savez(options.out / "scores.npz", **scores)
    text = [f"{base.recipe}: {interval(100 * method)}"]
    text += [f"  over {name} ({interval(100 * s)}): {paired(100 * method, 100 * s)}" for name, s in scores.items()]
    (options.out / "result.json").write_text(json.dumps({"text": text, "chosen": chosen}, indent=1) + "\n")
    print("\n".join(text), chosen, sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
