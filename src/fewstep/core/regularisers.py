"""Penalties on named meta-parameters, evaluated once per meta-step outside the task map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fewstep.core.loss import Reduction


@runtime_checkable
class Regulariser(Protocol):
    """A scalar penalty on a module's parameters."""

    @property
    def name(self) -> str:
        """The key under which the penalty is logged."""
        ...

    def __call__(self, module: nn.Module) -> Tensor:
        """The weighted penalty."""
        ...


@dataclass(frozen=True)
class L2:
    """``weight · Σ ‖W‖²`` over the named parameters, with the factor ½ when ``half``."""

    weight: float
    parameters: Sequence[str]
    half: bool = True
    name: str = "l2"

    def __call__(self, module: nn.Module) -> Tensor:
        """The weighted penalty."""
        total = torch.stack([module.get_parameter(name).square().sum() for name in self.parameters]).sum()
        return self.weight * (0.5 if self.half else 1.0) * total


@dataclass(frozen=True)
class Orthogonality:
    """``weight · ‖C − I‖²``, C the correlations between the *input* directions of a linear layer (LEO, Eq. 7).

    For a decoder stored as torch stores it, ``[outputs, latents]``, C is ``[latents, latents]``: the cosines between
    the images of the latent dimensions.

    Args:
        weight: λ₂ ≥ 0.
        parameter: name of the layer's weight.
        reduction: ``"mean"`` over the entries of C (the authors' code) or their ``"sum"`` (the paper).
    """

    weight: float
    parameter: str
    reduction: Reduction = "mean"
    name: str = "orthogonality"

    def __call__(self, module: nn.Module) -> Tensor:
        """The weighted penalty."""
        directions = module.get_parameter(self.parameter).T
        norms = directions.norm(dim=1)
        correlation = directions @ directions.T / (torch.outer(norms, norms) + 1e-32)
        excess = (correlation - torch.eye(len(norms), dtype=norms.dtype, device=norms.device)).square()
        return self.weight * (excess.mean() if self.reduction == "mean" else excess.sum())
