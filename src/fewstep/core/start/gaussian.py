"""A start at the mean of a Gaussian: what the weights of a class are likely to be, before any of its rows is seen."""

from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import generated_head
from fewstep.core.noise import Noise
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Penalties, Point

Covariance = Literal["isotropic", "full"]


class Gaussian(Start):
    """Adaptation begins at the mean of a Gaussian over the weights of a class, in codes u of unit covariance.

    ``w_n = μ + L u_n``, ``b_n = 0``, where ``N(μ, LLᵀ)`` is fitted to weights of known classes by maximum likelihood,
    and ``u = 0`` at first. ``½‖u‖²`` is then what minus the logarithm of the density adds: descending codes with
    ``prox=1`` on a loss that sums over rows leads to the weights that are most probable a posteriori.

    Args:
        weights: of known classes, ``[classes, features]``; or the number of features, for a Gaussian that is loaded
            later, which is standard normal at first.
        covariance: σ² of every entry alike, or Σ of a class's weights.
        ridge: added to the diagonal of Σ, which few classes leave singular.
        learned: μ and L are meta-learned. False: they stay as they were fitted, and are saved.

    Raises:
        ValueError: when a full covariance is singular.

    Example:
        >>> start = Gaussian(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
        >>> support = Batch(torch.ones(1, 2), torch.eye(2)[:1], torch.ones(1))
        >>> point, _ = start.begin(Generated(), support, None)
        >>> start.decode(point, None).value["weight"]  # of two classes, before any step
        tensor([[2., 1.],
                [2., 1.]])
    """

    mean: Tensor
    factor: Tensor

    def __init__(
        self,
        weights: Float[Tensor, "classes features"] | int,
        covariance: Covariance = "isotropic",
        *,
        ridge: float = 0.0,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(weights, int):
            mean, factor = torch.zeros(weights), torch.eye(weights) if covariance == "full" else torch.ones(())
        else:
            mean, factor = weights.mean(0), _factor(weights - weights.mean(0), covariance, ridge)
        for name, tensor in (("mean", mean), ("factor", factor)):
            tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
            if learned:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """Codes of zero for every class of the task.

        Raises:
            ValueError: when the network has no generated head, or more than one.
        """
        ways = support.y.shape[1]
        bias = f"{generated_head(network)}bias"
        return Point({"code": self.mean.new_zeros(ways, len(self.mean))}, {bias: self.mean.new_zeros(ways)}), {}

    def decode(self, point: Point, noise: Noise) -> Point:
        """The weights that codes stand for."""
        code, head = point.value["code"], next(iter(point.context)).removesuffix("bias")
        moved = code @ self.factor.tril().T if self.factor.dim() else self.factor * code
        return Point({f"{head}weight": self.mean + moved}, point.context)

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """Codes, or the head's weights."""
        head = generated_head(network)
        return {f"{head}weight"} if decoded else {"code"}


def _factor(centred: Tensor, covariance: Covariance, ridge: float) -> Tensor:
    """σ, or the lower triangle L of a covariance LLᵀ."""
    if covariance == "isotropic":
        deviation: Tensor = (centred.square().mean() + ridge).sqrt()
        return deviation
    whole = centred.T @ centred / len(centred) + ridge * torch.eye(centred.shape[1], dtype=centred.dtype)
    factor: Tensor
    factor, singular = torch.linalg.cholesky_ex(whole)
    if singular:
        raise ValueError(
            f"Gaussian: the covariance of {len(centred)} classes' weights is singular; give a ridge, or more classes."
        )
    return factor
