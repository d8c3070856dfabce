"""Gradient descent with meta-learned rates."""

from collections.abc import Mapping

from torch import Tensor, nn

from fewstep.core.protocols import Rule
from fewstep.core.types import Params


class LearnedRates(Rule):
    """``φ ← φ − α ∘ ∇L(φ)`` with α meta-learned, of any shape that broadcasts against the parameter.

    Rates of a parameter's own shape are Meta-SGD (Li et al. 2017); one rate per latent dimension and one per feature
    dimension, shared over classes, are LEO's (Rusu et al. 2019, B.4). Nothing keeps a rate positive.

    Args:
        rates: the initial rates, under the names of the values that they move.
    """

    def __init__(self, rates: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._keys = {name: name.replace(".", ":") for name in rates}  # torch allows no dot in a parameter's name
        self._rates = nn.ParameterDict(
            {self._keys[n]: nn.Parameter(rate.detach().clone()) for n, rate in rates.items()}
        )

    def __getitem__(self, name: str) -> Tensor:
        """The rates of one value."""
        rate: Tensor = self._rates[self._keys[name]]
        return rate

    def init(self, value: Params) -> tuple[()]:
        """No state.

        Raises:
            ValueError: when a value has no rates, or rates move no value.
        """
        if value.keys() != self._keys.keys():
            raise ValueError(
                f"LearnedRates: the adapted values are {sorted(value)}, but rates were given for {sorted(self._keys)}; "
                "make one set of rates for each adapted value."
            )
        return ()

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−α ∘ g``."""
        return {name: -self[name] * g for name, g in gradient.items()}, state
