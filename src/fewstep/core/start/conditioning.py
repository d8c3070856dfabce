"""Layers of a network that a task scales and shifts, channel by channel."""

from collections.abc import Collection, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.choice import Choice
from fewstep.core.types import Params


@final
class Conditioning(nn.Module):
    """What a task does to layers of a network: ``h_l ← γ_l ⊙ h_l + β_l``, with ``γ_l, β_l = g_l(c̄)``.

    ``c̄ = mean_n c_n``, the mean of the class means of embedded rows; a class without real rows has its mean at the
    origin. A layer that ends with ``w ⊙ x + b``, or ``W x + b``, does so with ``γ ⊙ w`` and ``γ ⊙ b + β`` in place of
    its own parameters: the network itself knows of nothing.

    Args:
        layers: g_l by the name of the layer, a module in the network: from c̄ ``[features]`` to γ and β, ``[2,
            channels]``. On which there are see :func:`conditioned_layers`.

    Example:
        >>> from fewstep.networks.conditioning import Modulator
        >>> network = mlp((8, 16))  # a linear layer, with the name "0"
        >>> start = Memory(conditioning=Conditioning({"0": Modulator(features=16, channels=16)}))
        >>> method = Method(Learner(nn.Sequential(network, Matching()), start, []), Backprop())
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(layers)
        self.layers: Sequence[nn.Module] = nn.ModuleList(layers.values())  # type: ignore[assignment]

    def forward(
        self,
        network: nn.Module,
        rows: Float[Tensor, "rows features"],
        labels: Float[Tensor, "rows ways"],
        weights: Float[Tensor, " rows"],
    ) -> Params:
        """Parameters of ``network`` that take the place of its own, for embedded rows of a support."""
        members = labels.T * weights
        means = members @ rows / members.sum(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        task, found = means.mean(0), {}
        for name, made in zip(self.names, self.layers, strict=True):
            gain, shift = made(task)
            layer = network.get_submodule(name)
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            found[f"{name}.weight"] = gain.view(-1, *(1,) * (weight.dim() - 1)) * weight
            found[f"{name}.bias"] = gain * bias + shift
        return found


def conditioned_layers(network: nn.Module, choice: Choice | None = None) -> dict[str, int]:
    """Layers of a network that can be conditioned, with their channels: its norms, or all where it has none.

    Args:
        network: whose layers.
        choice: which of them, by a predicate on names or by names; all when omitted.

    Raises:
        ValueError: when there is none, or norms have no scale of their own.

    Example:
        >>> conditioned_layers(mlp((8, 16, 4), norm=True))
        {'1': 16}
    """
    norms, others = {}, {}
    for name, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if "bias" not in own or own["bias"].dim() != 1 or not _chooses(choice, name):
            continue
        if "weight" not in own or own["weight"].dim() == 1:
            norms[name] = len(own["bias"]) if "weight" in own else 0
        elif len(own["weight"]) == len(own["bias"]):
            others[name] = len(own["bias"])
    found = norms or others
    if not found or not all(found.values()):
        why = "its norms shift without a scale: make them with scale=True" if found else "it has no layer with a bias"
        raise ValueError(f"{type(network).__name__}: a task is to scale and shift its layers, but {why}.")
    return found


def _chooses(choice: Choice | None, name: str) -> bool:
    if choice is None:
        return True
    return name in choice if isinstance(choice, Collection) else choice(name)
