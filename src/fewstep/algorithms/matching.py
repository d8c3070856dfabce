"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016)."""

from typing import Literal

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Memory, Method
from fewstep.core.ranges import Count, CountOrZero, Positive, checked
from fewstep.networks.matching import Context, Matching


@checked
def matching(
    network: nn.Module,
    features: Count | None = None,
    *,
    vote: Literal["sum", "attention"] = "sum",
    scale: Positive | None = None,
    reads: CountOrZero = 0,
    form: Literal["hidden", "input"] = "hidden",
    loss: Loss | None = None,
) -> Method:
    """Classify by cosines with the rows of the support, in a meta-learned embedding; with or without full context.

    ``a_i = softmax_i s·cos(f(x), g(x_i))``, ``p(y = n | x) = Σ_i a_i y_in``, gradient ``∇L_Q`` (section 2.1). With
    ``"sum"``, the default, ``p(y = n | x) ∝ exp(s Σ_i y_in cos(f(x), g(x_i)))``: that is the run of Ravi and Larochelle
    (2017) which LEO's and many other tables quote. For one shot the two are the same. There is no inner loop, and no
    class owns a parameter, so any number of ways is fine at any time.

    Without context f = g = e, the network. With K ``reads``, each row of the support is seen beside the others, and a
    query attends to them K times (:class:`~fewstep.networks.matching.Context`): it then depends on the order of the
    support, which is drawn anew for each task in meta-training and always the same in evaluation.

    The paper has no s; with one that is learned from 10, Gidaris and Komodakis (2018) report ten points more on
    miniImageNet. In the quoted run an LSTM's backward states stand in the order in which they were made, so that each
    row has the state of another, the first r is the mean of the support, and attention follows the cell; ``"input"`` is
    the form of the usual programs, whose K often is the number of rows. Normalisation is by the statistics of the batch
    at hand.

    Args:
        network: the embedding e, whose outputs are features ``[rows, features]``, such as ``Conv4(None)``.
        features: width of its outputs; needed for a context alone.
        vote: how rows become classes: their cosines are added, or an attention over them is.
        scale: the initial s, which is meta-learned; None: it stays 1.
        reads: K, how often a query attends to the support; 0: there is no context.
        form: what a query has read joins its LSTM's hidden state (the paper), or its input (the usual programs).
        loss: of query rows; softmax cross-entropy when omitted.

    Raises:
        ValueError: for a context without ``features``.

    Example:
        >>> method = matching(nn.Linear(8, 16), scale=10.0)
        >>> points = method.adapt(clusters.support)  # no steps: each task's embedded support
        >>> logits = method.predict(points, clusters.query)
        >>> (logits.argmax(-1) == clusters.query.y.argmax(-1)).float().mean().item()  # their accuracy
        1.0
    """
    context = None
    if reads:
        if features is None:
            raise ValueError("matching: a context has states as wide as a row; give the network's number of features.")
        context = Context(features, reads, form)
    head = Matching(vote, scale, context)
    return Method(Learner(nn.Sequential(network, head), Memory(shuffled=reads > 0), [], loss=loss), Backprop())
