"""What a run is asked for: how many tasks, and of which kind."""

from collections.abc import Sequence

from fewstep.recipes import Config
from fewstep.recipes.config import Testing
from fewstep.recipes.problems.problem import SPLITS, Problem, Split

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
