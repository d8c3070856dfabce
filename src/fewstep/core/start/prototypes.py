"""A start made of the task's own examples: a linear classifier by distance to the classes' means."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from fewstep.core.network.choice import Choice, chosen
from fewstep.core.network.heads import generated_head
from fewstep.core.network.operations import call, random_sites
from fewstep.core.network.row_weights import row_weights
from fewstep.core.noise import Noise, own_draws
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Params, Penalties, Point


class Prototypes(Start):
    """Adaptation begins at the network's parameters and a head made of class means, the prototypes.

    ``c_n = Σ_k w_k y_kn e(x_k) / Σ_k w_k y_kn`` · ``W_n = 2 c_n`` · ``b_n = −‖c_n‖²``: logits are then
    ``−‖e(x) − c_n‖² + ‖e(x)‖²``, whose last term is the same for all classes (Snell et al. 2017, section 2.4;
    Triantafillou et al. 2020, Proto-MAML). The embedding e is the network without its head. It is normalised by the
    statistics of the support's real rows, and the meta-gradient reaches it through the prototypes.

    The network ends with a :class:`~fewstep.networks.Generated` head, whose slots ``weight`` ``[ways, features]`` and
    ``bias`` ``[ways]`` are filled. No class owns a parameter, so any number of ways and shots is fine at any time. The
    prototype of a class without real rows is the origin.

    Args:
        adapts: which of the network's parameters the inner loop moves: their names, or a predicate on names; all when
            omitted, and no frozen one. The head's slots are always among what it moves, and alone with ``()``.
        scale: the initial s of logits ``−s ‖e(x) − c_n‖²``, an inverse temperature that is meta-learned as its
            logarithm: embeddings of length 1 want more than 1. None: there is none.

    Raises:
        ValueError: for a scale that is not positive.

    Example:
        >>> support = Batch(torch.tensor([[0.0], [2.0]]), torch.eye(2), torch.ones(2))  # classes at 0 and 2
        >>> point, _ = Prototypes().begin(Generated(), support, None)
        >>> logits = nn.functional.linear(torch.tensor([[0.9]]), *point.value.values())
        >>> logits.argmax(1)  # 0.9 is nearer to the first
        tensor([0])
    """

    def __init__(self, adapts: Choice | None = None, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"Prototypes: the scale must be positive and finite, got {scale}.")
        self.adapts = adapts
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(scale).log())

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The selected parameters of ``network``, and the head that the support makes.

        Raises:
            ValueError: when the network has no generated head, or more than one.
        """
        head = generated_head(network)
        weights = row_weights(network, support.weight)
        embedded = call(network, weights, support.x, support.weight, own_draws(noise, "network")).output
        members = support.y.T * support.weight
        # 0/0 would be NaN for a class that is padding only; any positive total is far above this floor.
        total = members.sum(1, keepdim=True).clamp(min=torch.finfo(members.dtype).tiny)
        prototypes = (members / total) @ embedded
        weight, bias = 2 * prototypes, -prototypes.square().sum(1)
        if self.log_scale is not None:
            weight, bias = self.log_scale.exp() * weight, self.log_scale.exp() * bias
        value: Params = {**chosen(network, self.adapts), f"{head}weight": weight, f"{head}bias": bias}
        return Point(value, {}), {}

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """The selected parameters, and the head's slots; the network must have a generated head."""
        head = generated_head(network)
        return chosen(network, self.adapts).keys() | {f"{head}weight", f"{head}bias"}

    def begin_sites(self, network: nn.Module, support: Batch) -> dict[str, Any]:
        """What the network draws by itself when it embeds the support."""
        return {"network": random_sites(network, {}, support)}

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged: its values already are weights."""
        return point

    def start_parameters(self, network: nn.Module) -> set[str]:
        """All parameters of the network, and s: the prototypes depend on the whole embedding."""
        own = {f"start.{name}" for name, _ in self.named_parameters()}
        return own | {f"network.{name}" for name, _ in network.named_parameters()}
