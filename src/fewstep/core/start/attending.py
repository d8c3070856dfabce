"""A start made of class means and of what is known of other classes: a cosine classifier."""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewstep.core.network.heads import generated_head
from fewstep.core.noise import Noise
from fewstep.core.start.fitted_head import FittedHead
from fewstep.core.types import Batch, Penalties, Point


@final
class Attending(FittedHead):
    """Adaptation begins at a cosine classifier, made of class means and of weights of known classes.

    ``w_n = φ ⊙ mean_k z_k + ψ ⊙ mean_k Σ_b a_kb v_b/‖v_b‖``, ``a_k = softmax_b γ cos(Q z_k + q, κ_b)``, means over the
    rows z_k of class n, which have length 1; v_b the weights of known classes and κ_b their keys. The head has
    ``W_n = s w_n/‖w_n‖``, ``b_n = 0``: for rows z of length 1 it gives ``s cos(z, w_n)``. On the embedding z see
    :class:`FittedHead`; the head alone is adapted.

    In meta-training tasks are made of the known classes themselves. Of a :class:`KnownTask` none attends to the weights
    of its own classes, as if they were new (Gidaris and Komodakis 2018, section 3.2).

    Args:
        features: width of a row.
        known: weights v of known classes ``[classes, features]``; rows of zeros stand for none. Or how many, with
            weights that are drawn; 0: there is no attention, and w_n is ``φ ⊙ mean_k z_k``.
        scale: the initial s, meta-learned as its logarithm.
        sharpness: the initial γ, likewise.

    Example:
        >>> support = Batch(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.eye(2), torch.ones(2))
        >>> point, _ = Attending(2, known=0, scale=3.0).begin(Generated(), support, None)
        >>> point.value["weight"].detach().round(decimals=4)
        tensor([[3., 0.],
                [0., 3.]])
    """

    knows = True

    def __init__(
        self,
        features: int,
        known: Float[Tensor, "classes features"] | int,
        *,
        scale: float = 10.0,
        sharpness: float = 10.0,
    ) -> None:
        super().__init__(adapts=())
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.mean_gain = nn.Parameter(torch.ones(features))
        deviation = math.sqrt(2 / features)
        weights = deviation * torch.randn(known, features) if isinstance(known, int) else known.detach().clone()
        if len(weights):
            self.weights = nn.Parameter(weights)
            self.keys = nn.Parameter(deviation * torch.randn_like(weights))
            self.asking = nn.Linear(features, features)
            nn.init.eye_(self.asking.weight).data.add_(0.001 * torch.randn(features, features))
            nn.init.zeros_(self.asking.bias)
            self.attended_gain = nn.Parameter(torch.ones(features))
            self.log_sharpness = nn.Parameter(torch.tensor(sharpness).log())
        self.attends = bool(len(weights))

    def begin_known(
        self, network: nn.Module, support: Batch, classes: Int[Tensor, " ways"], noise: Noise
    ) -> tuple[Point, Penalties]:
        """The head that the support makes, with the weights of its own classes out of sight."""
        head = generated_head(network)
        rows = self.embedded(network, support, noise)
        weight, bias = self.fit(rows, support.y, support.weight, classes)
        return Point({f"{head}weight": weight, f"{head}bias": bias}, {}), {}

    def fit(
        self,
        x: Float[Tensor, "rows features"],
        y: Float[Tensor, "rows ways"],
        weight: Float[Tensor, " rows"],
        classes: Int[Tensor, " ways"] | None = None,
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """The classifier of embedded rows; of known classes by number where they are known classes."""
        members = y.T * weight
        members = members / members.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        made = self.mean_gain * (members @ x)
        if self.attends:
            near = self.log_sharpness.exp() * (_unit(self.asking(x)) @ _unit(self.keys).T)
            hidden = (self.weights == 0).all(1)
            if classes is not None:
                hidden = hidden | (torch.arange(len(hidden), device=x.device)[:, None] == classes).any(1)
            shares = near.masked_fill(hidden, _NEVER).softmax(1)
            made = made + self.attended_gain * (members @ (shares @ _unit(self.weights)))
        return self.log_scale.exp() * _unit(made), made.new_zeros(len(made))

    def known_logits(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows classes"]:
        """``s cos(x, v_b)``: the scores of known classes, for embedded rows of length 1."""
        logits = self.log_scale.exp() * (x @ _unit(self.weights).T)
        return logits.masked_fill((self.weights == 0).all(1), _NEVER)


_NEVER = -1e9
"""The logarithm of a probability that is zero, but for infinity, whose product with zero is no number."""


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
