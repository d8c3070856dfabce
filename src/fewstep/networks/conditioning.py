"""Networks that say how a task scales and shifts the channels of a layer."""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Gated(nn.Module):
    """``a·(W₃h₂ + h₂)``, ``h₂ = σ(W₂h₁ + h₁)``, ``h₁ = σ(W₁t)``: zero at first, for a = 0; σ is swish, x·sigmoid(x).

    Args:
        features: width of t.
        channels: width of all others.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        widths = (features, channels, channels)
        self.first, self.second, self.third = (nn.Linear(width, channels) for width in widths)
        for layer in (self.first, self.second, self.third):
            nn.init.normal_(layer.weight, std=math.sqrt(0.2 / channels))
            nn.init.zeros_(layer.bias)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, task: Float[Tensor, " features"]) -> Float[Tensor, " channels"]:
        """What ``task`` makes of it."""
        hidden = F.silu(self.first(task))
        hidden = F.silu(self.second(hidden) + hidden)
        made: Tensor = self.gate * (self.third(hidden) + hidden)
        return made


@final
class Modulator(nn.Module):
    """γ and β of a layer's channels, each by a network of three layers: 1 and 0 at first (TADAM, section 2.4).

    Args:
        features: width of what represents a task.
        channels: of the layer.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.gain, self.shift = Gated(features, channels), Gated(features, channels)

    def forward(self, task: Float[Tensor, " features"]) -> Float[Tensor, "2 channels"]:
        """γ, then β."""
        return torch.stack([1 + self.gain(task), self.shift(task)])
