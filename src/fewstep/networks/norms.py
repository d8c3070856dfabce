"""Normalisation from primitive operations, by the statistics of the batch at hand.

``torch.func.vmap`` differentiates the fused, affine ``batch_norm`` and ``layer_norm`` wrongly at second order (without
a warning), so networks that are adapted under ``vmap`` use these. There are no running statistics: what a layer
normalises by is a function of the rows it is given and of ``row_weight``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.row_weights import Normalising
from fewstep.core.network.stepped import Stepped


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
        gain, (scale, shift) = (variance + self.eps).rsqrt(), self._affine()
        if scale is not None:
            gain = gain * scale
        return centred * _spread(gain, x) + _spread(shift, x)

    def _affine(self) -> tuple[Tensor | None, Tensor]:
        """γ and β."""
        return self.weight, self.bias

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


class StepwiseBatchNorm(BatchNorm, Stepped):
    """A batch normalisation with γ and β of its own for every inner step; steps beyond the last have those of the last.

    The statistics are those of the batch at every step, as for :class:`BatchNorm`.

    Args:
        channels: size of axis 1.
        steps: inner steps.
        eps: ε.
        momentum: as in :class:`BatchNorm`.
    """

    weight: nn.Parameter

    def __init__(self, channels: int, steps: int, eps: float = 1e-5, momentum: float = 0.9) -> None:
        super().__init__(channels, eps, True, momentum)
        if steps < 1:
            raise ValueError(f"StepwiseBatchNorm: there is one inner step or more, got {steps}.")
        self.weight, self.bias = nn.Parameter(torch.ones(steps, channels)), nn.Parameter(torch.zeros(steps, channels))
        self.register_buffer("step", None, persistent=False)

    def _affine(self) -> tuple[Tensor, Tensor]:
        if self.step is None:
            return self.weight[0], self.bias[0]
        steps = torch.arange(len(self.weight), device=self.weight.device)
        chosen = (steps == self.step.clamp(max=len(steps) - 1)).to(self.weight.dtype)  # no index: vmap takes none
        return chosen @ self.weight, chosen @ self.bias


def _over_space(x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows channels"]:
    return x.mean(tuple(range(2, x.dim()))) if x.dim() > 2 else x


def _spread(channels: Float[Tensor, " channels"], x: Tensor) -> Tensor:
    """One number a channel, beside the positions of ``x``."""
    return channels.view(-1, *(1,) * (x.dim() - 2))


def without_norms(network: nn.Module) -> list[str]:
    """The parameters that belong to no normalising layer, by name: those of norms are then meta-learned only."""
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, BatchNorm))
    return [name for name, _ in network.named_parameters() if not name.startswith(norms)]
