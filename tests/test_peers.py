"""Meta-gradients beside those of other libraries, where they are installed (``benchmarks/install_peers.sh``)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import fomaml, maml, meta_curvature, meta_sgd
from fewstep.core import Batch, Method, Params, Task
from fewstep.networks import Conv4, mlp
from fewstep.networks.norms import BatchNorm

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
RATE, STEPS = 0.2, 3
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Task]]] = {
    "mlp": (lambda: mlp((6, 5, 4, 3), norm=True), lambda: classification_tasks(6)),
    "conv": (lambda: Conv4(3, inputs=2, channels=(4, 5), scale=True), lambda: classification_tasks(2, 7, 8, tasks=3)),
}
networks = pytest.mark.parametrize("kind", NETWORKS)
orders = pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])


def library(name: str) -> object:
    return pytest.importorskip(name, reason=f"{name} is not installed; benchmarks/install_peers.sh installs the peers")


def build(kind: str) -> tuple[nn.Module, nn.Module, Task]:
    """Our network, its twin with torch's own batch normalisation, and tasks without padding."""
    make, tasks = NETWORKS[kind]
    network, twin = make(), make()
    for name, part in list(twin.named_modules()):
        if isinstance(part, BatchNorm):
            owner, _, child = name.rpartition(".")
            of = nn.BatchNorm1d if kind == "mlp" else nn.BatchNorm2d
            setattr(twin.get_submodule(owner), child, of(len(part.bias), eps=part.eps, track_running_stats=False))
    twin.load_state_dict(network.state_dict())
    found = tasks()
    found.support.weight.fill_(1)
    return network.double(), twin.double(), found


def ours(method: Method, tasks: Task) -> Params:
    method.learner.double().zero_grad()
    method.objective(tasks, None).objective.backward()
    named = method.learner.network.named_parameters()
    return {name: p.grad for name, p in named}


def one_by_one(tasks: Task) -> list[Task]:
    return [tree_map(lambda t, i=i: t[i], tasks) for i in range(len(tasks.support.weight))]


def loss(predict: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    return F.cross_entropy(predict(batch.x), batch.y.argmax(1))


def theirs(module: nn.Module, tasks: Task) -> Params:
    return {name: p.grad / len(tasks.support.weight) for name, p in module.named_parameters()}


@contextmanager
def doubles() -> Iterator[None]:
    """For libraries that make tensors of the default type."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@networks
@orders
def test_maml_in_learn2learn(kind: str, first_order: bool) -> None:
    l2l = library("learn2learn")
    network, twin, tasks = build(kind)
    wrapped = l2l.algorithms.MAML(twin, lr=RATE, first_order=first_order)
    for task in one_by_one(tasks):
        learner = wrapped.clone()
        for _ in range(STEPS):
            learner.adapt(loss(learner, task.support))
        loss(learner, task.query).backward()
    method = maml(network, rate=RATE, steps=STEPS, first_order=first_order)
    torch.testing.assert_close(ours(method, tasks), theirs(twin, tasks), **CLOSE)


@networks
@orders
def test_maml_in_higher(kind: str, first_order: bool) -> None:
    higher = library("higher")
    network, twin, tasks = build(kind)
    twin.zero_grad(set_to_none=False)
    totals = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    inner = torch.optim.SGD(twin.parameters(), lr=RATE)
    for task in one_by_one(tasks):
        options = {"copy_initial_weights": False, "track_higher_grads": not first_order}
        with higher.innerloop_ctx(twin, inner, **options) as (learner, steps):
            for _ in range(STEPS):
                steps.step(loss(learner, task.support))
            # To first order the gradient is taken where adaptation ends, and given to where it began.
            source = learner.parameters() if first_order else learner.parameters(time=0)
            found = torch.autograd.grad(loss(learner, task.query), list(source))
        totals = {name: t + g for (name, t), g in zip(totals.items(), found, strict=True)}
    expected = {name: t / len(tasks.support.weight) for name, t in totals.items()}
    method = (fomaml if first_order else maml)(network, rate=RATE, steps=STEPS)
    torch.testing.assert_close(ours(method, tasks), expected, **CLOSE)


@networks
@pytest.mark.parametrize("steps", [1, STEPS])
def test_meta_sgd_in_learn2learn(kind: str, steps: int) -> None:
    l2l = library("learn2learn")
    network, twin, tasks = build(kind)
    method = meta_sgd(network, rate=(0.05, 0.4), steps=steps)
    method.learner.double()
    rule = method.learner.stages[0].rule
    rates = nn.ParameterList(nn.Parameter(rule[name].detach().clone()) for name, _ in network.named_parameters())
    wrapped = l2l.algorithms.MetaSGD(twin, lr=1.0, lrs=rates)
    for task in one_by_one(tasks):
        learner = wrapped.clone()
        for _ in range(steps):
            learner.adapt(loss(learner, task.support))
        loss(learner, task.query).backward()
    found = ours(method, tasks)
    torch.testing.assert_close(found, theirs(twin, tasks), **CLOSE)
    of_rates = [p.grad / len(tasks.support.weight) for p in rates]
    torch.testing.assert_close([rule[name].grad for name in found], of_rates, **CLOSE)


@networks
def test_meta_curvature_in_learn2learn(kind: str) -> None:
    """What is called *in* there is dimension 0, and our outputs; the other matrix multiplies from the right."""
    l2l = library("learn2learn")
    network, twin, tasks = build(kind)
    method = meta_curvature(network, rate=RATE, steps=2)
    method.learner.double()
    rule = method.learner.stages[0].rule
    with torch.no_grad():
        for factor in rule.parameters():
            factor += 0.2 * torch.randn_like(factor)
    with doubles():
        wrapped = l2l.algorithms.GBML(
            twin, transform=l2l.optim.MetaCurvatureTransform, lr=RATE, adapt_transform=False, first_order=False
        )
    transforms = {}
    for (name, _), update in zip(network.named_parameters(), wrapped.compute_update.transforms_modules, strict=True):
        transforms[name] = update
    modes = {"out": "mc_in", "in": "mc_out", "kernel": "mc_f", "vector": "mc"}
    pairs = []
    for name, update in transforms.items():
        own = dict(update.named_parameters())
        for mode, factor in rule[name].items():
            key = modes[mode]
            with torch.no_grad():
                own[key].copy_(factor.T if key == "mc_out" else factor)
            pairs.append((factor, own[key], key == "mc_out"))
    for task in one_by_one(tasks):
        learner = wrapped.clone()
        for _ in range(2):
            learner.adapt(loss(learner, task.support))
        loss(learner, task.query).backward()
    torch.testing.assert_close(ours(method, tasks), theirs(twin, tasks), **CLOSE)
    for factor, other, turned in pairs:
        expected = other.grad / len(tasks.support.weight)
        torch.testing.assert_close(factor.grad, expected.T if turned else expected, **CLOSE)


@networks
def test_second_derivatives_would_be_noticed(kind: str) -> None:
    network, _, tasks = build(kind)
    full = ours(maml(network, rate=RATE, steps=STEPS), tasks)
    first = ours(fomaml(network, rate=RATE, steps=STEPS), tasks)
    assert any((full[name] - first[name]).abs().max() > 1e-3 for name in full)
