"""fewstep: optimisation-based meta-learning, as compositions of a start, a rule and a meta-gradient.

The parts are in :mod:`fewstep.core`, the papers in :mod:`fewstep.algorithms`, tasks in :mod:`fewstep.data`, and
``fewstep.load(run)`` opens a trained run as a classifier or a regressor.
"""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.algorithms.anil import anil
    from fewstep.algorithms.imaml import imaml
    from fewstep.algorithms.leo import leo
    from fewstep.algorithms.leo_network import leo_network
    from fewstep.algorithms.maml import fomaml, maml
    from fewstep.algorithms.meta_curvature import meta_curvature
    from fewstep.algorithms.meta_lstm import meta_lstm
    from fewstep.algorithms.meta_sgd import meta_sgd
    from fewstep.algorithms.protomaml import protomaml
    from fewstep.algorithms.protonet import protonet
    from fewstep.algorithms.reptile import reptile
    from fewstep.estimators.classifier import FewShotClassifier
    from fewstep.estimators.load import load
    from fewstep.estimators.regressor import FewShotRegressor, Prediction
    from fewstep.experiments.run import Run
else:
    __getattr__, __dir__ = lazily(__name__)

__version__ = "0.2.0"

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
