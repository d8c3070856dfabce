"""A Gaussian prior over softmax weights (Bauer, Rojas-Carulla, Świątkowski, Schölkopf and Turner 2017)."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fewstep.core import SGD, Backprop, Decode, Descend, Gaussian, Learner, Method, classification
from fewstep.core.ranges import Count, Positive, PositiveOrZero, checked
from fewstep.networks import Generated


@checked
def gaussian_prior(
    weights: Float[Tensor, "classes features"] | Count,
    *,
    covariance: Literal["isotropic", "full"] = "isotropic",
    ridge: PositiveOrZero = 0.0,
    rate: Positive = 0.1,
    steps: Count = 200,
    learned: bool = False,
) -> Method:
    """The most probable classifier of a task, given what those of known classes are like, on fixed features.

    ``p(W | D) ∝ Π_i softmax(W x_i)_{y_i} · Π_n N(w_n; μ, Σ)``, with μ and Σ fitted to the softmax weights of classes
    that a network was trained on. The maximum is found by gradient descent from μ, with a pull to it:
    ``u ← u − α (∇_u L_S(μ + L u) + u)``, LLᵀ = Σ, ``L_S`` the sum of cross-entropies. At the maximum
    ``w_n = μ + Σ Σ_i (y_in − p_in) x_i``; without rows W is μ. The problem is convex: enough steps at a rate that is
    low enough end there.

    Nothing is meta-learned: the prior is a fit. With ``learned`` it is what the meta-gradient begins with, which is not
    the paper's. Of the paper only its abstract and quotations could be read: that weights have no bias, and the
    ``ridge``, are ours. Its samples, Laplace approximations and mixtures are not here.

    Args:
        weights: softmax weights of known classes, such as the last layer of a pre-trained network; or the number of
            features, for a prior that is loaded later.
        covariance: σ² I, or all of Σ.
        ridge: added to variances.
        rate: α; at most 2/(1 + the largest curvature in codes).
        steps: of gradient descent.
        learned: meta-learn μ and L.

    Example:
        >>> method = gaussian_prior(torch.randn(64, 8), steps=50)  # with the weights of 64 classes
        >>> points = method.adapt(clusters.support)
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    start = Gaussian(weights, covariance, ridge=ridge, learned=learned)
    stages = [Descend(SGD(rate), steps, prox=1.0), Decode()]
    return Method(Learner(Generated(), start, stages, loss=classification("sum")), Backprop())
