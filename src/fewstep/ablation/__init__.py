"""Table 2 of LEO's paper on other features: its rows beside each other, and the files that say so."""

from fewstep.ablation.budget import Budget
from fewstep.ablation.result import Ablated, AblatedRow

__all__ = ["Ablated", "AblatedRow", "Budget"]
