"""Gradient descent of particles that repel each other."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class SVGD(Rule):
    """Stein variational gradient descent (Liu and Wang 2016): particles that become a sample of a posterior together.

    ``θ_m ← θ_m − ε/M Σ_j [k(θ_j, θ_m) ∇L(θ_j) − ∇_{θ_j} k(θ_j, θ_m)]``, where ``L = −log p`` up to a constant and
    ``k(θ, θ') = exp(−‖θ − θ'‖²/h)``.

    The first axis of every value is that of the M particles, and the loss is the sum of their own, as an
    :class:`~fewstep.networks.Ensemble` with such a loss has it. A particle is all of its values together. By default
    ``h = median(‖θ_i − θ_j‖²)/log M`` over all pairs, those of a particle with itself included, a constant to
    derivatives. A single particle takes steps of gradient descent. Work and memory grow as M² times the parameters of
    a particle.

    Args:
        rate: ε > 0.
        bandwidth: h > 0; None: by the median.
        halved: half of the repulsion, ``(θ_m − θ_j) k/h`` where the kernel's derivative has ``2 (θ_m − θ_j) k/h``, as
            in the program of Bayesian MAML's authors.

    Raises:
        ValueError: for a rate or a bandwidth that is not positive, or values with different numbers of particles.

    Example:
        >>> rule, still = SVGD(rate=1.0), {"w": torch.zeros(2)}  # two particles, no slope
        >>> step, _ = rule.update(still, (), {"w": torch.tensor([0.0, 1.0])}, torch.tensor(0.0))
        >>> step["w"]  # they part
        tensor([-0.3466,  0.3466])
    """

    def __init__(self, rate: float, bandwidth: float | None = None, *, halved: bool = False) -> None:
        super().__init__()
        for name, number in (("rate", rate), ("bandwidth", bandwidth)):
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"SVGD: the {name} must be positive and finite, got {number}.")
        self.rate, self.bandwidth, self.repulsion = rate, bandwidth, 1.0 if halved else 2.0

    def init(self, value: Params, noise: object = None) -> tuple[()]:
        """Nothing to remember.

        Raises:
            ValueError: when the values do not have one number of particles.
        """
        counts = {name: tensor.shape[0] if tensor.dim() else 0 for name, tensor in value.items()}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"SVGD: the first axis of every value is that of the particles, but they have {listed}.")
        return ()

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        """``ε φ*``, of all particles at once."""
        particles, slopes = _rows(value), _rows(gradient)
        squares = (particles.unsqueeze(0) - particles.unsqueeze(1)).square().sum(-1)
        width = self._width(squares.detach())
        kernel = (-squares / width).exp()
        apart = (kernel.sum(1, keepdim=True) * particles - kernel @ particles) / width
        step = self.rate / len(particles) * (self.repulsion * apart - kernel @ slopes)
        pieces = step.split([tensor[0].numel() for tensor in value.values()], 1)
        return {name: piece.view_as(value[name]) for name, piece in zip(value, pieces, strict=True)}, state

    def _width(self, squares: Float[Tensor, "particles particles"]) -> Tensor:
        if self.bandwidth is not None or len(squares) == 1:
            return squares.new_tensor(self.bandwidth or 1.0)
        ordered, middle = squares.flatten().sort().values, squares.numel() // 2
        width = (ordered[(squares.numel() - 1) // 2] + ordered[middle]) / 2 / math.log(len(squares))
        return torch.where(width > 0, width, 1.0)  # particles of one place have nothing that parts them


def _rows(values: Params) -> Float[Tensor, "particles parameters"]:
    return torch.cat([tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1) for tensor in values.values()], 1)
