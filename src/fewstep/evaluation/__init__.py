"""Judging a method: scores on test tasks with their intervals, simple rivals, curves and the report of a run."""

from fewstep.evaluation.baselines import nearest_mean, ridge
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.evaluation.modes import descending, evaluating, inner_steps, settle
from fewstep.evaluation.report import learning_curves
from fewstep.evaluation.statistics import Interval, interval, paired

__all__ = [
    "Evaluation",
    "Interval",
    "descending",
    "evaluate",
    "evaluating",
    "inner_steps",
    "interval",
    "learning_curves",
    "nearest_mean",
    "paired",
    "ridge",
    "settle",
]
