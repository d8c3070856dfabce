"""From a table of features to the best classifier: ``fewstep fit``."""

from fewstep.experiments.fit.procedure import Limits, fit
from fewstep.experiments.fit.result import FitResult

__all__ = ["FitResult", "Limits", "fit"]
