"""Plain gradient descent."""

from torch import Tensor

from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class SGD(Rule):
    """Gradient descent with one fixed rate: ``φ ← φ − α ∇L(φ)``.

    Args:
        rate: α > 0.

    Raises:
        ValueError: when the rate is not positive.

    Example:
        >>> rule, gradient = SGD(0.1), {"w": torch.tensor([3.0, 4.0])}
        >>> step, _ = rule.update(gradient, (), {"w": torch.zeros(2)}, torch.tensor(1.0))
        >>> step
        {'w': tensor([-0.3000, -0.4000])}
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"SGD: the rate must be positive, got {rate}.")
        self.rate = rate

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−α g``."""
        return {name: -self.rate * g for name, g in gradient.items()}, state
