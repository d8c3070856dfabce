"""A start that is a normal distribution over the weights of a network."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewstep.core.network import dotted
from fewstep.core.noise import Noise, Normal, Sites
from fewstep.core.normal import divergence
from fewstep.core.rule.learned_rates import LearnedRates
from fewstep.core.stages import Descend
from fewstep.core.start.shared import Shared
from fewstep.core.types import Batch, Params, Point


class NormalWeights(Shared):
    """Adaptation begins at the mean μ of ``N(μ, σ²)`` over weights; where the mean's descent ends, weights are drawn.

    ``decode: μ' ↦ μ' + σ ∘ ε``, once for a task: the steps before see the mean, and so does evaluation without noise.
    Beside it stands what an estimator may take for a posterior that has seen the query, ``N(μ − γ_q ∘ ∇L_Q(μ), v)``.
    μ are the network's parameters; σ and v have a number for each weight, γ_q one for each tensor.

    Args:
        weights: the parameters that have a distribution, by name.
        deviation: the initial σ > 0.
        posterior_deviation: the initial ``√v > 0``.
        posterior_rate: the initial γ_q.

    Raises:
        ValueError: for a deviation that is not positive.

    Example:
        >>> start = NormalWeights(dict(line.named_parameters()), deviation=0.5)
        >>> mean, noise = Point({"weight": torch.ones(1, 1)}, {}), {"weight": torch.tensor([[2.0]])}
        >>> round(start.decode(mean, noise).value["weight"].item(), 4)  # 1 + 0.5 · 2
        2.0
    """

    samples_steps = False

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        deviation: float = 0.02,
        posterior_deviation: float = 0.02,
        posterior_rate: float = 0.01,
    ) -> None:
        super().__init__(list(weights))
        self._shapes = {name: tensor.shape for name, tensor in weights.items()}
        self.log_deviation, self.posterior_log_deviation = nn.Module(), nn.Module()
        for where, number in ((self.log_deviation, deviation), (self.posterior_log_deviation, posterior_deviation)):
            if not 0 < number < math.inf:
                raise ValueError(f"NormalWeights: a deviation must be positive and finite, got {number}.")
            full = {name: torch.full_like(tensor, math.log(number)) for name, tensor in weights.items()}
            dotted.register(where, {name: nn.Parameter(tensor.detach()) for name, tensor in full.items()})
        rates = {name: tensor.new_tensor(posterior_rate) for name, tensor in weights.items()}
        self.posterior = Descend(LearnedRates(rates), 1)

    def decode(self, point: Point, noise: Noise) -> Point:
        """The mean, or with noise weights about it."""
        return point if noise is None else self._drawn(self.log_deviation, point, noise)

    def decode_sites(self, support: Batch) -> Sites:
        """A standard-normal number for each weight."""
        return {name: Normal(tuple(shape)) for name, shape in self._shapes.items()}

    def draw(self, mean: Point, noise: Noise) -> Point:
        """Weights of the posterior with that mean, ``m + √v ∘ ε``."""
        return self._drawn(self.posterior_log_deviation, mean, noise)

    def divergence(self, posterior: Point, prior: Point) -> Tensor:
        """``KL(N(m_q, v) ‖ N(m_p, σ²))`` in nats, summed over weights."""
        of_each = [
            divergence(
                mean,
                dotted.get(self.posterior_log_deviation, name).exp(),
                prior.value[name],
                dotted.get(self.log_deviation, name).exp(),
            ).sum()
            for name, mean in posterior.value.items()
        ]
        return torch.stack(of_each).sum()

    def _drawn(self, log_deviation: nn.Module, mean: Point, noise: Noise) -> Point:
        value: Params = {n: m + dotted.get(log_deviation, n).exp() * noise[n] for n, m in mean.value.items()}
        return mean._replace(value=value)
