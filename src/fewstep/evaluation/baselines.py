"""Classifiers without meta-learning, on the same inputs: what a method has to beat to have learned anything."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, final

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


class Heads(NamedTuple):
    """Linear classifiers of some tasks, ``logit_n = ⟨w_n, x − c⟩ + b_n`` with one c for all of them.

    Attributes:
        weights: w.
        offset: b.
    """

    weights: Float[Tensor, "tasks ways features"]
    offset: Float[Tensor, "tasks ways"]


def _as_it_is(x: Tensor) -> Tensor:
    return x


@final
@dataclass(frozen=True, eq=False)
class Linear:
    """A baseline whose classes are linear in rows ``g(x)``, which are the same for every task.

    Called, it predicts the queries of each task, as any baseline. Where many tasks take their queries from the same
    classes, its heads are worth more: all rows of a class meet those of all of its tasks in one product.

    Attributes:
        baseline: predicts.
        heads: of the prepared supports, ``x`` ``[tasks, rows, features]``, and a centre c ``[features]``, which is near
            the rows, so that their products lose no digits. Their predictions have the largest ones of ``baseline``.
        prepare: g, of rows ``[..., features]``.
    """

    baseline: Baseline
    heads: Callable[[Batch, Tensor], Heads]
    prepare: Callable[[Tensor], Tensor] = _as_it_is

    def __call__(self, support: Batch, query: Batch) -> Float[Tensor, "tasks rows ways"]:
        """Predictions of the query rows."""
        return self.baseline(support, query)

    def by_class(self, supports: Batch) -> Callable[[Tensor, Tensor], Tensor]:
        """From rows ``[rows, *features]`` and the numbers of some tasks to their predictions ``[tasks, ways, rows]``.

        Raises:
            ValueError: as the baseline.
        """
        support = supports._replace(x=self.prepare(supports.x.flatten(2)))
        centre = support.x[support.weight > 0].mean(0)
        heads = self.heads(support, centre)

        def predict(rows: Tensor, tasks: Tensor) -> Tensor:
            x = self.prepare(rows.flatten(1)) - centre
            weights, offset = (part[tasks] for part in heads)
            products: Tensor = (weights.flatten(0, 1) @ x.mT).unflatten(0, offset.shape)
            return products + offset[..., None]

        return predict


def quick_baselines() -> dict[str, Baseline]:
    """Nearest class mean and ridge regression, by name."""
    return {NEAREST_MEAN: Linear(nearest_mean, _mean_heads), RIDGE: Linear(ridge, _ridge_heads)}


def all_baselines(centre: Float[Tensor, "*features"]) -> dict[str, Baseline]:
    """Nearest class mean, ridge regression, centred nearest class mean, and logistic regression, by name.

    All but the last are closed forms; logistic regression is an iterative fit for every task.

    Args:
        centre: the mean input of the meta-training classes, :func:`~fewstep.data.mean_input`.
    """
    centred = partial(centred_nearest_mean, centre=centre)
    return {
        **quick_baselines(),
        CENTRED: Linear(centred, _mean_heads, partial(_of_length_1, centre=centre)),
        LOGISTIC: Linear(logistic_regression, _logistic_heads, _of_length_1),
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
    # Distances from a centre of the task (any would do): features after a ReLU lie far from the origin, where
    # ‖x‖² − 2⟨x, m⟩ + ‖m‖² cancels. Between centred rows it loses nothing that matters, and is several times faster
    # than differences of every pair.
    centre = (support.weight / support.weight.sum(1, keepdim=True)).unsqueeze(1) @ x
    weights, offset = _mean_heads(support._replace(x=x), centre)
    rows = xq - centre
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return (rows @ weights.mT + offset.unsqueeze(1) - norms.square()).clamp_max(0)


def _mean_heads(support: Batch, centre: Float[Tensor, "*tasks features"]) -> Heads:
    """``2⟨x − c, m_n − c⟩ − ‖m_n − c‖²``, which is ``−‖x − m_n‖²`` but for what all classes have in common."""
    members = (support.y * support.weight[..., None]).mT
    counts = members.sum(-1, keepdim=True)
    _check_classes("nearest_mean", counts[..., 0])
    means = (members / counts) @ (support.x - centre)
    return Heads(2 * means, -means.square().sum(-1))


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
    x, xq = support.x.flatten(2), query.x.flatten(2)
    # The many queries stay in their own precision.
    centre = (support.weight / support.weight.sum(1, keepdim=True)).unsqueeze(1) @ x
    weights, offset = _ridge_heads(support._replace(x=x), centre, penalty)
    return (xq - centre) @ weights.mT + offset.unsqueeze(1)


def _ridge_heads(support: Batch, centre: Float[Tensor, "*tasks features"], penalty: float = 1.0) -> Heads:
    if not 0 < penalty < float("inf"):
        raise ValueError(f"ridge: the penalty must be positive and finite, got {penalty}")
    x, y = support.x.double(), support.y.double()
    weight = support.weight.double()[..., None]
    share = weight / weight.sum(1, keepdim=True)
    x_mean, y_mean = ((share * rows).sum(1, keepdim=True) for rows in (x, y))
    root = weight.sqrt()
    centred, target = root * (x - x_mean), root * (y - y_mean)
    gram = centred @ centred.mT
    gram.diagonal(dim1=-2, dim2=-1).add_(penalty)
    weights = torch.cholesky_solve(target, torch.linalg.cholesky(gram)).mT @ centred
    offset = y_mean + (centre.double() - x_mean) @ weights.mT
    return Heads(weights.to(support.x), offset.squeeze(1).to(support.x))


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
    sides = (side._replace(x=_of_length_1(side.x.flatten(2), centre)) for side in (support, query))
    return nearest_mean(*sides)


def _of_length_1(x: Float[Tensor, "*rows features"], centre: Tensor | None = None) -> Float[Tensor, "*rows features"]:
    """Rows, centred where a centre is given, scaled to length 1."""
    if centre is None:
        return normalize(x, dim=-1)
    if centre.numel() != x.shape[-1]:
        raise ValueError(
            f"centred_nearest_mean: the centre has {centre.numel()} numbers and a row {x.shape[-1]}: "
            "give the mean of inputs of the same kind"
        )
    return normalize(x - centre.to(x).flatten(), dim=-1)


def logistic_regression(support: Batch, query: Batch, inverse_penalty: float = 1.0) -> Float[Tensor, "tasks rows ways"]:
    """Multinomial logistic regression on rows of length 1: ``min_{W,b} C Σ_i w_i CE(yᵢ, W xᵢ/‖xᵢ‖ + b) + ½‖W‖²``.

    The bias is not penalised. All tasks are fitted at once, in float64, by Newton's method: the slope of the objective,
    divided by C Σ w, is below 1e-8 everywhere.

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
    x = support.x.flatten(2)
    weights, offset = _logistic_heads(support._replace(x=_of_length_1(x)), x.new_zeros(()), inverse_penalty)
    # Products are scaled rather than the many queries.
    xq = query.x.flatten(2)
    length: Tensor = torch.linalg.vector_norm(xq, dim=-1, keepdim=True)
    logits: Tensor = xq @ weights.mT / length.clamp_min(1e-12) + offset.unsqueeze(1)
    return logits


def _logistic_heads(support: Batch, centre: Tensor, inverse_penalty: float = 1.0) -> Heads:
    if not 0 < inverse_penalty < float("inf"):
        raise ValueError(f"logistic_regression: C must be positive and finite, got {inverse_penalty}")
    _check_classes("logistic_regression", (support.y * support.weight[..., None]).sum(1))
    x = torch.where(support.weight[..., None] > 0, support.x.double(), 0.0)
    # The best weights lie in the span of the support, so the fit is one in coordinates of it, x = z Qᵀ and W = V Qᵀ:
    # the same objective, the same iterations, and few numbers where there are many features.
    basis, coordinates = torch.linalg.qr(x.mT)
    fitted, bias = _fit_logistic(coordinates.mT, support.y.double(), inverse_penalty * support.weight.double())
    weights = fitted @ basis.mT
    return Heads(weights.to(support.x), (bias + (weights @ centre.double() if centre.dim() else 0.0)).to(support.x))


def _fit_logistic(
    z: Float[Tensor, "tasks rows dims"], y: Float[Tensor, "tasks rows ways"], weight: Float[Tensor, "tasks rows"]
) -> tuple[Float[Tensor, "tasks ways dims"], Float[Tensor, "tasks ways"]]:
    """``argmin Σ_i w_i CE(y_i, V z_i + b) + ½‖V‖²``: Newton's steps, each by conjugate gradients, halved if need be."""
    rows = torch.cat([z, torch.ones_like(z[..., :1])], -1)
    penalty = torch.ones_like(rows[0, 0]).unsqueeze(1)
    penalty[-1] = 0  # of the bias
    theta = rows.new_zeros(len(rows), rows.shape[2], y.shape[2])
    weight = weight.unsqueeze(2)

    def objective(at: Tensor) -> Tensor:
        loss = -(weight * y * (rows @ at).log_softmax(-1)).sum((1, 2))
        return loss + 0.5 * (penalty * at.square()).sum((1, 2))

    def curved(along: Tensor) -> Tensor:
        moved = chances * (rows @ along)
        return rows.mT @ (weight * (moved - chances * moved.sum(-1, keepdim=True))) + penalty * along

    value = objective(theta)
    for _ in range(100):
        chances = (rows @ theta).softmax(-1)
        slope = rows.mT @ (weight * (chances - y)) + penalty * theta
        if bool((slope.abs().amax((1, 2)) <= 1e-8 * weight.sum((1, 2))).all()):
            break
        step = _conjugate_gradients(curved, -slope)
        share = torch.ones_like(value)
        for _ in range(30):
            moved = objective(theta + share[:, None, None] * step)
            worse = moved > value + 1e-12 * value.abs()
            if not bool(worse.any()):
                break
            share = torch.where(worse, share / 2, share)
        theta, value = theta + share[:, None, None] * step, moved
    return theta[:, :-1].mT, theta[:, -1]


def _conjugate_gradients(product: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """x with ``A x = wanted`` to three digits, for a batch of positive semi-definite A, given by their products."""
    x, left, along = torch.zeros_like(wanted), wanted, wanted
    size = enough = wanted.square().sum((1, 2), keepdim=True)
    for _ in range(200):
        of_along = product(along)
        rate = size / (along * of_along).sum((1, 2), keepdim=True).clamp_min(1e-300)
        x, left = x + rate * along, left - rate * of_along
        before, size = size, left.square().sum((1, 2), keepdim=True)
        if bool((size <= 1e-6 * enough).all()):
            break
        along = left + size / before.clamp_min(1e-300) * along
    return x


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
