"""A trained run, opened for data of your own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewstep.core.types import Statistics
from fewstep.data import TaskSource
from fewstep.data.images.files import Reading
from fewstep.estimators.classifier import FewShotClassifier
from fewstep.estimators.regressor import FewShotRegressor
from fewstep.evaluation import set_inner_loop
from fewstep.experiments.folder import EXTRACTOR, PROBLEM, best_checkpoint, stored_config
from fewstep.recipes.problems.problem import Problem
from fewstep.training import load_checkpoint
from fewstep.training.device import device_of_trained
from fewstep.training.pretraining import FeatureExtractor

logger = logging.getLogger("fewstep")


def load(
    folder: str | Path, device: str = "auto", note: Callable[[str], None] = logger.warning
) -> FewShotClassifier | FewShotRegressor:
    """Open a trained run for data of your own: ``fewstep.load(run).fit(x, y).predict(x_query)``.

    Only the run's folder is read: neither training data nor a cache is needed. Queries are batch-normalised as in the
    run's test where that is inductive, else by the support. For a regressor with another number of samples, or with
    noise, make one of the method: ``FewShotRegressor(fewstep.load(run).method, samples=…, noise=…)``.

    Args:
        folder: of the run.
        device: to compute on: "cpu", "cuda" or "cuda:1"; "auto" is where it was trained, or if this machine does not
            have that, a GPU or the CPU.
        note: told, in a line, when it was trained on what is not here.

    Returns:
        A regressor for a run of a regression, else a classifier.

    Raises:
        ValueError: when the folder is no trained run, or there is no such device.

    Example:
        >>> config = RECIPES["maml-sinusoid"]()
        >>> short = replace(config.training, steps=2, validate_every=2, validation_tasks=4, compile="off")
        >>> trained = Run.create(replace(config, training=short), Path("run")).train()
        >>> load("run").fit([0.0, 1.0, 2.0], [0.0, 0.8, 0.9]).predict([1.5, 2.5]).mean.shape
        (2,)
    """
    folder = Path(folder)
    config = stored_config(folder)
    shape = json.loads((folder / PROBLEM).read_text())
    extractor = FeatureExtractor.load(folder / EXTRACTOR) if shape["features"] else None
    problem = Problem(_no_data, tuple(shape["inputs"]), shape["outputs"], {}, extractor, regression=shape["regression"])
    method = config.method.build(problem)
    place = replace(config, device=device_of_trained(config.device, device, note)).prepare_device()
    method.learner.to(place.device, place.dtype)
    load_checkpoint(best_checkpoint(folder), method.learner)
    set_inner_loop(method.learner, **config.at_test())
    # A test may be transductive; a prediction is only where its user says so.
    tested = config.testing.statistics
    statistics: Statistics = tested if tested in ("joined", "running") else "support"
    if problem.regression:
        return FewShotRegressor(method, statistics=statistics)
    reading = _reading(problem) if extractor is None else extractor.to(place.device).reading or Reading()
    return FewShotClassifier(method, extractor, normalise=shape["normalise"], statistics=statistics, reading=reading)


def _reading(problem: Problem) -> Reading | None:
    """How files become the images that a method takes; None where it takes features."""
    if problem.of_features:
        return None
    channels, size, _ = problem.inputs
    grey = channels == 1  # Omniglot's
    return Reading(size, grey, invert=grey)


def _no_data(*_: Any, **__: Any) -> TaskSource:
    raise AssertionError("a loaded run has no tasks")
