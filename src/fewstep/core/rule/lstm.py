"""A recurrent meta-learner as the rule: gates decide what a weight keeps, and how much of its gradient it takes."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.types import Params

P = 10.0
"""p of the preprocessing: magnitudes from e^−p upwards are told apart by their logarithm."""


class Memory(NamedTuple):
    """What the rule remembers of one task; the coordinates of all adapted tensors follow one another.

    Attributes:
        hidden: h, the output of the first layer.
        cell: the cell of the first layer.
        gates: f and i of the last step, as they are fed back.
    """

    hidden: Float[Tensor, "coordinates hidden"]
    cell: Float[Tensor, "coordinates hidden"]
    gates: Float[Tensor, "coordinates 2"]


class LSTM(Rule):
    """An LSTM as the rule: its cell is the weights (Ravi and Larochelle 2017).

    ``θ_t = σ(f_t) ∘ θ_{t−1} − σ(i_t) ∘ g_t``: gates decide what a weight keeps, and how much of its gradient it takes.

    For every coordinate of every adapted tensor on its own, all by the same meta-learned weights,

    ``h_t = LSTM([pre(L_t), pre(g_t)])``, ``f_t = W_F [h_t, θ_{t−1}, f_{t−1}] + b_F``,
    ``i_t = W_I [h_t, θ_{t−1}, i_{t−1}] + b_I``,

    with g the gradient of the inner loss L, and ``pre`` of :func:`preprocess`. The paper learns the cell's initial
    state: that is the start, θ_0. Everything is differentiable; the authors take g and L as constants, which is the
    estimator's choice (:class:`~fewstep.core.FirstOrder`).

    Weights are drawn from U(−0.01, 0.01), b_F from U(4, 5) and b_I from U(−5, −4), by torch's global generator: at
    first a step keeps about 0.99 of a weight and takes about 0.01 of its gradient.

    Args:
        hidden: units of the first layer.
        feedback: what f_{t−1} and i_{t−1} are: the gates ``"before"`` their sigmoid, as in the authors' code, or
            ``"after"`` it, as the equations read where σ is part of a gate. Both begin at 0.
        gradient_scale: g is multiplied by this, > 0, before anything else. The authors' code divides the gradient of
            the support's *mean* loss by the number of support rows once more: 1/25 with 25 rows.

    Raises:
        ValueError: for fewer than one unit, an unknown ``feedback``, or a scale that is not positive.

    Example:
        >>> rule = LSTM(hidden=4)
        >>> method = Method(Learner(mlp((1, 40, 1)), Shared(), [Descend(rule, 5)], loss=regression()), FirstOrder())
        >>> sum(p.numel() for p in rule.parameters())  # shared by all coordinates of the network
        158
    """

    def __init__(
        self, hidden: int = 20, feedback: Literal["before", "after"] = "before", gradient_scale: float = 1.0
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"LSTM: hidden must be one unit or more, got {hidden}.")
        if feedback not in ("before", "after"):
            raise ValueError(f'LSTM: feedback is "before" or "after" the sigmoid, got {feedback!r}.')
        if not 0 < gradient_scale < math.inf:
            raise ValueError(f"LSTM: gradient_scale must be positive and finite, got {gradient_scale}.")
        self.hidden, self.feedback, self.gradient_scale = hidden, feedback, gradient_scale
        # One linear map makes all gates: nn.LSTMCell has no vmap rule. Rows: input, forget and output gate, candidate.
        self.layer = nn.Linear(4 + hidden, 4 * hidden)
        # Rows: W_F and W_I. Their last columns belong to each gate's own past.
        self.gates = nn.Linear(hidden + 2, 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        nn.init.uniform_(self.gates.bias[:1], 4, 5)
        nn.init.uniform_(self.gates.bias[1:], -5, -4)

    def init(self, value: Params, noise: Noise = None) -> Memory:
        """Zeros."""
        count, like = sum(tensor.numel() for tensor in value.values()), next(iter(value.values()))
        hidden = like.new_zeros(count, self.hidden)
        return Memory(hidden, hidden.clone(), like.new_zeros(count, 2))

    def update(self, gradient: Params, state: Memory, value: Params, loss: Tensor) -> tuple[Params, Memory]:
        """``(σ(f) − 1) ∘ θ − σ(i) ∘ g``."""
        # The coordinates of all tensors in one batch: one product instead of one for each tensor.
        theta = torch.cat([tensor.reshape(-1) for tensor in value.values()])
        g = self.gradient_scale * torch.cat([gradient[name].reshape(-1) for name in value])
        hidden, cell = self.first_layer(preprocess(loss), preprocess(g), state.hidden, state.cell)
        weight = self.gates.weight
        seen = torch.cat([hidden, theta.unsqueeze(1)], dim=1)
        before = F.linear(seen, weight[:, :-1], self.gates.bias) + weight[:, -1] * state.gates
        after = before.sigmoid()
        keep, take = after.unbind(1)
        step = ((keep - 1) * theta - take * g).split([tensor.numel() for tensor in value.values()])
        steps = {name: part.reshape(value[name].shape) for name, part in zip(value, step, strict=True)}
        return steps, Memory(hidden, cell, before if self.feedback == "before" else after)

    def first_layer(
        self,
        loss: Float[Tensor, " 2"],
        gradient: Float[Tensor, "coordinates 2"],
        hidden: Float[Tensor, "coordinates hidden"],
        cell: Float[Tensor, "coordinates hidden"],
    ) -> tuple[Float[Tensor, "coordinates hidden"], Float[Tensor, "coordinates hidden"]]:
        """An ordinary LSTM cell on preprocessed losses and gradients: the next ``hidden`` and ``cell``."""
        seen = torch.cat([loss.expand(len(gradient), 2), gradient, hidden], dim=1)
        raw = self.layer(seen)
        take, keep, show = raw[:, : 3 * self.hidden].sigmoid().chunk(3, dim=1)
        cell = keep * cell + take * raw[:, 3 * self.hidden :].tanh()
        return show * cell.tanh(), cell


def preprocess(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 2"]:
    """Two inputs of ordinary size for a number of any size: ``(log|x|/p, sign x)`` if |x| > e^−p, else ``(−1, e^p x)``.

    Finite everywhere, and so are its derivatives (Andrychowicz et al. 2016, Appendix A; p is 10).
    """
    magnitude = x.abs()
    large = magnitude > math.exp(-P)
    logarithm = torch.where(large, magnitude, 1.0).log() / P  # the branch not taken must have a finite slope too
    return torch.stack([torch.where(large, logarithm, -1.0), torch.where(large, x.sign(), math.exp(P) * x)], dim=-1)
