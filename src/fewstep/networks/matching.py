"""A head that compares a row with every row of the support, by the cosine between them."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import MemoryHead

Vote = Literal["sum", "attention"]
Reads = Literal["hidden", "input"]


class Context(nn.Module):
    """Rows in the light of a whole support: a two-way LSTM over it, and for queries an LSTM that attends to it.

    Support: ``g_i = x_i + h→_i + h←_i``, the hidden states of an LSTM in either direction, in the order of the rows.
    Query: ``ĥ_k, c_k = LSTM(x, [h_{k−1}, r_{k−1}], c_{k−1})``, ``h_k = ĥ_k + x``,
    ``r_k = Σ_i softmax_i(⟨h_k, g_i⟩) g_i``, from zeros; the result is h_K.

    The support is read in order, so that its order matters. Padded rows are passed over.

    Source: Vinyals et al. 2016, sections 2.1.1 and 2.1.2 and appendix A.

    Args:
        features: D, width of a row, and of all states.
        reads: K, how often a query attends.
        form: ``"hidden"``: what was read, r, joins the hidden state (the paper). ``"input"``: it joins the input, the
            first state is ``h_0 = x``, and a query attends before the LSTM rather than after it (the usual programs).
    """

    def __init__(self, features: int, reads: int, form: Reads = "hidden") -> None:
        super().__init__()
        self.reads, self.form = reads, form
        # An LSTM's gates as one linear map of [input, hidden state]: torch's own has no rule for vmap.
        self.forwards, self.backwards = (nn.Linear(2 * features, 4 * features) for _ in range(2))
        self.attending = nn.Linear(3 * features, 4 * features)

    def forward(
        self, x: Float[Tensor, "rows features"], support: Float[Tensor, "k features"], weight: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "k features"]]:
        """Queries and support in context."""
        g = support + self._read(self.forwards, support, weight)
        g = g + self._read(self.backwards, support.flip(0), weight.flip(0)).flip(0)
        hidden, c = x if self.form == "input" else torch.zeros_like(x), torch.zeros_like(x)
        read = _attention(hidden, g, weight) if self.form == "input" else torch.zeros_like(x)
        for k in range(self.reads):
            if k:
                read = _attention(hidden, g, weight)
            hidden, c = _cell(self.attending(torch.cat([x, *self._joined(hidden, read)], 1)), c)
            hidden = hidden + x
        return hidden, g

    def _joined(self, hidden: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        return (hidden, read) if self.form == "hidden" else (read, hidden)

    @staticmethod
    def _read(gates: nn.Linear, rows: Tensor, weight: Tensor) -> Tensor:
        """The hidden states of an LSTM along the rows."""
        h, c, states = torch.zeros_like(rows[0]), torch.zeros_like(rows[0]), []
        for row, there in zip(rows, weight > 0, strict=True):
            h_next, c_next = _cell(gates(torch.cat([row, h])), c)
            h, c = torch.where(there, h_next, h), torch.where(there, c_next, c)
            states.append(h)
        return torch.stack(states)


def _cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _attention(x: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    return attention(x @ rows.T, weight) @ rows


def attention(scores: Float[Tensor, "rows k"], weight: Float[Tensor, " k"]) -> Float[Tensor, "rows k"]:
    """Softmax over rows of a support that count by weight: those of weight zero have no share."""
    return torch.softmax(_weighed(scores, weight), 1)


def _weighed(scores: Tensor, weight: Tensor) -> Tensor:
    """``scores + log weight``; where that is zero, a number far below all scores that depends on nothing."""
    there = weight > 0
    return torch.where(there, scores + torch.where(there, weight, 1.0).log(), -1e4)


@final
class Matching(MemoryHead):
    """Classify by the cosine with each row of the support; rows of a class add up.

    ``"sum"``: ``logit_n = s Σ_i w_i y_in cos(x, x_i)``.
    ``"attention"``: ``logit_n = log Σ_i a_i y_in`` with ``a_i ∝ w_i exp(s cos(x, x_i))``. For one row a class the two
    are one up to a number that is the same for all classes.

    Slots: see :class:`~fewstep.core.MemoryHead`. Class n of row i is ``y_in``, its weight w_i.

    Args:
        vote: how rows become classes.
        scale: the initial s, which is meta-learned as its logarithm; None: it stays 1.
        context: rows are seen in that of the support first.
        eps: of lengths, ``√(‖x‖² + ε)``.
    """

    def __init__(
        self, vote: Vote = "sum", scale: float | None = None, context: Context | None = None, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.vote, self.context, self.eps = vote, context, eps
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(scale).log())

    def attend(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows ways"]:
        """Sums of cosines by class, or logarithms of the classes' shares of attention."""
        support = self.remembered
        if self.context is not None:
            x, support = self.context(x, support, self.weights)
        cosines = self._unit(x) @ self._unit(support).T
        if self.log_scale is not None:
            cosines = self.log_scale.exp() * cosines
        members = self.labels * self.weights.unsqueeze(1)
        if self.vote == "sum":
            return cosines @ members
        of_classes = torch.logsumexp(_weighed(cosines.unsqueeze(2), members), 1)
        return of_classes - torch.logsumexp(_weighed(cosines, self.weights), 1, keepdim=True)

    def _unit(self, x: Tensor) -> Tensor:
        return x * (x.square().sum(1, keepdim=True) + self.eps).rsqrt()
