"""What a query's prediction owes to the queries beside it: `python docs/batched.py RUN ...`, minutes for an image run.

Accuracy on the same test tasks, by what a query is batched with: the whole query of its task, which has as many rows of
each class; those of its own class; or nothing. And normalised by the support in place of the query, where that is
possible.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from fewstep.core import Batch, Method
from fewstep.evaluation import interval, paired
from fewstep.experiments.run import Run

BATCH = 20


@dataclass(frozen=True)
class Options:
    """Trained runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders."""
    tasks: int = 600
    """Test tasks."""
    queries: int = 15
    """Queries of each class."""


def part(batch: Batch, rows: slice) -> Batch:
    """Some rows of all tasks."""
    return Batch(*(tensor[:, rows] for tensor in batch))


@torch.no_grad()
def accuracies(method: Method, support: Batch, query: Batch, together: int, statistics: str) -> NDArray[np.float64]:
    """Of each task, when so many queries are predicted at a time."""
    points, right = method.adapt(support), []
    for first in range(0, query.weight.shape[1], together):
        some = part(query, slice(first, first + together))
        found = method.predict(points, some, support, statistics=statistics)  # type: ignore[arg-type]
        right.append(found.argmax(-1) == some.y.argmax(-1))
    return torch.cat(right, 1).double().mean(1).numpy()


def main(options: Options) -> None:
    """Print a table of each run."""
    for folder in options.runs:
        run = Run.open(folder)
        source = run.problem.source("test", tasks=BATCH, seed=0, queries=options.queries)
        ways = source.ways
        assert ways is not None
        ask = partial(accuracies, run.method)
        cases = {
            f"all {ways * options.queries} queries together": (ways * options.queries, "query"),
            f"{options.queries} of one class together": (options.queries, "query"),
            "each query alone": (1, "query"),
            "statistics of the support": (ways * options.queries, "support"),
        }
        found: dict[str, list[NDArray[np.float64]]] = {}
        for step in range(options.tasks // BATCH):
            support, query = source.batch(step)
            for name, (together, statistics) in cases.items():
                try:
                    scores = ask(support, query, together, statistics)
                except ValueError as error:  # a head that answers all queries jointly refuses other rows' statistics
                    print(f"{name}: {error}") if not step else None
                    continue
                found.setdefault(name, []).append(scores)
        all_of = {name: np.concatenate(scores) for name, scores in found.items()}
        reference = next(iter(all_of.values()))
        print(f"\n{run.config.recipe} ({folder})\n\n| predicted | accuracy | − all together |\n|---|---|---|")
        for name, scores in all_of.items():
            beside = "" if scores is reference else paired(scores, reference).text(percent=True, sign=True)
            print(f"| {name} | {interval(scores).text(percent=True)} | {beside} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
