"""Evaluation: scores on test tasks with their intervals, baselines, tables and figures."""

from fewstep.evaluation.baselines import (
    all_baselines,
    autoregression,
    centred_nearest_mean,
    logistic_regression,
    nearest_mean,
    ridge,
)
from fewstep.evaluation.choosing import Decision, choose
from fewstep.evaluation.curves import learning_curves
from fewstep.evaluation.exact.oscillations import bayes_forecast, exact_forecast
from fewstep.evaluation.exact.sine_or_line import exact_posterior
from fewstep.evaluation.inner_loop import evaluating, inner_steps, set_inner_loop, with_inner_loop
from fewstep.evaluation.mean_outputs import MeanOutputs
from fewstep.evaluation.predictive import Predictive, measure
from fewstep.evaluation.scoring import Evaluation, evaluate
from fewstep.evaluation.statistics import Interval, interval, paired

__all__ = [
    "Decision",
    "Evaluation",
    "Interval",
    "MeanOutputs",
    "Predictive",
    "all_baselines",
    "autoregression",
    "bayes_forecast",
    "centred_nearest_mean",
    "choose",
    "evaluate",
    "evaluating",
    "exact_forecast",
    "exact_posterior",
    "inner_steps",
    "interval",
    "learning_curves",
    "logistic_regression",
    "measure",
    "nearest_mean",
    "paired",
    "ridge",
    "set_inner_loop",
    "with_inner_loop",
]
