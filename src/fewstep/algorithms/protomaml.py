"""Proto-MAML (Triantafillou et al. 2020)."""

from torch import nn

from fewstep.core import SGD, Backprop, Choice, Descend, FirstOrder, Learner, Loss, Method, Prototypes
from fewstep.core.network.heads import generated_head
from fewstep.core.ranges import CountOrZero, Positive, checked


@checked
def protomaml(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    loss: Loss | None = None,
    adapts: Choice | None = None,
    first_order: bool = False,
) -> Method:
    """MAML for classification whose last layer begins at the task's class means.

    ``φ₀ = (θ, W_n = 2c_n(θ), b_n = −‖c_n(θ)‖²)``, ``φ_{k+1} = φ_k − α ∇L_S(φ_k)``, gradient ``∇_θ L_Q(φ_K(θ))``.

    MAML whose last layer begins as a prototypical network; at K = 0 it is one. The meta-gradient reaches θ through
    the prototypes too, to first order as well. No class owns a parameter, so any number of ways is fine at any time.

    The authors' code normalises queries by the support's statistics, when told to, and may take more steps in
    evaluation; here evaluation chooses both, and training normalises each batch by its own.

    Args:
        network: its parameters are θ; ends with a :class:`~fewstep.networks.Generated` head, as ``Conv4(None)`` does.
        rate: α, the inner rate.
        steps: K, inner steps.
        loss: of rows; softmax cross-entropy averaged over the support when omitted, as the authors'.
        adapts: names of the parameters of θ that the inner loop moves, besides W and b; all when omitted.
        first_order: drop second derivatives.

    Raises:
        ValueError: when the network has no generated head, or more than one.

    Example:
        >>> method = protomaml(mlp((8, 16, None)), rate=0.1, steps=5)
        >>> points = method.adapt(clusters.support)
        >>> points.value["2.weight"].shape  # a last layer of each of four tasks, which began at its prototypes
        torch.Size([4, 3, 16])
    """
    generated_head(network)  # an error here, and not in the first task
    learner = Learner(network, Prototypes(adapts), [Descend(SGD(rate), steps)], loss=loss)
    return Method(learner, FirstOrder() if first_order else Backprop())
