"""Slots: places of parameters that a network gives up, filled anew for every task."""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn

from fewstep.core.network.choice import Choice, chooses


class Slot(NamedTuple):
    """The place of one generated parameter, and the scale of what belongs in it.

    Attributes:
        shape: of the parameter.
        centre: what an average network has there: 1 for the gain of a norm, 0 for nearly everything else.
        deviation: how far the entries of a fresh network lie from ``centre``.

    Example:
        >>> slot = slots(mlp((1, 40, 1)))["0.weight"]
        >>> slot.shape, slot.centre, round(slot.deviation, 3)  # Glorot's deviation: √(2/(1 + 40))
        (torch.Size([40, 1]), 0.0, 0.221)
    """

    shape: torch.Size
    centre: float = 0.0
    deviation: float = 1.0


NORM_DEVIATION = 0.1
"""Of the gains and shifts of a layer without matrices: they multiply what is normalised already."""


def slots(network: nn.Module, generated: Choice | None = None) -> dict[str, Slot]:
    """Turn parameters of a network into slots, in place: buffers that hold nothing and are not saved.

    What was a parameter is no longer one: no optimiser sees it, ``state_dict`` does not list it, and the network runs
    only where its slots are filled (``torch.func.functional_call`` under the parameter's name). All other parameters
    stay as they are.

    The deviation is Glorot's, ``√(2/(fan_in + fan_out))``. (He's would keep activations from shrinking, but makes a
    network of one input so steep that inner steps diverge.) The biases of a layer count as the weights of an input that
    is 1 and have the deviation of its matrix, the smallest where there are several. Their centre is 0. Gains and
    shifts of a layer without a matrix have 0.1; where their entries are all equal, such as the ones of a norm, they
    keep that number for their centre.

    Args:
        network: what is changed.
        generated: which parameters, as a predicate on their names or as the names; all of them when omitted.

    Returns:
        A slot for each, in the order of ``named_parameters``. Other centres and deviations: ``slot._replace``.

    Raises:
        ValueError: for names that the network does not have, when nothing is chosen, or when a chosen parameter has
            several names (tied weights).

    Example:
        >>> network = mlp((1, 40, 1))
        >>> sorted(slots(network, lambda name: name.startswith("2.")))  # the last layer is to be generated
        ['2.bias', '2.weight']
        >>> [name for name, _ in network.named_parameters()]  # what is still learned as usual
        ['0.weight', '0.bias']
    """
    own = dict(network.named_parameters(remove_duplicate=False))
    if isinstance(generated, Collection):
        unknown = sorted(set(generated) - set(own))
        if unknown:
            raise ValueError(
                f"slots: the network has no parameters named {', '.join(unknown)}; it has {', '.join(own) or 'none'}."
            )
    chosen = [name for name in own if chooses(generated, name)]
    if not chosen:
        raise ValueError(f"slots: `generated` selects none of the network's parameters ({', '.join(own) or 'none'}).")
    for name in chosen:
        tied = [other for other, parameter in own.items() if parameter is own[name]]
        if len(tied) > 1:
            raise ValueError(f"slots: {' and '.join(tied)} are one parameter, which cannot be generated; untie them.")
    made = {name: _slot(network, name) for name in chosen}
    for name in chosen:
        module, leaf = _place(network, name)
        del module._parameters[leaf]
        module.register_buffer(leaf, None, persistent=False)
    return made


def require_slots(network: nn.Module, names: Collection[str]) -> None:
    """Refuse a network that is not the one whose parameters were turned into these slots.

    Raises:
        ValueError: when one of the names is no slot of the network.
    """
    modules = dict(network.named_modules())
    for name in names:
        path, _, leaf = name.rpartition(".")
        if path not in modules or leaf not in modules[path]._buffers:
            raise ValueError(
                f"The start generates {name}, which is no slot of the network: give the learner a network that has "
                "it, with a Generated head, or the one that `slots` was called with."
            )


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def _slot(network: nn.Module, name: str) -> Slot:
    module, _ = _place(network, name)
    parameter = network.get_parameter(name)
    layer = [parameter] if parameter.dim() > 1 else list(module.parameters(recurse=False))
    fans = [(m.shape[0] + m.shape[1]) * math.prod(m.shape[2:]) for m in layer if m.dim() > 1]  # in + out
    if fans:
        return Slot(parameter.shape, 0.0, math.sqrt(2 / max(fans)))
    first = parameter.flatten()[0]
    return Slot(parameter.shape, first.item() if bool((parameter == first).all()) else 0.0, NORM_DEVIATION)
