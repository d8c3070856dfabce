"""What a module makes of a shape, without computing anything."""

import copy
from collections.abc import Sequence

import torch
from torch import nn


def output_shape(module: nn.Module, shape: Sequence[int]) -> torch.Size:
    """The shape of an output row of ``module`` for input rows of ``shape``; run on a copy that has no numbers.

    Raises:
        ValueError: when the module does not take such rows.
    """
    rows = torch.empty(2, *shape, dtype=next((p.dtype for p in module.parameters()), None), device="meta")
    try:
        output: torch.Tensor = copy.deepcopy(module).to("meta")(rows)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{type(module).__name__} does not take rows of the shape {list(shape)}: {error}") from error
    return output.shape[1:]
