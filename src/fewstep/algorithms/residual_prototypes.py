"""Residual prototypes: class means in an embedding that begins at the identity. No paper's; fewstep's own."""

import math
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep import core
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked
from fewstep.networks import Centred, Generated, Residual, UnitLength

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARPNESSES = (3.0, 10.0, 30.0)
LATENT_RATES = (0.05, 0.1, 0.2, 0.3)
RATES = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
"""What strength, penalty of the ridge regression, sharpness of the prior and rates may be; at 0 there is no residual,
there are no steps."""


@checked
def residual_prototypes(
    centre: Float[Tensor, " features"] | Count,
    *,
    hidden: Count = 512,
    strength: PositiveOrZero = 1.0,
    scale: Positive = 2.0,
    penalty: Positive = 1.0,
    decay: PositiveOrZero = 100.0,
    seen: Float[Tensor, "classes features"] | CountOrZero = 0,
    latent_steps: CountOrZero = 2,
    steps: CountOrZero = 5,
    loss: core.Loss | None = None,
) -> core.Method:
    """Classify by nearest class mean on centred rows of length 1, moved by a residual that is meta-learned.

    ``x̃ = l₂(l₂(x) − c)``, ``e(x) = l₂(x̃ + λ (A x̃ + B relu(C x̃ + d)))``, ``p(y = n | x) ∝ exp(−s ‖e(x) − c_n‖²)``
    with the class means c_n of e over the support, and ``l₂(v) = v/‖v‖``. Gradient ``∇L_Q``; A and B begin at zero and
    decay towards it, decoupled from the gradient. A code a class, zero at first, is LEO's idea around class means: it
    shifts the mean, by steps towards what classes of meta-training make likely (:class:`~fewstep.core.Shifted`).

    At λ = 0 it *is* nearest class mean on centred rows (SimpleShot's CL2N), whatever was learned. What no
    gradient finds is left for after training, to be chosen on validation tasks (:func:`fewstep.evaluation.choose`): λ;
    whether the classifier is that of class means or of a ridge regression on e; and how far steps of gradient descent
    may move it, in codes or in weights. So the method can fall back to what it would have to beat.

    Args:
        centre: c, the mean of rows of length 1 over the meta-training classes,
            ``mean_input(embeddings(path, "train"))``; or the number of features, for a centre that is loaded later.
        hidden: units of the hidden layer.
        strength: λ in meta-training.
        scale: the initial s, an inverse temperature.
        penalty: of the ridge regression, see :class:`~fewstep.core.Ridge`.
        decay: weight decay of A and B, in units of one over the outer rate.
        seen: the means of meta-training classes on x̃, ``class_means(embeddings(path, "train"), centre, 256)``, of which
            the prior of codes is made; or how many, for means that are loaded later. 0: there are no codes.
        latent_steps: of gradient descent on codes, at a rate that is chosen too. In meta-training it is 0.
        steps: of gradient descent on the classifier. In meta-training their rate is 0.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.

    Example:
        >>> method = residual_prototypes(clusters.support.x.mean((0, 1)), hidden=16)
        >>> points = method.adapt(clusters.support)
        >>> points.value["weight"].shape  # a classifier of each of four tasks
        torch.Size([4, 3, 8])
    """
    features = centre if isinstance(centre, int) else len(centre)
    residual = Residual(features, hidden, strength)
    embedding = nn.Sequential(UnitLength(), Centred(centre), residual)
    head = core.Blend(core.Prototypes((), scale), core.Ridge(penalty, scale, learned=False))
    start: core.Start = head
    coded = not (isinstance(seen, int) and seen == 0)
    if coded:
        prior = core.ClassPrior((seen, features) if isinstance(seen, int) else seen, embedding=residual)
        start = core.Shifted(head, prior=prior)
    # Rates to be chosen: in meta-training, steps make the training loss fall alone.
    in_codes = core.Descend(core.SGD(torch.tensor(0.0)), latent_steps if coded else 0)
    in_weights = core.Descend(core.SGD(torch.tensor(0.0)), steps)
    stages = core.skip_empty(in_codes, core.Decode(), in_weights)
    learner = core.Learner(Generated(), start, stages, embedding=embedding, loss=loss)
    decayed = core.Decay(decay, ("embedding.2.linear.weight", "embedding.2.outer.weight"))
    return core.Method(learner, core.Backprop(), decays=(decayed,), alternatives=_alternatives(learner))


def _alternatives(learner: core.Learner) -> list[core.Alternatives]:
    """Strength, head, and rates; the first of each is what makes centred nearest class mean."""
    head = "start.head" if isinstance(learner.start, core.Shifted) else "start"
    shares, penalty = f"{head}.shares", f"{head}.starts.1.log_penalty"
    heads: dict[str, core.Values] = {"class means": {shares: (1.0, 0.0), penalty: 0.0}}
    heads |= {f"ridge {value:g}": {shares: (0.0, 1.0), penalty: math.log(value)} for value in PENALTIES}
    strengths = {f"{value:g}": {"embedding.2.strength": value} for value in STRENGTHS}
    found = [core.Alternatives("strength", strengths), core.Alternatives("head", heads)]
    decoded = False
    for i, stage in enumerate(learner.stages):
        decoded |= isinstance(stage, core.Decode)
        rate, prior = f"stages.{i}.rule.rate", "start.prior.sharpness"
        if isinstance(stage, core.Descend) and decoded:
            found.append(core.Alternatives("rate", {f"{value:g}": {rate: value} for value in RATES}))
        elif isinstance(stage, core.Descend):
            pairs = {f"{a:g}, sharpness {t:g}": {rate: a, prior: t} for a, t in product(LATENT_RATES, SHARPNESSES)}
            found.append(core.Alternatives("latent rate", {"0": {rate: 0.0, prior: SHARPNESSES[0]}} | pairs))
    return found
