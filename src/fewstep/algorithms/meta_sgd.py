"""Meta-SGD (Li, Zhou, Chen and Li 2017)."""

from typing import Literal

import torch
from torch import nn

from fewstep.core import Backprop, Choice, Descend, LearnedRates, Learner, Loss, Method, PerStep, Shared
from fewstep.core.ranges import CountOrZero, Positive, Share, checked


@checked
def meta_sgd(
    network: nn.Module,
    *,
    rate: Positive | tuple[Positive, Positive] = (0.005, 0.1),
    steps: CountOrZero = 1,
    rates: Literal["parameter", "layer"] = "parameter",
    per_step: bool = False,
    loss: Loss | None = None,
    adapts: Choice | None = None,
    dropout: Share = 0.0,
) -> Method:
    """Meta-learn an initialisation, and an inner rate for each of its parameters.

    ``φ = θ − α ∘ ∇L_S(θ)``, meta-gradient ``∇_{θ,α} L_Q(φ)``.

    With ``rates="layer"`` and ``per_step``, ``φ_{k+1} = φ_k − α_k ∘ ∇L_S(φ_k)`` has the learned rates of MAML++
    (Antoniou, Edwards and Storkey 2019, LSLR), without its other changes to MAML.

    Args:
        network: its parameters are θ.
        rate: the initial α: one number, or the range of a uniform draw, from torch's global generator.
        steps: how often the step is taken; the paper takes one.
        rates: one for every ``"parameter"``, as in the paper, or one scalar for every ``"layer"``, that is for each
            weight and each bias tensor.
        per_step: every step has rates of its own. Steps beyond ``steps`` use the last.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves: names, or a predicate on names; all when omitted.
        dropout: on the inputs in meta-training, with a fresh mask in every pass: for features, as LEO has it.

    Raises:
        ValueError: for ``per_step`` without a step.

    Example:
        >>> method = meta_sgd(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> sum(parameter.numel() for parameter in method.learner.parameters())  # 121 weights, and a rate for each
        242
    """
    start = Shared(adapts)
    low, high = rate if isinstance(rate, tuple) else (rate, rate)
    adapted = start.shared(network)

    def drawn() -> LearnedRates:
        like = {name: p.detach() if rates == "parameter" else p.new_empty(()) for name, p in adapted.items()}
        return LearnedRates({name: torch.empty_like(p).uniform_(low, high) for name, p in like.items()})

    rule = PerStep(drawn() for _ in range(steps)) if per_step else drawn()
    return Method(Learner(network, start, [Descend(rule, steps)], loss=loss, dropout=dropout), Backprop())
