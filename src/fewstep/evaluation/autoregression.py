"""Forecasts by a recurrence fitted to each task: what can be done without meta-learning and without a prior."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.types import Batch

AUTOREGRESSION = "autoregression"
"""Name of the baseline."""


def autoregression(support: Batch, query: Batch) -> Float[Tensor, "tasks rows ahead"]:
    """Least squares on the support, ``min_{p,q} Σ w (s_{t+1} - p s_t - q s_{t-1})²``, rolled out from the query.

    Without noise every damped oscillation obeys such a recurrence, with ``p = 2 exp(-γΔ) cos ωΔ`` and
    ``q = -exp(-2γΔ)``. Noise in what is regressed on draws p and q towards zero, and the two observations from which a
    query's forecast starts are noisy too: it is a simple rival, not a good one. Where the support does not determine
    p and q, they are those of least norm.

    Args:
        support: rows are trajectories, ``x`` ``[tasks, rows, seen]`` their beginning and ``y`` ``[tasks, rows, ahead]``
            what follows; a row counts by its weight.
        query: likewise; its targets and weights are not read.

    Returns:
        Forecasts in the type of the query's ``x``; the fit is in float64.

    Raises:
        ValueError: with fewer than two observations in ``x``, which the forecast starts from.

    Source: the autoregressive model of Yule 1927, of second order.
    """
    seen, ahead = support.x[0, 0].numel(), support.y.shape[-1]
    if seen < 2:
        raise ValueError(f"autoregression: a forecast starts from two observations, and x has {seen} a row")
    rows = torch.cat([support.x.flatten(2), support.y], 2).double()
    real = support.weight[..., None] > 0
    # Not a product with the weights alone: padding may hold anything.
    rows = torch.where(real, rows * support.weight[..., None].double().sqrt(), 0.0)
    before = torch.stack([rows[..., 1:-1], rows[..., :-2]], -1).flatten(1, 2)
    after = rows[..., 2:].flatten(1, 2)[..., None]
    p, q = (torch.linalg.pinv(before.mT @ before, hermitian=True) @ (before.mT @ after)).unbind(1)
    previous, last = query.x.flatten(2)[..., -2:].double().unbind(-1)
    forecast = []
    for _ in range(ahead):
        previous, last = last, p * last + q * previous
        forecast.append(last)
    return torch.stack(forecast, -1).to(query.x)
