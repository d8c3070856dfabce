"""Meta-Curvature (Park and Oliva, NeurIPS 2019)."""

import torch
from torch import nn

from fewstep.core import (
    Backprop,
    Chain,
    Choice,
    Curvature,
    Descend,
    LearnedRates,
    Learner,
    Loss,
    Method,
    PerStep,
    Rule,
    Shared,
)
from fewstep.core.ranges import CountOrZero, Positive, checked


@checked
def meta_curvature(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    diagonal: bool = False,
    per_step: bool = False,
    learned_rates: bool = False,
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """MAML whose inner gradients are multiplied by meta-learned matrices.

    ``φ_{k+1} = φ_k − α MC(∇L_S(φ_k))``, ``MC(G) = G ×_f M_f ×_i M_i ×_o M_o``, meta-gradient ``∇_{θ,M} L_Q(φ_K)``.

    The matrices of output channels, input channels and kernel start as identities, where the method is MAML, and are
    learned with θ by the same optimiser (:class:`~fewstep.core.Curvature`). Three full matrices are what the authors'
    code (silverbottlep/maml) learns, and what the paper's tables call MC2.

    Args:
        network: its parameters are θ.
        rate: α, the inner rate, which is not learned.
        steps: K, inner steps.
        diagonal: vectors in place of matrices, one for each mode; not in the paper.
        per_step: every step has matrices of its own, and steps beyond K use the last. The authors' code shares them;
            the paper's runs on embeddings of LEO do not.
        learned_rates: no paper's, Meta-SGD after it: ``φ_{k+1} = φ_k − α ∘ MC(∇L_S(φ_k))`` with one meta-learned rate
            for every parameter, all of them ``rate`` at first.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves, names or a predicate on names; all when omitted. The authors
            leave the normalisation's parameters out.

    Raises:
        ValueError: when the rate is not positive, or for ``per_step`` without a step.

    Example:
        >>> method = meta_curvature(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> rule = method.learner.stages[0].rule
        >>> {mode: tuple(factor.shape) for mode, factor in rule["0.weight"].items()}
        {'out': (40, 40), 'in': (1, 1)}
    """
    start = Shared(adapts)
    adapted = start.shared(network)
    shapes = {name: p.shape for name, p in adapted.items()}
    factor = 1.0 if learned_rates else rate
    rules = [Curvature(shapes, rate=factor, diagonal=diagonal) for _ in range(steps if per_step else 1)]
    rule: Rule = PerStep(rules) if per_step else rules[0]
    if learned_rates:
        rule = Chain(rule, LearnedRates({name: torch.full_like(p, rate) for name, p in adapted.items()}))
    rule.to(next(network.parameters()))
    return Method(Learner(network, start, [Descend(rule, steps)], loss=loss), Backprop())
