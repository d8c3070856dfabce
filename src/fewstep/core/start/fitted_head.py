"""A start made of the task's own examples: a linear classifier that is fitted to the embedded support."""

from abc import abstractmethod
from collections.abc import Collection
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.choice import Choice, chosen
from fewstep.core.network.heads import generated_head
from fewstep.core.network.operations import call, random_sites
from fewstep.core.network.row_weights import row_weights
from fewstep.core.noise import Noise, own_draws
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Penalties, Point


class FittedHead(Start):
    """Adaptation begins at the network's parameters, and a head that :meth:`fit` makes of the embedded support.

    The embedding is the network without its :class:`~fewstep.networks.Generated` head, whose slots ``weight`` ``[ways,
    features]`` and ``bias`` ``[ways]`` are filled. It is normalised by the statistics of the support's real rows, and
    the meta-gradient reaches it through the head. No class owns a parameter, so any number of ways and shots is fine at
    any time.

    Args:
        adapts: which of the network's parameters the inner loop moves: their names, or a predicate on names; all when
            omitted, and no frozen one. The head's slots are always among what it moves, and alone with ``()``.

    Example:
        >>> class Sums(FittedHead):
        ...     def fit(self, x, y, weight):
        ...         sums = (y.T * weight) @ x
        ...         return sums, sums.new_zeros(len(sums))  # the largest product with a class's sum
        >>> learner = Learner(mlp((8, 16, None)), Sums(), [Descend(SGD(0.1), steps=3)])
    """

    def __init__(self, adapts: Choice | None = None) -> None:
        super().__init__()
        self.adapts = adapts

    @abstractmethod
    def fit(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"], weight: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """Weight and bias of the head, for embedded rows, their labels, and the weights by which they count."""

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The selected parameters of ``network``, and the head that the support makes.

        Raises:
            ValueError: when the network has no generated head, or more than one.
        """
        head = generated_head(network)
        weight, bias = self.fit(self.embedded(network, support, noise), support.y, support.weight)
        return Point({**chosen(network, self.adapts), f"{head}weight": weight, f"{head}bias": bias}, {}), {}

    def embedded(self, network: nn.Module, support: Batch, noise: Noise) -> Float[Tensor, "rows features"]:
        """The support as the network without its head gives it."""
        weights = row_weights(network, support.weight)
        return call(network, weights, support.x, support.weight, own_draws(noise, "network")).output

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
        """All parameters of the network, and its own: the head depends on the whole embedding."""
        own = {f"start.{name}" for name, _ in self.named_parameters()}
        return own | {f"network.{name}" for name, _ in network.named_parameters()}
