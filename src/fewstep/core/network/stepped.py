"""Layers that differ from one inner step to the next."""

from torch import Tensor, nn

from fewstep.core.types import Params


class Stepped(nn.Module):
    """Marks a layer that differs between inner steps: its slot ``step`` is the number of the step, from 0.

    A support's loss is that of the step which is taken on it; a query sees what the last step saw. Not filled: 0.
    """

    step: Tensor | None


def at_step(network: nn.Module, step: int, like: Tensor) -> Params:
    """The ``step`` slots of a network, filled; empty where no layer has one."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, Stepped)]
    return {f"{name}.step".lstrip("."): like.new_full((), step) for name in layers}
