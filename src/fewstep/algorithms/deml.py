"""DEML: deep meta-learning (Zhou, Wu and Li 2018)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from fewstep.algorithms.meta_sgd import meta_sgd
from fewstep.core import Auxiliary, Batch, Learner, Loss, Method
from fewstep.core.loss import cross_entropy
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked


@checked
def deml(
    network: nn.Module,
    concepts: nn.Module,
    features: Count,
    *,
    rate: tuple[Positive, Positive] = (0.005, 0.1),
    steps: CountOrZero = 1,
    weight: PositiveOrZero = 1.0,
    base: Callable[[torch.Generator], Batch] | None = None,
    loss: Loss | None = None,
) -> Method:
    """Meta-SGD in a space of concepts, which are learned with it and are to name other classes too.

    ``φ = θ_M − α ∘ ∇L_S(θ_M; G)``; objective ``L_Q(φ; G) + λ ℓ(D∘G(x), y)``, the second on rows x of base classes with
    the names y; of θ_G, θ_D, θ_M and α at once. The concepts G are not adapted to a task.

    The authors name 200 classes of ImageNet that miniImageNet does not have. Which λ, how many layers D has, and how G
    is initialised and normalised, we could not find: one linear layer and λ = 1 are ours, and G normalises support,
    query and named rows each by their own statistics.

    Args:
        network: M, from concepts to logits; its parameters are θ_M, such as ``mlp((2048, 1024, 512, 5))``.
        concepts: G, whose outputs are features ``[rows, features]``; the authors take a ResNet-50.
        features: width of its outputs.
        rate: range of the uniform draw of the initial α.
        steps: of Meta-SGD; the paper takes one.
        weight: λ.
        base: draws rows of base classes with their labels, such as ``RandomRows(dataset, 64)``; None: they are not
            named.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.

    Example:
        >>> from fewstep.data import RandomRows
        >>> method = deml(mlp((16, 8, 3)), nn.Linear(8, 16), features=16, base=RandomRows(classes, rows=6))
        >>> method.predict(method.adapt(clusters.support), clusters.query).shape
        torch.Size([4, 15, 3])
    """
    method = meta_sgd(network, rate=rate, steps=steps, loss=loss).on(concepts)
    if base is None:
        return method
    named = nn.Linear(features, base(torch.Generator()).y.shape[1])

    def naming(learner: Learner, batch: Batch) -> Tensor:
        return cross_entropy(named(learner.embed(batch).x), batch.y).mean()

    return replace(method, auxiliaries=[Auxiliary(naming, base, weight, own=named)])
