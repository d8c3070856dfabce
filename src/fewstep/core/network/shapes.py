"""The shape of a module's output."""

import copy

import torch
from torch import Tensor, nn


def output_shape(module: nn.Module, rows: Tensor) -> torch.Size:
    """The shape of an output row of ``module`` for rows like these; tried on zeros, by a copy whose state is nobody's.

    Raises:
        ValueError: when the module does not take such rows.
    """
    try:
        with torch.no_grad():
            output: Tensor = copy.deepcopy(module).eval()(torch.zeros_like(rows[:2]))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shape = list(rows.shape[1:])
        raise ValueError(f"{type(module).__name__} does not take rows of the shape {shape}: {error}") from error
    return output.shape[1:]
