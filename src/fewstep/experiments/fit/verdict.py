"""The judgements of a fit: what to use, and whether meta-learning pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation.statistics import Interval, paired

Scores = Mapping[str, NDArray[np.float64]]
"""By method, ``[tasks]``, of the same tasks."""


def recommended(validation: Scores, simplest_first: Sequence[str]) -> str:
    """The method with the best mean, or the simplest that is within one standard error of it.

    The standard error is that of the difference to the best, paired by task. Methods with scores that are not finite
    come last.

    Args:
        validation: scores of tasks of validation classes; never of the test.
        simplest_first: the methods in the order in which they are taken in doubt.
    """
    means = {name: _mean(scores) for name, scores in validation.items()}
    best = max(means, key=means.__getitem__)
    for name in simplest_first:
        if name in validation and np.isfinite(means[name]):
            behind = validation[best] - validation[name]
            if behind.mean() <= behind.std(ddof=1) / np.sqrt(len(behind)):
                return name
    return best


def best_of(scores: Scores, names: Sequence[str]) -> str | None:
    """The one of some methods with the best mean; None where none of them was scored."""
    there = [name for name in names if name in scores]
    return max(there, key=lambda name: _mean(scores[name]), default=None)


def decided(test: Scores, chosen: str, others: Sequence[str]) -> str:
    """What validation has chosen, unless the test says clearly that another one is better.

    Validation classes may be harder or easier than others, and then another method may be the better one on new
    classes, whatever the number of validation tasks. Where the test shows it, with the whole interval of the paired
    difference, its word counts: nobody is told to use what has just been seen to be worse.

    Args:
        test: scores of test tasks.
        chosen: by validation.
        others: few: what is picked among many by their test is as good there by chance.
    """
    best = best_of(test, (chosen, *others))
    assert best is not None
    return best if best != chosen and pays(paired(test[best], test[chosen])) else chosen


def gain_of_training(test: Scores, trained: str, simple: Sequence[str]) -> tuple[str, Interval]:
    """The simple method that is best in the test, and how far the trained one is above it, paired.

    The trained one was chosen before the test, its rival by the test itself: a claim that training pays then holds
    against every simple method.
    """
    rival = best_of(test, simple)
    assert rival is not None
    return rival, paired(test[trained], test[rival])


def pays(gain: Interval) -> bool:
    """Whether the whole interval lies above zero."""
    return gain.mean - gain.half_width > 0


def _mean(scores: NDArray[np.float64]) -> float:
    return float(np.nan_to_num(scores.mean(), nan=-np.inf))
