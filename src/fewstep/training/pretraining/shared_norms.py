"""Batch normalisation of a batch that several processes share out: by the statistics of all of its rows."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.ranks import Ranks
from fewstep.networks.norms import BatchNorm


class _Sum(torch.autograd.Function):
    """A sum over processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, here: Tensor) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum([here])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, ctx.ranks.sum(gradients)[0]


class _SharedTorchNorm(nn.BatchNorm2d):
    """torch's, with the same weights and running statistics."""

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks, rows: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.ranks, self.rows = ranks, rows

    def forward(self, input: Float[Tensor, "rows channels height width"]) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        x = input.to(self.running_mean.dtype)  # under autocast too
        count = self.rows * x.shape[2] * x.shape[3]
        mean = self._over_all(x) / count
        centred = x - mean[:, None, None]
        variance = self._over_all(centred.square()) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        gain = (variance + self.eps).rsqrt() * self.weight
        return (centred * gain[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _over_all(self, x: Tensor) -> Float[Tensor, " channels"]:
        total: Tensor = _Sum.apply(self.ranks, x.sum((0, 2, 3)))
        return total


class _SharedNorm(BatchNorm):
    """Ours."""

    def __init__(self, norm: BatchNorm, ranks: Ranks, rows: int) -> None:
        super().__init__(len(norm.bias), norm.eps, norm.weight is not None, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.ranks, self.rows = ranks, rows

    def _over_rows(self, rows: Float[Tensor, "rows channels"]) -> Float[Tensor, " channels"]:
        if not self.training:
            return super()._over_rows(rows)
        total: Tensor = _Sum.apply(self.ranks, rows.sum(0))
        return total / self.rows


def share_statistics(network: nn.Module, ranks: Ranks, rows: int) -> None:
    """Let a network's batch normalisation see all rows of a batch in training, wherever they are.

    Args:
        network: is changed; its weights and statistics are the same tensors under the same names.
        ranks: the processes that share a batch out.
        rows: of a whole batch.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _SharedTorchNorm(child, ranks, rows))
            elif isinstance(child, BatchNorm):
                setattr(module, name, _SharedNorm(child, ranks, rows))
