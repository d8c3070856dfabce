"""MAML++, how to train your MAML (Antoniou, Edwards and Storkey 2019)."""

from torch import nn

from fewstep.core import Choice, Descend, Fading, LearnedRates, Learner, Loss, Method, MultiStep, PerStep, Shared
from fewstep.core.ranges import Count, CountOrZero, Positive, Share, checked


@checked
def maml_plus_plus(
    network: nn.Module,
    *,
    rate: Positive = 0.1,
    steps: Count = 5,
    fades: CountOrZero = 15,
    epochs: Count = 100,
    first_order_until: Share | None = None,
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """MAML that learns a rate for each layer and step, from query losses after every step, in networks that know it.

    ``φ_{k+1} = φ_k − α_k ∘ ∇L_S(φ_k; γ_k, β_k)``, meta-gradient ``∇_{θ,α,γ,β} Σ_k v_k L_Q(φ_k; γ_{k−1}, β_{k−1})``.

    The weights v_k are equal at first, and those of all but the last step fade (:class:`~fewstep.core.Fading`).
    Normalisation with γ and β of each step is the network's, as ``conv4("maml-plus-plus", ...)`` has it; the statistics
    are those of the batch at hand in the authors' program too, which keeps running ones and does not read them. The
    cosine of the outer rate is an option of training (``decay``, ``rate_floor``). The authors test the mean logits
    of the five best models of a run, which is an option of training too (``keep``).

    Args:
        network: its parameters are θ, γ and β.
        rate: the initial α; 0.1 in every run of the authors' program, whatever its settings say.
        steps: K, inner steps.
        fades: epochs in which the weights of all steps but the last fade; 0: from the beginning only the last counts.
        epochs: of training, parts of equal length.
        first_order_until: the part of training until which second derivatives are left out (derivative-order
            annealing). None: never, as in all settings that the authors published.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves, names or a predicate on names; all when omitted. The authors
            leave the normalisation's out.

    Example:
        >>> method = maml_plus_plus(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> sum(parameter.numel() for parameter in method.learner.parameters())  # 121 weights, 5 rates for 4 tensors
        141
    """
    start = Shared(adapts)
    rates = {name: p.new_tensor(rate) for name, p in start.shared(network).items()}
    rule = PerStep(LearnedRates(rates) for _ in range(steps))
    learner = Learner(network, start, [Descend(rule, steps)], loss=loss)
    return Method(learner, MultiStep(Fading(steps, fades, epochs), first_order_until))
