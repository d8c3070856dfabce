"""Gradient descent with meta-learned curvature."""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor, nn

from fewstep.core.protocols import Rule
from fewstep.core.rule.learned_rates import key, require_names
from fewstep.core.types import Params

Shape = Sequence[int | None]
"""Of a value; None where the size varies between tasks, and no factor is learned."""


class Curvature(Rule):
    """``φ ← φ − α MC(∇L(φ))``: the gradient multiplied along each of its modes by a meta-learned matrix.

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
    """

    def __init__(self, shapes: Mapping[str, Shape], *, rate: float, diagonal: bool = False) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"Curvature: the rate must be positive, got {rate}.")
        self.rate, self.diagonal = rate, diagonal
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._factors = nn.ParameterDict()
        for name, shape in self._shapes.items():
            for mode, size in _modes(shape).items():
                if size is not None:
                    vector = diagonal or len(shape) < 2
                    factor = torch.ones(size) if vector else torch.eye(size)
                    self._factors[f"{key(name)}:{mode}"] = nn.Parameter(factor)

    def __getitem__(self, name: str) -> Params:
        """The factors of one value, by mode: matrices ``[size, size]``, or vectors ``[size]``."""
        sizes = _modes(self._shapes[name])
        return {mode: self._factors[f"{key(name)}:{mode}"] for mode, size in sizes.items() if size is not None}

    def init(self, value: Params) -> tuple[()]:
        """No state.

        Raises:
            ValueError: when the values are not those, or not of the shapes, that factors were made for.
        """
        require_names(value, self._shapes, "Curvature", "shapes", "give the shape of each adapted value")
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
        return {name: -self.rate * self._transform(self[name], g) for name, g in gradient.items()}, state

    def _transform(self, factors: Params, gradient: Tensor) -> Tensor:
        sizes = {mode: size or 1 for mode, size in _modes(gradient.shape).items()}
        if self.diagonal or len(sizes) == 1:
            # The factors are the same for all tasks: vmap multiplies them once, and each gradient once.
            vectors = [factors[mode] if mode in factors else gradient.new_ones(1) for mode in sizes]
            scale = reduce(lambda outer, vector: outer[..., None] * vector, vectors)
            return (gradient.reshape([*sizes.values()]) * scale).reshape(gradient.shape)
        moved = gradient
        for mode, size in sizes.items():
            # Each product takes the first mode and makes it the last, so that every one is a single matrix product
            # without a copy, and after all of them the modes are in order again. Factors being square, no order of
            # products is cheaper than another.
            moved = moved.reshape(size, -1).mT
            if mode in factors:
                moved = moved @ factors[mode].mT
        return moved.reshape(gradient.shape)


def _modes(shape: Shape) -> dict[str, int | None]:
    """The modes that factors are made for, and their sizes."""
    if len(shape) < 2:
        return {"vector": shape[0] if shape else 1}
    kernel = shape[2:]
    spatial = {"kernel": None if None in kernel else prod(size or 1 for size in kernel)} if kernel else {}
    return {"out": shape[0], "in": shape[1], **spatial}
