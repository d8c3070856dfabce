"""Which of a network's parameters a part of a method is about."""

from collections.abc import Callable, Collection
from typing import TypeAlias

from torch import nn

Choice: TypeAlias = Callable[[str], bool] | Collection[str]
"""Parameters of a network: a predicate on their names, or the names. Names can be pickled with a method."""


def chooses(choice: Choice | None, name: str) -> bool:
    """Whether a name is one of those that are chosen; None chooses all."""
    if choice is None:
        return True
    return name in choice if isinstance(choice, Collection) else choice(name)


def chosen(network: nn.Module, choice: Choice | None) -> dict[str, nn.Parameter]:
    """The parameters that are chosen, all of them for None; frozen ones (``requires_grad_(False)``) never are.

    Raises:
        ValueError: for names that the network does not have.
    """
    own = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if choice is None:
        return own
    if not isinstance(choice, Collection):
        return {name: p for name, p in own.items() if choice(name)}
    everything = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    if unknown := sorted(set(choice) - set(everything)):
        listed = ", ".join(everything) or "none"
        raise ValueError(f"The network has no parameters named {', '.join(unknown)}; it has {listed}.")
    return {name: p for name, p in own.items() if name in choice}
