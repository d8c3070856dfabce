"""TADAM: task dependent adaptive metric (Oreshkin, Rodríguez López and Lacoste 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewstep.core import L2, Auxiliary, Backprop, Batch, Conditioning, Learner, Loss, Memory, Method, conditioned_layers
from fewstep.core.loss import cross_entropy
from fewstep.core.ranges import Count, Positive, PositiveOrZero, checked
from fewstep.networks.conditioning import Modulator
from fewstep.networks.distances import Distances


@checked
def tadam(
    network: nn.Module,
    features: Count,
    *,
    scale: Positive = 7.5,
    learned: bool = False,
    squared: bool = False,
    conditioned: bool = True,
    l2_weight: PositiveOrZero = 5e-4,
    gate_weight: PositiveOrZero = 0.01,
    base: Callable[[torch.Generator], Batch] | None = None,
    loss: Loss | None = None,
) -> Method:
    """Classify by distance to class means, in an embedding whose layers the task itself scales and shifts.

    ``p(y = n | x) ∝ exp(−α ‖e(x; Γ) − c_n‖)``, c_n the mean of e(x; Γ) over the support of class n;
    ``h_l ← γ_l ⊙ h_l + β_l`` at each normalised layer l of e, ``γ_l = 1 + a_l g_l(c̄)``, ``β_l = b_l f_l(c̄)``, where
    c̄ is the mean of the class means without Γ. The support so passes e twice. Loss: cross-entropy of the query, and
    ``λ/2 ‖W‖² + λ'/2 (a² + b²)`` of all matrices and of all a and b, which begin at 0. There is no inner loop.

    Beside it, the features without Γ are to name the base classes, by a linear classifier: with probability
    ``0.9^(⌊20 t⌋ + 1)``, t the share of training that is done, the outer loop takes a step on that loss, by moments of
    its own, before the meta-step. Without it, the paper finds, conditioning hurts.

    By default as the authors' code has it. The text has an α that is learned (``learned``), and the squared distance
    would make a linear classifier (``squared``). They draw queries of any classes, here of each alike, and normalise
    by running statistics of training, here by those of the batch at hand, of one task. Layers without a normalisation
    are conditioned where the network has none; shortcuts never are.

    Args:
        network: the embedding e, whose outputs are features ``[rows, features]``, such as ``ResNet12(None)``.
        features: width of its outputs.
        scale: the initial α.
        learned: meta-learn α (the paper's text).
        squared: squared distances.
        conditioned: false: e is the same for all tasks.
        l2_weight: λ.
        gate_weight: λ'.
        base: draws rows of base classes with their labels, such as ``RandomRows(dataset, 64)``; None: they are not
            named.
        loss: of query rows; softmax cross-entropy when omitted.

    Example:
        >>> method = tadam(mlp((8, 16, 16), norm=True), features=16)
        >>> points = method.adapt(clusters.support)  # no steps: each task's embedded support, and its layers
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    whole, conditioning = nn.Sequential(network, Distances(scale, learned, squared)), None
    if conditioned:
        layers = conditioned_layers(whole, lambda name: "shortcut" not in name)
        conditioning = Conditioning({name: Modulator(features, channels) for name, channels in layers.items()})
    learner, beside = Learner(whole, Memory(conditioning=conditioning), [], loss=loss), []
    matrices = [name for name, parameter in learner.named_parameters() if parameter.dim() > 1]
    penalties = [L2(l2_weight, matrices)]
    if gates := [name for name, _ in learner.named_parameters() if name.endswith("gate")]:
        penalties.append(L2(gate_weight, gates, name="gate_l2"))
    if base is not None:
        named = nn.Linear(features, base(torch.Generator()).y.shape[1])
        encoder = L2(l2_weight, [name for name in matrices if name.startswith("network.")])

        def naming(learner: Learner, batch: Batch) -> Tensor:
            return cross_entropy(named(learner.features(batch)), batch.y).mean() + encoder(learner)

        beside = [Auxiliary(naming, base, None, lambda done: 0.9 ** (int(20 * done) + 1), named)]
    return Method(learner, Backprop(), penalties, auxiliaries=beside)
