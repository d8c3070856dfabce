"""A linear output layer whose weights come from a task."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import GeneratedHead


class Generated(nn.Module, GeneratedHead):
    """A linear classifier without weights of its own: a start fills its slots for every task.

    ``logit_n = share_n ⟨w_n, x⟩ + b_n``

    Slots (buffers that are not saved): ``weight`` ``[ways, features]``; ``share`` ``[ways, 1]``, 1 when left out; and
    ``bias`` ``[ways]``, 0 when left out. Without a weight the input passes through: a network that ends with this head
    then returns its features.
    """

    weight: Tensor | None
    share: Tensor
    bias: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("share", torch.ones(()), persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows outputs"]:
        """Logits, or ``x`` when no weight is given."""
        if self.weight is None:
            return x
        # Equal to x @ W.T, but the slope of W is then a product in the faster order (5 times, for 12 tasks of 25 rows).
        logits = ((self.share * self.weight) @ x.T).T
        return logits if self.bias is None else logits + self.bias
