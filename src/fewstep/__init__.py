"""fewstep: optimisation-based meta-learning, as compositions of a start, a rule and a meta-gradient.

The parts are in :mod:`fewstep.core`, the papers in :mod:`fewstep.algorithms`, tasks in :mod:`fewstep.data`, and
``fewstep.load(run)`` opens a trained run as a classifier or a regressor.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewstep.algorithms import (
    anil,
    fomaml,
    imaml,
    leo,
    leo_network,
    maml,
    meta_curvature,
    meta_lstm,
    meta_sgd,
    protomaml,
    protonet,
    reptile,
)

if TYPE_CHECKING:
    from fewstep.estimators.classifier import FewShotClassifier
    from fewstep.estimators.load import load
    from fewstep.estimators.regressor import FewShotRegressor, Prediction
    from fewstep.experiments.run import Run

__version__ = "0.1.0"

__all__ = [
    "FewShotClassifier",
    "FewShotRegressor",
    "Prediction",
    "Run",
    "anil",
    "fomaml",
    "imaml",
    "leo",
    "leo_network",
    "load",
    "maml",
    "meta_curvature",
    "meta_lstm",
    "meta_sgd",
    "protomaml",
    "protonet",
    "reptile",
]


_LATER = {
    "FewShotClassifier": "fewstep.estimators.classifier",
    "FewShotRegressor": "fewstep.estimators.regressor",
    "Prediction": "fewstep.estimators.regressor",
    "Run": "fewstep.experiments.run",
    "load": "fewstep.estimators.load",
}


def __getattr__(name: str) -> Any:
    # They bring in recipes, evaluation and files: not needed to compose and train, so imported when asked for.
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
