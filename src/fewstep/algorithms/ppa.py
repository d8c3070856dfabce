"""PPA: predicting parameters from activations (Qiao, Liu, Shen and Yuille 2018)."""

from torch import nn

from fewstep.core import L2, Backprop, Learner, Loss, Method, Predicted
from fewstep.core.ranges import Count, Positive, PositiveOrZero, checked
from fewstep.networks import Generated, UnitLength


@checked
def ppa(
    features: Count, *, scale: Positive | None = None, l2_weight: PositiveOrZero = 0.0, loss: Loss | None = None
) -> Method:
    """Predict the weights of a classifier from the mean activation of each class, on fixed features.

    ``φ(s) = l₂(B relu(A l₂(s) + a) + b)``, ``w_n = φ(mean of x over the support of class n)``,
    ``p(y = n | x) ∝ exp s ⟨w_n, x⟩``, gradient ``∇L_Q`` with respect to φ, where ``l₂(v) = v/‖v‖``. A and B are the
    identity at first, so that φ then is the direction of the mean, where that has no negative entry. There is no inner
    loop, and no class owns a parameter. The paper has no s, as the length of its rows does the same; rows of length 1
    want one.

    The authors train on all classes at once, with one row a class for the query, and a random row for the support with
    probability 0.7 and the mean of the whole class with 0.3; here tasks are as the data draw them, best of many ways.
    The paper may also keep each row of a class and take the largest response, which is not here. Their published
    numbers are of features that were trained on validation classes too.

    Args:
        features: width of a row.
        scale: the initial s, which is meta-learned; None: it stays 1, as in the paper.
        l2_weight: of ``½‖·‖²`` of φ (the authors: 5e-4).
        loss: of query rows; softmax cross-entropy when omitted.

    Example:
        >>> method = ppa(8)
        >>> points = method.adapt(clusters.support)  # no steps: predicted weights of each task's classes
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    first, second = nn.Linear(features, features), nn.Linear(features, features)
    for layer in (first, second):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    start = Predicted(nn.Sequential(UnitLength(), first, nn.ReLU(), second, UnitLength()), scale)
    learner = Learner(Generated(), start, [], loss=loss)
    decayed = [name for name, parameter in learner.named_parameters() if parameter.dim() > 0]
    return Method(learner, Backprop(), [L2(l2_weight, decayed)] if l2_weight else [])
