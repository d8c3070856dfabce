"""Statistics of a batch in which rows count by weight."""

from torch import Tensor, nn

from fewstep.core.types import Params


class RowWeights:
    """Marks a module whose batch statistics are weighted by a ``row_weight`` slot (see ``networks.norms``)."""


def row_weights(network: nn.Module, weight: Tensor) -> Params:
    """The ``row_weight`` slots of a network, filled for ``torch.func.functional_call``: padding counts for nothing."""
    return {f"{name}.row_weight": weight for name, part in network.named_modules() if isinstance(part, RowWeights)}
