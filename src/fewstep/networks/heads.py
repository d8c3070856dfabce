"""Output layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Generated(nn.Module):
    """A linear classifier without weights of its own: a start fills its slots for every task.

    ``logit_n = Σ_c mix_{nc} ⟨w_c, x⟩``: each class averages the weight vectors of its codes.

    Slots (buffers that are not saved): ``weight`` ``[codes, features]`` and ``mix`` ``[ways, codes]``.
    """

    weight: Tensor
    mix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.register_buffer("mix", torch.empty(0), persistent=False)

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows ways"]:
        """Logits."""
        return x @ (self.mix @ self.weight).T
