"""fewstep: optimisation-based meta-learning, as compositions of a start, a rule and a meta-gradient.

The parts are in :mod:`fewstep.core`, the papers in :mod:`fewstep.algorithms`, tasks in :mod:`fewstep.data`, and
``fewstep.load(run)`` opens a trained run as a classifier or a regressor.

The examples in docstrings go on from here::

    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn

    from fewstep import *
    from fewstep.core import *
    from fewstep.data import Dataset, EpisodeSampler, Sinusoids
    from fewstep.networks import Ensemble, Generated, Matching, Particle, mlp
    from fewstep.networks.particles import regression_of_each
    from fewstep.recipes import RECIPES

    torch.manual_seed(0)

    # A task of one point, (1, 0), on which a line without a bias has the loss w²; and such a line, with w = 1.
    row = Batch(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1))
    parabola, line = Task(row, row), nn.Linear(1, 1, bias=False)
    nn.init.ones_(line.weight)

    # Four tasks of regression: sine curves, 10 points each to adapt to and to be judged on.
    sines = Sinusoids(tasks=4, shots=10, queries=10, seed=0).batch(0)

    # Four tasks of classification: three classes of eight features, two examples of each to adapt to.
    rows = (torch.randn(5, 1, 8) + 0.3 * torch.randn(5, 20, 8)).flatten(0, 1)
    classes = Dataset.from_sorted(rows, range(0, 101, 20))
    clusters = EpisodeSampler(classes, ways=3, shots=2, queries=5, tasks=4, seed=0).batch(0)
"""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.algorithms.anil import anil as anil
    from fewstep.algorithms.bayesian_maml import bayesian_maml as bayesian_maml
    from fewstep.algorithms.cavia import cavia as cavia
    from fewstep.algorithms.csn import csn as csn
    from fewstep.algorithms.deml import deml as deml
    from fewstep.algorithms.dfsl import dfsl as dfsl
    from fewstep.algorithms.gaussian_prior import gaussian_prior as gaussian_prior
    from fewstep.algorithms.imaml import imaml as imaml
    from fewstep.algorithms.leo import leo as leo
    from fewstep.algorithms.leo_network import leo_network as leo_network
    from fewstep.algorithms.llama import llama as llama
    from fewstep.algorithms.maml import fomaml as fomaml
    from fewstep.algorithms.maml import maml as maml
    from fewstep.algorithms.maml_plus_plus import maml_plus_plus as maml_plus_plus
    from fewstep.algorithms.matching import matching as matching
    from fewstep.algorithms.meta_curvature import meta_curvature as meta_curvature
    from fewstep.algorithms.meta_lstm import meta_lstm as meta_lstm
    from fewstep.algorithms.meta_sgd import meta_sgd as meta_sgd
    from fewstep.algorithms.mt_net import mt_net as mt_net
    from fewstep.algorithms.mt_net import t_net as t_net
    from fewstep.algorithms.neural_process import cnp as cnp
    from fewstep.algorithms.neural_process import neural_process as neural_process
    from fewstep.algorithms.platipus import platipus as platipus
    from fewstep.algorithms.ppa import ppa as ppa
    from fewstep.algorithms.protomaml import protomaml as protomaml
    from fewstep.algorithms.protonet import protonet as protonet
    from fewstep.algorithms.r2d2 import r2d2 as r2d2
    from fewstep.algorithms.relation import relation as relation
    from fewstep.algorithms.reptile import reptile as reptile
    from fewstep.algorithms.residual_prototypes import residual_prototypes as residual_prototypes
    from fewstep.algorithms.snail import snail as snail
    from fewstep.algorithms.tadam import tadam as tadam
    from fewstep.algorithms.tpn import tpn as tpn
    from fewstep.estimators.classifier import FewShotClassifier as FewShotClassifier
    from fewstep.estimators.load import load as load
    from fewstep.estimators.meta_learner import ClassKFold as ClassKFold
    from fewstep.estimators.meta_learner import MetaLearner as MetaLearner
    from fewstep.estimators.model import TrainedModel as TrainedModel
    from fewstep.estimators.regressor import FewShotRegressor as FewShotRegressor
    from fewstep.estimators.regressor import Prediction as Prediction
    from fewstep.experiments.run import Run as Run
else:
    __getattr__, __dir__, __all__ = lazily(__name__)

__version__ = "0.2.0"
