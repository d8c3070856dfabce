"""A head that spreads the support's labels over a graph of support and query rows, in closed form."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.core.network.heads import JointHead
from fewstep.core.network.row_weights import row_weights
from fewstep.networks.norms import BatchNorm


@final
class Propagating(JointHead):
    """Classify by labels that spread over a graph of nearest neighbours: ``F = (I − αS)⁻¹ Y``, logits F.

    ``W_ij = exp(−½ mean_d (z_i/σ_i − z_j/σ_j)²)`` over the embedded rows z of support and query, where j is among the
    k nearest of i or i among those of j, each row its own first; ``S = D^−½ W D^−½``, D the sums of W; Y the labels of
    the support, zero for queries. Of rows that are equally far, all are neighbours.

    Slots: see :class:`~fewstep.core.network.heads.JointHead`. A row's weight multiplies its label; rows of weight zero
    are no part of the graph.

    Args:
        width: from embedded rows to their σ ``[rows, 1]``, of any sign; support and query pass it apart, so that its
            norms have the statistics of either. None: σ = 1.
        neighbours: k.
        alpha: α in [0, 1), how far labels spread.
    """

    def __init__(self, width: nn.Module | None = None, neighbours: int = 20, alpha: float = 0.99) -> None:
        super().__init__()
        self.width, self.neighbours, self.alpha = width, neighbours, alpha

    def attend_all(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "all_rows ways"]:
        """What reaches every row of the support, then every query."""
        weight = x.new_ones(len(x)) if self.row_weight is None else self.row_weight
        rows = torch.cat([self._scaled(self.remembered, self.weights), self._scaled(x, weight)])
        there = torch.cat([self.weights, weight]) > 0
        edges = self._edges(rows, there)
        degrees = torch.where(there, edges.sum(0), 1.0)
        gains = degrees.rsqrt()
        system = torch.eye(len(rows), dtype=x.dtype, device=x.device) - self.alpha * gains * edges * gains.unsqueeze(1)
        labels = torch.cat([self.labels * self.weights.unsqueeze(1), x.new_zeros(len(x), self.labels.shape[1])])
        found: Tensor = torch.linalg.solve(system, labels)
        return found

    def _scaled(self, rows: Tensor, weight: Tensor) -> Tensor:
        """``z/σ``."""
        if self.width is None:
            return rows
        width: Tensor = functional_call(self.width, row_weights(self.width, weight), (rows,))
        return rows / (width + 2e-16)

    def _edges(self, rows: Tensor, there: Tensor) -> Tensor:
        squares = rows.square().mean(1)
        distances = squares + squares.unsqueeze(1) - 2 / rows.shape[1] * rows @ rows.T
        edges = (-0.5 * distances).exp() * there * there.unsqueeze(1)
        nearest = torch.topk(edges.detach(), min(self.neighbours, len(rows))).values[:, -1:]
        near = edges.detach() >= nearest
        return edges * (near | near.T)


def width_of_vectors(features: int, hidden: int = 64, begins: float = 0.3) -> nn.Sequential:
    """σ of vectors: a layer of ``hidden`` units with batch normalisation, one of eight, and σ; ours.

    Args:
        features: of a vector.
        hidden: units of the first layer.
        begins: about what σ is for all rows at first. Where it is far above the distances between rows, all are equally
            near and nothing is learned; where it is about zero, rows lie far from all others.
    """
    last = nn.Linear(8, 1)
    nn.init.normal_(last.weight, std=0.1 * begins)
    nn.init.constant_(last.bias, begins)
    layers = [nn.Linear(features, hidden), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, 8), nn.ReLU()]
    return nn.Sequential(*layers, last)


def width_of_maps(channels: int, side: int) -> nn.Sequential:
    """σ of flattened maps, as published: two blocks of convolution, normalisation, ReLU and pool; eight units; σ.

    Args:
        channels: of a map.
        side: of a map; an odd row or column is kept by the pools.
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, side, side))]
    for outputs in (channels, 1):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), BatchNorm(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(side**2, 8), nn.ReLU(), nn.Linear(8, 1))
