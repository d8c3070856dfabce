"""A network whose units are shifted for every query, by what a memory holds of errors on the support."""

from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import MemoryHead
from fewstep.core.rule.lstm import preprocess
from fewstep.core.slope import exact
from fewstep.networks.four_blocks import Conv4
from fewstep.networks.matching import attention
from fewstep.networks.perceptron import mlp

Information = Literal["feedback", "error"]
Similarity = Literal["cosine", "dot"]


@final
class ConditionallyShifted(MemoryHead):
    """A classifier whose ReLUs and logits a query shifts, by values that it reads from the support's errors.

    ``h = ReLU(a) + ReLU(β)`` at the shifted layers, ``a + β`` at the logits; ``β = Σ_i α_i v_i``, with ``α`` the
    softmax over the support of how alike the keys ``f(x)`` and ``f(x_i)`` are. The value of unit u for row i is
    ``v_iu = g(ReLU'(a_iu) δ_i)``, with the row's error at the logits ``δ_i = softmax − y``, a number for each class
    (direct feedback; at logit n ``g(δ_in δ_i)``); or ``g`` of the error ``∂L/∂a_iu`` itself, by back-propagation, given
    as two numbers of ordinary size. g is the same for all units. Gradients go through the errors.

    The whole network is the head: what it remembers of a row (``rows``) is its key and its values, side by side.

    Args:
        base: layers one after another, with ReLUs and logits; see :func:`in_sequence`.
        key: f, to vectors.
        ways: number of classes, in meta-training and ever after.
        layers: how many of the ReLUs are shifted, from the last; all when None. The logits always are.
        units: of both hidden layers of g.
        information: what g is given.
        similarity: of keys: their cosine, or the product (a port).
        inside: ``h = ReLU(a + β)`` (a port).
        value: g in place of that perceptron, to one number from the errors of all classes, or from two numbers.

    Source: Munkhdalai, Yuan, Mehri and Trischler 2018.
    """

    def __init__(
        self,
        base: nn.Module,
        key: nn.Module,
        ways: int,
        *,
        layers: int | None = None,
        units: int = 20,
        information: Information = "feedback",
        similarity: Similarity = "cosine",
        inside: bool = False,
        value: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.base, self.key, self.ways = in_sequence(base), key, ways
        relus = [i for i, layer in enumerate(self.base) if isinstance(layer, nn.ReLU)]
        self.shifted = frozenset(relus if layers is None else relus[len(relus) - min(layers, len(relus)) :])
        self.information, self.similarity, self.inside = information, similarity, inside
        self.value = value or mlp((ways if information == "feedback" else 2, units, units, 1))

    def forward(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "rows numbers"]:
        """Logits; or when only the labels are given, what is to be remembered of these rows."""
        labels: Tensor | None = self.labels
        if self.rows is not None:
            return self.attend(x)
        return self._run(x)[0] if labels is None else self._written(x)

    def attend(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "rows ways"]:
        """Logits of the base, shifted."""
        keys = self.key(x)
        known, values = self.remembered.split([keys.shape[1], self.remembered.shape[1] - keys.shape[1]], 1)
        if self.similarity == "cosine":
            keys, known = (nn.functional.normalize(vectors, dim=1) for vectors in (keys, known))
        shares = attention(keys @ known.T, self.weights)
        # Read layer by layer: the derivative of a part of one product would be as large as the whole.
        return self._run(x, lambda units: shares @ values[:, units], self.inside)[0]

    def _run(
        self, x: Tensor, shifts: Callable[[slice], Tensor] | None = None, inside: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and what the shifts of some units were added to: inputs of ReLUs, then the logits."""
        inputs, place = [], 0

        def shift(at: Tensor) -> Tensor:
            nonlocal place
            assert shifts is not None, "it is asked for where there are some"
            units = slice(place, place + at[0].numel())
            place = units.stop
            return shifts(units).view(at.shape)

        for i, layer in enumerate(self.base):
            if i not in self.shifted:
                x = layer(x)
                continue
            inputs.append(x)
            if shifts is None:
                x = layer(x)
            elif inside:
                x = layer(x + shift(x))
            else:
                x = layer(x) + layer(shift(x))
        return x if shifts is None else x + shift(x), [*inputs, x]

    def _written(self, x: Tensor) -> Tensor:
        """Keys, and the values of all units."""
        logits, inputs = self._run(x)
        if self.information == "feedback":
            values = self._feedback(logits, inputs[:-1])
        else:
            numbers = preprocess(self._errors(x, inputs))
            values = self.value(numbers).squeeze(-1)
        return torch.cat([self.key(x), values], 1)

    def _feedback(self, logits: Tensor, inputs: list[Tensor]) -> Tensor:
        error = logits.softmax(1) - self.labels
        # A ReLU's slope is 1 or 0: g is asked for the error of a row, and for none, and not for every unit.
        on, off = self.value(error), self.value(torch.zeros_like(error))
        hidden = [torch.where(a.flatten(1) > 0, on, off) for a in inputs]
        last = self.value(error.unsqueeze(2) * error.unsqueeze(1)).squeeze(2)
        return torch.cat([*hidden, last], 1)

    def _errors(self, x: Tensor, inputs: list[Tensor]) -> Tensor:
        """``∂ Σ_i w_i L_i/∂a`` of each row and unit: with respect to shifts of zero."""
        none = torch.cat([torch.zeros_like(a.detach()).flatten(1) for a in inputs], 1)

        def loss(at: dict[str, Tensor]) -> Tensor:
            logits = self._run(x, lambda units: at["shifts"][:, units])[0]
            return -((self.labels * logits.log_softmax(1)).sum(1) * self.weights).sum()

        return exact(loss, {"shifts": none})[0]["shifts"]


def in_sequence(network: nn.Module) -> nn.Sequential:
    """The layers of a network one after another: of an ``nn.Sequential``, or of a :class:`Conv4` with an output layer.

    Raises:
        ValueError: for another network.
    """
    if isinstance(network, nn.Sequential):
        return nn.Sequential(*(part for layer in network for part in _parts(layer)))
    if isinstance(network, Conv4) and network.readout != "maps":
        mean = [nn.AdaptiveAvgPool2d(1)] if network.readout == "mean" else []
        return nn.Sequential(*network.blocks, *mean, nn.Flatten(), network.head)
    raise ValueError(
        f"ConditionallyShifted: {type(network).__name__} is not known to run layer by layer; give an nn.Sequential."
    )


def _parts(layer: nn.Module) -> list[nn.Module]:
    return [*in_sequence(layer)] if isinstance(layer, nn.Sequential | Conv4) else [layer]
