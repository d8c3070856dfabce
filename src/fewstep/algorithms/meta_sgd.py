"""Meta-SGD (Li, Zhou, Chen and Li 2017)."""

from collections.abc import Callable

import torch
from torch import nn

from fewstep.core import Backprop, Descend, LearnedRates, Learner, Loss, Method, Shared


def meta_sgd(
    network: nn.Module,
    *,
    rate: float | tuple[float, float] = (0.005, 0.1),
    steps: int = 1,
    loss: Loss | None = None,
    adapts: Callable[[str], bool] | None = None,
) -> Method:
    """``φ = θ − α ∘ ∇L_S(θ)``, meta-gradient ``∇_{θ,α} L_Q(φ)``, with one rate for every parameter.

    Args:
        network: its parameters are θ.
        rate: the initial α: one number, or the range of a uniform draw, from torch's global generator.
        steps: how often the step is taken; the paper takes one.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: names of the parameters that the inner loop moves; all when omitted.
    """
    start = Shared(adapts)
    low, high = rate if isinstance(rate, tuple) else (rate, rate)
    rates = {
        name: torch.empty_like(p).uniform_(low, high) for name, p in network.named_parameters() if start.adapts(name)
    }
    learner = Learner(network, start, [Descend(LearnedRates(rates), steps)], loss=loss)
    return Method(learner, Backprop())
