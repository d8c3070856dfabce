"""A head that scores a row beside each class by a network that is learned; and the networks that were published."""

import math
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import MemoryHead
from fewstep.networks.norms import BatchNorm


@final
class Relating(MemoryHead):
    """Classify by a learned score of pairs: ``logit_n = g([c_n, x])``, ``c_n = Σ_k w_k y_kn x_k`` or the mean.

    Slots: see :class:`~fewstep.core.MemoryHead`; rows are vectors or feature maps.

    Args:
        module: g, from pairs ``[rows, 2·channels, ways, *space]``, the class first, to one number for each class: its
            norms then count a row's pairs as the row. See :func:`of_vectors` and :func:`of_maps`. Where its first layer
            is a convolution that looks at one pair at a time, ``W [c, x] + b`` is computed as ``W_c c + W_x x + b``:
            classes and rows go through it once, and not once for each pair.
        reduce: how rows of a class become one.
    """

    def __init__(self, module: nn.Module, reduce: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.module, self.reduce = module, reduce

    def attend(self, x: Float[Tensor, "rows channels *space"]) -> Float[Tensor, "rows ways"]:
        """A score of every row beside every class."""
        members = self.labels.T * self.weights
        if self.reduce == "mean":
            members = members / members.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        classes = (members @ self.remembered.flatten(1)).unflatten(1, x.shape[1:])  # [ways, channels, *space]
        layers = list(self.module) if type(self.module) is nn.Sequential else [self.module]
        if layers and _sees_one_pair(layers[0]):
            found = _of_pairs(layers.pop(0), classes, x)
        else:
            shape = (len(x), len(classes), *x.shape[1:])
            pairs = torch.cat([classes.unsqueeze(0).expand(shape), x.unsqueeze(1).expand(shape)], 2)
            found = pairs.transpose(1, 2)
        for layer in layers:
            found = layer(found)
        return found.flatten(1)


def _sees_one_pair(layer: nn.Module) -> bool:
    """Whether it is a convolution of pairs, each by itself, and nothing but that."""
    if type(layer) is not nn.Conv1d and type(layer) is not nn.Conv3d:
        return False
    if layer._forward_pre_hooks or layer._forward_hooks:  # such as those of weight_norm, which make its weight
        return False
    one = layer.kernel_size[0] == layer.stride[0] == layer.groups == 1
    return one and layer.padding_mode == "zeros" and layer.padding not in ("same", "valid") and layer.padding[0] == 0


def _of_pairs(
    layer: nn.Module, classes: Float[Tensor, "ways channels *space"], x: Float[Tensor, "rows channels *space"]
) -> Float[Tensor, "rows hidden ways *made"]:
    """Such a convolution of all pairs, without them."""
    assert isinstance(layer, nn.Conv1d | nn.Conv3d)
    of_class, of_row = layer.weight.squeeze(2).chunk(2, 1)
    if isinstance(layer, nn.Conv1d):
        left, right = F.linear(classes, of_class), F.linear(x, of_row, layer.bias)
    else:
        how: dict[str, Any] = {name: getattr(layer, name)[1:] for name in ("stride", "padding", "dilation")}
        left, right = F.conv2d(classes, of_class, **how), F.conv2d(x, of_row, layer.bias, **how)
    return right.unsqueeze(2) + left.transpose(0, 1)


def of_vectors(features: int, hidden: int = 64) -> nn.Sequential:
    """g for vectors: a layer of ``hidden`` units with batch normalisation, one of eight, and the score; ours."""
    layers = [nn.Conv1d(2 * features, hidden, 1), BatchNorm(hidden), nn.ReLU(), nn.Conv1d(hidden, 8, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(8, 1, 1))


def of_maps(channels: int, side: int, hidden: int = 64, padding: int | None = None) -> nn.Sequential:
    """g for maps, as published: two blocks of convolution, normalisation, ReLU and pool; eight units; the score.

    Args:
        channels: of a map.
        side: of a map.
        hidden: channels of the blocks.
        padding: of their convolutions. None: none, where maps are large enough for that, else 1.

    Raises:
        ValueError: for maps that two pools leave nothing of.
    """
    padding = (0 if side >= 10 else 1) if padding is None else padding
    layers: list[nn.Module] = []
    for width in (2 * channels, hidden):
        convolution = nn.Conv3d(width, hidden, (1, 3, 3), padding=(0, padding, padding))
        layers += [convolution, BatchNorm(hidden), nn.ReLU(), nn.MaxPool3d((1, 2, 2))]
        side = (side + 2 * padding - 2) // 2
    if side < 1:
        raise ValueError("Relating: two blocks that halve them leave nothing of so small maps; have larger ones.")
    layers += [nn.Conv3d(hidden, 8, (1, side, side)), nn.ReLU(), nn.Conv3d(8, 1, 1)]
    return _initialised(nn.Sequential(*layers))


def encoder(inputs: int = 1, channels: int = 64) -> nn.Sequential:
    """Feature maps as published: four blocks of convolution, normalisation and ReLU, the first two without padding.

    Those two end with a pool, so that 28 pixels become maps of 5×5, and 84 of 19×19.

    Args:
        inputs: channels of the images.
        channels: of the maps.
    """
    layers: list[nn.Module] = []
    for block in range(4):
        first = block < 2
        layers += [nn.Conv2d(channels if block else inputs, channels, 3, padding=0 if first else 1)]
        layers += [BatchNorm(channels), nn.ReLU(), *([nn.MaxPool2d(2)] if first else [])]
    return _initialised(nn.Sequential(*layers))


def _initialised(network: nn.Sequential) -> nn.Sequential:
    """Convolutions by He's deviation of what leaves them; the last layers near zero, with biases of 1."""
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            spread = layer.kernel_size[-2:] == (3, 3)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (9 * layer.out_channels)) if spread else 0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.0 if spread else 1.0)
    return network
