"""A trained model or a fitted estimator, opened for data of your own."""

from __future__ import annotations

import logging
from pathlib import Path

from fewstep.core.modes import as_usual
from fewstep.data.storage.reading import reading
from fewstep.estimators.classifier import FewShotClassifier
from fewstep.estimators.model import Model, TrainedModel
from fewstep.estimators.opened import located, opened
from fewstep.estimators.regressor import FewShotRegressor
from fewstep.estimators.sharing import Note, read
from fewstep.experiments.run import Run

logger = logging.getLogger("fewstep")


@as_usual
def load(
    source: str | Path | Run, device: str = "auto", note: Note = logger.warning
) -> FewShotClassifier | FewShotRegressor:
    """Open what was trained, for data of your own: ``fewstep.load(run).fit(X, y).predict(X_query)``.

    Of a run only its folder is read: neither training data nor a cache is needed. Queries are batch-normalised as in
    the run's test where that is inductive, else by the support.

    Args:
        source: the folder of a run; the file of a model or of a fitted estimator; or the name of a shipped model.
        device: to compute on: "cpu", "cuda" or "cuda:1"; "auto" is where it was trained, or if this machine does not
            have that, a GPU or the CPU.
        note: told, in a line, when it was trained on what is not here.

    Returns:
        A regressor for a model of a regression, else a classifier; fitted where a fitted one was saved.

    Raises:
        ValueError: when there is no trained model, or no such device.

    Example:
        >>> config = RECIPES["maml-sinusoid"]()
        >>> short = replace(config.training, steps=2, validate_every=2, validation_tasks=4, compile="off")
        >>> trained = Run.create(replace(config, training=short), Path("run")).train()
        >>> load("run").fit([[0.0], [1.0], [2.0]], [0.0, 0.8, 0.9]).predict([[1.5], [2.5]]).shape
        (2,)
    """
    path = located(source)
    if path.is_dir():
        return _estimator(opened(path, device, note))
    model, tensors, words = read(path, device, note)
    estimator = _estimator(model)
    if "estimator" in words:
        with reading(path, "holds no model of fewstep", "fetch or export it again"):
            estimator.restore(tensors, words)
    return estimator


def _estimator(model: Model) -> FewShotClassifier | FewShotRegressor:
    numbers = isinstance(model, TrainedModel) and model.regression
    return FewShotRegressor(model) if numbers else FewShotClassifier(model)
