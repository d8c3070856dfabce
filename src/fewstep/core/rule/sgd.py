"""Plain gradient descent."""

import math

from torch import Tensor

from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class SGD(Rule):
    """Gradient descent with one fixed rate: ``φ ← φ − α ∇L(φ)``.

    Args:
        rate: α > 0; or a tensor, which is saved with the rest as a buffer: so that α can be chosen after training, and
            may be 0.

    Raises:
        ValueError: when the rate is not positive.

    Example:
        >>> rule, gradient = SGD(0.1), {"w": torch.tensor([3.0, 4.0])}
        >>> step, _ = rule.update(gradient, (), {"w": torch.zeros(2)}, torch.tensor(1.0))
        >>> step
        {'w': tensor([-0.3000, -0.4000])}
    """

    rate: float | Tensor

    def __init__(self, rate: float | Tensor) -> None:
        super().__init__()
        if isinstance(rate, Tensor):
            self.register_buffer("rate", rate.detach().clone())
            return
        if not 0 < rate < math.inf:
            raise ValueError(f"SGD: the rate must be positive and finite, got {rate}.")
        self.rate = rate

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−α g``."""
        return {name: -self.rate * g for name, g in gradient.items()}, state
