"""ANIL, almost no inner loop (Raghu, Raghu, Bengio and Vinyals 2020)."""

from torch import nn

from fewstep.core import SGD, Backprop, Descend, FirstOrder, Learner, Loss, Method, Shared
from fewstep.core.ranges import CountOrZero, Positive, checked


@checked
def anil(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    loss: Loss | None = None,
    head: str | None = None,
    first_order: bool = False,
) -> Method:
    """Meta-learn a network of which the last layer alone adapts to a task.

    ``w_{k+1} = w_k − α ∇_w L_S(θ, w_k)``, meta-gradient ``∇_{θ,w₀} L_Q(θ, w_K(θ, w₀))``.

    MAML whose inner loop moves the last layer w alone, in training and testing; the other parameters θ are
    meta-learned only (section 4).

    Args:
        network: its parameters are θ and w₀.
        rate: α, the inner rate.
        steps: K, inner steps.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        head: what the names of w's parameters begin with. When omitted, the module that owns the last parameter:
            ``"head."`` in ``Conv4``, and the last linear layer of ``mlp``.
        first_order: drop second derivatives.

    Raises:
        ValueError: when no parameter's name begins so.

    Example:
        >>> method = anil(mlp((1, 40, 1)), rate=0.01, steps=5, loss=regression())
        >>> list(method.adapt(sines.support).value)  # what the inner loop moves
        ['2.weight', '2.bias']
    """
    names = [name for name, _ in network.named_parameters()]
    prefix = "".join(names[-1].rpartition(".")[:2]) if head is None and names else head or ""
    adapts = [name for name in names if name.startswith(prefix)]
    if not adapts:
        raise ValueError(f"anil: no parameter of the network begins with {prefix!r}; they are ({', '.join(names)}).")
    learner = Learner(network, Shared(adapts), [Descend(SGD(rate), steps)], loss=loss)
    return Method(learner, FirstOrder() if first_order else Backprop())
