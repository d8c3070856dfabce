"""Features of length 1, inside a network."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class UnitLength(nn.Module):
    """``y = x/√(‖x‖² + ε)``: each row on the unit sphere, and differentiable where a row is zero.

    LEO's authors scale their fixed features so; meta-learned ones end with this layer.

    Args:
        eps: ε.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        """Scale each row."""
        return x * (x.square().sum(1, keepdim=True) + self.eps).rsqrt()
