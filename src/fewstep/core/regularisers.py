"""Penalties on named meta-parameters, evaluated once per meta-step outside the task map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fewstep.core.loss import Reduction


@runtime_checkable
class Regulariser(Protocol):
    """A scalar penalty on a module's parameters.

    Example:
        >>> class L1:
        ...     name = "l1"
        ...     def __call__(self, module):
        ...         return 0.1 * sum(p.abs().sum() for p in module.parameters())
        >>> isinstance(L1(), Regulariser)
        True
    """

    @property
    def name(self) -> str:
        """The key under which the penalty is logged."""
        ...

    def __call__(self, module: nn.Module) -> Tensor:
        """The weighted penalty."""
        ...


@dataclass(frozen=True)
class L2:
    """A penalty on large parameters: ``weight · Σ ‖W‖²`` over those named, with the factor ½ when ``half``.

    Example:
        >>> L2(0.5, ["weight"])(line).item()  # 0.5 · ½ · w² at w = 1
        0.25
    """

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
    """A penalty on correlated directions of a linear layer (LEO, Eq. 7).

    ``weight · ‖C − I‖²``, C the correlations between the *input* directions.
    For a decoder stored as torch stores it, ``[outputs, latents]``, C is ``[latents, latents]``: the cosines between
    the images of the latent dimensions.

    Args:
        weight: λ₂ ≥ 0.
        parameter: name of the layer's weight.
        reduction: ``"mean"`` over the entries of C (the authors' code) or their ``"sum"`` (the paper).

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = nn.init.ones_(layer.weight)  # both inputs point the same way: all entries of C are 1
        >>> round(Orthogonality(1.0, "weight", "sum")(layer).item(), 3)
        2.0
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
