"""Residual prototypes: class means in an embedding that begins at the identity. No paper's; fewstep's own."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep import core
from fewstep.networks import Centred, Generated, Residual, UnitLength

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
RATES = (0.0, 0.3, 1.0, 3.0)
"""What strength, penalty of the ridge regression and rate of the steps may be; at 0 there is no residual, no step."""


def residual_prototypes(
    centre: Float[Tensor, " features"] | int,
    *,
    hidden: int = 512,
    strength: float = 1.0,
    scale: float = 2.0,
    penalty: float = 1.0,
    decay: float = 100.0,
    steps: int = 5,
    loss: core.Loss | None = None,
) -> core.Method:
    """Classify by nearest class mean on centred rows of length 1, moved by a residual that is meta-learned.

    ``x̃ = l₂(l₂(x) − c)``, ``e(x) = l₂(x̃ + λ (A x̃ + B relu(C x̃ + d)))``, ``p(y = n | x) ∝ exp(−s ‖e(x) − c_n‖²)``
    with the class means c_n of e over the support, and ``l₂(v) = v/‖v‖``. Gradient ``∇L_Q``; A and B begin at zero and
    decay towards it, decoupled from the gradient.

    At λ = 0 it *is* nearest class mean on centred rows (SimpleShot's CL2N), whatever was learned. Three choices are
    left for after training, on validation tasks, see :func:`fewstep.evaluation.choose`: λ; whether the classifier is
    that of class means or of a ridge regression on e, or between the two; and how far ``steps`` steps of gradient
    descent may move it. So the method can fall back to what it would have to beat.

    Args:
        centre: c, the mean of rows of length 1 over the meta-training classes,
            ``mean_input(embeddings(path, "train"))``; or the number of features, for a centre that is loaded later.
        hidden: units of the hidden layer.
        strength: λ in meta-training.
        scale: the initial s, an inverse temperature.
        penalty: of the ridge regression, see :class:`~fewstep.core.Ridge`.
        decay: weight decay of A and B, in units of one over the outer rate.
        steps: of gradient descent on the classifier. In meta-training their rate is 0.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.

    Example:
        >>> method = residual_prototypes(clusters.support.x.mean((0, 1)), hidden=16)
        >>> points = method.adapt(clusters.support)
        >>> points.value["weight"].shape  # a classifier of each of four tasks
        torch.Size([4, 3, 8])
    """
    features = centre if isinstance(centre, int) else len(centre)
    embedding = nn.Sequential(UnitLength(), Centred(centre), Residual(features, hidden, strength))
    start = core.Blend(core.Prototypes((), scale), core.Ridge(penalty, scale, learned=False))
    # A rate to be chosen: in meta-training, steps make the training loss fall alone.
    stages = core.skip_empty(core.Descend(core.SGD(torch.tensor(0.0)), steps))
    learner = core.Learner(Generated(), start, stages, embedding=embedding, loss=loss)
    decayed = core.Decay(decay, ("embedding.2.linear.weight", "embedding.2.outer.weight"))
    return core.Method(learner, core.Backprop(), decays=(decayed,), alternatives=_alternatives(bool(stages)))


def _alternatives(steps: bool) -> list[core.Alternatives]:
    """Strength, head, and rate; the first of each is what makes centred nearest class mean."""
    strengths = {f"{value:g}": {"embedding.2.strength": value} for value in STRENGTHS}
    heads: dict[str, core.Values] = {"class means": {"start.shares": (1.0, 0.0), "start.starts.1.log_penalty": 0.0}}
    heads |= {
        f"ridge {value:g}": {"start.shares": (0.0, 1.0), "start.starts.1.log_penalty": math.log(value)}
        for value in PENALTIES
    }
    rates = {f"{value:g}": {"stages.0.rule.rate": value} for value in RATES}
    found = [core.Alternatives("strength", strengths), core.Alternatives("head", heads)]
    return [*found, core.Alternatives("rate", rates)] if steps else found
