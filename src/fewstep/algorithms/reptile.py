"""Reptile (Nichol, Achiam and Schulman 2018)."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from fewstep.core import SGD, Adam, Descend, Difference, Learner, Loss, Method, Shared
from fewstep.core.ranges import Count, CountOrZero, Positive, checked


@checked
def reptile(
    network: nn.Module,
    *,
    rate: Positive,
    steps: CountOrZero,
    batch: Count | None = None,
    rule: Literal["sgd", "adam"] = "adam",
    carried: bool = False,
    loss: Loss | None = None,
) -> Method:
    """Meta-learn an initialisation by moving it towards where adaptation to each task ends.

    ``φ_0 = θ``, K steps on mini-batches of the task, then ``θ ← θ + ε mean(φ_K − θ)`` (Algorithm 2).

    The outer step is plain gradient descent with rate ε (``training.optimiser="sgd"``); the authors let ε fall from 1
    to 0 along a line (``training.decay="linear"``), over five tasks at a time. One task at a time is serial Reptile
    (Algorithm 1). A task is only its support: the query is for the log.

    Args:
        network: its parameters are θ. All of them adapt, those of norms too.
        rate: of the inner steps.
        steps: K, inner steps.
        batch: rows of an inner mini-batch; the whole support when omitted.
        rule: inner Adam with β₁ = 0, as in the paper's experiments, or SGD.
        carried: keep Adam's second moments from task to task in training, as the authors' code does without saying so;
            a test starts from them and leaves them as they were. Tasks must then run one after another
            (``training.executor="loop"``), and their order matters.
        loss: of rows; softmax cross-entropy averaged over the rows when omitted. The authors' code *sums* over the
            mini-batch, which Adam does not notice but SGD does.

    Raises:
        ValueError: for carried moments with SGD, which has none.

    Example:
        >>> method = reptile(line, rate=0.25, steps=2, rule="sgd", loss=regression())  # on w², a step halves w
        >>> method.objective(parabola, None).objective.backward()
        >>> line.weight.grad  # from the end, w/4, to the start, w = 1: an outer step of rate ε goes a part ε of the way
        tensor([[0.7500]])
    """
    if rule == "sgd" and carried:
        raise ValueError("reptile: SGD has no moments to carry from task to task; use rule='adam' or carried=False.")
    moments: Mapping[str, Tensor] | None = dict(network.named_parameters()) if carried else None
    descend = Descend(SGD(rate) if rule == "sgd" else Adam(rate, carried=moments), steps, batch=batch)
    return Method(Learner(network, Shared(), [descend], loss=loss), Difference())
