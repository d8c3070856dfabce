"""Clipping meta-gradients, and telling whether they are finite."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def clip(
    gradients: Sequence[Tensor], value: float | None, norm: float | None, scope: Literal["tensor", "global"]
) -> None:
    """Clip in place: entries to ``[−value, value]``, then the norm to ``norm``.

    As the LEO authors' code does it, the norm is that of each tensor by itself; ``scope="global"`` takes the norm of
    all tensors together (Rusu et al. 2019, B.4, says only that "its norm" is clipped).
    """
    if value is not None:
        for gradient in gradients:
            gradient.clamp_(-value, value)
    if norm is not None:
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        if scope == "global":
            norms = norms.norm().expand_as(norms)
        for gradient, factor in zip(gradients, norm / norms.clamp(min=norm), strict=True):
            gradient.mul_(factor)


def all_finite(objective: Tensor, gradients: Sequence[Tensor]) -> bool:
    """Whether neither the objective nor any gradient holds an infinity or a NaN."""
    # x·0 is 0 for finite x and NaN otherwise. Two calls for all tensors: a third of the time of asking each.
    zeros = torch._foreach_norm(torch._foreach_mul([objective.detach(), *gradients], 0.0))
    return not torch.stack(zeros).isnan().any().item()
