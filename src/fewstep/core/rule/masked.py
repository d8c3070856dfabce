"""A step for some units of a network alone, which every task draws anew."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

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

    A unit is an entry of the first axis. The values of one module, such as ``0.weight`` and ``0.bias``, share a mask;
    or every weight has an m of its own. It is drawn once for a task, for all its steps; in evaluation it is its mean
    σ(ζ).
    ``Chain(Masked(shapes), SGD(rate))`` moves by SGD what is drawn.

    Args:
        shapes: of the adapted values, under their names.
        temperature: T > 0.
        of: "units" or "weights", what one m is for.

    Raises:
        ValueError: for a temperature that is not positive, a value without an axis, or values of one module that do not
            have as many units.

    Example:
        >>> rule = Chain(Masked({"weight": (1, 1)}), SGD(0.25))  # of a task of evaluation it takes half of the step
        >>> method = Method(Learner(line, Shared(), [Descend(rule, 1)], loss=regression()), Backprop())
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.7500]]])}
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], temperature: float = 1.0, of: Literal["units", "weights"] = "units"
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"Masked: the temperature must be positive, got {temperature}.")
        self.temperature = temperature
        self._places = {name: _layer(name) if of == "units" else name for name in shapes}
        masks = dict[str, tuple[int, ...]]()
        for name, whole in shapes.items():
            shape = tuple(whole[:1] if of == "units" else whole)
            if masks.setdefault(self._places[name], shape) != shape or (of == "units" and not whole):
                raise ValueError(
                    f"Masked: values of a layer share its units along their first axis, but {name!r} has shape "
                    f"{tuple(whole)}; adapt it by another rule, or not at all."
                )
        self.logits = nn.Module()
        dotted.register(self.logits, {place: nn.Parameter(torch.zeros(shape)) for place, shape in masks.items()})
        self._masks = masks

    def check(self, names: Collection[str]) -> None:
        """Every value needs a mask, and all masks a value."""
        require_names(names, self._places, "Masked", "shapes", "give the shape of each adapted value")

    def init_sites(self) -> dict[str, Any]:
        """Two exponential numbers for each m, as sums of two squares."""
        return {place: Normal((2, 2, *shape)) for place, shape in self._masks.items()}

    def init(self, value: Params, noise: Noise = None) -> Params:
        """The masks of a task, by layer, or by name.

        Raises:
            ValueError: when the values are not those that masks were made for.
        """
        self.check(value)
        return {place: self._mask(dotted.get(self.logits, place), entry(noise, place)) for place in self._masks}

    def _mask(
        self, logit: Float[Tensor, " *mask"], drawn: Float[Tensor, "2 2 *mask"] | None
    ) -> Float[Tensor, " *mask"]:
        if drawn is None:
            return logit.sigmoid()
        one, other = drawn.square().sum(1).unbind()
        raised = logit + (one / other).log()  # the logarithm of a ratio of two exponential numbers is logistic
        soft = (raised / self.temperature).sigmoid()
        return (raised > 0).to(soft.dtype) + (soft - soft.detach())

    def update(self, gradient: Params, state: Params, value: Params, loss: Tensor) -> tuple[Params, Params]:
        """``−m ∘ g``."""
        return {name: -_beside(state[self._places[name]], g) * g for name, g in gradient.items()}, state


def _layer(name: str) -> str:
    """Where the mask of a value is: beside it, in its module."""
    return f"{name.rpartition('.')[0]}.units".lstrip(".")


def _beside(mask: Float[Tensor, " *mask"], like: Tensor) -> Tensor:
    return mask.view(*mask.shape, *(1,) * (like.dim() - mask.dim()))
