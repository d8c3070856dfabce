"""Whether probabilities are what they say: their expected error, and the temperature that makes it small."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor

from fewstep.core.types import Batch
from fewstep.data.source import TaskSource
from fewstep.evaluation.arrays import to_numpy

LARGEST = 1000.0
"""Temperatures are sought from one over this to this."""


def query_logits(
    predict: Callable[[Batch, Batch], Tensor], source: TaskSource, tasks: int
) -> tuple[Float[np.ndarray, "rows ways"], Int[np.ndarray, " rows"]]:
    """Predictions of all query rows of some tasks, and their labels.

    Args:
        predict: from supports and queries of tasks to logits ``[tasks, rows, ways]``.
        source: of the tasks.
        tasks: how many of its first.
    """
    logits, labels, done, step = [], [], 0, 0
    with torch.no_grad():
        while done < tasks:
            batch = source.batch(step)
            some = slice(0, tasks - done)
            real = batch.query.weight[some] > 0
            logits.append(to_numpy(predict(batch.support, batch.query)[some][real]))
            labels.append(batch.query.y[some][real].argmax(-1).cpu().numpy())
            done, step = done + len(real), step + 1
    return np.concatenate(logits), np.concatenate(labels)


def fit_temperature(logits: Float[np.ndarray, "rows ways"], labels: Int[np.ndarray, " rows"]) -> float:
    """The temperature T of least ``−1/n Σ log softmax(logits/T)[label]``: confidence changes, predictions do not.

    Where every row is classified right the least lies at T = 0; the smallest that is sought is 0.001.

    Args:
        logits: of rows of validation tasks.
        labels: the columns that are right.

    Source: Guo, Pleiss, Sun and Weinberger 2017, section 4.2.

    Example:
        >>> logits, labels = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]]), np.array([0, 0, 1, 1])
        >>> temperature = fit_temperature(logits, labels)  # it is right in three of four
        >>> round(1 / (1 + np.exp(-4 / temperature)), 3)
        0.75
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    end = math.log(LARGEST)
    return math.exp(minimize_scalar(loss, bounds=(-end, end), method="bounded").x)


def calibration_error(
    probabilities: Float[np.ndarray, "rows ways"], labels: Int[np.ndarray, " rows"], bins: int = 15
) -> float:
    """Expected calibration error: ``Σ_b n_b/n |accuracy(b) − confidence(b)|``, in [0, 1].

    The bins are of the largest probability, of equal width; accuracy and confidence are means within one.

    Source: Naeini, Cooper and Hauskrecht 2015; with 15 bins as Guo et al. 2017 have it.

    Example:
        >>> certain = np.array([[0.9, 0.1]] * 10)  # and right in seven of ten
        >>> round(calibration_error(certain, np.array([0] * 7 + [1] * 3)), 3)
        0.2
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(sum(abs((right - confidence)[which == b].sum()) for b in range(bins)) / len(labels))


def error_at(logits: Float[np.ndarray, "rows ways"], labels: Int[np.ndarray, " rows"], temperature: float) -> float:
    """:func:`calibration_error` of logits at a temperature."""
    return calibration_error(softmax(logits / temperature, axis=1), labels)
