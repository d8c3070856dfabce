"""DFSL: dynamic few-shot learning without forgetting (Gidaris and Komodakis 2018)."""

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core import L2, Attending, Backprop, Learner, Loss, Method
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked
from fewstep.networks import Generated, UnitLength


@checked
def dfsl(
    features: Count,
    known: Float[Tensor, "classes features"] | CountOrZero = 0,
    *,
    scale: Positive = 10.0,
    sharpness: Positive = 10.0,
    others: CountOrZero = 15,
    l2_weight: PositiveOrZero = 5e-4,
    loss: Loss | None = None,
) -> Method:
    """Generate a cosine classifier from class means and from weights of known classes, on fixed features.

    ``p(y = n | x) ∝ exp s cos(z, w_n)``, ``w_n = φ ⊙ mean_k z̄_k + ψ ⊙ mean_k Σ_b a_kb v̄_b``,
    ``a_k = softmax_b γ cos(Q z̄_k + q, κ_b)``, where ``v̄ = v/‖v‖`` (section 3.2). Gradient ``∇L_Q`` with respect to
    all of them, the weights v and keys κ of known classes too. There is no inner loop.

    This is the paper's second stage. Tasks of meta-training are of known classes as if these were new, so that their
    own weights are out of sight (:class:`~fewstep.core.KnownTask`). Their queries, and rows of other known classes
    beside them, are classified among all: the new classes of the task, and the known ones that it is not of. The first
    stage trains features and v by a cosine classifier of the known classes (``Pretraining.classifier``); v alone, on
    features that are there, is :func:`~fewstep.data.cosine_weights`. A test is among a task's classes alone, as theirs.

    The authors decay s and γ too, of which the logarithms are learned here, and their scores have a bias, the same for
    all classes, which a softmax does not see.

    Args:
        features: width of a row.
        known: weights v of known classes, to begin with; or how many there are. 0: w_n is ``φ ⊙ mean_k z̄_k``, the
            paper's generator by averaging, and there is nothing to classify beside a task's classes.
        scale: the initial s.
        sharpness: the initial γ.
        others: rows of other known classes in the query of a task of meta-training. 0: its own classes are told apart
            from each other alone.
        l2_weight: of ``½‖·‖²`` of all other parameters.
        loss: of query rows; softmax cross-entropy when omitted.

    Example:
        >>> method = dfsl(8, known=5)
        >>> points = method.adapt(clusters.support)  # no steps: a classifier of each task's classes
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    start = Attending(features, known, scale=scale, sharpness=sharpness, others=others)
    learner = Learner(nn.Sequential(UnitLength(), Generated()), start, [], loss=loss)
    decayed = [name for name, parameter in learner.named_parameters() if parameter.dim() > 0]
    return Method(learner, Backprop(), [L2(l2_weight, decayed)])
