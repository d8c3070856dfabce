"""Normalisation from primitive operations, by the statistics of the batch at hand.

``torch.func.vmap`` differentiates the fused, affine ``batch_norm`` and ``layer_norm`` wrongly at second order (without
a warning), so networks that are adapted under ``vmap`` use these. There are no running statistics: what a layer
normalises by is a function of the rows it is given and of ``row_weight``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.row_weights import Normalising


class BatchNorm(Normalising):
    """``y = γ (x − m)/√(v + ε) + β``, m and v the mean and the biased variance over rows and positions.

    Rows enter the statistics in proportion to ``row_weight``, a slot ``[rows]`` that a learner fills: padding counts
    for nothing, and a query can be normalised by its support alone (``Learner.predict``). The slots ``mean`` and
    ``variance`` ``[channels]``, where filled, replace m and v.

    Args:
        channels: size of axis 1.
        eps: ε.
        scale: learn γ; MAML's authors do not.
        momentum: weight in (0, 1] of the newest statistics in running ones, which only ``Method.adapt`` makes.
    """

    row_weight: Tensor | None
    mean: Tensor | None
    variance: Tensor | None

    def __init__(self, channels: int, eps: float = 1e-5, scale: bool = True, momentum: float = 0.9) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        for slot in ("row_weight", "mean", "variance"):
            self.register_buffer(slot, None, persistent=False)

    def forward(self, x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows channels *space"]:
        """Normalise over rows and positions."""
        centred, variance = self._centred(x)
        gain = (variance + self.eps).rsqrt()
        if self.weight is not None:
            gain = gain * self.weight
        return centred * _spread(gain, x) + _spread(self.bias, x)

    def statistics(self, x: Float[Tensor, "rows channels *space"]) -> tuple[Tensor, Tensor]:
        """m and v, each ``[channels]``."""
        return self._over_rows(_over_space(x)), self._centred(x)[1]

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self._over_rows(_over_space(x)) if self.mean is None else self.mean
        centred = x - _spread(mean, x)
        variance = self._over_rows(_over_space(centred.square())) if self.variance is None else self.variance
        return centred, variance

    def _over_rows(self, rows: Float[Tensor, "rows channels"]) -> Float[Tensor, " channels"]:
        if self.row_weight is None:
            return rows.mean(0)
        return (self.row_weight / self.row_weight.sum()) @ rows


def _over_space(x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows channels"]:
    return x.mean(tuple(range(2, x.dim()))) if x.dim() > 2 else x


def _spread(channels: Float[Tensor, " channels"], x: Tensor) -> Tensor:
    """One number a channel, beside the positions of ``x``."""
    return channels.view(-1, *(1,) * (x.dim() - 2))


def without_norms(network: nn.Module) -> list[str]:
    """The parameters that belong to no normalising layer, by name: those of norms are then meta-learned only."""
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, BatchNorm))
    return [name for name, _ in network.named_parameters() if not name.startswith(norms)]
