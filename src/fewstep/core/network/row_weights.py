"""Statistics of a batch in which rows count by weight."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.core.types import Params


class RowWeights(nn.Module):
    """Marks a module that normalises by batch statistics (see ``networks.norms``).

    Its slots: ``row_weight`` ``[rows]``, by which rows enter the statistics; ``mean`` and ``variance``, which take
    their place when filled.
    """

    momentum: float
    """Weight in (0, 1] of the newest statistics in running ones."""

    @abstractmethod
    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch, by row weight."""


def row_weights(network: nn.Module, weight: Tensor) -> Params:
    """The ``row_weight`` slots of a network, filled for ``torch.func.functional_call``: padding counts for nothing."""
    return {f"{name}.row_weight": weight for name, _ in _normalising(network)}


def batch_statistics(network: nn.Module, weights: Params, x: Tensor) -> Params:
    """The ``mean`` and ``variance`` slots of a network that is run on ``x`` with the given weights and slots."""
    found: Params = {}
    hooks = []
    for name, part in _normalising(network):

        def keep(_: nn.Module, inputs: tuple[Tensor], __: Tensor, name: str = name, part: RowWeights = part) -> None:
            found[f"{name}.mean"], found[f"{name}.variance"] = part.statistics(*inputs)

        hooks.append(part.register_forward_hook(keep))
    try:
        functional_call(network, weights, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def running(network: nn.Module, before: Params, newest: Params) -> Params:
    """Running statistics: ``s ← (1 − m) s + m s_new``, with each module's momentum m, from mean 0 and variance 1."""
    momentum = {name: part.momentum for name, part in _normalising(network)}
    result: Params = {}
    for slot, new in newest.items():
        name, kind = slot.rsplit(".", 1)
        old = before.get(slot, torch.zeros_like(new) if kind == "mean" else torch.ones_like(new))
        result[slot] = old + momentum[name] * (new - old)
    return result


def _normalising(network: nn.Module) -> list[tuple[str, RowWeights]]:
    return [(name, part) for name, part in network.named_modules() if isinstance(part, RowWeights)]
