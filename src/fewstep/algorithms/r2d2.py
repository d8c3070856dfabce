"""R2-D2: ridge regression differentiable discriminator (Bertinetto, Henriques, Torr and Vedaldi 2019)."""

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Method, Ridge
from fewstep.core.network.heads import generated_head
from fewstep.core.ranges import Positive, checked


@checked
def r2d2(network: nn.Module, *, penalty: Positive = 1.0, scale: Positive = 1.0, loss: Loss | None = None) -> Method:
    """Classify by a ridge regression on the support, solved in closed form, in a meta-learned embedding.

    ``W = argmin_W 1/n Σ_i ‖W [e(x_i), 1] − y_i‖² + λ‖W‖²``, ``p(y = n | x) ∝ exp(α W_n [e(x), 1])``, gradient
    ``∇L_Q`` with respect to the embedding e, to λ and to α, through the solution (Eq. 4 to 6).

    There is no inner loop. No class owns a parameter, so training may have more ways than testing, as the paper
    recommends (section 4.2).

    The mean over the n rows and the penalised bias are those of the authors' code, the paper writes a sum and leaves
    the bias out. Their code learns λ and α themselves, where here it is their logarithms, and adds a β to all logits,
    which a softmax does not see.

    Args:
        network: the embedding e, ending with a :class:`~fewstep.networks.Generated` head: ``Conv4(None)``, or
            ``nn.Sequential(e, Generated())``.
        penalty: the initial λ.
        scale: the initial α.
        loss: of query rows; softmax cross-entropy when omitted.

    Raises:
        ValueError: when the network has no generated head, or more than one; unless λ and α are positive.

    Example:
        >>> method = r2d2(nn.Sequential(nn.Linear(8, 16), Generated()), scale=10.0)
        >>> points = method.adapt(clusters.support)  # no steps: a classifier that fits each task's rows
        >>> logits = method.predict(points, clusters.query)
        >>> (logits.argmax(-1) == clusters.query.y.argmax(-1)).float().mean().item()  # their accuracy
        1.0
    """
    generated_head(network)  # an error here, and not in the first task
    start = Ridge(penalty, scale, bias="penalised", mean=True)
    return Method(Learner(network, start, [], loss=loss), Backprop())
