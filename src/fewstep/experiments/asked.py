"""What a run is asked for: how many tasks of which kind, and under what name an evaluation is kept."""

import re
from collections.abc import Sequence
from pathlib import Path

from fewstep.experiments.folder import CHOICES, CONFIG, ENVIRONMENT, PROBLEM
from fewstep.recipes import Config
from fewstep.recipes.config import Testing
from fewstep.recipes.problems.problem import SPLITS, Problem, Split

TEST_BATCH = 100
"""Tasks at a time in validation and test."""

OWN_NAMES = ("trial", *(Path(file).stem for file in (CONFIG, PROBLEM, ENVIRONMENT, CHOICES)))
"""Names of a run's own files, which no evaluation takes."""


def tasks_of(
    testing: Testing, tasks: int | None, seed: int | None, ways: int | None, shots: int | None, queries: int | None
) -> tuple[int, int, dict[str, int | None]]:
    """How many tasks, their seed, and a source's counts: as asked, or as a recipe's ``testing`` says."""
    queries = testing.queries if queries is None else queries
    counts = {"shots": shots, "queries": queries} | ({} if ways is None else {"ways": ways})
    return testing.tasks if tasks is None else tasks, testing.seed if seed is None else seed, counts


def check_name(name: str, folder: Path) -> None:
    """Refuse a name for an evaluation that would overwrite what is in a run's folder, or be written elsewhere.

    Raises:
        ValueError: saying which file is in its way.
    """
    if not re.fullmatch(r"\w[\w .+=-]{0,99}", name):
        raise ValueError(
            f"an evaluation is written to NAME.json in the run's folder: {name!r} is no NAME of letters, digits, "
            "spaces and . + = - _, up to 100 of them and no sign first."
        )
    plain = name.casefold()
    if plain in OWN_NAMES or re.fullmatch("test(-.*-shot)?", plain):
        raise ValueError(f"{name}.json is of the run itself: choose another name for this evaluation.")
    for file in (f"{name}.json", f"{name}_tasks.csv"):
        if (folder / file).exists():
            raise ValueError(f"{folder / file} is there already: choose another name for this evaluation.")


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
