"""Arithmetic on named tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.core.types import Params


def zip_map(function: Callable[..., Tensor], first: Params, *rest: Params) -> Params:
    """Apply ``function`` to the tensors that share a name; every mapping must hold the names of the first."""
    return {name: function(tensor, *(other[name] for other in rest)) for name, tensor in first.items()}


def stopped_square(start: Tensor, end: Tensor) -> Tensor:
    """Elementwise ``(start − stop(end))²``: the penalty that moves a start towards where its adaptation went.

    Summed or averaged over a latent code it is LEO's encoder penalty (Rusu et al. 2019, Eq. 6); half its sum over
    weights has Reptile's update, ``start − end``, as its gradient.
    """
    return (start - end.detach()).square()


def dot(first: Params, second: Params) -> Tensor:
    """``Σ a b`` over the entries of all tensors."""
    return torch.stack([(tensor * second[name]).sum() for name, tensor in first.items()]).sum()
