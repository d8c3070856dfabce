"""Adam as the inner optimiser."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch._C._functorch import is_batchedtensor

from fewstep.core.network import dotted
from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class Moments(NamedTuple):
    """Adam's state.

    Attributes:
        steps: t, how many were taken.
        first: m by name; empty when β₁ = 0, where m is the gradient.
        second: v by name.
    """

    steps: Int[Tensor, ""]
    first: Params
    second: Params


class Adam(Rule):
    """Adam as the inner rule: ``φ ← φ − α m̂ / (√v̂ + ε)`` (Kingma and Ba 2015, Algorithm 1).

    ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``, ``m̂ = m / (1 − β₁ᵗ)``, ``v̂ = v / (1 − β₂ᵗ)``. Every task
    starts from zero moments and t = 0, unless they are carried. Differentiable; a coordinate whose gradients have all
    been 0 (a dead unit) stays where it is, with derivative 0.

    β₁ = 0 is Reptile's inner optimiser (Nichol et al. 2018, section 6). TensorFlow's Adam, which its authors ran, adds
    ε to √v before v is corrected; the two differ only where gradients are about as small as ε.

    Args:
        rate: α > 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε > 0.
        carried: the adapted values, by name, of which only shapes, dtype and device are read. When given, a task goes
            on from the moments and the count that the last task *of meta-training* left, as in the code of Reptile's
            authors, which between tasks puts the weights back and not the optimiser's slots. They are buffers,
            constants to every derivative; each step in training mode writes them in place, none in evaluation mode
            does (``learner.eval()``, if you adapt by hand). Tasks then depend on their order, and run one after
            another.

    Raises:
        ValueError: for a rate or ε that is not positive, or betas outside [0, 1).

    Example:
        >>> value, gradient = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, -0.001])}
        >>> rule = Adam(0.1)
        >>> step, moments = rule.update(gradient, rule.init(value), value, torch.tensor(1.0))
        >>> step  # the first has the length of the rate, however steep the loss
        {'w': tensor([-0.1000,  0.1000])}
    """

    def __init__(
        self,
        rate: float,
        betas: tuple[float, float] = (0.0, 0.999),
        eps: float = 1e-8,
        carried: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not (0 < rate < math.inf and 0 < eps < math.inf):
            raise ValueError(f"Adam: the rate and eps must be positive and finite, got {rate} and {eps}.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas must lie in [0, 1), got {betas}.")
        self.rate, self.betas, self.eps = rate, betas, eps
        self._carried = None if carried is None else tuple(carried)
        if carried is not None:
            dotted.register(self, _by_name(_zeros(dict(carried), betas[0] > 0)))

    def init(self, value: Params, noise: Noise = None) -> Moments:
        """Zeros, or copies of what is carried.

        Raises:
            ValueError: when what is carried has other names or shapes than ``value``.
        """
        fresh = _zeros(value, self.betas[0] > 0)
        if self._carried is None:
            return fresh
        theirs = {name: tuple(dotted.get(self, f"second.{name}").shape) for name in self._carried}
        ours = {name: tuple(tensor.shape) for name, tensor in value.items()}
        if ours != theirs:
            raise ValueError(
                f"Adam: moments are carried for {theirs}, but the adapted values are {ours}; give `carried` the "
                "adapted values themselves."
            )
        # Copies, because the buffers are written in place while autograd still holds what a task began with.
        first, second = (
            {name: dotted.get(self, f"{moment}.{name}").clone() for name in names}
            for moment, names in (("first", fresh.first), ("second", fresh.second))
        )
        return Moments(dotted.get(self, "steps").clone(), first, second)

    def update(self, gradient: Params, state: Moments, value: Params, loss: Tensor) -> tuple[Params, Moments]:
        """``−α m̂ / (√v̂ + ε)``.

        Raises:
            ValueError: when moments are carried in training mode and tasks do not run one after another.
        """
        count, (beta1, beta2) = state.steps + 1, self.betas
        # β₁ = 0 needs no memory: the first moment is the gradient itself, and so is its correction's result.
        first = {n: beta1 * m + (1 - beta1) * gradient[n] for n, m in state.first.items()}
        second = {n: beta2 * v + (1 - beta2) * gradient[n].square() for n, v in state.second.items()}
        moves = {
            n: -self.rate
            * _corrected(first.get(n, g), beta1, count)
            / (_root(_corrected(second[n], beta2, count)) + self.eps)
            for n, g in gradient.items()
        }
        following = Moments(count, first, second)
        if self._carried is not None and self.training:
            self._carry(state.steps, following)
        return moves, following

    def _carry(self, before: Tensor, following: Moments) -> None:
        """Write the buffers; ``before`` is the count that the step started from."""
        tensors, buffers = _by_name(following), dict(self.named_buffers())
        # A task that does not go on from the last write ran beside another, or is run a second time by recomputing.
        if any(is_batchedtensor(tensor) for tensor in tensors.values()) or (
            not torch.compiler.is_compiling() and bool(before != buffers["steps"])
        ):
            raise ValueError(
                "Adam: moments carried from task to task need tasks one after another, each whole and computed once: "
                'set training.executor="loop" (fewstep.core.Loop) and leave recompute off, or do not carry them.'
            )
        with torch.no_grad():
            for key, buffer in buffers.items():
                buffer.copy_(tensors[key])


def _zeros(value: Params, first: bool) -> Moments:
    count = torch.zeros((), dtype=torch.int64, device=next(iter(value.values())).device)
    zeros = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in value.items()}
    return Moments(count, {name: zero.clone() for name, zero in zeros.items()} if first else {}, zeros)


def _by_name(moments: Moments) -> dict[str, Tensor]:
    """All of them under the names of the buffers that carry them."""
    first = {f"first.{name}": m for name, m in moments.first.items()}
    return {"steps": moments.steps, **first, **{f"second.{name}": v for name, v in moments.second.items()}}


def _corrected(moment: Tensor, beta: float, count: Tensor) -> Tensor:
    """``moment / (1 − βᵗ)``: in float32, 1 − 0.999 would keep four digits; expm1 keeps all of them."""
    if beta == 0:
        return moment
    return moment / -torch.expm1(count.to(moment.dtype) * math.log(beta))


def _root(x: Tensor) -> Tensor:
    """``√x``, with derivative 0 at 0; the branch not taken must have a finite slope too."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)
