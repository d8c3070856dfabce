"""A running mean of meta-parameters, which is often better than the last of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential running mean of a module's trained parameters: ``m ← d m + (1 − d) θ``.

    ``d = min(decay, (1 + t)/(10 + t))`` after step t, so that what the parameters began as is soon forgotten.

    Args:
        module: whose parameters.
        decay: d in the long run, in [0, 1).

    Attributes:
        means: by name.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.means: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after ``step``, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.means.values()), list(self._parameters.values()), weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the parameters are their means."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._put(self.means)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
