"""The analyses of LEO's sections 4.5 and 4.6, of trained runs: Figures 4 and 5 with numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fewstep.core import Batch, Method, Reduction, Task, Zeros
from fewstep.data import SineOrLine, TaskSource
from fewstep.evaluation.analysis import (
    Spectrum,
    curvature,
    decoder_singular_values,
    in_double,
    latent_codes,
    passed,
    principal_components,
    separation,
    step_lengths,
    tsne,
)
from fewstep.evaluation.analysis.hessian import Place, Rows, Space
from fewstep.evaluation.arrays import take
from fewstep.experiments.analyse.result import Analysed, Analysis, CodeMap
from fewstep.experiments.asked import TEST_BATCH
from fewstep.experiments.folder import fingerprint
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.procedure import run_labels
from fewstep.recipes.problems.problem import Split

Found = TypeVar("Found")

logger = logging.getLogger("fewstep")

QUERIES = 15
"""Of each class, where the loss is that of queries; all that there are where some class has fewer."""

TRAINING_TASKS = 100
"""On which curvature is measured along training."""


def analyse(
    run: Path,
    against: Sequence[Path] = (),
    *,
    tasks: int = 1000,
    seed: int = 0,
    rows: Rows = "support",
    reduction: Reduction = "sum",
    perplexity: float = 30.0,
    training_steps: Sequence[int] = (),
    note: Callable[[str], None] = logger.info,
) -> Analysis:
    """Look at what the adaptation of a trained run does, and put its curvature and its steps beside those of others.

    Codes are of validation tasks, and curvature and steps of test tasks, as in the paper; both are the first ones of a
    test of that seed. Nothing is sampled, and all is computed in float64.

    Args:
        run: folder of the run.
        against: folders of runs on the same data, with as many ways and shots.
        tasks: of each of the two, ≥ 2.
        seed: of the tasks, and of t-SNE.
        rows: whose loss the curvature is of.
        reduction: of their losses.
        perplexity: of t-SNE.
        training_steps: meta-steps of the run's training at which curvature is measured too, 0 before the first. The
            training is done once more, up to the last of them, to the same bits where it is done on the same machine.
        note: told, in a line, what takes time.

    Raises:
        ValueError: for runs on other tasks, fewer than two tasks, or meta-steps that the training does not have.
    """
    if tasks < 2:
        raise ValueError(f"tasks must be at least 2, for an interval, got {tasks}.")
    opened = [Run.open(Path(folder), note) for folder in (run, *against)]
    first = opened[0]
    for other in opened[1:]:
        _require_same_tasks(first, other)
    steps, most = sorted({*training_steps}), first.config.training.steps
    if steps and not (steps[0] >= 0 and steps[-1] <= most):
        raise ValueError(f"the training of {run} has meta-steps from 0 to {most}, not {steps[0]} to {steps[-1]}.")
    labels = run_labels(opened)
    queries = first.problem.most_queries("test", QUERIES) if rows == "query" else 1
    test = _tasks(first, "test", tasks, seed, queries)
    codes = _code_map(first, tasks, seed, perplexity, note)
    runs = []
    for one, label in zip(opened, labels, strict=True):
        note(f"curvature and steps of {label} on {tasks} tasks")
        runs.append(_analysed(one, label, test, rows, reduction))
    some = take(test, slice(TRAINING_TASKS))

    def at_step(method: Method) -> Mapping[tuple[Space, Place], list[Spectrum]]:
        return curvature(*in_double(method, some), rows=rows, reduction=reduction)

    training = _along_training(first, steps, at_step, note) if steps and ("codes", "start") in runs[0].spectra else {}
    protocol: dict[str, Any] = {
        **first.problem.protocol,
        "shots": getattr(first.config.data, "shots", None),
        "tasks": tasks,
        "task seed": seed,
        "codes of": "validation tasks",
        "curvature and steps of": "test tasks",
        "loss": f"{rows}, {reduction} over rows",
        "eigenvalues": "those that are not zero, of all tasks together",
        "steps": "with learned rates, all classes of a task together",
        "t-SNE": f"perplexity {perplexity:g}, seed {seed}, from principal components, of z and z' together "
        f"(scikit-learn {version('scikit-learn')})",
        "numbers": "float64, means in place of samples",
        "runs": labels,
        "training seeds": [one.config.seed for one in opened],
        "best meta-steps": [one.tested.step if one.tested else None for one in opened],
        "of": [fingerprint(one.folder) for one in opened],
        "tasks along training": min(TRAINING_TASKS, tasks) if training else None,
    }
    return Analysis(codes, runs, training, protocol)


def _require_same_tasks(first: Run, other: Run) -> None:
    def facts(run: Run) -> dict[str, Any]:
        source = run.problem.source("test", tasks=1, seed=0)
        shape = {name: getattr(source, name, None) for name in ("ways", "shots")}
        return shape | {"data": run.problem.fingerprints().get("test"), "inputs": run.problem.inputs}

    wanted, given = facts(first), facts(other)
    if differing := [name for name in wanted if wanted[name] != given[name]]:
        name = differing[0]
        raise ValueError(
            f"{other.folder} is on other tasks than {first.folder} ({name}: {given[name]} instead of {wanted[name]}): "
            "give runs on the same ones."
        )


def _source(run: Run, split: Split, tasks: int, seed: int, queries: int | None) -> TaskSource:
    return run.problem.source(split, tasks=min(tasks, TEST_BATCH), seed=seed, queries=queries)


def _tasks(run: Run, split: Split, tasks: int, seed: int, queries: int | None) -> Task:
    """The first tasks of a test, in one batch."""
    source = _source(run, split, tasks, seed, queries)
    batches = [source.batch(step) for step in range(-(-tasks // source.tasks))]
    joined = [
        Batch(*(torch.cat([getattr(batch, part)[i] for batch in batches])[:tasks] for i in range(3)))
        for part in ("support", "query")
    ]
    return Task(*joined)


def _labels(run: Run, split: Split, tasks: int, seed: int) -> tuple[NDArray[np.int64] | None, Sequence[str]]:
    """The class of each way of each task, or the kind of its function; and the names of all."""
    source = _source(run, split, tasks, seed, 1)
    steps = range(-(-tasks // source.tasks))
    if isinstance(source, SineOrLine):
        kinds = np.concatenate([source.functions(step).line for step in steps])[:tasks]
        return kinds.astype(np.int64)[:, None], ("sine", "line")
    indices, examples = getattr(source, "indices", None), getattr(source, "dataset", None)
    if indices is None or examples is None:
        return None, ()
    return np.concatenate([indices(step).classes for step in steps])[:tasks], examples.class_names


def _code_map(run: Run, tasks: int, seed: int, perplexity: float, note: Callable[[str], None]) -> CodeMap | None:
    batch = _tasks(run, "val", tasks, seed, 1)
    with run.at_test():
        method, batch = in_double(run.method, batch)
    # A context that alone is adapted is a code too, which steers a network in place of being decoded.
    if not (passed(method, take(batch.support, slice(1))).codes or isinstance(method.learner.start, Zeros)):
        note(f"{run.config.recipe} has no codes: there is no map of them")
        return None
    before, after = latent_codes(method, batch.support)
    classes, names = _labels(run, "val", tasks, seed)
    if classes is not None and classes.shape != before.shape[:2]:
        classes = None  # one code for several classes
    apart = None if classes is None else (separation(before, classes), separation(after, classes))
    both = np.concatenate([before, after]).reshape(-1, before.shape[-1])
    components, shares = principal_components(both)
    note(f"t-SNE of {len(both):,} codes")
    places = tsne(both, perplexity=perplexity, seed=seed)
    halves = [points.reshape(2, -1, 2) for points in (components, places)]
    return CodeMap(before, after, classes, names, apart, halves[0], shares, halves[1])


def _analysed(run: Run, label: str, test: Task, rows: Rows, reduction: Reduction) -> Analysed:
    with run.at_test():
        method, test = in_double(run.method, test)
    spectra = curvature(method, test, rows=rows, reduction=reduction)
    singular = None
    if ("codes", "start") in spectra:
        singular = decoder_singular_values(method, take(test.support, slice(2)))
        if np.allclose(singular[0], singular[1]):  # a linear decoder: the same in all tasks
            singular = singular[:1]
        else:
            singular = decoder_singular_values(method, test.support)
    return Analysed(label, spectra, singular, step_lengths(method, test.support))


class _Enough(Exception):
    """All that was to be seen of a training has been seen."""


def _along_training(
    run: Run, steps: Sequence[int], look: Callable[[Method], Found], note: Callable[[str], None]
) -> dict[int, Found]:
    """What is seen of a run's method at meta-steps of its training, which is done again in a folder that goes."""
    note(f"the training once more, to meta-step {steps[-1]}")
    training, found = run.config.training, dict[int, Found]()
    # Neither changes a meta-step, but for the one after which training stops early.
    quiet = replace(training, validate_every=training.steps, checkpoint_every=training.steps, patience=0)
    with TemporaryDirectory() as place:
        again = Run.create(replace(run.config, training=quiet), Path(place) / "run", note, run.problem)

        def see(step: int) -> None:
            if step in steps and step not in found:
                with again.at_test():
                    found[step] = look(again.method)
            if step >= steps[-1]:
                raise _Enough

        try:
            see(0)
            again.train(progress=lambda state, _: see(state.step))
        except _Enough:
            pass
    return found
