"""Classifiers without meta-learning, on the same inputs: what a method has to beat to have learned anything."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from fewstep.core.types import Batch

NEAREST_MEAN, CENTRED = "nearest class mean", "nearest class mean, centred"
RIDGE, LOGISTIC = "ridge", "logistic regression"
"""Names of baselines."""

Baseline: TypeAlias = Callable[[Batch, Batch], Tensor]
"""From the supports and the queries of some tasks to predictions ``[tasks, rows, ways]``, the largest of which counts.
Whatever it learns is learned from the support of each task by itself."""


def all_baselines(centre: Float[Tensor, "*features"]) -> dict[str, Baseline]:
    """Nearest class mean, ridge regression, centred nearest class mean, and logistic regression, by name.

    All but the last are closed forms; logistic regression is an iterative fit for every task.

    Args:
        centre: the mean input of the meta-training classes, :func:`~fewstep.data.mean_input`.
    """
    return {
        NEAREST_MEAN: nearest_mean,
        RIDGE: ridge,
        CENTRED: partial(centred_nearest_mean, centre=centre),
        LOGISTIC: logistic_regression,
    }


def nearest_mean(support: Batch, query: Batch) -> Float[Tensor, "tasks rows ways"]:
    """Nearest class mean: ``logit_n = −‖x − m_n‖²``, m_n the weighted mean of the support rows of class n.

    The prediction of a prototypical network whose embedding is the identity (Snell, Swersky and Zemel 2017, Eq. 2).

    Args:
        support: a batch of tasks, ``x`` ``[tasks, rows, *features]``; several feature axes are flattened.
        query: likewise; its labels and weights are not read.

    Returns:
        Logits of the query rows, in the squared unit of ``x``.

    Raises:
        ValueError: when a task has a class without a support row of positive weight.
    """
    x, xq = support.x.flatten(2), query.x.flatten(2)
    members = (support.y * support.weight[..., None]).mT
    counts = members.sum(-1, keepdim=True)
    _check_classes("nearest_mean", counts[..., 0])
    # Distances from a centre of the task (any would do): features after a ReLU lie far from the origin, where
    # ‖x‖² − 2⟨x, m⟩ + ‖m‖² cancels. Between centred rows it loses nothing that matters, and is several times faster
    # than differences of every pair.
    centre = (members.sum(1, keepdim=True) / counts.sum(1, keepdim=True)) @ x
    means, rows = (members / counts) @ (x - centre), xq - centre
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return (2 * (rows @ means.mT) - means.square().sum(-1).unsqueeze(1) - norms.square()).clamp_max(0)


def ridge(support: Batch, query: Batch, penalty: float = 1.0) -> Float[Tensor, "tasks rows ways"]:
    """Ridge regression onto one-hot labels: ``min_{W,b} Σ_i w_i ‖y_i − xᵢW − b‖² + λ‖W‖²``, in closed form.

    The bias is not penalised, which is the same as centring inputs and labels by their weighted means. With
    ``X̃ = √w (X − x̄)`` and ``Ỹ = √w (Y − ȳ)``, ``W = X̃ᵀ (X̃X̃ᵀ + λI)⁻¹ Ỹ``: a system of the size of the support rather
    than of the features, of which there are many more. It is solved in float64, for X̃X̃ᵀ squares the condition number.
    Bertinetto et al. 2019 (R2-D2) solve the same system inside meta-training, with a penalised bias.

    Args:
        support: a batch of tasks, ``x`` ``[tasks, rows, *features]``; several feature axes are flattened.
        query: likewise; its labels and weights are not read.
        penalty: λ > 0, in the squared unit of ``x``.

    Returns:
        Predicted labels of the query rows; the largest one is the predicted class.

    Raises:
        ValueError: unless the penalty is positive and finite.
    """
    if not 0 < penalty < float("inf"):
        raise ValueError(f"ridge: the penalty must be positive and finite, got {penalty}")
    x, y = support.x.flatten(2).double(), support.y.double()
    weight = support.weight.double()[..., None]
    share = weight / weight.sum(1, keepdim=True)
    x_mean, y_mean = ((share * rows).sum(1, keepdim=True) for rows in (x, y))
    root = weight.sqrt()
    centred, target = root * (x - x_mean), root * (y - y_mean)
    gram = centred @ centred.mT
    gram.diagonal(dim1=-2, dim2=-1).add_(penalty)
    weights = centred.mT @ torch.cholesky_solve(target, torch.linalg.cholesky(gram))
    # The many queries stay in their own precision. Rounding moves the centre; the offset takes that back.
    xq = query.x.flatten(2)
    centre = x_mean.to(xq.dtype)
    offset = y_mean + (centre.double() - x_mean) @ weights
    return (xq - centre) @ weights.to(xq.dtype) + offset.to(xq.dtype)


def centred_nearest_mean(
    support: Batch, query: Batch, centre: Float[Tensor, "*features"]
) -> Float[Tensor, "tasks rows ways"]:
    """Nearest class mean after ``x ← x − c``, ``x ← x / ‖x‖``: "CL2N" of SimpleShot.

    The class means are those of the rows of length 1, and are not scaled again.

    Args:
        support: a batch of tasks, ``x`` ``[tasks, rows, *features]``; several feature axes are flattened.
        query: likewise; its labels and weights are not read.
        centre: c, the mean over all inputs of the meta-training classes.

    Returns:
        Logits of the query rows, minus the squared distances, from −4 to 0.

    Raises:
        ValueError: when a task has a class without a support row of positive weight, or the centre another size than a
            row.

    Source: Wang, Chao, Weinberger and van der Maaten 2019 (SimpleShot), section 2. Theirs are features as the network
    gives them; here they are the task's inputs, which many a dataset has already scaled to length 1.
    """
    width = support.x[0, 0].numel()
    if centre.numel() != width:
        raise ValueError(
            f"centred_nearest_mean: the centre has {centre.numel()} numbers and a row {width}: "
            "give the mean of inputs of the same kind"
        )
    shift = centre.to(support.x).flatten()
    sides = (side._replace(x=normalize(side.x.flatten(2) - shift, dim=-1)) for side in (support, query))
    return nearest_mean(*sides)


def logistic_regression(support: Batch, query: Batch, inverse_penalty: float = 1.0) -> Float[Tensor, "tasks rows ways"]:
    """Multinomial logistic regression on rows of length 1: ``min_{W,b} C Σ_i w_i CE(yᵢ, W xᵢ/‖xᵢ‖ + b) + ½‖W‖²``.

    The bias is not penalised. scikit-learn fits each task by itself, in float64, by L-BFGS with at most 1000 iterations
    and its own tolerance: the slope of the objective, divided by C Σ w, is below 1e-4 everywhere.

    Args:
        support: a batch of tasks, ``x`` ``[tasks, rows, *features]``; several feature axes are flattened;
            ``y`` one-hot.
        query: likewise; its labels and weights are not read.
        inverse_penalty: C > 0.

    Returns:
        Logits of the query rows.

    Raises:
        ValueError: when a task has a class without a support row of positive weight, or unless C is positive and
            finite.

    Source: Tian, Wang, Krishnan, Tenenbaum and Isola 2020 (RFS), section 3.2, with the settings of their code. They
    also fit augmented copies of each support image, which features do not have.
    """
    from sklearn.linear_model import LogisticRegression  # here, for it takes seconds to import

    if not 0 < inverse_penalty < float("inf"):
        raise ValueError(f"logistic_regression: C must be positive and finite, got {inverse_penalty}")
    _check_classes("logistic_regression", (support.y * support.weight[..., None]).sum(1))
    ways = support.y.shape[-1]
    # For two classes scikit-learn fits d = w₁ − w₀ with a penalty of ½‖d‖², and w₁ = −w₀ has ‖w₀‖² + ‖w₁‖² = ½‖d‖².
    solver = LogisticRegression(C=2 * inverse_penalty if ways == 2 else inverse_penalty, max_iter=1000)
    real = support.weight > 0
    x = torch.where(real[..., None], normalize(support.x.flatten(2).double(), dim=-1), 0.0)
    # The best weights lie in the span of the support, so the fit is one in coordinates of it, x = z Qᵀ and W = V Qᵀ:
    # the same objective, the same iterations, and few numbers where there are many features.
    basis, coordinates = torch.linalg.qr(x.mT)
    z, labels = coordinates.mT.cpu().numpy(), support.y.argmax(-1).cpu().numpy()
    row_weights, rows = support.weight.double().cpu().numpy(), real.cpu().numpy()
    found = np.zeros((len(z), ways, z.shape[-1] + 1))
    for i, some in enumerate(rows):
        fit = solver.fit(z[i, some], labels[i, some], row_weights[i, some])
        values = np.concatenate([fit.coef_, fit.intercept_[:, None]], 1)
        found[i] = np.concatenate([-values / 2, values / 2]) if ways == 2 else values
    fitted = torch.from_numpy(found).to(basis)
    weights, bias = (basis @ fitted[..., :-1].mT).to(query.x), fitted[..., -1].to(query.x)
    # Products are scaled rather than the many queries.
    xq = query.x.flatten(2)
    length: Tensor = torch.linalg.vector_norm(xq, dim=-1, keepdim=True)
    logits: Tensor = xq @ weights / length.clamp_min(1e-12) + bias[:, None]
    return logits


def _check_classes(caller: str, counts: Float[Tensor, "tasks ways"]) -> None:
    """Refuse tasks with classes that nothing is known of."""
    if not bool((counts > 0).all()):
        task, label = (counts <= 0).nonzero()[0].tolist()
        raise ValueError(
            f"{caller}: class {label} of task {task} has no support row of positive weight: "
            "give every class at least one row"
        )


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
