"""Decoupled weight decay: a pull of meta-parameters towards a point, beside the meta-gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Decay:
    """A pull of named meta-parameters towards a point before every meta-step: ``θ ← θ − η λ (θ − θ*)``.

    η is the outer rate of the step. With θ* = 0 it is the decay of AdamW (Loshchilov and Hutter 2019); no optimiser's
    moments see it, as they would see the slope of an L2 penalty. A product η λ of 1 or more leaves θ at θ*.

    Attributes:
        weight: λ ≥ 0, in units of 1/η.
        parameters: names in the learner.
        towards: θ*: ``"zero"``; the ``"identity"`` matrix; or the ``"initial"`` values, those at the first meta-step.

    Raises:
        ValueError: for a weight that is negative or not finite.

    Example:
        >>> decay = Decay(weight=2.0, parameters=["weight"])
        >>> decay.pull(dict(line.named_parameters()), decay.targets(line), rate=0.25)  # half of the way to zero
        >>> line.weight.item()
        0.5
    """

    weight: float
    parameters: Sequence[str]
    towards: Literal["zero", "identity", "initial"] = "zero"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"Decay: the weight must be finite and not negative, got {self.weight}.")

    def targets(self, module: nn.Module) -> dict[str, Tensor]:
        """θ* by name, of a learner before its first meta-step."""
        found = {name: module.get_parameter(name).detach() for name in self.parameters}
        if self.towards == "initial":
            return {name: parameter.clone() for name, parameter in found.items()}
        if self.towards == "zero":
            return {name: torch.zeros_like(parameter) for name, parameter in found.items()}
        if odd := [name for name, parameter in found.items() if parameter.dim() != 2]:
            raise ValueError(f"Decay: only matrices can decay towards the identity, and {odd[0]} is none.")
        return {name: torch.eye(*p.shape, dtype=p.dtype, device=p.device) for name, p in found.items()}

    @torch.no_grad()
    def pull(self, parameters: dict[str, nn.Parameter], targets: dict[str, Tensor], rate: float) -> None:
        """Move the parameters, in place."""
        for name in self.parameters:
            parameters[name].lerp_(targets[name], min(1.0, rate * self.weight))
