"""The meta-gradient of MAML as other libraries compute it, behind one signature.

Each adapter follows its library's own MAML example: one task after another, one backward pass a task, gradients summed
where the parameters are and divided by the number of tasks at the end. A library is imported when its adapter is
built, so this module needs none of them. ``install_peers.sh`` installs them and ``PEERS.md`` says what each calls.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Prediction and label of some rows to their mean loss, a scalar."""

MetaGradient: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], list[Tensor]]
"""Support x and y, query x and y, each with a leading axis of tasks, to the gradient of the mean query loss.

In the order of ``network.parameters()``. The ``grad`` of the parameters is used on the way, and None afterwards.
"""

Builder: TypeAlias = Callable[[nn.Module, Loss, float, int, bool], MetaGradient]
"""Network, loss, inner learning rate, inner steps and whether first-order, to the meta-gradient."""


def _mean_over_tasks(network: nn.Module, backward: Callable[[Tensor, Tensor, Tensor, Tensor], None]) -> MetaGradient:
    """Average over tasks what ``backward`` adds to the ``grad`` of the network's parameters for one task."""
    parameters = list(network.parameters())

    def meta_gradient(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> list[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.grad = gradient
        for task in zip(support_x, support_y, query_x, query_y, strict=True):
            backward(*task)
        for parameter in parameters:
            parameter.grad = None
        torch._foreach_div_(total, len(support_x))
        return total

    return meta_gradient


def learn2learn(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    """``MAML``: a clone for each task, ``adapt`` for each step."""
    from learn2learn.algorithms import MAML

    return _adapting(MAML(network, lr=rate, first_order=first_order), loss, steps)


def learn2learn_meta_sgd(network: nn.Module, loss: Loss, rates: dict[str, Tensor], steps: int) -> MetaGradient:
    """``MetaSGD``; the gradients of the rates come after the network's, in the order of the mapping."""
    from learn2learn.algorithms import MetaSGD

    names = [name for name, _ in network.named_parameters()]
    own = nn.ParameterList([nn.Parameter(rates[name].detach().clone()) for name in names])
    meta_gradient = _adapting(MetaSGD(network, lrs=own), loss, steps)
    order = [*range(len(names)), *(len(names) + names.index(name) for name in rates)]

    def ordered(*batches: Tensor) -> list[Tensor]:
        found = meta_gradient(*batches)
        return [found[place] for place in order]

    return ordered


def learn2learn_meta_curvature(network: nn.Module, loss: Loss, rate: float, steps: int) -> MetaGradient:
    """``GBML`` with ``MetaCurvatureTransform``, at identities; its factors follow the network's parameters.

    What it calls *in* is our matrix of outputs; the one that it calls *out* multiplies from the right, so its gradient
    is turned.
    """
    from learn2learn.algorithms import GBML
    from learn2learn.optim import MetaCurvatureTransform

    wrapped = GBML(network, MetaCurvatureTransform, lr=rate).to(next(network.parameters()).device)
    meta_gradient = _adapting(wrapped, loss, steps)
    turned = [name.endswith("mc_out") for name, _ in wrapped.named_parameters()]

    def turning(*batches: Tensor) -> list[Tensor]:
        return [g.T if turn else g for g, turn in zip(meta_gradient(*batches), turned, strict=True)]

    return turning


def _adapting(wrapped: nn.Module, loss: Loss, steps: int) -> MetaGradient:
    """A clone for each task, ``adapt`` for each step: of any wrapper of learn2learn's."""

    def backward(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        learner = wrapped.clone()
        for _ in range(steps):
            learner.adapt(loss(learner(support_x), support_y))
        loss(learner(query_x), query_y).backward()

    return _mean_over_tasks(wrapped, backward)


def higher(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    """``innerloop_ctx`` around plain SGD for each task.

    ``track_higher_grads=False`` cuts the steps from the parameters, so the first-order gradient is taken at the adapted
    weights and carried over.
    """
    from higher import innerloop_ctx

    parameters = list(network.parameters())
    inner = torch.optim.SGD(parameters, lr=rate)
    options = {"copy_initial_weights": False, "track_higher_grads": not first_order}

    def backward(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        with innerloop_ctx(network, inner, **options) as (learner, optimiser):
            for _ in range(steps):
                optimiser.step(loss(learner(support_x), support_y))
            query = loss(learner(query_x), query_y)
            if first_order:
                gradients = torch.autograd.grad(query, list(learner.parameters()))
                torch._foreach_add_([parameter.grad for parameter in parameters], gradients)
            else:
                query.backward()

    return _mean_over_tasks(network, backward)


def higher_once(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    """The network patched once, not once a task as in the example, and called with its weights as ``params``.

    The patched network keeps every set of weights it is given for ever, unless ``track_higher_grads=False``; the graph
    of the steps depends on the optimiser's flag alone.
    """
    from higher import get_diff_optim, monkeypatch

    parameters = list(network.parameters())
    learner = monkeypatch(network, track_higher_grads=False)
    inner = torch.optim.SGD(parameters, lr=rate)
    optimiser = get_diff_optim(inner, parameters, track_higher_grads=not first_order)

    def backward(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        weights = parameters
        for _ in range(steps):
            weights = optimiser.step(loss(learner(support_x, params=weights), support_y), params=weights)
        query = loss(learner(query_x, params=weights), query_y)
        if first_order:
            torch._foreach_add_([parameter.grad for parameter in parameters], torch.autograd.grad(query, weights))
        else:
            query.backward()

    return _mean_over_tasks(network, backward)


def torchopt(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    """``MetaSGD``, whose steps are undone after each task; first-order, the functional ``sgd``.

    ``MetaSGD`` always builds the graph of the second derivatives: with it first order would cost what second does.
    """
    return (_torchopt_functional if first_order else _torchopt_meta)(network, loss, rate, steps, first_order)


def _torchopt_meta(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    from torchopt import MetaSGD, extract_state_dict, recover_state_dict

    optimiser = MetaSGD(network, lr=rate)
    start = extract_state_dict(network, by="reference", detach_buffers=True)
    optimiser_start = extract_state_dict(optimiser, by="reference")

    def backward(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        for _ in range(steps):
            optimiser.step(loss(network(support_x), support_y))
        loss(network(query_x), query_y).backward()
        recover_state_dict(network, start)
        recover_state_dict(optimiser, optimiser_start)

    return _mean_over_tasks(network, backward)


def _torchopt_functional(network: nn.Module, loss: Loss, rate: float, steps: int, first_order: bool) -> MetaGradient:
    from torchopt import apply_updates, sgd

    optimiser = sgd(lr=rate)
    names = [name for name, _ in network.named_parameters()]

    def backward(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        def run(x: Tensor, y: Tensor) -> Tensor:
            return loss(functional_call(network, dict(zip(names, weights, strict=True)), (x,)), y)

        weights = tuple(network.parameters())
        state = optimiser.init(weights)
        for _ in range(steps):
            gradients = torch.autograd.grad(run(support_x, support_y), weights, create_graph=not first_order)
            updates, state = optimiser.update(gradients, state, params=weights, inplace=False)
            weights = apply_updates(weights, updates, inplace=False)
        run(query_x, query_y).backward()

    return _mean_over_tasks(network, backward)


PEERS: dict[str, Builder] = {
    "learn2learn": learn2learn,
    "higher": higher,
    "higher-once": higher_once,
    "torchopt": torchopt,
}
"""The adapters; up to the hyphen, the name of the library, as it is imported and as PyPI has it."""


def installed() -> dict[str, str]:
    """The names in ``PEERS`` whose library can be imported here, each with its version."""
    found = {}
    for name in PEERS:
        library = name.partition("-")[0]
        try:
            import_module(library)
        except Exception:  # a library made for another torch or numpy may fail to import in any way
            continue
        found[name] = version(library)
    return found
