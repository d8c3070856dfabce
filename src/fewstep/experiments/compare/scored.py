"""The test of one run of a comparison: its scores, and what its folder says of its training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from fewstep.data import TaskSource
from fewstep.data.storage.files import read_json, sealed, write_atomically
from fewstep.evaluation import Evaluation, inner_steps
from fewstep.evaluation.baselines import NEAREST_MEAN, RIDGE
from fewstep.evaluation.inner_loop import descents
from fewstep.evaluation.scoring import ADAPTED
from fewstep.experiments.compare.method import MethodScores, Scores
from fewstep.experiments.folder import ENVIRONMENT
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config, dotted
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training.checkpoint import BEST, newest, read_state

TestBar: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int, int], None] | None]]
"""Shows a test of so many tasks."""

WITHOUT_EFFECT = (
    *("recipe", "device", "threads"),
    *(f"testing.{name}" for name in ("tasks", "seed", "queries", "shots", "steps")),
    *(f"training.{name}" for name in ("keep", "log_every", "checkpoint_every", "compile", "recompute")),
)
"""Settings that make no method another one."""


def score_run(
    run: Run, label: str, source: TaskSource, tasks: int, baselines: Sequence[str], test_bar: TestBar
) -> ScoredMethod:
    """Test a method, and simple classifiers on its inputs.

    Args:
        run: trained.
        label: of the method's row.
        source: of the tasks, the same for all methods.
        tasks: how many of them.
        baselines: labels of nearest class mean and ridge regression; none of them when empty.
        test_bar: shows progress.
    """

    def scored(plain: bool = False) -> Evaluation:
        with test_bar(tasks) as progress:
            return run.score(source, tasks, baselines=plain, progress=progress)

    start: Mapping[str, Scores] = {}
    with run.at_test():
        steps = tuple(stage.steps for stage in descents(run.method.learner))
        began = time.perf_counter()
        adapted = scored()
        seconds = (time.perf_counter() - began) / tasks
        # In two passes, so that the time is that of the method alone.
        if steps or baselines:
            with inner_steps(run.method.learner, 0):
                start = scored(bool(baselines)).scores
    row = MethodScores(
        label=label,
        scores=adapted.scores[ADAPTED],
        unadapted=start[ADAPTED] if steps else None,
        algorithm=type(run.config.method).__name__,
        inputs="" if run.problem.regression else "features" if run.problem.of_features else "images",
        inner_steps=steps,
        statistics=adapted.protocol.get("batch statistics"),
        transductive=adapted.transductive,
        test_seconds=seconds,
        **_training(run),
    )
    plain: dict[str, Any] = {"algorithm": "no meta-learning", "baseline": True}
    rows = tuple(
        MethodScores(label=name, scores=start[score], inputs=name.partition("(")[2].rstrip(")"), **plain)
        for name, score in zip(baselines, (NEAREST_MEAN, RIDGE), strict=False)
    )
    return ScoredMethod(row, rows, adapted.score_name, adapted.higher_is_better)


def _training(run: Run) -> dict[str, Any]:
    """What the run's folder says of its training."""
    config, best = run.config, run.tested or read_state(run.folder / BEST)
    last = newest(run.folder)
    state = best if last is None else read_state(last)
    notes = []
    if best.step != state.step:
        notes.append(f"tested as of meta-step {best.step:,}, the best in validation")
    if state.nonfinite:
        notes.append(f"{state.nonfinite:,} non-finite meta-steps")
    if changed := _changed(config):
        notes.append(f"settings of its own, not the recipe's ({changed})")
    facts = read_json(run.folder / ENVIRONMENT)
    trained_on = run.problem.protocol.get("training") or f"{getattr(config.data, 'shots', '?')}-shot"
    own_data = isinstance(config.data, Embeddings) and run.problem.protocol["dataset"] != config.data.dataset
    known = None if own_data else RECIPES.get(config.recipe)
    return {
        "trained_on": trained_on,
        "steps": state.step,
        "planned": config.training.steps,
        "finished": state.finished,
        "best_step": best.step,
        "tasks_per_step": config.training.tasks,
        "training_seconds": state.seconds,
        "threads": facts.get("threads"),
        "machine": facts.get("machine"),
        "notes": tuple(notes),
        "published": () if known is None else tuple(map(str, known.published)),
    }


def _changed(config: Config) -> str:
    """Settings in which a run differs from the recipe of its name, as that is in this version; briefly."""
    if config.recipe not in RECIPES:
        return ""
    own, recipe = dotted(config), dotted(RECIPES[config.recipe]())
    others = [n for n in own if n not in WITHOUT_EFFECT and n != "seed" and n in recipe and own[n] != recipe[n]]
    shown = [f"{name}={value_text(own[name])}" for name in others[:3]]
    return ", ".join([*shown, *([f"and {len(others) - 3} more"] if len(others) > 3 else [])])


def value_text(value: Any) -> str:
    """The value of a setting, as a label or an error says it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@final
@dataclass(frozen=True)
class ScoredMethod:
    """Results of one method, and of the baselines on its inputs.

    Attributes:
        method: its row.
        baselines: those of classifiers without meta-learning on the same inputs.
        score_name: what all scores are.
        higher_is_better: their direction.
    """

    method: MethodScores
    baselines: tuple[MethodScores, ...]
    score_name: str
    higher_is_better: bool

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all; numbers read back to the same bits.

        Raises:
            OSError: if the file cannot be written.
        """
        plain = json.loads(json.dumps(asdict(self), default=np.ndarray.tolist))
        write_atomically(path, json.dumps(sealed({**plain, "key": path.stem}), ensure_ascii=False))

    @classmethod
    def read(cls, path: Path) -> ScoredMethod | None:
        """None where there is nothing, or what was written as another file."""
        content = read_json(path)
        if not content or content.get("key", path.stem) != path.stem:
            return None
        for row in (content["method"], *content["baselines"]):
            for name in ("scores", "unadapted"):
                row[name] = None if row[name] is None else np.array(row[name])
            for name in ("inner_steps", "notes", "published"):
                row[name] = tuple(row[name])
        rows = tuple(MethodScores(**row) for row in content["baselines"])
        return cls(MethodScores(**content["method"]), rows, content["score_name"], content["higher_is_better"])
