"""Relation networks (Sung, Yang, Zhang, Xiang, Torr and Hospedales 2018)."""

from typing import Literal

from torch import Tensor, nn

from fewstep.core import Backprop, Learner, Loss, Memory, Method
from fewstep.core.ranges import checked
from fewstep.networks.relating import Relating


def squared_error_of_scores(prediction: Tensor, y: Tensor) -> Tensor:
    """``mean_n (sigmoid(logit_n) − y_n)²``, one number a row."""
    return (prediction.sigmoid() - y).square().mean(-1)


@checked
def relation(
    network: nn.Module, module: nn.Module, *, reduce: Literal["sum", "mean"] = "sum", loss: Loss | None = None
) -> Method:
    """Classify by a learned score of a query beside each class, in a meta-learned embedding.

    ``c_n = Σ_k e(x_k)`` over the support of class n, ``r_n = σ(g([c_n, e(x)]))``, loss ``mean (r_n − y_n)²``, gradient
    ``∇L_Q`` with respect to e and g. There is no inner loop, and no class owns a parameter.

    Predictions are the scores before σ, so that a softmax of them is a softmax and the largest is the same. The sum is
    that of the authors' code; most other programs average. On vectors, g is ours.

    The authors never leave training mode, so that their tests normalise by classes in equal numbers of the test itself,
    which is transductive: as here, unless queries are normalised otherwise (``statistics="support"``). Normalisation of
    e is by the statistics of the batch at hand, of g by those of its pairs.

    Args:
        network: the embedding e, whose outputs are vectors or feature maps, such as
            :func:`fewstep.networks.relating.encoder`.
        module: g, as :class:`~fewstep.networks.Relating` takes it: :func:`fewstep.networks.relating.of_maps`, or
            ``of_vectors``.
        reduce: how the support of a class becomes one: its rows are added (the authors' code), or averaged.
        loss: of query rows; the squared error of scores when omitted.

    Example:
        >>> from fewstep.networks.relating import of_vectors
        >>> method = relation(nn.Linear(8, 16), of_vectors(16))
        >>> points = method.adapt(clusters.support)  # no steps: each task's embedded support
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    whole = nn.Sequential(network, Relating(module, reduce))
    return Method(Learner(whole, Memory(), [], loss=loss or Loss(squared_error_of_scores)), Backprop())
