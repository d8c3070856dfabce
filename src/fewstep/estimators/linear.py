"""Bayesian linear regression: what is known of a few points without meta-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge


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

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Values ``[functions, rows, outputs]`` at rows ``[rows, features]``."""
        found: NDArray[np.float64] = np.einsum("soj,nj->sno", self.weights, x) + self.intercepts[:, None]
        return found


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
    return Lines(np.stack(weights, 1), np.stack(intercepts, 1), np.array(noise))
