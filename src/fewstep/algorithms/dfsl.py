"""DFSL: dynamic few-shot learning without forgetting (Gidaris and Komodakis 2018)."""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core import L2, Attending, Auxiliary, Backprop, Batch, Learner, Loss, Method
from fewstep.core.loss import cross_entropy
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked
from fewstep.networks import Generated, UnitLength


@checked
def dfsl(
    features: Count,
    known: Float[Tensor, "classes features"] | CountOrZero = 0,
    *,
    scale: Positive = 10.0,
    sharpness: Positive = 10.0,
    l2_weight: PositiveOrZero = 5e-4,
    base: Callable[[torch.Generator], Batch] | None = None,
    loss: Loss | None = None,
) -> Method:
    """Generate a cosine classifier from class means and from weights of known classes, on fixed features.

    ``p(y = n | x) ∝ exp s cos(z, w_n)``, ``w_n = φ ⊙ mean_k z̄_k + ψ ⊙ mean_k Σ_b a_kb v̄_b``,
    ``a_k = softmax_b γ cos(Q z̄_k + q, κ_b)``, where ``v̄ = v/‖v‖`` (section 3.2). Gradient ``∇L_Q`` with respect to
    all of them, the weights v and keys κ of known classes too. In meta-training tasks are of known classes, whose own
    weights are out of sight (:class:`~fewstep.core.KnownTask`). This is the paper's second stage, with features that
    stay as they are; there is no inner loop.

    The authors classify new and other known classes together, 64 less the five of a task and these five. Here a
    query is one of the task's classes, and ``base`` adds the loss of naming known classes to the meta-objective. They
    begin v at a cosine classifier that the features were trained with, where these are pre-trained without it; and
    decay s and γ too, of which the logarithms are learned here.

    Args:
        features: width of a row.
        known: weights v of known classes, to begin with; or how many there are. 0: w_n is ``φ ⊙ mean_k z̄_k``, the
            paper's generator by averaging.
        scale: the initial s.
        sharpness: the initial γ.
        l2_weight: of ``½‖·‖²`` of all other parameters.
        base: draws rows of known classes with their labels, such as ``RandomRows(dataset, 600)``; None: they are not
            named.
        loss: of query rows; softmax cross-entropy when omitted.

    Example:
        >>> method = dfsl(8, known=5)
        >>> points = method.adapt(clusters.support)  # no steps: a classifier of each task's classes
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    start = Attending(features, known, scale=scale, sharpness=sharpness)
    learner = Learner(nn.Sequential(UnitLength(), Generated()), start, [], loss=loss)
    decayed = [name for name, parameter in learner.named_parameters() if parameter.dim() > 0]

    def naming(learner: Learner, batch: Batch) -> Tensor:
        logits = cast(Attending, learner.start).known_logits(learner.features(batch))
        return cross_entropy(logits[:, : batch.y.shape[1]], batch.y).mean()

    beside = [] if base is None else [Auxiliary(naming, base, 1.0)]
    return Method(learner, Backprop(), [L2(l2_weight, decayed)], auxiliaries=beside)
