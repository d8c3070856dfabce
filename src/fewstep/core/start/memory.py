"""A start with nothing to move: the task's support, remembered for a head that looks at it."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.core.network.heads import memory_head
from fewstep.core.network.operations import call, random_sites
from fewstep.core.network.row_weights import row_weights
from fewstep.core.noise import Noise, Normal, entry, own_draws
from fewstep.core.start.base import Start
from fewstep.core.start.conditioning import Conditioning
from fewstep.core.types import Batch, Params, Penalties, Point

_GOLDEN = (math.sqrt(5) - 1) / 2


class Memory(Start):
    """Nothing is adapted: the network's head answers by looking at the embedded support.

    The embedding is the network without its :class:`~fewstep.core.MemoryHead`, whose slots ``rows``, ``labels`` and
    ``weights`` are filled; they are the point's context, and its value is empty. It is normalised by the statistics of
    the support's real rows. The meta-gradient reaches it through what the head makes of them. A head may look at the
    labels already when it says what is to be remembered of a row.

    Args:
        shuffled: the support's rows come in an order that is drawn anew for every task of meta-training, for heads that
            read them one after another. In evaluation it is always the same one, which scatters rows of a class.
        conditioning: what the embedded support does to the embedding: the support then passes it a second time, and
            queries pass it as it then is. None: nothing.

    Example:
        >>> support = Batch(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2), torch.ones(2))
        >>> point, _ = Memory().begin(Matching(), support, None)
        >>> torch.func.functional_call(Matching(), point.context, torch.tensor([[3.0, 0.0]]))  # cosines
        tensor([[1., 0.]])
    """

    def __init__(self, shuffled: bool = False, conditioning: Conditioning | None = None) -> None:
        super().__init__()
        self.shuffled, self.conditioning = shuffled, conditioning

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """An empty value, and the embedded support for context.

        Raises:
            ValueError: when the network has no memory head, or more than one.
        """
        head = memory_head(network)
        labels = {f"{head}labels": support.y, f"{head}weights": support.weight}
        own, rows = {}, self._embedded(network, support, labels, own_draws(noise, "network"))
        if self.conditioning is not None:
            own = self.conditioning(network, rows, support.y, support.weight)
            rows = self._embedded(network, support, own | labels, own_draws(noise, "conditioned"))
        slots = {"rows": rows, "labels": support.y, "weights": support.weight}
        if self.shuffled:
            order = self._order(support.weight, entry(noise, "order"))
            slots = {name: tensor[order] for name, tensor in slots.items()}
        return Point({}, own | {f"{head}{name}": tensor for name, tensor in slots.items()}), {}

    @staticmethod
    def _embedded(network: nn.Module, support: Batch, own: Params, draws: Any) -> Tensor:
        weights = own | row_weights(network, support.weight)
        return call(network, weights, support.x, support.weight, draws).output

    @staticmethod
    def _order(weight: Tensor, drawn: Tensor | None) -> Tensor:
        if drawn is None:  # multiples of the golden ratio are scattered evenly; padding takes none of them
            drawn = (weight > 0).cumsum(0).to(weight.dtype) * _GOLDEN % 1
        return torch.argsort(drawn)

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged."""
        return point

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """None; the network must have a memory head."""
        memory_head(network)
        return ()

    def begin_sites(self, network: nn.Module, support: Batch) -> dict[str, Any]:
        """What the network draws by itself when it embeds the support, and the order of its rows."""
        passes = ("network",) if self.conditioning is None else ("network", "conditioned")
        head = memory_head(network)
        labels = {f"{head}labels": support.y, f"{head}weights": support.weight}
        own: dict[str, Any] = {name: random_sites(network, labels, support) for name in passes}
        return own | ({"order": Normal((len(support.weight),))} if self.shuffled else {})
