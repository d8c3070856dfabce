"""Layers whose outputs are multiplied by a matrix, which a method may meta-learn without adapting it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TransformedLinear(nn.Linear):
    """``y = T (W x + b)``, computed as ``(T W) x + T b``; see :func:`transformed`."""

    transform: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Of the effective weights."""
        return F.linear(x, *_effective(self))


class TransformedConv2d(nn.Conv2d):
    """``y = T (W * x + b)``, T along channels, computed as ``(T W) * x + T b``; see :func:`transformed`."""

    transform: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Of the effective weights, which costs less than a product at every position."""
        maps: Tensor = self._conv_forward(x, *_effective(self))
        return maps


def _effective(layer: TransformedLinear | TransformedConv2d) -> tuple[Tensor, Tensor | None]:
    weight = (layer.transform @ layer.weight.flatten(1)).view(layer.weight.shape)
    return weight, None if layer.bias is None else layer.transform @ layer.bias


TRANSFORM = "transform"
"""What the matrix is called in its layer."""


def transformed(network: nn.Module) -> nn.Module:
    """Multiply what every linear layer and convolution of a network puts out by a matrix, the identity at first.

    ``y = T (W x + b)``. The network is changed in place: layers keep their names and weights, and have a parameter
    ``transform`` ``[outputs, outputs]`` beside them. Layers that have one already stay as they are.

    Raises:
        ValueError: for a convolution in groups, or without such a layer.
    """
    for name, layer in network.named_modules():
        kind = {nn.Linear: TransformedLinear, nn.Conv2d: TransformedConv2d}.get(type(layer))
        if kind is None:
            continue
        if getattr(layer, "groups", 1) > 1:
            raise ValueError(f"transformed: {name} is a convolution in groups, whose outputs cannot be mixed so.")
        layer.__class__ = kind  # as torch's parametrizations do: names, hooks and weights stay
        layer.register_parameter(TRANSFORM, nn.Parameter(torch.eye(len(layer.weight)).to(layer.weight)))
    if not any(isinstance(layer, TransformedLinear | TransformedConv2d) for layer in network.modules()):
        raise ValueError(f"transformed: {type(network).__name__} has no layer of type nn.Linear or nn.Conv2d.")
    return network
