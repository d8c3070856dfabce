"""A head that reads the support as a sequence, by causal convolutions and attention, and each query as its end."""

import math
from abc import abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import MemoryHead


class Layer(nn.Module):
    """A causal layer: what it does to the columns of the support, and to queries that stand behind all of these.

    No column sees a later one, so that the support's are computed once for all queries. ``there`` ``[k]`` tells rows of
    the support from padding, which lies in front and is zero.
    """

    @abstractmethod
    def support(self, s: Float[Tensor, "k channels"], there: Tensor) -> Float[Tensor, "k outputs"]:
        """The support's columns, with new channels behind theirs."""

    @abstractmethod
    def queries(
        self, q: Float[Tensor, "rows channels"], s: Float[Tensor, "k channels"], there: Tensor
    ) -> Float[Tensor, "rows outputs"]:
        """The queries' columns, each the last of a sequence of its own."""


@final
class Dense(Layer):
    """``[x_t, tanh(f_t) σ(g_t)]``, f and g convolutions of the columns t and t − lag: ``K₀ x_{t−R} + K₁ x_t + b``.

    Args:
        channels: of x.
        filters: of f and of g.
        lag: R.
        reached: whether there are columns R apart. Otherwise K₀ meets only the zeros before the sequence, and is left
            out.
    """

    def __init__(self, channels: int, filters: int, lag: int, reached: bool = True) -> None:
        super().__init__()
        self.lag = lag
        self.now = nn.Linear(channels, 2 * filters)
        self.past = nn.Linear(channels, 2 * filters, bias=False) if reached else None
        bound = (2 * channels) ** -0.5  # torch's for one convolution of both
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def support(self, s: Float[Tensor, "k channels"], there: Tensor) -> Float[Tensor, "k outputs"]:
        """Each column beside that of a lag before."""
        z = self.now(s)
        if self.past is not None and self.lag < len(s):
            z = z + nn.functional.pad(self.past(s[: -self.lag]), (0, 0, self.lag, 0))
        return self._appended(s, z)

    def queries(
        self, q: Float[Tensor, "rows channels"], s: Float[Tensor, "k channels"], there: Tensor
    ) -> Float[Tensor, "rows outputs"]:
        """All beside the same column of the support."""
        z = self.now(q)
        if self.past is not None and self.lag <= len(s):
            z = z + self.past(s[len(s) - self.lag])
        return self._appended(q, z)

    @staticmethod
    def _appended(x: Tensor, z: Tensor) -> Tensor:
        f, g = z.chunk(2, 1)
        return torch.cat([x, f.tanh() * g.sigmoid()], 1)


@final
class Attention(Layer):
    """``[x_t, Σ_{u ≤ t} a_tu v_u]``, ``a_t = softmax_u(⟨q_t, k_u⟩/√K)``, with affine q, k and v of the columns.

    Args:
        channels: of x.
        keys: K, of q and k.
        values: of v.
    """

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(channels, keys), nn.Linear(channels, keys)
        self.value, self.gain = nn.Linear(channels, values), keys**-0.5

    def support(self, s: Float[Tensor, "k channels"], there: Tensor) -> Float[Tensor, "k outputs"]:
        """Each column reads itself and those before."""
        every = torch.ones(len(s), len(s), dtype=torch.bool, device=s.device)
        # Padding sees itself, for a softmax over nothing is NaN; what it reads is put back to zero.
        allowed = every.tril() & (there | ~every.tril(-1))
        scores = torch.where(allowed, self.gain * self.query(s) @ self.key(s).T, -torch.inf)
        return torch.cat([s, scores.softmax(1) @ self.value(s)], 1)

    def queries(
        self, q: Float[Tensor, "rows channels"], s: Float[Tensor, "k channels"], there: Tensor
    ) -> Float[Tensor, "rows outputs"]:
        """Each reads the support and itself."""
        asked = self.gain * self.query(q)
        of_support = torch.where(there, asked @ self.key(s).T, -torch.inf)
        weights = torch.cat([of_support, (asked * self.key(q)).sum(1, keepdim=True)], 1).softmax(1)
        return torch.cat([q, weights[:, :-1] @ self.value(s) + weights[:, -1:] * self.value(q)], 1)


@final
class Snail(MemoryHead):
    """Classify by reading the support in its order, labels beside rows, and then the query, whose label is zero.

    ``Attention(D/2, D/4), TC(D), Attention(2D, D), TC(D), Attention(4D, 2D)``, and a linear layer on the last column;
    TC(D) is a :class:`Dense` layer for each lag ``first · 2^i``, ``i < log₂ T``. It has the output of every class to
    learn, so that the number of ways is fixed.

    Slots: see :class:`~fewstep.core.MemoryHead`. A row's weight multiplies its label; padding acts like absence.

    Args:
        features: width of a row.
        ways: number of classes.
        shots: most examples of a class that depth is enough for: ``T = ways · shots + 1``.
        filters: D.
        first: the first lag.
    """

    def __init__(self, features: int, ways: int, shots: int = 5, filters: int = 128, first: int = 2) -> None:
        super().__init__()
        self.ways, length, channels = ways, ways * shots + 1, features + ways
        layers: list[Layer] = []
        for keys, values in ((filters / 2, filters / 4), (2 * filters, filters), (4 * filters, 2 * filters)):
            for i in range(math.ceil(math.log2(length)) if layers else 0):
                layers.append(Dense(channels, filters, lag := first * 2**i, reached=lag < length))
                channels += filters
            layers.append(Attention(channels, math.ceil(keys), math.ceil(values)))
            channels += math.ceil(values)
        self.layers, self.last = nn.ModuleList(layers), nn.Linear(channels, ways)

    def attend(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows ways"]:
        """Logits of the last column.

        Raises:
            ValueError: for another number of classes than it was made for.
        """
        ways = self.labels.shape[1]
        if ways != self.ways:
            raise ValueError(
                f"Snail: it was made for {self.ways} ways, and cannot answer for {ways}: give {self.ways}."
            )
        order = torch.argsort((self.weights > 0).to(torch.int8), stable=True)  # padding first
        there = self.weights[order] > 0
        labelled = torch.cat([self.remembered, self.labels * self.weights.unsqueeze(1)], 1)
        s, q = labelled[order] * there.unsqueeze(1), torch.cat([x, x.new_zeros(len(x), ways)], 1)
        *before, last = self.layers
        for layer in before:
            assert isinstance(layer, Layer)
            s, q = layer.support(s, there) * there.unsqueeze(1), layer.queries(q, s, there)
        assert isinstance(last, Layer)
        logits: Tensor = self.last(last.queries(q, s, there))
        return logits
