"""Meta-LSTM (Ravi and Larochelle, ICLR 2017)."""

from typing import Literal

from torch import nn

from fewstep.core import LSTM, Choice, Descend, FirstOrder, Learner, Loss, Method, Shared
from fewstep.core.ranges import Count, CountOrZero, Positive, checked


@checked
def meta_lstm(
    network: nn.Module,
    *,
    steps: CountOrZero,
    hidden: Count = 20,
    feedback: Literal["before", "after"] = "before",
    gradient_scale: Positive = 1.0,
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """Meta-learn an initialisation, and an LSTM that takes the inner steps.

    ``θ_t = σ(f_t) ∘ θ_{t−1} − σ(i_t) ∘ ∇L_S(θ_{t−1})``, meta-gradient ``∇_{θ₀,Θ} L_Q(θ_T)``.

    Gates of ``[h_t, θ_{t−1}, f_{t−1}]``, and h_t of an LSTM that sees preprocessed losses and gradients, all with
    weights Θ that every coordinate shares: see :class:`~fewstep.core.LSTM`. Gradients and losses are constants (the
    paper's gradient independence assumption), so the meta-gradient flows through the recurrence alone, and back to θ₀,
    the learned cell state.

    The authors (twitter/meta-learning-lstm) meta-train with Adam at 1e-3, the global norm of the gradient clipped at
    0.25, one task a step, 12 steps for 1 shot, and for 5 shots 8 in the code. The inner loop moves the
    normalisation's γ and β like all else. Their code normalises queries by their own batch in meta-training, and by
    the support's running statistics in meta-testing (``adapt`` and ``predict`` with ``statistics="running"``; here
    of variances over n, where Lua's batch normalisation keeps n/(n − 1) of them).

    Args:
        network: its parameters are θ₀.
        steps: T, inner steps.
        hidden: units of the first layer.
        feedback: whether f_{t−1} is fed back ``"before"`` its sigmoid, as in the authors' code, or ``"after"`` it.
        gradient_scale: multiplies gradients; the authors' code divides those of the *mean* loss by the number of
            support rows once more.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves: names, or a predicate on names; all when omitted.

    Example:
        >>> method = meta_lstm(mlp((1, 40, 1)), steps=5, hidden=4, loss=regression())
        >>> method.objective(sines, None).objective.backward()
        >>> method.predict(method.adapt(sines.support), sines.query).shape
        torch.Size([4, 10, 1])
    """
    rule = LSTM(hidden, feedback, gradient_scale)
    return Method(Learner(network, Shared(adapts), [Descend(rule, steps)], loss=loss), FirstOrder())
