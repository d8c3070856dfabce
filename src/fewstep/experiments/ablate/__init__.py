"""Table 2 of LEO's paper on other features: its rows beside each other, and the files that say so."""

from fewstep.experiments.ablate.budget import Budget
from fewstep.experiments.ablate.result import AblatedRow, AblationResult

__all__ = ["AblatedRow", "AblationResult", "Budget"]
