"""iMAML (Rajeswaran, Finn, Kakade and Levine 2019)."""

from typing import Literal

from torch import nn

from fewstep.core import SGD, Choice, Descend, Implicit, Learner, Loss, Method, Shared
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, checked


@checked
def imaml(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero,
    prox: PositiveOrZero,
    iterations: Count = 5,
    tolerance: PositiveOrZero = 1e-10,
    damping: PositiveOrZero | None = None,
    variant: Literal["paper", "authors"] = "paper",
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """Meta-learn an initialisation by a meta-gradient that needs only the end of adaptation, not the steps to it.

    ``φ* = argmin L_S(φ) + λ/2 ‖φ − θ‖²``, meta-gradient ``(I + H/λ)⁻¹ ∇L_Q(φ*)`` (Lemma 1, Algorithm 2).

    The inner problem is solved approximately by K gradient steps, the linear system by conjugate gradients. As λ grows
    the meta-gradient becomes that of first-order MAML.

    Args:
        network: its parameters are θ.
        rate: of the inner steps.
        steps: K, inner steps.
        prox: λ > 0, the pull towards the initialisation.
        iterations: of conjugate gradients.
        tolerance: relative squared residual at which they stop (the authors' is absolute, and the same number).
        damping: δ, added to the system's diagonal; 0 for the paper and 1 for the authors' code when omitted.
        variant: ``"authors"`` is what their released code does instead: K steps on L_S alone and then one on the pull
            alone; ``(1 + δ) I + H/(λ + 10)`` in place of ``I + H/λ``. It tests without the pull. (Told to take one
            iteration, that code takes none: its meta-gradient is ∇L_Q, first order. Here one is one.)
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves, names or a predicate on names; all when omitted. The others
            are trained too: the implicit gradient reaches them through both losses.

    Raises:
        ValueError: for λ that is not positive.

    Example:
        >>> method = imaml(mlp((1, 40, 1)), rate=0.01, steps=16, prox=0.5, loss=regression())
        >>> estimate = method.objective(sines, None)
        >>> estimate.objective.backward()
        >>> sorted(estimate.metrics)  # how exact the meta-gradient is, among them
        ['loss', 'mse', 'negative_curvature', 'residual', 'slope_left']
    """
    authors = variant == "authors"
    implicit = Implicit(iterations, tolerance, float(authors) if damping is None else damping, 10.0 * authors)
    descend = Descend(SGD(rate), steps, prox=prox, proximal="last" if authors else "every")
    return Method(Learner(network, Shared(adapts), [descend], loss=loss), implicit)
