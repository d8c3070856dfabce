"""Layers that read a context: a few numbers of a task that steer a network which is the same for all tasks."""

import torch
from torch import Tensor, nn

from fewstep.core.types import Params


class Contextual(nn.Module):
    """Marks a layer that reads a context: its buffer ``context`` ``[width]``, zeros until a task moves them.

    :class:`~fewstep.core.Zeros` is the start that adapts nothing else, :class:`~fewstep.core.Encoded` one that makes it
    of the support. Each such layer has a context of its own.

    Args:
        width: how many numbers.

    Raises:
        ValueError: for no numbers.

    Example:
        >>> class Shifted(Contextual):  # as if the inputs lay elsewhere
        ...     def forward(self, x):
        ...         return x + self.context
        >>> learner = Learner(nn.Sequential(Shifted(8), nn.Linear(8, 3)), Zeros(), [Descend(SGD(0.1), 5)])
        >>> Method(learner, Backprop()).objective(clusters, None).objective.backward()
    """

    context: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"{type(self).__name__}: a context has one number or more, got {width}.")
        self.register_buffer("context", torch.zeros(width), persistent=False)


def contexts(network: nn.Module) -> Params:
    """The contexts of a network, by the names of their buffers.

    Raises:
        ValueError: when it has none.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, Contextual)]
    if not layers:
        raise ValueError(
            f"{type(network).__name__}: its context is to be adapted, so it must have a Contextual layer, but found "
            "none. Make it with a context, as mlp and Conv4 take, or put in fewstep.networks.Concatenated(width)."
        )
    return {f"{name}.context".lstrip("."): layer.context for name, layer in layers}
