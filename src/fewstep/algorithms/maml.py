"""MAML and first-order MAML (Finn, Abbeel and Levine 2017)."""

from functools import partial

from torch import nn

from fewstep.core import SGD, Backprop, Choice, Descend, FirstOrder, Learner, Loss, Method, Shared, clipped
from fewstep.core.ranges import CountOrZero, Positive, checked


@checked
def maml(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    loss: Loss | None = None,
    adapts: Choice | None = None,
    first_order: bool = False,
    clip: Positive | None = None,
) -> Method:
    """Meta-learn an initialisation from which a few gradient steps lead to a task's solution.

    ``φ₀ = θ``, ``φ_{k+1} = φ_k − α ∇L_S(φ_k)``, meta-gradient ``∇_θ L_Q(φ_K(θ))`` (Algorithm 1, Eq. 1).

    With ``first_order`` inner gradients are constants (section 5.2), and the meta-gradient is ``∇L_Q`` at ``φ_K``.

    Args:
        network: its parameters are θ.
        rate: α, the inner rate.
        steps: K, inner steps.
        loss: of rows; softmax cross-entropy averaged over the support when omitted. The authors' classification code
            divides the *sum* over the N·K support rows by K, so its α is N times that of a mean.
        adapts: the parameters that the inner loop moves, names or a predicate on names; all when omitted. The authors
            leave the normalisation's parameters out.
        first_order: drop second derivatives.
        clip: shorten inner gradients to this norm, for networks that make them explode; not the paper's.

    Example:
        >>> method = maml(line, rate=0.25, steps=2, loss=regression())  # on w², a step halves w
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.2500]]])}
        >>> method.objective(parabola, None).objective.backward()
        >>> line.weight.grad  # d(w/4)²/dw at w = 1; fomaml, which takes the steps for constants, has 0.5
        tensor([[0.1250]])
    """
    learner = Learner(network, Shared(adapts), [Descend(clipped(SGD(rate), clip), steps)], loss=loss)
    return Method(learner, FirstOrder() if first_order else Backprop())


fomaml = partial(maml, first_order=True)
"""First-order MAML: :func:`maml` with ``first_order``, and its other arguments."""
