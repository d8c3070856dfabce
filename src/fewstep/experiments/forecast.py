"""What a run would do and how long it would take, found out by a few meta-steps that leave nothing behind."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from fewstep.experiments.asked import TEST_BATCH, check_tasks
from fewstep.experiments.run import Run
from fewstep.recipes import Config
from fewstep.recipes.problems.omniglot_features import OmniglotFeatures
from fewstep.training import Trainer
from fewstep.training.device import device_here

logger = logging.getLogger("fewstep")

MEASURED_STEPS, MEASURED_SECONDS = 5, 10.0
"""Meta-steps that are timed after a first one, but no more than so long."""


def forecast(config: Config, note: Callable[[str], None] = logger.info) -> dict[str, str]:
    """What a training and its test would be, in words by name, and their times on this machine.

    A few meta-steps, and a batch each of validation and test tasks, are run and timed; the rest is proportion. Nothing
    is compiled, and nothing of a run is written.

    Args:
        config: of the run.
        note: is given a line about what takes time, such as reading data.

    Raises:
        ValueError: for what a training would refuse.
    """
    options, testing = config.training, config.testing
    device = device_here(config.device)
    told = {"recipe": config.recipe, "device": f"{device}, {config.dtype}"}
    if isinstance(config.data, OmniglotFeatures):
        return told | {"time": "not measured: its features are made first, by pre-training, which would be kept"}
    with TemporaryDirectory() as folder:
        run = Run(replace(config, device=device), Path(folder), note)
        check_tasks(run.problem, run.config)
        told |= {name: str(value) for name, value in run.problem.protocol.items()}
        learner = run.method.learner
        told["meta-parameters"] = f"{sum(parameter.numel() for parameter in learner.trained()):,}"
        validations = math.ceil(options.steps / options.validate_every)
        told["training"] = f"{options.steps:,} meta-steps of {options.tasks} tasks; {validations:,} validations of "
        told["training"] += f"{options.validation_tasks:,} tasks"
        source = run.problem.source("train", tasks=options.tasks, seed=config.seed)
        trainer = Trainer(
            run.method, source, replace(options, compile="off"), lambda _: math.nan, folder=Path(folder) / "steps"
        )
        step = _seconds_a_step(trainer) if learner.trained() else 0.0
        tasks = min(options.validation_tasks, TEST_BATCH)
        validation = run.problem.source("val", tasks=tasks, seed=testing.seed, queries=testing.queries)
        began = time.perf_counter()
        with run.at_test():
            run.score(validation, tasks)
        task = (time.perf_counter() - began) / tasks
        began, tested = time.perf_counter(), min(testing.tasks, TEST_BATCH)
        shots = testing.shots or (None,)
        run.test(tasks=tested, shots=shots[0])
        test = (time.perf_counter() - began) / tested * testing.tasks * len(shots)
    training, scoring = step * options.steps, task * options.validation_tasks * validations
    told["test"] = f"{testing.tasks:,} tasks{f' at {len(shots)} numbers of shots' if len(shots) > 1 else ''}"
    told["time"] = (
        f"{_words(training)} of meta-steps ({1000 * step:.0f} ms each), {_words(scoring)} of validations, "
        f"{_words(test)} of test: {_words(training + scoring + test)} in all"
    )
    if options.compiles():
        told["time"] += (
            "; it would compile its meta-steps, once for some half a minute to two, and they are faster then"
        )
    if options.patience:
        told["time"] += f"; less where {options.patience} validations in a row bring nothing new"
    return told


def _seconds_a_step(trainer: Trainer) -> float:
    """The median of a few meta-steps after the first."""
    seen: list[float] = []
    for step in range(1 + MEASURED_STEPS):
        began = time.perf_counter()
        trainer.step(*trainer.inputs(step))
        seen.append(time.perf_counter() - began)
        if sum(seen) > MEASURED_SECONDS:
            break
    return median(seen[1:] or seen)


def _words(seconds: float) -> str:
    """A time in its fitting unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
