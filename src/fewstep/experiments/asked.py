"""What a run is asked for: how many tasks, of which kind, and what else is scored on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from fewstep.core import Method
from fewstep.core.network.heads import TaskHead
from fewstep.data import mean_input
from fewstep.evaluation import all_baselines
from fewstep.evaluation.baselines import LOGISTIC, Baseline
from fewstep.recipes import Config
from fewstep.recipes.config import Testing
from fewstep.recipes.problems.problem import SPLITS, Problem, Split

Baselines = Literal["none", "quick", "all"]
"""Which classifiers without meta-learning a test scores on its tasks."""

TEST_BATCH = 100
"""Tasks at a time in validation and test."""


def tasks_of(
    testing: Testing, tasks: int | None, seed: int | None, ways: int | None, shots: int | None, queries: int | None
) -> tuple[int, int, dict[str, int | None]]:
    """How many tasks, their seed, and a source's counts: as asked, or as a recipe's ``testing`` says."""
    queries = testing.queries if queries is None else queries
    counts = {"shots": shots, "queries": queries} | ({} if ways is None else {"ways": ways})
    return testing.tasks if tasks is None else tasks, testing.seed if seed is None else seed, counts


def check_tasks(problem: Problem, config: Config, splits: Sequence[Split] = SPLITS) -> None:
    """Make the sources of all tasks that a run will want, so that what cannot be served is told at its beginning.

    Raises:
        ValueError: for counts that the data cannot serve.
    """
    training, testing = config.training, config.testing
    if "train" in splits:
        problem.source("train", tasks=training.tasks, seed=config.seed)
    if "val" in splits:
        problem.source("val", tasks=training.validation_tasks, seed=testing.seed, queries=testing.queries)
    if "test" in splits:
        for shots in testing.shots or (None,):
            problem.source("test", tasks=testing.tasks, seed=testing.seed, shots=shots, queries=testing.queries)


def check_ways(problem: Problem, method: Method, name: str, ways: int | None) -> None:
    """Refuse a number of ways that a method, by name, cannot solve.

    Raises:
        ValueError: for a regression, for fewer than two, and where the network has outputs for another number.
    """
    if ways is None:
        return
    if problem.regression:
        raise ValueError(f"{name} is a regression, which has no ways: leave ways out.")
    if ways < 2:
        raise ValueError(f"ways must be at least 2, got {ways}.")
    heads = [module for module in method.learner.modules() if isinstance(module, TaskHead)]
    made = bool(heads) and all(head.ways is None for head in heads)
    if ways != problem.outputs and not made:
        raise ValueError(
            f"{name} has a network with {problem.outputs} outputs and cannot solve {ways}-way tasks: test it at "
            f"{problem.outputs} ways, or train with --data.ways {ways}."
        )


def baselines_of(problem: Problem, level: Baselines) -> bool | Mapping[str, Baseline]:
    """What a test scores beside the method; false for nothing, true for what needs no data of the training classes."""
    if level == "none":
        return False
    if problem.regression:
        return {**problem.baselines, **(problem.yardsticks if level == "all" else {})}
    if level == "quick" and not problem.of_features:
        return True
    assert problem.examples is not None, "a classification has examples"
    known = all_baselines(mean_input(problem.examples()))
    return known if level == "all" else {name: known[name] for name in known if name != LOGISTIC}
