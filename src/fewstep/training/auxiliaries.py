"""Auxiliary losses in training: their gradients, what is trained for them alone, and its moments."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core import Auxiliary, Batch, Learner
from fewstep.core.ranks import Ranks
from fewstep.training.options import Training


class Found(NamedTuple):
    """A loss, and its gradients: of the learner's parameters, then of what the loss has of its own."""

    loss: Float[Tensor, ""]
    gradients: list[Tensor]


class Aside:
    """One auxiliary loss of a training.

    Args:
        auxiliary: the loss.
        learner: what it is a loss of.
        options: whose optimiser takes its steps.

    Attributes:
        own: parameters that the loss has of its own.
        moved: what its optimiser moves: these; and where it takes a step of its own, first the learner's.
    """

    def __init__(self, auxiliary: Auxiliary, learner: Learner, options: Training) -> None:
        self.auxiliary, self.learner, self.steps = auxiliary, learner, options.steps
        named = {name: p for name, p in learner.named_parameters() if p.requires_grad}
        self._like = next(iter(named.values()))
        module = nn.Module() if auxiliary.own is None else auxiliary.own.to(self._like.device, self._like.dtype)
        own = {f"own/{name}": p for name, p in module.named_parameters()}
        self.parameters, self.own = [*named.values(), *own.values()], list(own.values())
        self._named = own if auxiliary.weight is not None else named | own
        self._owned = own
        self.moved = list(self._named.values())
        self.optimiser = _primed(options.make_optimiser(self.moved)) if self.moved else None

    def at(self, step: int, seed: int, ranks: Ranks) -> Found | None:
        """The loss of a meta-step and its gradients, the same in all processes; None where it takes no part."""
        batch = self.auxiliary.rows(seed, step, step / self.steps)
        if batch is None:
            return None
        found = Found(self._like.new_zeros(()), [torch.zeros_like(p) for p in self.parameters])
        if ranks.first:  # one loss has one normalisation: it is not shared out
            loss = self.auxiliary.loss(self.learner, Batch(*map(self._here, batch)))
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
            found = Found(loss.detach(), list(gradients))
        loss, *gradients_of_all = ranks.sum([found.loss, *found.gradients])
        return Found(loss, gradients_of_all)

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._like.device, self._like.dtype if tensor.is_floating_point() else tensor.dtype)

    def step(self, gradients: list[Tensor], rate: float) -> None:
        """Move what its optimiser moves."""
        if self.optimiser is None:
            return
        for parameter, gradient in zip(self.moved, gradients, strict=True):
            # Fused optimisers take numbers as they lie in memory.
            same = gradient.stride() == parameter.stride()
            parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """What the next meta-step depends on, by name, in the memory that it lies in."""
        kept = {name: parameter.detach() for name, parameter in self._owned.items()}
        if self.optimiser is not None:
            for name, parameter in self._named.items():
                moments = self.optimiser.state[parameter].items()
                kept |= {f"{name}/{kind}": t for kind, t in moments if isinstance(t, Tensor)}
        return {f"auxiliary/{self.auxiliary.name}/{name}": tensor for name, tensor in kept.items()}


def _primed(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser with the moments that it has before its first step: a checkpoint is read into what is there."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()  # which moves nothing
    optimiser.zero_grad()
    for moments in optimiser.state.values():
        for tensor in moments.values():
            if isinstance(tensor, Tensor):
                tensor.zero_()
    return optimiser
