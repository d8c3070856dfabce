"""CAVIA, fast context adaptation (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019)."""

from torch import nn

from fewstep.core import SGD, Backprop, Descend, FirstOrder, Learner, Loss, Method, Zeros
from fewstep.core.ranges import CountOrZero, Positive, checked


@checked
def cavia(
    network: nn.Module,
    *,
    rate: Positive = 1.0,
    steps: CountOrZero = 1,
    loss: Loss | None = None,
    first_order: bool = False,
) -> Method:
    """Meta-learn a network that a few numbers steer, and adapt these numbers alone.

    ``φ₀ = 0``, ``φ_{k+1} = φ_k − α ∇_φ L_S(θ, φ_k)``, meta-gradient ``∇_θ L_Q(θ, φ_K(θ))``.

    A context φ beside the inputs is one more bias ``W_c φ`` of the first layer: CAVIA then is MAML on that bias alone,
    whose gradient is multiplied by ``W_c W_cᵀ``. As the network learns W_c too, it learns how long a step is.

    Args:
        network: its parameters are θ; φ is the context of its :class:`~fewstep.core.Contextual` layers. ``mlp`` takes
            one beside its inputs, ``Conv4`` one that scales and shifts the channels of a block, as in the paper.
        rate: α, the inner rate.
        steps: K, inner steps. The authors take one for regression, two for images.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        first_order: drop second derivatives. The authors' program for images takes such an option and does not read it.

    Raises:
        ValueError: when the network reads no context.

    Example:
        >>> method = cavia(mlp((1, 40, 40, 1), context=5), loss=regression())
        >>> method.adapt(sines.support).value["0.context"].shape  # all that is adapted to each of four tasks
        torch.Size([4, 5])
    """
    learner = Learner(network, Zeros(), [Descend(SGD(rate), steps)], loss=loss)
    return Method(learner, FirstOrder() if first_order else Backprop())
