"""Clipping meta-gradients, and telling whether they are finite."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def clip(gradients: list[Tensor], value: float | None, norm: float | None, scope: Literal["tensor", "global"]) -> None:
    """Clip in place: entries to ``[−value, value]``, then the norm to ``norm``.

    As the LEO authors' code does it, the norm is that of each tensor by itself; ``scope="global"`` takes the norm of
    all tensors together (Rusu et al. 2019, B.4, says only that "its norm" is clipped).
    """
    if value is not None:
        for gradient in gradients:
            gradient.clamp_(-value, value)
    if norm is not None:
        norms = torch.stack(torch._foreach_norm(gradients))
        if scope == "global":
            torch._foreach_mul_(gradients, norm / norms.norm().clamp(min=norm))
        else:
            torch._foreach_mul_(gradients, (norm / norms.clamp(min=norm)).unbind())


def all_finite(objective: Tensor, gradients: Sequence[Tensor]) -> bool:
    """Whether neither the objective nor any gradient holds an infinity or a NaN."""
    tensors = [objective.detach(), *gradients]
    if torch.stack(torch._foreach_norm(tensors)).isfinite().all().item():
        return True
    # A norm can overflow. x·0 is 0 for finite x and NaN otherwise.
    zeros = torch._foreach_norm(torch._foreach_mul(tensors, 0.0))
    return not torch.stack(zeros).isnan().any().item()
