"""LLAMA, Laplace's approximation in MAML as hierarchical Bayes (Grant, Finn, Levine, Darrell and Griffiths 2018)."""

from torch import nn

from fewstep.core import SGD, Choice, Descend, Laplace, Learner, Loss, Method, Shared
from fewstep.core.ranges import CountOrZero, Positive, PositiveOrZero, checked


@checked
def llama(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero = 1,
    weight: PositiveOrZero = 1e-6,
    damping: Positive = 0.01,
    exact: bool = False,
    loss: Loss | None = None,
    adapts: Choice | None = None,
) -> Method:
    """MAML whose meta-objective asks for wide minima too: an estimate of a task's marginal likelihood.

    ``φ_{k+1} = φ_k − α ∇L_S(φ_k)``, meta-gradient ``∇_θ [L_Q(φ_K) + η/2 log det Ĥ_Q(φ_K)]`` (Subroutine 4), Ĥ by K-FAC.

    The steps are a point estimate φ̂ for a task: of linear regression they are the most probable weights under a normal
    prior about θ, exactly. Laplace's approximation has ``−log p(φ̂ | θ)`` too, which the paper's subroutine leaves out,
    and we with it. At η = 0 it is MAML.

    No program of the authors was found. Where the text is silent the choice is ours: δ, the Fisher information's
    expectation over the model's labels and not a sample of them, patches of convolutions, and no running means.

    Args:
        network: its parameters are θ.
        rate: α, the inner rate; not said.
        steps: K, inner steps; not said.
        weight: η; 1e-6 in the paper, found by cross-validation.
        damping: δ on the diagonal of each factor.
        exact: the whole Fisher information instead of K-FAC's, where a single linear layer is adapted.
        loss: of rows; softmax cross-entropy averaged over the support when omitted.
        adapts: the parameters that the inner loop moves, names or a predicate on names; all when omitted. The authors
            leave the normalisation's out.

    Example:
        >>> method = llama(mlp((8, 16, 3)), rate=0.1)
        >>> method.objective(clusters, None).metrics["log_det"].shape  # of each of four tasks
        torch.Size([4])
    """
    learner = Learner(network, Shared(adapts), [Descend(SGD(rate), steps)], loss=loss)
    return Method(learner, Laplace(weight, damping, exact))
