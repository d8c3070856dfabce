"""A recurrent network that forecasts a series."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@final
class Forecaster(nn.Module):
    """An Elman network that reads the values it is given, and then its own forecasts.

    ``h_t = tanh(W_x s_t + W_h h_{t−1} + b)``, ``ŝ_{t+1} = v·h_t + c``, ``h_0 = 0``

    After the last value seen, ``s_t`` is ``ŝ_t``. Gradients go through the whole rollout: a weight answers for what its
    first forecasts did to the later ones. Weights are drawn as Glorot's normals, by torch's global generator; b and c
    begin at 0. Linear maps are all there is, since ``nn.RNN``, ``nn.GRU`` and ``nn.LSTMCell`` have no rule for
    ``vmap``.

    Args:
        ahead: values to forecast.
        hidden: units of h.

    Raises:
        ValueError: for a number below one.

    Source: Elman 1990, "Finding structure in time".
    """

    def __init__(self, ahead: int, hidden: int = 20) -> None:
        super().__init__()
        for name, number in (("ahead", ahead), ("hidden", hidden)):
            if number < 1:
                raise ValueError(f"Forecaster: {name} must be at least 1, got {number}.")
        self.ahead = ahead
        self.value = nn.Linear(1, hidden)  # W_x and b
        self.state = nn.Linear(hidden, hidden, bias=False)  # W_h
        self.forecast = nn.Linear(hidden, 1)  # v and c
        for layer in (self.value, self.state, self.forecast):
            nn.init.xavier_normal_(layer.weight)
        for layer in (self.value, self.forecast):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "rows seen"]) -> Float[Tensor, "rows ahead"]:
        """The values that follow those in ``x``, in order of time."""
        first, *later = self.value(x.unsqueeze(-1)).unbind(1)
        h = torch.tanh(first)
        for value in later:
            h = torch.tanh(value + self.state(h))
        # A forecast that is read again is a linear map of h: together W_h + W_x v, and one operation for three.
        weight = self.state.weight + self.value.weight @ self.forecast.weight
        bias = self.value(self.forecast.bias)
        states = [h]
        while len(states) < self.ahead:
            h = torch.tanh(F.linear(h, weight, bias))
            states.append(h)
        forecasts: Tensor = self.forecast(torch.stack(states, dim=1))
        return forecasts.squeeze(-1)
