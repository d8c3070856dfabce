"""Functions through a few points: what a learner samples, beside the exact Bayesian posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fewstep.estimators.model import TrainedModel
from fewstep.estimators.regressor import FewShotRegressor
from fewstep.evaluation.exact.sine_or_line import exact_posterior, mode_mass

ACROSS, UP, POINTS = 5.0, 8.0, 20
"""Inputs and targets go from minus to plus so much; and how many points are taken."""

SAMPLES, DRAWN, WITHIN = 100, 25, 0.9
"""Functions that are sampled; those of them that are drawn; and the probability of the interval."""


class Curves(NamedTuple):
    """What is known of a function.

    Attributes:
        functions: samples.
        mean: of all of them.
        low, high: between them lies a target with the probability :data:`WITHIN`.
        line: the probability that it is a line.
    """

    functions: Float[np.ndarray, "functions inputs"]
    mean: Float[np.ndarray, " inputs"]
    low: Float[np.ndarray, " inputs"]
    high: Float[np.ndarray, " inputs"]
    line: float


class Functions(NamedTuple):
    """Functions through the same points, at the inputs ``x``: a learner's, and the exact posterior's."""

    x: Float[np.ndarray, " inputs"]
    learned: Curves
    exact: Curves


def points(given: Any) -> Float[np.ndarray, "points 2"]:
    """Points of what a page has sent.

    Raises:
        ValueError: for anything but 1 to 20 points ``[x, y]`` within the plot.
    """
    if not isinstance(given, list) or not 1 <= len(given) <= POINTS:
        raise ValueError(f"a list of 1 to {POINTS} points is needed")
    for point in given:
        if not (isinstance(point, list) and len(point) == 2 and all(type(at) in (int, float) for at in point)):
            raise ValueError("a point is two numbers, [x, y]")
        if not (abs(point[0]) <= ACROSS and abs(point[1]) <= UP):
            raise ValueError(f"a point lies outside of the plot: x goes to ±{ACROSS:g}, y to ±{UP:g}")
    return np.array(given, np.float64)


def answer(model: TrainedModel, noise: float, given: Float[np.ndarray, "points 2"]) -> Functions:
    """What the page shows of a learner, and of the exact posterior.

    Args:
        model: of sine-or-line tasks.
        noise: standard deviation of targets in these tasks.
        given: see :func:`points`.

    Raises:
        ValueError: where the learner's functions are not finite.
    """
    x, y = given.T
    grid = np.linspace(-ACROSS, ACROSS, 101)
    found = FewShotRegressor(model, samples=SAMPLES, noise=noise).fit(x[:, None], y).predict_distribution(grid[:, None])
    exact = exact_posterior(x[None], y[None], noise=noise)
    best = exact.at(grid[None])
    low, high = best.interval(WITHIN)
    lines = float(mode_mass(grid, found.samples[None], noise=noise)[0])
    below, above = found.interval(WITHIN)
    return Functions(
        grid,
        Curves(found.samples[:DRAWN], found.mean, below, above, lines),
        Curves(exact.sample(DRAWN, 0)(grid[None])[0], best.mean()[0], low[0], high[0], float(exact.line[0])),
    )
