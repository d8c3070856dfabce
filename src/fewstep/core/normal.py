"""Normal distributions, entry by entry: densities, and how far one is from another."""

import math

from torch import Tensor


def log_density(y: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """``ln N(y; μ, σ²)`` of each entry, in nats."""
    return -0.5 * ((y - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)


def divergence(mean: Tensor, deviation: Tensor, from_mean: Tensor, from_deviation: Tensor) -> Tensor:
    """``KL(N(μ, σ²) ‖ N(μ₀, σ₀²)) = ln σ₀/σ + (σ² + (μ − μ₀)²)/(2 σ₀²) − ½`` of each entry, in nats."""
    squares = (deviation.square() + (mean - from_mean).square()) / (2 * from_deviation.square())
    return (from_deviation / deviation).log() + squares - 0.5
