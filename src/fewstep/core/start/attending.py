"""A start made of class means and of what is known of other classes: a cosine classifier."""

import math
from typing import final

import torch
from jaxtyping import Bool, Float, Int
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
    of its own classes, as if they were new (Gidaris and Komodakis 2018, section 3.2). With ``others`` the head then has
    all known classes beside the new ones, ``[W; s v_b/‖v_b‖]``, of which those of the task are never the answer.

    Args:
        features: width of a row.
        known: weights v of known classes ``[classes, features]``; rows of zeros stand for none. Or how many, with
            weights that are drawn; 0: there is no attention, and w_n is ``φ ⊙ mean_k z_k``.
        scale: the initial s, meta-learned as its logarithm.
        sharpness: the initial γ, likewise.
        others: rows of other known classes in the query of a task of meta-training; 0: its own classes are told apart
            from each other alone.

    Example:
        >>> support = Batch(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.eye(2), torch.ones(2))
        >>> point, _ = Attending(2, known=0, scale=3.0).begin(Generated(), support, None)
        >>> point.value["weight"].detach().round(decimals=4)
        tensor([[3., 0.],
                [0., 3.]])
    """

    def __init__(
        self,
        features: int,
        known: Float[Tensor, "classes features"] | int,
        *,
        scale: float = 10.0,
        sharpness: float = 10.0,
        others: int = 0,
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
        self.knows, self.others = len(weights), others if len(weights) else 0

    def begin_known(
        self, network: nn.Module, support: Batch, classes: Int[Tensor, " ways"], noise: Noise
    ) -> tuple[Point, Penalties]:
        """The head that the support makes, with the weights of its own classes out of sight."""
        head = generated_head(network)
        rows = self.embedded(network, support, noise)
        weight, bias = self.fit(rows, support.y, support.weight, classes)
        if self.others:
            weight = torch.cat([weight, self.log_scale.exp() * _unit(self.weights)])
            bias = torch.cat([bias, bias.new_zeros(self.knows).masked_fill(self._hidden(classes), _NEVER)])
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
        if self.knows:
            near = self.log_sharpness.exp() * (_unit(self.asking(x)) @ _unit(self.keys).T)
            shares = near.masked_fill(self._hidden(classes), _NEVER).softmax(1)
            made = made + self.attended_gain * (members @ (shares @ _unit(self.weights)))
        return self.log_scale.exp() * _unit(made), made.new_zeros(len(made))

    def _hidden(self, classes: Int[Tensor, " ways"] | None) -> Bool[Tensor, " known"]:
        """Which known classes there are not, or are those of the task itself."""
        absent = (self.weights == 0).all(1)
        if classes is None:
            return absent
        return absent | (torch.arange(len(absent), device=absent.device)[:, None] == classes).any(1)


_NEVER = -1e9
"""The logarithm of a probability that is zero, but for infinity, whose product with zero is no number."""


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
