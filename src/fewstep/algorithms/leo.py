"""Latent Embedding Optimization (Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero and Hadsell, ICLR 2019)."""

from functools import partial
from typing import Literal

import torch

from fewstep import core
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, Share, checked
from fewstep.networks import Generated, UnitLength

FORMULATIONS = {"official": (core.OFFICIAL, True), "paper": (core.PAPER, False)}
"""What a name stands for: the generator's switches, and whether penalties are those of the authors' code."""


@checked
def leo(
    features: Count,
    *,
    normalise: bool = True,
    latents: Count = 64,
    hidden: Count | None = None,
    latent_steps: CountOrZero = 5,
    finetuning_steps: CountOrZero = 5,
    latent_rate: Positive = 1.0,
    latent_clip: Positive | None = 10.0,
    finetuning_rate: Positive = 0.001,
    dropout: Share = 0.3,
    kl_weight: PositiveOrZero = 1e-3,
    encoder_penalty_weight: PositiveOrZero = 1e-9,
    l2_weight: PositiveOrZero = 1e-8,
    orthogonality_weight: PositiveOrZero = 1e-3,
    formulation: Literal["official", "paper"] | core.Formulation = "official",
    support_reduction: core.Reduction = "sum",
    half_l2: bool | None = None,
    orthogonality_reduction: core.Reduction | None = None,
    curvature: bool = False,
    stochastic: bool = True,
    encoded: bool = True,
) -> core.Method:
    """Generate a linear classifier from a latent code, descend in latent space, decode, fine-tune (Algorithm 1).

    ``z' ← z − α ∘ ∇_z L_S(f_{θ(z)})`` five times, ``θ ← decode(z')``, ``θ ← θ − α' ∘ ∇_θ L_S(f_θ)`` five times;
    meta-objective
    ``L_Q(f_θ) + β KL(q(z)‖N(0,I)) + γ‖stop(z') − z‖² + λ₁(‖φ_e‖² + ‖φ_r‖² + ‖φ_d‖²) + λ₂‖C_d − I‖²`` (Eq. 6 and 7).

    Args:
        features: n_x, width of the embeddings.
        normalise: scale each embedding to length 1 first, as the authors do when they load theirs (the paper does not
            say so). False where that has been done, or to adapt on rows as they are: let them be about as long, for on
            rows ‖x‖ times as long a latent step is so much longer that codes soon overflow.
        latents: n_z, width of a code.
        hidden: units of the relation network, ``2·latents`` when omitted.
        latent_steps: adaptation steps in latent space.
        finetuning_steps: adaptation steps in parameter space.
        latent_rate: initial α, one meta-learned rate per latent dimension.
        latent_clip: a guard that the authors' code does not have: gradients of a task's codes are shortened to this
            norm. It is about 1 on embeddings of 640; on few or other features, steps without a bound reach codes whose
            deviations are not finite. None: no guard.
        finetuning_rate: initial α', one meta-learned rate per feature.
        dropout: 1 − p_keep, on the embeddings, with a fresh mask at the encoder and every pass.
        kl_weight: β, of the divergence of codes from N(0, I) (Eq. 6).
        encoder_penalty_weight: γ, of how far codes move in latent space (Eq. 6).
        l2_weight: λ₁, of the squares of weights (Eq. 7).
        orthogonality_weight: λ₂, of the correlations of the decoder's rows (Eq. 7).
        formulation: ``"official"``, the authors' code, which made the published numbers, or ``"paper"``, its text.
            They differ in the fields of :class:`Formulation`, in ``half_l2`` and in ``orthogonality_reduction``.
        support_reduction: of the inner loss; both formulations sum over the support (Eq. 5).
        half_l2: the authors' code takes half of the paper's λ₁ term.
        orthogonality_reduction: the authors' code averages over the entries of C − I, the paper sums them.
        curvature: no paper's, Meta-Curvature's idea in latent space: ``z' ← z − α ∘ M ∇_z L_S`` with a meta-learned
            matrix M ``[n_z, n_z]``, at first the identity.
        stochastic: sample codes and weights in meta-training. False is the paper's "deterministic" ablation, which has
            no divergence of codes, see :class:`Generator`; dropout stays.
        encoded: encode the support into codes. False is the paper's "random prior", whose codes are drawn from N(0, I)
            and know nothing of the task before the first latent step.

    The paper's "conditional generator only" has no steps of either kind, "no fine-tuning" none of the second.

    Example:
        >>> method = leo(features=8, latents=3)
        >>> points = method.adapt(clusters.support)  # four tasks: two examples of each of three classes
        >>> points.value["weight"].shape  # a classifier of each
        torch.Size([4, 3, 8])
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    form, official = FORMULATIONS[formulation] if isinstance(formulation, str) else (formulation, True)
    generator = partial(core.Generator, hidden=hidden, formulation=form, stochastic=stochastic, encoded=encoded)
    start = generator(features, latents, kl_weight=kl_weight, encoder_penalty_weight=encoder_penalty_weight)
    rates = core.LearnedRates({"code": torch.full((latents,), latent_rate)})
    curved = core.Chain(core.Curvature({"code": (None, latents)}, rate=1.0), rates) if curvature else rates
    tuning = core.LearnedRates({"weight": torch.full((features,), finetuning_rate)})
    latent = core.Descend(core.clipped(curved, latent_clip), latent_steps)
    stages = core.skip_empty(latent, core.Decode(), core.Descend(tuning, finetuning_steps))
    loss, embedding = core.classification(support_reduction), UnitLength() if normalise else None
    learner = core.Learner(Generated(), start, stages, embedding=embedding, loss=loss, dropout=dropout)
    l2 = core.L2(l2_weight, [f"start.{name}" for name in start.state_dict()], official if half_l2 is None else half_l2)
    how: core.Reduction = orthogonality_reduction or ("mean" if official else "sum")
    orthogonality = core.Orthogonality(orthogonality_weight, "start.decoder.weight", how)
    return core.Method(learner, core.Backprop(), [l2, orthogonality])
