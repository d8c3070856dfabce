"""A bound on the length of a step."""

import math

import torch
from torch import Tensor

from fewstep.core.rule.base import Rule
from fewstep.core.rule.chain import Chain
from fewstep.core.types import Params


class Clip(Rule):
    """Shorten a gradient where it is longer than a bound.

    ``φ ← φ − g · min(1, c/‖g‖)``, ‖g‖ over all values together.

    Before another rule of a :class:`Chain` it keeps exploding gradients from that, such as those of long recurrences
    (Pascanu, Mikolov and Bengio 2013). The meta-gradient goes through the shortening.

    Args:
        norm: c > 0.

    Raises:
        ValueError: for a norm that is not positive.

    Example:
        >>> gradient = {"w": torch.tensor([3.0, 4.0])}  # of length 5
        >>> step, _ = Clip(1.0).update(gradient, (), {"w": torch.zeros(2)}, torch.tensor(1.0))
        >>> step
        {'w': tensor([-0.6000, -0.8000])}
    """

    def __init__(self, norm: float) -> None:
        super().__init__()
        if not 0 < norm < math.inf:
            raise ValueError(f"Clip: the norm must be positive and finite, got {norm}.")
        self.norm = norm

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−g · min(1, c/‖g‖)``."""
        # In units of the largest entry, whose square may be infinite; and the bound comes before the root, whose
        # derivative at zero is.
        largest = torch.stack([g.detach().abs().max() for g in gradient.values()]).max().clamp(min=self.norm)
        square = torch.stack([(g / largest).square().sum() for g in gradient.values()]).sum()
        bound = self.norm / largest
        share = bound * square.clamp(min=bound.square()).rsqrt()
        return {name: -share * g for name, g in gradient.items()}, state


def clipped(rule: Rule, norm: float | None) -> Rule:
    """``rule`` on gradients of this length at most, or itself where there is no ``norm``.

    Example:
        >>> rule = clipped(SGD(0.1), 1.0)  # as Chain(Clip(1.0), SGD(0.1))
        >>> gradient = {"w": torch.tensor([3.0, 4.0])}  # of length 5
        >>> step, _ = rule.update(gradient, rule.init(gradient), gradient, torch.tensor(1.0))
        >>> step
        {'w': tensor([-0.0600, -0.0800])}
    """
    return rule if norm is None else Chain(Clip(norm), rule)
