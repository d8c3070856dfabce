"""Networks that are one of several hypotheses, and losses that are sums over them."""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.loss import Loss, cross_entropy
from fewstep.networks.ensemble import squared_error_of_the_mean


class Particle(nn.Module):
    """A network for regression with precisions of its own, which are learned and adapted as its weights are.

    Parameters beside the network's: ``log_precision``, log λ of the prior ``N(0, 1/λ)`` of its weights, which no output
    depends on, 0 at first; and ``log_noise``, log γ of the targets' noise ``N(0, 1/γ)``.

    Args:
        network: gives means.
        noise: the initial deviation of the targets, ``γ^−½``, in their units.
    """

    def __init__(self, network: nn.Module, noise: float) -> None:
        super().__init__()
        self.network = network
        self.log_precision = nn.Parameter(torch.zeros(()))
        self.log_noise = nn.Parameter(torch.tensor(-2 * math.log(noise)))

    def forward(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "rows outputs"]:
        """Means, and log γ for each of them behind."""
        means: Tensor = self.network(x)
        return torch.cat([means, self.log_noise.expand_as(means)], -1)


def classification_of_each(members: int) -> Loss:
    """Cross-entropy of every member of an :class:`~fewstep.networks.Ensemble`, added up, and summed over the support.

    Their answer is the mean of their probabilities, as a logarithm, and the score its accuracy.
    """
    return Loss(_cross_entropy_of_each, "sum", _accuracy_of_the_mean, "accuracy", partial(_mean, members))


def regression_of_each() -> Loss:
    """``−log N(y; f(x), 1/γ)`` of every :class:`Particle` of an ensemble, added up, and summed over the support.

    The score is the squared error of their mean. A single particle's prediction reads as a mean and its deviation.
    """
    return Loss(_surprise_of_each, "sum", _squared_error_of_the_mean, "mse", readout=_mean_and_deviation)


def _cross_entropy_of_each(prediction: Tensor, y: Tensor) -> Tensor:
    each = prediction.unflatten(-1, (-1, y.shape[-1]))
    losses: Tensor = torch.stack([cross_entropy(one, y) for one in each.unbind(-2)]).sum(0)
    return losses


def _accuracy_of_the_mean(prediction: Tensor, y: Tensor) -> Tensor:
    mean = prediction.unflatten(-1, (-1, y.shape[-1])).softmax(-1).mean(-2)
    right: Tensor = mean.argmax(-1) == y.argmax(-1)
    return right.to(prediction.dtype)


def _mean(members: int, prediction: Tensor) -> Tensor:
    each = prediction.unflatten(-1, (members, -1)).log_softmax(-1)
    mean: Tensor = each.logsumexp(-2)
    return mean - math.log(members)


def _surprise_of_each(prediction: Tensor, y: Tensor) -> Tensor:
    mean, log_precision = prediction.unflatten(-1, (-1, 2, y.shape[-1])).unbind(-2)
    errors = log_precision.exp() * (mean - y.unsqueeze(-2)).square()
    losses: Tensor = 0.5 * (errors - log_precision + math.log(2 * math.pi)).sum((-1, -2))
    return losses


def _mean_and_deviation(prediction: Tensor) -> tuple[Tensor, Tensor]:
    """Of one particle."""
    mean, log_precision = prediction.chunk(2, -1)
    return mean, (-0.5 * log_precision).exp()


def _squared_error_of_the_mean(prediction: Tensor, y: Tensor) -> Tensor:
    means = prediction.unflatten(-1, (-1, 2, y.shape[-1])).select(-2, 0)
    return squared_error_of_the_mean(means.flatten(-2), y)
