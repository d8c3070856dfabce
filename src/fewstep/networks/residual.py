"""Embeddings that begin as what is known to be good: centred rows of length 1, and a residual on them."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class Centred(nn.Module):
    """``y = (x − c)/‖x − c‖``: rows seen from a centre, on the unit sphere.

    Nearest class mean on such rows is the "CL2N" of SimpleShot (Wang, Chao, Weinberger and van der Maaten 2019). The
    centre is a statistic of the meta-training classes, saved with the rest and never trained.

    Args:
        centre: c, the mean row; or the number of features, for a centre of zeros that is loaded later.
        eps: ε of ``√(‖x − c‖² + ε)``, as in :class:`UnitLength`.
    """

    centre: Tensor

    def __init__(self, centre: Float[Tensor, " features"] | int, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("centre", torch.zeros(centre) if isinstance(centre, int) else centre.detach().clone())

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        """Centre and scale each row."""
        seen = x - self.centre
        return seen * (seen.square().sum(1, keepdim=True) + self.eps).rsqrt()


@final
class Residual(nn.Module):
    """``y = u/‖u‖``, ``u = x + λ (A x + B relu(C x + d))``, with A = B = 0 at first: y is then x, if of length 1.

    Weight decay on A and B alone draws the embedding towards what it began as. The strength λ is no meta-parameter but
    a choice, such as one on validation tasks after training: at 0 the embedding is the identity. It is saved with the
    rest.

    Args:
        features: D, width of a row.
        hidden: width of the hidden layer.
        strength: λ.
    """

    strength: Tensor

    def __init__(self, features: int, hidden: int = 512, strength: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, features, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.outer.weight)
        # He's deviation for rows of length 1 rather than of unit variance: a unit sees about as much as one feature.
        nn.init.normal_(self.inner.weight, std=math.sqrt(2 / features))
        nn.init.zeros_(self.inner.bias)
        self.register_buffer("strength", torch.tensor(strength))

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        """Move each row, and scale it to length 1."""
        moved: Tensor = x + self.strength * (self.linear(x) + self.outer(torch.relu(self.inner(x))))
        scaled: Tensor = moved * (moved.square().sum(1, keepdim=True) + 1e-8).rsqrt()
        return scaled
