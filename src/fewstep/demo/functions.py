"""Functions through a few points: what a learner samples, beside the exact Bayesian posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from fewstep.estimators.model import TrainedModel
from fewstep.estimators.regressor import FewShotRegressor
from fewstep.evaluation.exact.sine_or_line import exact_posterior, mode_mass

ACROSS, UP, POINTS = 5.0, 8.0, 20
"""Inputs and targets go from minus to plus so much; and how many points are taken."""

SAMPLES, DRAWN, WITHIN = 100, 25, 0.9
"""Functions that are sampled; those of them that are sent; and the probability of the interval."""


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


def answer(model: TrainedModel, noise: float, asked: Any) -> dict[str, Any]:
    """What the page shows, in JSON's types: of the learner and of the exact posterior the same.

    Args:
        model: of sine-or-line tasks.
        noise: standard deviation of targets in these tasks.
        asked: of the page: ``{"points": [[x, y], …]}``.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(asked, dict) or asked.keys() != {"points"}:
        raise ValueError("points are needed, and nothing else")
    x, y = points(asked["points"]).T
    grid = np.linspace(-ACROSS, ACROSS, 101)
    found = FewShotRegressor(model, samples=SAMPLES, noise=noise).fit(x[:, None], y).predict_distribution(grid[:, None])
    exact = exact_posterior(x[None], y[None], noise=noise)
    best = exact.at(grid[None])
    low, high = best.interval(WITHIN)

    def told(functions: Any, mean: Any, low: Any, high: Any, line: float) -> dict[str, Any]:
        curves = {"functions": functions[:DRAWN], "mean": mean, "low": low, "high": high}
        return {name: curve.round(3).tolist() for name, curve in curves.items()} | {"line": round(line, 4)}

    lines = float(mode_mass(grid, found.samples[None], noise=noise)[0])
    return {
        "x": grid.round(3).tolist(),
        "learned": told(found.samples, found.mean, *found.interval(WITHIN), lines),
        "exact": told(exact.sample(DRAWN, 0)(grid[None])[0], best.mean()[0], low[0], high[0], float(exact.line[0])),
    }
