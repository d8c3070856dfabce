"""Classifiers without meta-learning, on the same inputs: what a method has to beat to have learned anything."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.types import Batch


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
    if not bool((counts > 0).all()):
        task, label = (counts[..., 0] <= 0).nonzero()[0].tolist()
        raise ValueError(
            f"nearest_mean: class {label} of task {task} has no support row of positive weight, so it has no mean: "
            "give every class at least one row"
        )
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
