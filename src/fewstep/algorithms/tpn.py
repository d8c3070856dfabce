"""TPN: transductive propagation networks (Liu, Lee, Park, Kim, Yang, Hwang and Yang 2019)."""

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Memory, Method
from fewstep.core.ranges import Count, Share, checked
from fewstep.networks.propagating import Propagating


@checked
def tpn(
    network: nn.Module,
    width: nn.Module | None = None,
    *,
    neighbours: Count = 20,
    alpha: Share = 0.99,
    support_rows: bool = True,
    loss: Loss | None = None,
) -> Method:
    """Spread the support's labels over a graph of support and queries, in a meta-learned embedding.

    ``F = (I − αS)⁻¹ Y``, ``p(y_i = n) ∝ exp F_in``, S the normalised affinities
    ``W_ij = exp(−½ mean_d (e_i/σ_i − e_j/σ_j)²)`` of nearest neighbours (Eq. 1 to 4,
    :class:`~fewstep.networks.Propagating`); loss: cross-entropy over support and query rows, gradient with respect to e
    and to the network of σ. There is no inner loop, and no class owns a parameter.

    It is *transductive* by design: what is predicted for a query depends on the queries beside it, and on how many they
    are. Tables say so, and statistics of rows other than the queries are refused.

    As the authors' code has it: the distance is a mean over features, a row is its own neighbour and counts as one of
    the k, and the factor 1 − α of the limit of Eq. 3 is left out, so that the softmax is 100 times as sharp. It divides
    by σ as the network gives it, which may be negative. Its tests normalise by running statistics of training; here
    normalisation is by the statistics of the batch at hand, of support and queries apart.

    Args:
        network: the embedding e, whose outputs are features ``[rows, features]``, such as ``Conv4(None)``.
        width: from these to σ ``[rows, 1]``: :func:`fewstep.networks.propagating.width_of_maps` of flattened maps,
            ``width_of_vectors``. None: σ = 1, plain label propagation.
        neighbours: k.
        alpha: α, how far labels spread.
        support_rows: the loss is over support rows too, as published; False: over queries alone.
        loss: of rows; softmax cross-entropy when omitted.

    Example:
        >>> method = tpn(nn.Linear(8, 16), neighbours=5)
        >>> points = method.adapt(clusters.support)  # no steps: each task's embedded support
        >>> logits = method.predict(points, clusters.query)  # of 15 queries together
        >>> (logits.argmax(-1) == clusters.query.y.argmax(-1)).float().mean().item()  # their accuracy
        1.0
    """
    whole = nn.Sequential(network, Propagating(width, neighbours, alpha))
    return Method(Learner(whole, Memory(), [], loss=loss), Backprop(support_rows=support_rows))
