"""Gradient descent with meta-learned rates."""

import math
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from fewstep.core.network import dotted
from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class LearnedRates(Rule):
    """Gradient descent with meta-learned rates: ``φ ← φ − α ∘ ∇L(φ)``.

    α has any shape that broadcasts against the parameter. Rates of a parameter's own shape are Meta-SGD (Li et al.
    2017); one rate per latent dimension and one per feature dimension, shared over classes, are LEO's (Rusu et al.
    2019, B.4). Nothing keeps a rate positive.

    Args:
        rates: the initial rates, under the names of the values that they move.
        unit: what is meta-learned is ``α / unit``. An optimiser such as Adam moves every meta-parameter by its own rate
            at first, however small the parameter is: with rates of 1e-4 and an outer rate of 1e-3 that would be ten
            times as much as they are. With a unit of their size it is a thousandth.

    Raises:
        ValueError: for a unit that is not positive.

    Example:
        >>> rule = LearnedRates({"weight": torch.tensor(0.25)})
        >>> method = Method(Learner(line, Shared(), [Descend(rule, 1)], loss=regression()), Backprop())
        >>> method.objective(parabola, None).objective.backward()
        >>> [parameter.grad for parameter in rule.parameters()]  # the step should have been longer
        [tensor(-2.)]
    """

    def __init__(self, rates: Mapping[str, Tensor], unit: float = 1.0) -> None:
        super().__init__()
        if not 0 < unit < math.inf:
            raise ValueError(f"LearnedRates: unit is a rate that others are multiples of, above 0; got {unit}.")
        self.unit = unit
        self.names = tuple(rates)
        self.rates = nn.Module()
        # In alphabetical order: a sum over all meta-parameters then has the bits that it had in older versions.
        dotted.register(self.rates, {name: nn.Parameter(rates[name].detach() / unit) for name in sorted(rates)})

    def __getitem__(self, name: str) -> Tensor:
        """The rates of one value."""
        rate = dotted.get(self.rates, name)
        return rate if self.unit == 1.0 else self.unit * rate

    def check(self, names: Collection[str]) -> None:
        """Every value needs rates, and all rates a value."""
        require_names(names, self.names, "LearnedRates", "rates", "make one set of rates for each adapted value")

    def init(self, value: Params, noise: Noise = None) -> tuple[()]:
        """No state.

        Raises:
            ValueError: as :meth:`check` says.
        """
        self.check(value)
        return ()

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−α ∘ g``."""
        return {name: -self[name] * g for name, g in gradient.items()}, state


def require_names(adapted: Collection[str], given: Collection[str], rule: str, what: str, remedy: str) -> None:
    """Refuse a rule whose meta-parameters do not belong, one to one, to the values that are adapted.

    Raises:
        ValueError: when the two are not the same names.
    """
    if set(adapted) != set(given):
        raise ValueError(
            f"{rule}: the adapted values are {sorted(adapted)}, but {what} were given for {sorted(given)}; {remedy}."
        )
