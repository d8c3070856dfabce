"""PLATIPUS, a distribution over initialisations (Finn, Xu and Levine 2018)."""

from torch import nn

from fewstep.core import (
    SGD,
    Amortised,
    Choice,
    Decode,
    Descend,
    LearnedRates,
    Learner,
    Loss,
    Method,
    NormalWeights,
    Shared,
)
from fewstep.core.ranges import CountOrZero, Positive, PositiveOrZero, checked


@checked
def platipus(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    prior_rate: Positive = 0.01,
    posterior_rate: Positive = 0.01,
    deviation: Positive = 0.02,
    posterior_deviation: Positive = 0.02,
    kl_weight: PositiveOrZero = 1e-4,
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """Meta-learn a normal distribution of initialisations, each of which adapts as in MAML: samples for a task.

    Training: ``θ ~ q = N(μ − γ_q ∇L_Q(μ), v)``, ``φ = θ − α ∇L_S(θ)``, meta-gradient
    ``∇_{μ,σ,v,γ} [L_Q(φ) + w KL(q ‖ N(μ − γ_p ∇L_S(μ), σ²))]``. Test: ``θ ~ N(μ − γ_p ∇L_S(μ), σ²)``, then φ.

    Where nothing is drawn, as in an evaluation of single predictions, it is MAML with a first step of rate γ_p.

    The paper could not be read here: equations are from memory, checked against a port. Ours are the numbers of steps,
    all initial numbers and w, of the divergence summed over weights (the paper's text has 1, the port 1e-4 beside a
    mean loss); γ of each tensor; and that v, which the port has for a deviation, is a variance.

    Args:
        network: its parameters are μ.
        rate: α, the inner rate.
        steps: K, inner steps after the draw.
        prior_rate: the initial γ_p, meta-learned.
        posterior_rate: the initial γ_q, meta-learned.
        deviation: the initial σ.
        posterior_deviation: the initial √v.
        kl_weight: w.
        loss: of rows; softmax cross-entropy averaged over the support when omitted. Squared errors stand for normal
            targets of deviation 1/√2.
        adapts: the parameters that are drawn and adapted, names or a predicate on names; all when omitted.

    Example:
        >>> method = platipus(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> noise = method.learner.noise(sines, generator(0, 0, "sample"))
        >>> points = method.adapt(sines.support, noise=noise)  # a sample for each of four tasks
    """
    weights = Shared(adapts).shared(network)
    start = NormalWeights(weights, deviation, posterior_deviation, posterior_rate)
    prior = LearnedRates({name: p.new_tensor(prior_rate) for name, p in weights.items()})
    stages = [Descend(prior, 1), Decode(), Descend(SGD(rate), steps)]
    return Method(Learner(network, start, stages, loss=loss), Amortised(kl_weight))
