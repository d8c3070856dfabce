"""Bayesian linear regression: what is known of a few points without meta-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

_FAR = 1e4
"""How far from 1, by a factor, numbers are left in their own units."""


@final
@dataclass(frozen=True, eq=False)
class Lines:
    """Linear functions, drawn from a posterior.

    Attributes:
        weights: ``[functions, outputs, features]``.
        intercepts: ``[functions, outputs]``.
        noise: standard deviation of a target about its function, ``[outputs]``.
    """

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    noise: NDArray[np.float64]

    def __call__(self, x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values ``[functions, rows, outputs]`` at rows ``[rows, features]``, and the noise."""
        found: NDArray[np.float64] = np.einsum("soj,nj->sno", self.weights, x) + self.intercepts[:, None]
        return found, self.noise


def lines_through(
    x: NDArray[Any], y: NDArray[np.float64], weight: NDArray[np.float64] | None, seed: int, samples: int
) -> Lines:
    """Draws from the posterior ``w ~ N(m, Σ)`` of ``y = wᵀ(x − x̄) + ȳ + noise``, one output at a time.

    Precisions of noise and weights are those of largest evidence (MacKay 1992; scikit-learn's ``BayesianRidge``). Draws
    come in pairs ``m ± d``, so that their mean is m.

    Args:
        x: ``[rows, features]``.
        y: ``[rows, outputs]``.
        weight: ``[rows]``, how much a row counts; all alike when None.
        seed: of the draws.
        samples: how many.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    source = np.random.default_rng(seed)
    x = x.reshape(len(x), -1).astype(np.float64)
    of_x, of_y = _unit(x), _unit(y)
    x, y = x / of_x, y / of_y
    centre = np.average(x, axis=0, weights=weight)
    weights, intercepts, noise = [], [], []
    for column in y.T:
        fitted = BayesianRidge().fit(x, column, weight)
        values, vectors = np.linalg.eigh(fitted.sigma_)
        drawn = source.normal(size=(samples // 2, x.shape[1])) * np.sqrt(values.clip(0)) @ vectors.T
        off = np.concatenate([drawn, -drawn, np.zeros((samples % 2, x.shape[1]))])
        weights.append(fitted.coef_ + off)
        intercepts.append(fitted.intercept_ - off @ centre)
        noise.append(fitted.alpha_**-0.5)
    found = Lines(np.stack(weights, 1) * of_y / of_x, np.stack(intercepts, 1) * of_y, np.array(noise) * of_y)
    if not all(np.isfinite(part).all() for part in vars(found).values()):
        raise ValueError(f"X up to {of_x:g} and y up to {of_y:g} are too far apart for a line in float64: scale them.")
    return found


def _unit(values: NDArray[np.float64]) -> float:
    """What numbers are measured in: 1, or the largest where that is far from it.

    The precisions' priors are of numbers about 1: of others they would decide the line, and not the points.
    """
    largest = float(np.abs(values).max(initial=0.0))
    return largest if largest > _FAR or 0 < largest < 1 / _FAR else 1.0
