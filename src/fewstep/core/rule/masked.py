"""A step for some units of a network alone, which every task draws anew."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network import dotted
from fewstep.core.noise import Noise, Normal, entry
from fewstep.core.rule.base import Rule
from fewstep.core.rule.learned_rates import require_names
from fewstep.core.types import Params


class Masked(Rule):
    """Gradients of units that a task draws: ``g ← m ∘ g``, with one ``m ∈ {0, 1}`` for each unit of a layer.

    ``m = 1[ζ + l > 0]`` with l a standard logistic number, so that ``P(m = 1) = σ(ζ)``. Meta-learned is ζ, with the
    derivative of σ((ζ + l)/T) in place of that of the step (the straight-through Gumbel-softmax of ζ and 0; Jang, Gu
    and Poole 2017). That is no unbiased estimate: at ζ = 0 and T = 1 its mean is 1/6, where σ rises by 1/4.

    A unit is an entry of the first axis. The values of one module, such as ``0.weight`` and ``0.bias``, share a mask.
    It is drawn once for a task, for all its steps; in evaluation it is its mean σ(ζ).
    ``Chain(Masked(shapes), SGD(rate))`` moves by SGD what is drawn.

    Args:
        shapes: of the adapted values, under their names.
        temperature: T > 0.

    Raises:
        ValueError: for a temperature that is not positive, a value without an axis, or values of one module that do not
            have as many units.

    Example:
        >>> rule = Chain(Masked({"weight": (1, 1)}), SGD(0.25))  # of a task of evaluation it takes half of the step
        >>> method = Method(Learner(line, Shared(), [Descend(rule, 1)], loss=regression()), Backprop())
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.7500]]])}
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"Masked: the temperature must be positive, got {temperature}.")
        self.temperature, self.names = temperature, tuple(shapes)
        units = dict[str, int]()
        for name, shape in shapes.items():
            if not shape or units.setdefault(_layer(name), shape[0]) != shape[0]:
                raise ValueError(
                    f"Masked: values of a layer share its units along their first axis, but {name!r} has shape "
                    f"{tuple(shape)}; adapt it by another rule, or not at all."
                )
        self.logits = nn.Module()
        dotted.register(self.logits, {layer: nn.Parameter(torch.zeros(size)) for layer, size in units.items()})
        self._units = units

    def check(self, names: Collection[str]) -> None:
        """Every value needs a mask, and all masks a value."""
        require_names(names, self.names, "Masked", "shapes", "give the shape of each adapted value")

    def init_sites(self) -> dict[str, Any]:
        """Two exponential numbers for each unit, as sums of two squares."""
        return {layer: Normal((2, 2, size)) for layer, size in self._units.items()}

    def init(self, value: Params, noise: Noise = None) -> Params:
        """The masks of a task, by layer.

        Raises:
            ValueError: when the values are not those that masks were made for.
        """
        self.check(value)
        return {layer: self._mask(dotted.get(self.logits, layer), entry(noise, layer)) for layer in self._units}

    def _mask(
        self, logit: Float[Tensor, " units"], drawn: Float[Tensor, "2 2 units"] | None
    ) -> Float[Tensor, " units"]:
        if drawn is None:
            return logit.sigmoid()
        one, other = drawn.square().sum(1).unbind()
        raised = logit + (one / other).log()  # the logarithm of a ratio of two exponential numbers is logistic
        soft = (raised / self.temperature).sigmoid()
        return (raised > 0).to(soft.dtype) + (soft - soft.detach())

    def update(self, gradient: Params, state: Params, value: Params, loss: Tensor) -> tuple[Params, Params]:
        """``−m ∘ g``."""
        return {name: -_beside(state[_layer(name)], g) * g for name, g in gradient.items()}, state


def _layer(name: str) -> str:
    """Where the mask of a value is: beside it, in its module."""
    return f"{name.rpartition('.')[0]}.units".lstrip(".")


def _beside(mask: Float[Tensor, " units"], like: Tensor) -> Tensor:
    return mask.view(-1, *(1,) * (like.dim() - 1))
