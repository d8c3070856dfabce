"""SNAIL: a simple neural attentive meta-learner (Mishra, Rohaninejad, Chen and Abbeel 2018)."""

from typing import Literal

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Memory, Method
from fewstep.core.ranges import Count, Ways, checked
from fewstep.networks.snail import Snail


@checked
def snail(
    network: nn.Module,
    features: Count,
    ways: Ways,
    *,
    most_shots: Count = 5,
    filters: Count = 128,
    first: Literal[1, 2] = 2,
    loss: Loss | None = None,
) -> Method:
    """Read the support as a sequence, by causal convolutions and attention, and classify a query as its end.

    Columns ``[e(x_i), y_i]``, then ``[e(x), 0]``; dense blocks ``[x_t, tanh(f_t) σ(g_t)]`` of convolutions with lags 2,
    4, 8, … between attentions ``[x_t, Σ_{u ≤ t} a_tu v_u]``; ``p(y | x)`` is the softmax of the last column. Gradient
    ``∇L_Q``. There is no inner loop: how to learn is learned whole, by :class:`~fewstep.networks.Snail`.

    The support comes in an order that is drawn for each task of meta-training; in evaluation it is always the same one,
    and predictions depend on it. Classes have outputs of their own: another number of ways is refused.

    Lags begin at 2, as the paper prints, with which the convolutions of a block reach even lags alone; many programs
    begin at 1. The paper draws the number of shots anew for every task, from 1 to 5; that is the tasks' to do
    (:class:`~fewstep.data.FewerShots`). The support's columns are computed once for all queries, for none of them sees
    a query. Its appendices, which we could not read, have the embeddings and the widths; those here are quoted by
    others.

    Args:
        network: the embedding e, whose outputs are features ``[rows, features]``, such as ``Conv4(None)``.
        features: width of its outputs.
        ways: number of classes, in meta-training and ever after.
        most_shots: K, examples of a class at most: there are ⌈log₂(ways · K + 1)⌉ lags.
        filters: of the convolutions; the widths of attention are in proportion.
        first: the first lag; 2 is the paper's.
        loss: of query rows; softmax cross-entropy when omitted.

    Example:
        >>> method = snail(nn.Linear(8, 16), features=16, ways=3, filters=8)
        >>> points = method.adapt(clusters.support)  # no steps: each task's embedded support
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    whole = nn.Sequential(network, Snail(features, ways, most_shots, filters, first))
    return Method(Learner(whole, Memory(shuffled=True), [], loss=loss), Backprop())
