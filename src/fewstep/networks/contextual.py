"""Layers that let a context steer a network: beside its inputs, or by scales and shifts of its channels."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.contextual import Contextual


@final
class Concatenated(Contextual):
    """``y = [x, φ]``: the context φ beside every row. For the linear layer that follows it is one more bias, ``W_c φ``.

    Args:
        width: numbers of the context.
    """

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows more"]:
        """Rows with the context at their ends."""
        return torch.cat([x, self.context.expand(len(x), -1)], 1)


@final
class FeatureWise(Contextual):
    """``y = γ ∘ x + β``, ``[γ, β] = V φ + c``: the context φ scales and shifts channels (Perez et al. 2018, FiLM).

    At first V is drawn from U(±√(3/width)) and c from U(±1/√width), as CAVIA's authors do: with a context of zeros γ
    is small then, and of either sign.

    Args:
        width: numbers of the context.
        channels: size of axis 1.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(width)
        self.layer = nn.Linear(width, 2 * channels)
        nn.init.kaiming_uniform_(self.layer.weight, nonlinearity="linear")

    def forward(self, x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows channels *space"]:
        """Scale and shift each channel."""
        both: Tensor = self.layer(self.context)
        scale, shift = both.view(2, -1, *(1,) * (x.dim() - 2))
        steered: Tensor = scale * x + shift
        return steered
