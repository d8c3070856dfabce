"""Parameters under dotted names, which ``named_parameters``, checkpoints and errors then show as they are."""

from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn


def register(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Register tensors as parameters of a module under dotted names, in modules made on the way."""
    for name, tensor in parameters.items():
        *path, leaf = name.split(".")
        part = module
        for step in path:
            if step not in dict(part.named_children()):
                part.add_module(step, nn.Module())
            part = part.get_submodule(step)
        part.register_parameter(leaf, nn.Parameter(tensor))


def parameter(module: nn.Module, name: str) -> Tensor:
    """The parameter of that dotted name, or what ``torch.func.functional_call`` has put in its place."""
    found: Tensor = reduce(getattr, name.split("."), module)  # type: ignore[assignment]
    return found
