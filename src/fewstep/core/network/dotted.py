"""Tensors under dotted names, which ``named_parameters``, checkpoints and errors then show as they are."""

from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn


def register(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module tensors under dotted names, in modules made on the way: parameters, and others as buffers."""
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        part = module
        for step in path:
            if step not in dict(part.named_children()):
                part.add_module(step, nn.Module())
            part = part.get_submodule(step)
        if isinstance(tensor, nn.Parameter):
            part.register_parameter(leaf, tensor)
        else:
            part.register_buffer(leaf, tensor)


def get(module: nn.Module, name: str) -> Tensor:
    """The tensor of that dotted name, or what ``torch.func.functional_call`` has put in its place."""
    found: Tensor = reduce(getattr, name.split("."), module)  # type: ignore[assignment]
    return found
