"""Normalisation from primitive operations, by the statistics of the batch at hand.

``torch.func.vmap`` differentiates the fused, affine ``batch_norm`` and ``layer_norm`` wrongly at second order (without
a warning), so networks that are adapted under ``vmap`` use these. There are no running statistics: what a layer
normalises by is a function of the rows it is given and of ``row_weight``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.row_weights import RowWeights


class BatchNorm(nn.Module, RowWeights):
    """``y = γ (x − m)/√(v + ε) + β``, m and v the mean and the biased variance over rows and positions.

    Rows enter the statistics in proportion to ``row_weight``, a slot ``[rows]`` that a learner fills: padding counts
    for nothing, and a query can be normalised by its support alone (``Learner.predict``).

    Args:
        channels: size of axis 1.
        eps: ε.
        scale: learn γ; MAML's authors do not.
    """

    row_weight: Tensor | None

    def __init__(self, channels: int, eps: float = 1e-5, scale: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("row_weight", None, persistent=False)

    def forward(self, x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows channels *space"]:
        """Normalise over rows and positions."""
        space = tuple(range(2, x.dim()))
        mean = self._over_rows(x.mean(space) if space else x)
        centred = x - mean.view(-1, *(1,) * len(space))
        square = centred.square()
        gain = (self._over_rows(square.mean(space) if space else square) + self.eps).rsqrt()
        if self.weight is not None:
            gain = gain * self.weight
        return centred * gain.view(-1, *(1,) * len(space)) + self.bias.view(-1, *(1,) * len(space))

    def _over_rows(self, rows: Float[Tensor, "rows channels"]) -> Float[Tensor, " channels"]:
        if self.row_weight is None:
            return rows.mean(0)
        return (self.row_weight / self.row_weight.sum()) @ rows


def without_norms(network: nn.Module) -> Callable[[str], bool]:
    """A predicate on parameter names that leaves out those of normalising layers: they are meta-learned only."""
    norms = {f"{name}." for name, module in network.named_modules() if isinstance(module, BatchNorm)}
    return lambda name: not any(name.startswith(prefix) for prefix in norms)
