"""LEO for whole networks (Rusu et al., ICLR 2019, sections 2.3.5 and 4.1, appendix A)."""

from collections.abc import Callable, Collection

import torch

from fewstep import core
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked


@checked
def leo_network(
    network: torch.nn.Module,
    inputs: Count,
    outputs: Count,
    *,
    generated: Callable[[str], bool] | Collection[str] | None = None,
    latents: Count = 16,
    hidden: Count = 32,
    decoder_depth: Count = 3,
    latent_steps: CountOrZero = 5,
    finetuning_steps: CountOrZero = 0,
    latent_rate: Positive = 0.01,
    finetuning_rate: Positive = 0.001,
    clip: Positive | None = None,
    spread: PositiveOrZero = 1.0,
    average: bool = False,
    kl_weight: PositiveOrZero = 1e-3,
    encoder_penalty_weight: PositiveOrZero = 1e-9,
    l2_weight: PositiveOrZero = 1e-8,
    orthogonality_weight: PositiveOrZero = 1e-3,
    formulation: core.Formulation = core.BOUNDED,
    loss: core.Loss | None = None,
    meta_gradient: core.MetaGradient | None = None,
) -> core.Method:
    """Generate a network from one latent code, descend in latent space, decode, and fine-tune if asked to.

    ``z ~ N(μ, σ²)`` of all pairs of encoded ``[x_k, y_k]``, ``z' ← z − α ∘ ∇_z L_S(f_{θ(z)})`` five times,
    ``θ ← decode(z')``, ``θ ← θ − α' ∘ ∇_θ L_S(f_θ)``; meta-objective
    ``L_Q(f_θ) + β KL(q(z)‖N(0,I)) + γ‖stop(z') − z‖² + λ₁(‖φ_e‖² + ‖φ_r‖² + ‖φ_d‖²) + λ₂ Σ_l ‖C_l − I‖²`` (Eq. 6
    and 7), C_l the correlations of the decoder's layer l.

    The defaults are the architecture of appendix A: with ``mlp((1, 40, 40, 1))``, encoder, relation network and decoder
    are three-layer ReLU networks of 32 units without biases around 16 latents, and 2·1,761 numbers are decoded. (Its
    Table 3 says 16 hidden units for the encoder, its text 32.) The paper trains on 12 tasks at a time and publishes
    neither inner steps and rates nor any weight for regression: those here are ours. It samples codes and parameters
    in evaluation too, which takes noise in evaluation, see ``Method.adapt``.

    Args:
        network: f; changed in place: its generated parameters become slots, the others are meta-learned.
        inputs: entries of an input row, all axes flattened.
        outputs: entries of a label row: targets, or ways.
        generated: which parameters, see :func:`~fewstep.core.slots`; all when omitted.
        latents: n_z, width of the code.
        hidden: units of the hidden layers of encoder, relation network and decoder.
        decoder_depth: its layers; 1 is a linear decoder.
        latent_steps: adaptation steps in latent space.
        finetuning_steps: adaptation steps in parameter space.
        latent_rate: initial α, one meta-learned rate per latent dimension.
        finetuning_rate: initial α', one meta-learned rate per generated number.
        clip: shorten inner gradients to this norm, for networks that make them explode; not the paper's.
        spread: deviation of sampled parameters for a raw scale of zero, in units of Glorot's; with 0 parameters are not
            sampled.
        average: meta-learn an average network, to which what is generated is added. The paper has none.
        kl_weight: β, of the divergence of codes from N(0, I) (Eq. 6).
        encoder_penalty_weight: γ, of how far codes move in latent space (Eq. 6).
        l2_weight: λ₁, of the squares of weights (Eq. 7).
        orthogonality_weight: λ₂, of the correlations of each layer of the decoder (Eq. 7).
        formulation: of deviations and penalties. The paper does not say how deviations are parameterised; with those of
            its authors' code or with eᵘ the inner loop is easily led into noise that grows without limits.
        loss: of rows; squared error averaged over the support when omitted.
        meta_gradient: the paper's back-propagation when omitted; ``Mixture`` maximises a predictive likelihood.

    Example:
        >>> method = leo_network(mlp((1, 40, 1)), inputs=1, outputs=1)
        >>> points = method.adapt(sines.support)  # a generated network for each of four tasks
        >>> method.predict(points, sines.query).shape
        torch.Size([4, 10, 1])
    """
    slots = core.slots(network, generated)
    start = core.NetworkGenerator(slots, inputs, outputs, latents, hidden=hidden, decoder_depth=decoder_depth,
        spread=spread, kl_weight=kl_weight, encoder_penalty_weight=encoder_penalty_weight,
        formulation=formulation, average=average)  # fmt: skip
    latent = core.clipped(core.LearnedRates({"code": torch.full((latents,), latent_rate)}, latent_rate), clip)
    rates = {n: torch.full(s.shape, finetuning_rate) for n, s in slots.items()}
    rule = core.clipped(core.LearnedRates(rates, finetuning_rate), clip)
    stages = core.skip_empty(core.Descend(latent, latent_steps), core.Decode(), core.Descend(rule, finetuning_steps))
    learner = core.Learner(network, start, stages, loss=loss or core.regression())
    l2 = core.L2(l2_weight, [f"start.{name}" for name, _ in start.named_parameters()], half=False)
    of = [(f"start.{name}", formulation.reduction, f"orthogonality_{i}") for i, name in enumerate(start.decoder_layers)]
    layers = [core.Orthogonality(orthogonality_weight, *layer) for layer in of]
    return core.Method(learner, meta_gradient or core.Backprop(), [l2, *layers])
