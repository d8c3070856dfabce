"""Prototypical networks (Snell, Swersky and Zemel 2017)."""

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Method, Prototypes
from fewstep.core.network.heads import generated_head
from fewstep.core.ranges import Positive, checked


@checked
def protonet(network: nn.Module, *, scale: Positive | None = None, loss: Loss | None = None) -> Method:
    """Classify by the nearest class mean, in a meta-learned embedding.

    ``c_n = mean of e(x) over the support of class n``, ``p(y = n | x) ∝ exp(−s ‖e(x) − c_n‖²)``, gradient ``∇L_Q``.

    The paper's Eq. 1 and 2, as the linear classifier of its section 2.4: there is no inner loop. No class owns a
    parameter, so training may have more ways than testing, as the paper recommends (section 3).

    Normalisation is by the statistics of the batch at hand: of the support for prototypes, of the query for itself.
    The authors' code passes both through the network as one batch in training, and has running statistics in testing.
    The paper has s = 1.

    Args:
        network: the embedding e, ending with a :class:`~fewstep.networks.Generated` head: ``Conv4(None)``, or
            ``nn.Sequential(e, Generated())``.
        scale: the initial s, an inverse temperature that is meta-learned; None: it stays 1.
        loss: of query rows; softmax cross-entropy when omitted.

    Raises:
        ValueError: when the network has no generated head, or more than one; for a scale that is not positive.

    Example:
        >>> method = protonet(nn.Sequential(nn.Linear(8, 16), Generated()))
        >>> points = method.adapt(clusters.support)  # no steps: a classifier by distance to each class's mean
        >>> logits = method.predict(points, clusters.query)
        >>> (logits.argmax(-1) == clusters.query.y.argmax(-1)).float().mean().item()  # their accuracy
        1.0
    """
    generated_head(network)  # an error here, and not in the first task
    return Method(Learner(network, Prototypes((), scale), [], loss=loss), Backprop())
