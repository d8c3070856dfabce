"""How one step moves."""

from fewstep.core.rule.adam import Adam
from fewstep.core.rule.chain import Chain
from fewstep.core.rule.clip import Clip, clipped
from fewstep.core.rule.curvature import Curvature
from fewstep.core.rule.learned_rates import LearnedRates
from fewstep.core.rule.lstm import LSTM
from fewstep.core.rule.masked import Masked
from fewstep.core.rule.per_step import PerStep
from fewstep.core.rule.sgd import SGD
from fewstep.core.rule.svgd import SVGD

__all__ = ["LSTM", "SGD", "SVGD", "Adam", "Chain", "Clip", "Curvature", "LearnedRates", "Masked", "PerStep", "clipped"]
