"""T-net and MT-net, a learned metric and subspace of each layer (Lee and Choi 2018)."""

from functools import partial
from typing import Literal

from torch import nn

from fewstep.core import SGD, Backprop, Chain, Choice, Descend, FirstOrder, Learner, Loss, Masked, Method, Rule, Shared
from fewstep.core.ranges import CountOrZero, Positive, checked
from fewstep.networks.transforms import TRANSFORM, transformed


@checked
def mt_net(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    masked: bool = True,
    mask_of: Literal["units", "weights"] = "units",
    temperature: Positive = 1.0,
    loss: Loss | None = None,
    adapts: Choice | None = None,
    first_order: bool = False,
) -> Method:
    """MAML in which every layer has a matrix that no task adapts, and a task adapts only units that it draws.

    ``y = T (W x + b)``; ``W ← W − α m ∘ ∇_W L_S``, one ``m ∈ {0, 1}`` for each unit, with ``P(m = 1) = σ(ζ)``;
    meta-gradient ``∇_{W,b,T,ζ} L_Q``.

    For the effective weights T W a step is ``−α T diag(m) Tᵀ ∇L_S``: a meta-learned metric, and a subspace in which
    tasks move. T-net, without masks, is Meta-Curvature whose matrix of outputs is ``T Tᵀ``. Matrices begin as the
    identity and ζ at 0. A mask is drawn once for a task of meta-training. In evaluation it is its mean σ(ζ); the
    authors draw it there too, which takes noise in evaluation, see ``Method.adapt``.

    Args:
        network: its parameters are W and b. It is changed in place, see ``fewstep.networks.transformed``: every linear
            layer and convolution gets its T, the last one included.
        rate: α, the inner rate.
        steps: K, inner steps.
        masked: draw masks; without them the method is T-net.
        mask_of: what an m is for: a unit, with all weights that feed it and its bias, or a weight. The authors' program
            has the second as a variant, and begins there with small random ζ, where ours are 0.
        temperature: of the Gumbel-softmax that ζ is learned by.
        loss: of rows; softmax cross-entropy averaged over the support when omitted. The authors' classification code
            divides the *sum* over the N·K support rows by K, so its α is N times that of a mean.
        adapts: which of the network's own parameters the inner loop moves, names or a predicate on names; all when
            omitted. The authors leave the normalisation's out.
        first_order: drop second derivatives.

    Example:
        >>> method = t_net(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> adapted = method.adapt(sines.support).value
        >>> [name for name, _ in method.learner.network.named_parameters() if name not in adapted]
        ['0.transform', '2.transform']
    """
    own = [name for name in Shared(adapts).shared(network) if name.rpartition(".")[2] != TRANSFORM]
    start = Shared(own)
    rule: Rule = SGD(rate)
    if masked:
        rule = Chain(Masked({name: p.shape for name, p in start.shared(network).items()}, temperature, mask_of), rule)
        rule.to(next(network.parameters()))
    learner = Learner(transformed(network), start, [Descend(rule, steps)], loss=loss)
    return Method(learner, FirstOrder() if first_order else Backprop())


t_net = partial(mt_net, masked=False)
"""T-net: :func:`mt_net` without masks, and its other arguments."""
