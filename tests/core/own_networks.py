"""Networks as users bring them, by the layer that makes them special."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from fewstep.core import Batch, Task


class Sequences(nn.Module):
    """Rows of eight numbers as four positions of two, through ``layer``, and a class of what is at the last."""

    def __init__(self, layer: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x.view(len(x), 4, 2))
        return self.last((out[0] if isinstance(out, tuple) else out)[:, -1])


class Attention(nn.Module):
    """Rows of eight numbers as four positions of two, which ``attend`` to one another."""

    def __init__(self, attend: Callable[..., Any], width: int, itself: bool = False) -> None:
        super().__init__()
        self.first, self.attend, self.last = nn.Linear(2, width), attend, nn.Linear(8, 3)
        self.itself = itself

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.view(len(x), 4, 2))
        h = self.attend(h, h, h, need_weights=False)[0] if self.itself else self.attend(h)
        return self.last(h.mean(1))


def of_thirds(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*x.chunk(3, -1), is_causal=True)


class Functional(nn.Module):
    """Norms that no module announces."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gain, self.last = nn.Linear(8, 8), nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(self.first(x), (8,), self.gain)
        return self.last(torch.tanh(F.batch_norm(x, None, None, self.gain, training=True)))


class Counting(nn.Module):
    """A buffer that every forward moves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.register_buffer("average", torch.zeros(8))
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        self.average.mul_(0.9).add_(h.mean(0), alpha=0.1)
        self.seen = h
        return self.last(torch.tanh(h + self.average))


class Words(nn.Module):
    """Rows of eight numbers as eight words of five, a bag of them."""

    def __init__(self, bag: nn.Module, offsets: bool = False) -> None:
        super().__init__()
        self.bag, self.last, self.offsets = bag, nn.Linear(4, 3), offsets

    def forward(self, x: Tensor) -> Tensor:
        words = (x.abs() * 3).long().clamp(max=4)
        bags = self.bag(words.flatten(), torch.arange(0, 8 * len(x), 8)) if self.offsets else self.bag(words)
        return self.last(torch.tanh(bags))


class Centres(nn.Module):
    """Distances to centres."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.centres = nn.Linear(8, 4), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.first(x), self.centres)


def dense(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), layer, nn.Tanh(), nn.Linear(8, 3))


def image(layer: nn.Module) -> nn.Module:
    convolution = nn.Conv2d(2, 4, 2, padding=1)
    return nn.Sequential(nn.Unflatten(1, (2, 2, 2)), convolution, layer, nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))


def rows(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (2, 4)), layer, nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))


def reparametrised(wrap: Callable[..., nn.Module], **options: Any) -> nn.Module:
    return nn.Sequential(wrap(nn.Linear(8, 8), **options), nn.Tanh(), nn.Linear(8, 3))


def transformer(dropout: float) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, activation="gelu", batch_first=True)
    return Attention(nn.TransformerEncoder(layer, 1), width=8)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: dense(nn.LayerNorm(8)),
    "RMSNorm": lambda: dense(nn.RMSNorm(8)),
    "GroupNorm": lambda: image(nn.GroupNorm(2, 4)),
    "InstanceNorm1d": lambda: rows(nn.InstanceNorm1d(2)),
    "InstanceNorm1d, tracking": lambda: rows(nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
    "InstanceNorm2d, affine": lambda: image(nn.InstanceNorm2d(4, affine=True)),
    "BatchNorm1d": lambda: dense(nn.BatchNorm1d(8)),
    "BatchNorm1d, not tracking": lambda: dense(nn.BatchNorm1d(8, track_running_stats=False)),
    "BatchNorm1d, in evaluation": lambda: dense(nn.BatchNorm1d(8)).eval(),
    "BatchNorm2d": lambda: image(nn.BatchNorm2d(4)),
    "BatchNorm2d, not tracking": lambda: image(nn.BatchNorm2d(4, track_running_stats=False)),
    "weight_norm": lambda: reparametrised(parametrizations.weight_norm),
    "weight_norm, of the whole": lambda: reparametrised(parametrizations.weight_norm, dim=None),
    "weight_norm, by a hook": lambda: reparametrised(weight_norm),
    "spectral_norm": lambda: reparametrised(parametrizations.spectral_norm),
    "spectral_norm, by a hook": lambda: reparametrised(spectral_norm),
    "orthogonal": lambda: reparametrised(parametrizations.orthogonal),
    "Dropout": lambda: dense(nn.Dropout(0.3)),
    "Dropout2d": lambda: image(nn.Dropout2d(0.3)),
    "AlphaDropout": lambda: dense(nn.AlphaDropout(0.3)),
    "RReLU": lambda: dense(nn.RReLU()),
    "LSTM": lambda: Sequences(nn.LSTM(2, 8, 2, batch_first=True, dropout=0.2)),
    "LSTM, projected, both ways": lambda: Sequences(nn.LSTM(2, 6, batch_first=True, bidirectional=True, proj_size=4)),
    "GRU": lambda: Sequences(nn.GRU(2, 8, batch_first=True)),
    "GRU, both ways, without biases": lambda: Sequences(
        nn.GRU(2, 4, 2, batch_first=True, bidirectional=True, bias=False)
    ),
    "RNN": lambda: Sequences(nn.RNN(2, 8, batch_first=True)),
    "scaled_dot_product_attention": lambda: Attention(of_thirds, 24),
    "MultiheadAttention": lambda: Attention(nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True), 8, itself=True),
    "MultiheadAttention, with more": lambda: Attention(
        nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True), 8, itself=True
    ),
    "TransformerEncoderLayer": lambda: transformer(0.1),
    "EmbeddingBag": lambda: Words(nn.EmbeddingBag(5, 4, padding_idx=1)),
    "EmbeddingBag, of offsets": lambda: Words(nn.EmbeddingBag(5, 4, mode="sum"), offsets=True),
    "cdist": Centres,
    "functions in forward": Functional,
    "a buffer that moves": Counting,
}


def tasks(queries: int = 5) -> Task:
    source = torch.Generator().manual_seed(1)

    def batch(count: int) -> Batch:
        x = torch.randn(2, count, 8, generator=source, dtype=torch.float64)
        labels = torch.randint(3, (2, count), generator=source)
        return Batch(x, torch.eye(3, dtype=torch.float64)[labels], torch.ones(2, count, dtype=torch.float64))

    return Task(batch(6), batch(queries))


def made(name: str) -> nn.Module:
    """A network by its name, in float64 and with the same weights every time."""
    torch.manual_seed(0)
    return NETWORKS[name]().double()
