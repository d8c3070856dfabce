"""Bayesian MAML, particles that approach a task's posterior (Kim, Yoon, Dia, Kim, Bengio and Ahn 2018)."""

import torch
from torch import Tensor, nn

from fewstep.core import SVGD, Backprop, Chaser, Descend, Learner, Loss, Method, Params, Shared
from fewstep.core.ranges import Count, CountOrZero, Positive, checked
from fewstep.networks.ensemble import Ensemble
from fewstep.networks.particles import classification_of_each


@checked
def bayesian_maml(
    network: nn.Module,
    *,
    rate: Positive = 1e-3,
    steps: Count = 1,
    leader_steps: CountOrZero = 1,
    halved: bool = True,
    loss: Loss | None = None,
) -> Method:
    """Meta-learn particles from which a few steps of SVGD lead to samples of a task's posterior.

    ``θ_m ← θ_m + α/M Σ_j [k(θ_j, θ_m) ∇ log p(θ_j | D) + ∇_{θ_j} k(θ_j, θ_m)]``, with
    ``log p(θ | D) = log p(D | θ) + log N(w; 0, 1/λ) + log Gamma(λ; 2, 2) + log Gamma(γ; 2, 0.2)`` up to a constant, the
    last two as densities of log λ and log γ. The followers take K such steps on the support, the leaders S more on
    support and query: the meta-gradient is ``∇ Σ_m ‖w_m − stop(w'_m)‖²``, the chaser loss (Algorithm 3), of all but
    log λ and log γ. One particle is MAP.

    This is the authors' program for sine curves; that for images was never released. EMAML, which it is compared with,
    is :func:`maml` of an ensemble.

    Args:
        network: an :class:`~fewstep.networks.Ensemble` of ``Particle`` networks; or for classification a network whose
            last part is an ensemble of linear classifiers, with the prior ``N(0, 1)``. Particles adapt; what else there
            is, such as the features of images, is meta-learned and shared by them (ours; the paper shares all layers
            but the last where particles are many).
        rate: α, the rate of leaders and followers alike.
        steps: K, the followers' steps.
        leader_steps: S. 0: no leader, but the query's loss of all particles for the meta-objective, as in a port.
        halved: the repulsion is half of what the kernel's derivative says, as in the authors' program.
        loss: of rows, summed over particles; ``classification_of_each`` of ``networks.particles`` when omitted.

    Raises:
        ValueError: for a network without an ensemble, or with more than one.

    Example:
        >>> network = Ensemble(lambda: Particle(mlp((1, 40, 1)), noise=0.1), members=5)
        >>> method = bayesian_maml(network, loss=regression_of_each())
        >>> method.adapt(sines.support).value["network.0.weight"].shape  # of five particles for each of four tasks
        torch.Size([4, 5, 40, 1])
    """
    parts = {f"{name}.".lstrip("."): part for name, part in network.named_modules() if isinstance(part, Ensemble)}
    if len(parts) != 1:
        raise ValueError(f"bayesian_maml: one part of the network must be an Ensemble of particles; {len(parts)} are.")
    ((prefix, ensemble),) = parts.items()
    start = Shared([name for name, _ in network.named_parameters() if name.startswith(prefix)], log_prior)
    rule, loss = SVGD(rate, halved=halved), loss or classification_of_each(ensemble.members)
    learner = Learner(network, start, [Descend(rule, steps)], loss=loss)
    return Method(learner, Chaser(Descend(rule, leader_steps), _is_weight) if leader_steps else Backprop())


def log_prior(value: Params) -> Tensor:
    """Of all particles together, up to a constant."""
    weights = torch.cat([tensor.flatten(1) for name, tensor in value.items() if _is_weight(name)], 1)
    precisions = {name.rpartition(".")[2]: tensor for name, tensor in value.items() if not _is_weight(name)}
    if not precisions:
        return -0.5 * weights.square().sum()
    log_precision, log_noise = precisions["log_precision"], precisions["log_noise"]
    normal = 0.5 * (weights.shape[1] * log_precision - log_precision.exp() * weights.square().sum(1))
    gammas = 2 * log_precision - 2 * log_precision.exp() + 2 * log_noise - 0.2 * log_noise.exp()
    return (normal + gammas).sum()


def _is_weight(name: str) -> bool:
    return not name.rpartition(".")[2].startswith("log_")
