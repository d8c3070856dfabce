"""One file per paper: its equations, its composition, its deviations.

Examples in docstrings go on from the lines in ``help(fewstep)``.
"""

from fewstep.algorithms.anil import anil
from fewstep.algorithms.bayesian_maml import bayesian_maml
from fewstep.algorithms.cavia import cavia
from fewstep.algorithms.csn import csn
from fewstep.algorithms.deml import deml
from fewstep.algorithms.dfsl import dfsl
from fewstep.algorithms.gaussian_prior import gaussian_prior
from fewstep.algorithms.imaml import imaml
from fewstep.algorithms.leo import leo
from fewstep.algorithms.leo_network import leo_network
from fewstep.algorithms.llama import llama
from fewstep.algorithms.maml import fomaml, maml
from fewstep.algorithms.maml_plus_plus import maml_plus_plus
from fewstep.algorithms.matching import matching
from fewstep.algorithms.meta_curvature import meta_curvature
from fewstep.algorithms.meta_lstm import meta_lstm
from fewstep.algorithms.meta_sgd import meta_sgd
from fewstep.algorithms.mt_net import mt_net, t_net
from fewstep.algorithms.neural_process import cnp, neural_process
from fewstep.algorithms.platipus import platipus
from fewstep.algorithms.ppa import ppa
from fewstep.algorithms.protomaml import protomaml
from fewstep.algorithms.protonet import protonet
from fewstep.algorithms.r2d2 import r2d2
from fewstep.algorithms.relation import relation
from fewstep.algorithms.reptile import reptile
from fewstep.algorithms.residual_prototypes import residual_prototypes
from fewstep.algorithms.snail import snail
from fewstep.algorithms.tadam import tadam
from fewstep.algorithms.tpn import tpn

__all__ = [
    "anil",
    "bayesian_maml",
    "cavia",
    "cnp",
    "csn",
    "deml",
    "dfsl",
    "fomaml",
    "gaussian_prior",
    "imaml",
    "leo",
    "leo_network",
    "llama",
    "maml",
    "maml_plus_plus",
    "matching",
    "meta_curvature",
    "meta_lstm",
    "meta_sgd",
    "mt_net",
    "neural_process",
    "platipus",
    "ppa",
    "protomaml",
    "protonet",
    "r2d2",
    "relation",
    "reptile",
    "residual_prototypes",
    "snail",
    "t_net",
    "tadam",
    "tpn",
]
