"""Latent Embedding Optimization (Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero and Hadsell, ICLR 2019)."""

from typing import Literal

import torch

from fewstep.core import (
    L2,
    OFFICIAL,
    PAPER,
    Backprop,
    Decode,
    Descend,
    Formulation,
    Generator,
    LearnedRates,
    Learner,
    Method,
    Orthogonality,
    Stage,
    classification,
)
from fewstep.core.loss import Reduction
from fewstep.networks import Generated

WEIGHTS = ("encoder", "relation.layers.0", "relation.layers.1", "relation.layers.2", "decoder")


def leo(
    features: int,
    *,
    latents: int = 64,
    hidden: int | None = None,
    latent_steps: int = 5,
    finetuning_steps: int = 5,
    latent_rate: float = 1.0,
    finetuning_rate: float = 0.001,
    dropout: float = 0.3,
    kl_weight: float = 1e-3,
    encoder_penalty_weight: float = 1e-9,
    l2_weight: float = 1e-8,
    orthogonality_weight: float = 1e-3,
    formulation: Literal["official", "paper"] | Formulation = "official",
    support_reduction: Reduction = "sum",
    half_l2: bool | None = None,
    orthogonality_reduction: Reduction | None = None,
) -> Method:
    """Generate a linear classifier from a latent code, descend in latent space, decode, fine-tune (Algorithm 1).

    ``z' ← z − α ∘ ∇_z L_S(f_{θ(z)})`` five times, ``θ ← decode(z')``, ``θ ← θ − α' ∘ ∇_θ L_S(f_θ)`` five times;
    meta-objective
    ``L_Q(f_θ) + β KL(q(z)‖N(0,I)) + γ‖stop(z') − z‖² + λ₁(‖φ_e‖² + ‖φ_r‖² + ‖φ_d‖²) + λ₂‖C_d − I‖²`` (Eq. 6 and 7).

    Args:
        features: n_x, width of the (L2-normalised) embeddings.
        latents: n_z, width of a code.
        hidden: units of the relation network, ``2·latents`` when omitted.
        latent_steps: adaptation steps in latent space.
        finetuning_steps: adaptation steps in parameter space.
        latent_rate: initial α, one meta-learned rate per latent dimension.
        finetuning_rate: initial α', one meta-learned rate per feature.
        dropout: 1 − p_keep, on the embeddings, with a fresh mask at the encoder and every pass.
        kl_weight: β.
        encoder_penalty_weight: γ.
        l2_weight: λ₁.
        orthogonality_weight: λ₂.
        formulation: ``"official"``, the authors' code, which made the published numbers, or ``"paper"``, its text.
            They differ in the fields of :class:`Formulation` and in the next two arguments.
        support_reduction: of the inner loss; both formulations sum over the support (Eq. 5).
        half_l2: the authors' code takes half of the paper's λ₁ term.
        orthogonality_reduction: the authors' code averages over the entries of C − I, the paper sums them.
    """
    official = formulation != "paper"
    form = formulation if isinstance(formulation, Formulation) else (OFFICIAL if official else PAPER)
    start = Generator(
        features,
        latents,
        hidden=hidden,
        kl_weight=kl_weight,
        encoder_penalty_weight=encoder_penalty_weight,
        formulation=form,
    )
    stages: list[Stage] = [
        Descend(LearnedRates({"code": torch.full((latents,), latent_rate)}), latent_steps),
        Decode(),
        Descend(LearnedRates({"weight": torch.full((features,), finetuning_rate)}), finetuning_steps),
    ]
    learner = Learner(Generated(), start, stages, loss=classification(support_reduction), dropout=dropout)
    l2 = L2(l2_weight, [f"start.{name}.weight" for name in WEIGHTS], official if half_l2 is None else half_l2)
    reduction = orthogonality_reduction or ("mean" if official else "sum")
    return Method(learner, Backprop(), [l2, Orthogonality(orthogonality_weight, "start.decoder.weight", reduction)])
