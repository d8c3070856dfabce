"""One initialisation shared by all tasks: the network's own parameters."""

from collections.abc import Callable

from torch import Tensor, nn

from fewstep.core.network.choice import Choice, chosen
from fewstep.core.noise import Noise
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Params, Penalties, Point


class Shared(Start):
    """Adaptation begins at the network's parameters, the same for every task (Finn et al. 2017, Algorithm 1).

    Args:
        adapts: which parameters the inner loop moves, names or a predicate on names; all when omitted. The others are
            meta-learned only: ``lambda name: name.startswith("head.")`` is ANIL. Frozen parameters
            (``requires_grad_(False)``) stay as they are in both loops.
        log_prior: ``log p(φ)`` up to a constant, a scalar of the selected parameters by name. The inner loss is then
            ``L_S(φ) − log p(φ)``, whose minimum is most probable a posteriori where L_S is a negative log-likelihood.

    Raises:
        ValueError: when ``adapts`` selects no parameter of the network, or names one that there is not.

    Example:
        >>> start = Shared(lambda name: name.startswith("2."))  # the inner loop moves the last layer alone: ANIL
        >>> list(start.shared(mlp((1, 40, 1))))
        ['2.weight', '2.bias']
    """

    def __init__(self, adapts: Choice | None = None, log_prior: Callable[[Params], Tensor] | None = None) -> None:
        super().__init__()
        self.adapts, self.log_prior = adapts, log_prior

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The selected parameters of ``network``; nothing of the task is looked at."""
        return Point(self.shared(network), {}), {}

    def shared(self, network: nn.Module) -> Params:
        """The selected parameters.

        Raises:
            ValueError: when ``adapts`` selects none.
        """
        value: Params = {**chosen(network, self.adapts)}
        if not value:
            names = ", ".join(name for name, p in network.named_parameters() if p.requires_grad) or "all are frozen"
            raise ValueError(f"Shared start: `adapts` selects none of the network's parameters ({names}).")
        return value

    def start_parameters(self, network: nn.Module) -> set[str]:
        """The selected parameters."""
        return {f"network.{name}" for name in chosen(network, self.adapts)}

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged: its values already are weights."""
        return point

    def energy(self, point: Point) -> Tensor | None:
        """``−log p(φ)``."""
        return None if self.log_prior is None else -self.log_prior(point.value)
