"""Gradient descent with meta-learned curvature."""

import math
from collections.abc import Collection, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from fewstep.core.network import dotted
from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.rule.learned_rates import require_names
from fewstep.core.types import Params

Shape = Sequence[int | None]
"""Of a value; None where the size varies between tasks, and no factor is learned."""


class Curvature(Rule):
    """Gradient descent along meta-learned curvature: ``φ ← φ − α MC(∇L(φ))``.

    MC multiplies the gradient along each of its modes by a meta-learned matrix:
    ``MC(G)[o,i,f] = Σ M_o[o,o'] M_i[i,i'] M_f[f,f'] G[o',i',f']`` for convolutions ``[out, in, *kernel]``, whose
    spatial modes are merged into one; ``M_o G M_iᵀ`` for matrices ``[out, in]``; ``m ∘ g`` for vectors. Written on
    ``vec(G)`` the transform is the Kronecker product ``M_o ⊗ M_i ⊗ M_f``, which is never formed. Every factor starts
    as the identity and is unconstrained: nothing keeps the transform symmetric or positive.

    The factors of a value are ``rule[name]``, by mode.

    Args:
        shapes: of the adapted values, under their names. A mode whose size varies between tasks is None and carries
            no factor: the codes ``[ways, latents]`` of LEO have shape ``(None, latents)``.
        rate: α > 0, fixed.
        diagonal: keep the diagonals of the matrices alone, a vector for each mode.

    Raises:
        ValueError: when the rate is not positive.

    Source: Park and Oliva, "Meta-Curvature", NeurIPS 2019. The authors' code lays tensors out as ``[*kernel, in,
    out]`` and multiplies the last mode from the right, so its matrix of outputs is the transpose of M_o.

    Example:
        >>> rule = Curvature({"weight": (1, 1)}, rate=0.25)
        >>> method = Method(Learner(line, Shared(), [Descend(rule, 1)], loss=regression()), Backprop())
        >>> method.objective(parabola, None).objective.backward()
        >>> rule["weight"]["out"].item(), rule["weight"]["out"].grad.item()  # the identity, and where to learn from it
        (1.0, -0.5)
    """

    def __init__(self, shapes: Mapping[str, Shape], *, rate: float, diagonal: bool = False) -> None:
        super().__init__()
        if not 0 < rate < math.inf:
            raise ValueError(f"Curvature: the rate must be positive and finite, got {rate}.")
        self.rate, self.diagonal = rate, diagonal
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._modes = {name: _modes(shape) for name, shape in self._shapes.items()}
        self.factors = nn.Module()
        for name, modes in self._modes.items():
            for mode, size in modes.items():
                if size is not None:
                    factor = torch.ones(size) if diagonal or len(modes) == 1 else torch.eye(size)
                    dotted.register(self.factors, {f"{name}.{mode}": nn.Parameter(factor)})

    def __getitem__(self, name: str) -> Params:
        """The factors of one value, by mode: matrices ``[size, size]``, or vectors ``[size]``."""
        learned = [mode for mode, size in self._modes[name].items() if size is not None]
        return {mode: dotted.get(self.factors, f"{name}.{mode}") for mode in learned}

    def check(self, names: Collection[str]) -> None:
        """Every value needs factors, and all factors a value."""
        require_names(names, self._shapes, "Curvature", "shapes", "give the shape of each adapted value")

    def init(self, value: Params, noise: Noise = None) -> tuple[()]:
        """No state.

        Raises:
            ValueError: when the values are not those, or not of the shapes, that factors were made for.
        """
        self.check(value)
        for name, tensor in value.items():
            given, found = self._shapes[name], tuple(tensor.shape)
            if len(given) != len(found) or any(g not in (None, f) for g, f in zip(given, found, strict=True)):
                raise ValueError(
                    f"Curvature: the adapted value {name!r} has shape {found}, but its factors were made for {given}; "
                    "give the shape of each adapted value, with None where it varies between tasks."
                )
        return ()

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``−α MC(g)``."""
        return {name: -self.rate * self._transform(name, g) for name, g in gradient.items()}, state

    def _transform(self, name: str, gradient: Tensor) -> Tensor:
        factors = self[name]
        moved = gradient.flatten(2) if gradient.dim() > 2 else torch.atleast_1d(gradient)
        modes = list(zip(self._modes[name], moved.shape, strict=True))
        if self.diagonal or len(modes) == 1:
            # One product of all vectors: under vmap it is the same for every task, and made once.
            scale = gradient.new_ones(())
            for mode, _ in modes:
                scale = scale[..., None] * factors[mode] if mode in factors else scale[..., None]
            return (moved * scale).reshape(gradient.shape)
        for mode, size in modes:
            # Each product takes the first mode and makes it the last. So each is a single matrix product, without a
            # copy, and after all of them the modes are in order again. The factors being square, no order of the
            # products is cheaper than another.
            moved = moved.reshape(size, -1).mT
            if mode in factors:
                moved = moved @ factors[mode].mT
        return moved.reshape(gradient.shape)


def _modes(shape: Shape) -> dict[str, int | None]:
    """The modes that factors are made for, and their sizes; modes of a kernel are one."""
    if len(shape) < 2:
        return {"vector": shape[0] if shape else 1}
    kernel = [size for size in shape[2:] if size is not None]
    spatial = {"kernel": prod(kernel) if len(kernel) == len(shape) - 2 else None} if len(shape) > 2 else {}
    return {"out": shape[0], "in": shape[1], **spatial}
