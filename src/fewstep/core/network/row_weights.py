"""Statistics of a batch in which rows count by weight."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from fewstep.core.network.operations import call
from fewstep.core.types import Params


class RowWeights(nn.Module):
    """Marks a module in which rows see each other, and count by weight: its slot ``row_weight`` ``[rows]``."""


class Normalising(RowWeights):
    """Marks a module that normalises by batch statistics (see ``networks.norms``).

    Its slots: ``row_weight`` ``[rows]``, by which rows enter the statistics; ``mean`` and ``variance``, which take
    their place when filled.
    """

    momentum: float
    """Weight in (0, 1] of the newest statistics in running ones."""

    @abstractmethod
    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch, by row weight."""


def together(network: nn.Module) -> bool:
    """Whether a network answers rows together, by design and not by statistics that other rows could stand in for."""
    return any(isinstance(part, RowWeights) and not isinstance(part, Normalising) for part in network.modules())


def normalises(module: nn.Module) -> bool:
    """Whether a layer goes by the rows it is given: one of ours, or torch's norms, unless their mode is evaluation."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.training or module.running_mean is None
    return isinstance(module, RowWeights)


def row_weights(network: nn.Module, weight: Tensor) -> Params:
    """The ``row_weight`` slots of a network, filled for ``torch.func.functional_call``: padding counts for nothing."""
    parts = ((name, part) for name, part in network.named_modules() if isinstance(part, RowWeights))
    return {f"{name}.row_weight" if name else "row_weight": weight for name, _ in parts}


UNNAMED = "<batch_norm"
"""How the names of statistics begin that belong to the n-th call of torch's ``batch_norm`` instead of to a module."""


def batch_statistics(network: nn.Module, weights: Params, x: Tensor, weight: Tensor) -> dict[str, tuple[Tensor, float]]:
    """The statistics of a network that is run on ``x``: by the name of a slot, and with the momentum of its layer."""
    found: dict[str, tuple[Tensor, float]] = {}
    hooks = []
    for name, part in _normalising(network):

        def keep(_: nn.Module, inputs: tuple[Tensor], __: Tensor, name: str = name, part: Normalising = part) -> None:
            mean, variance = part.statistics(*inputs)
            found[f"{name}.mean"], found[f"{name}.variance"] = (mean, part.momentum), (variance, part.momentum)

        hooks.append(part.register_forward_hook(keep))
    try:
        moments = call(network, {**weights, **row_weights(network, weight)}, x, weight).moments
    finally:
        for hook in hooks:
            hook.remove()
    for i, (mean, variance, momentum, _) in enumerate(moments):
        found[f"{UNNAMED} {i}>.mean"], found[f"{UNNAMED} {i}>.variance"] = (mean, momentum), (variance, momentum)
    return found


def running(before: Params, newest: dict[str, tuple[Tensor, float]]) -> Params:
    """Running statistics: ``s ← (1 − m) s + m s_new``, with each layer's momentum m, from mean 0 and variance 1."""
    result: Params = {}
    for slot, (new, momentum) in newest.items():
        old = before.get(slot, torch.zeros_like(new) if slot.endswith(".mean") else torch.ones_like(new))
        result[slot] = old + momentum * (new - old)
    return result


def unnamed(weights: Params) -> tuple[Params, list[tuple[Tensor, Tensor]] | None]:
    """What a network is called with: its slots by name, and the statistics of calls in their order."""
    named = {name: tensor for name, tensor in weights.items() if not name.startswith(UNNAMED)}
    calls = range((len(weights) - len(named)) // 2)
    pairs = [(weights[f"{UNNAMED} {i}>.mean"], weights[f"{UNNAMED} {i}>.variance"]) for i in calls]
    return named, pairs or None


def _normalising(network: nn.Module) -> list[tuple[str, Normalising]]:
    return [(name, part) for name, part in network.named_modules() if isinstance(part, Normalising)]
