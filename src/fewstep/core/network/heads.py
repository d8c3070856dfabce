"""Output layers whose weights are made for each task."""

from torch import nn


class GeneratedHead:
    """Marks an output layer with slots that a start fills (see ``networks.heads``).

    Unfilled it passes its input through, so that the network is its own feature extractor.
    """


def generated_head(network: nn.Module) -> str:
    """The prefix of the slots of a network's one generated head: ``"head."``, or nothing when it is the network.

    Raises:
        ValueError: when the network has no generated head, or more than one.
    """
    named = dict(network.named_modules())
    heads = [name for name, module in named.items() if isinstance(module, GeneratedHead)]
    if len(heads) != 1:
        given = f"{', '.join(heads)} are such heads" if heads else f"found none among ({', '.join(named).strip(', ')})"
        raise ValueError(
            f"{type(network).__name__}: its weights are to be made for each task, so it must end with one Generated "
            f"head, but {given}. Make it with None for its number of outputs, or append fewstep.networks.Generated()."
        )
    return f"{heads[0]}." if heads[0] else ""
