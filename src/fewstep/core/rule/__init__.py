"""How one step moves."""

from fewstep.core.rule.learned_rates import LearnedRates
from fewstep.core.rule.sgd import SGD

__all__ = ["SGD", "LearnedRates"]
