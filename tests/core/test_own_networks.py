"""Any ``nn.Module`` of a user: its derivatives, its draws, its state. See ``core/network/operations.py``."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from own_networks import NETWORKS, made, tasks, transformer
from torch import Tensor, nn

from fewstep.algorithms import maml
from fewstep.core import Batch, Differentiate, Executor, Loop, Method, Vmap, generator
from fewstep.core.network.operations import call, is_plain

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")


def meta_gradient(method: Method, executor: Executor, seed: int = 0) -> tuple[float, list[Tensor]]:
    step = Differentiate(method, executor)(tasks(), method.draws(tasks(), generator(seed, 0, "noise")))
    return step.objective.item(), step.gradients


@pytest.mark.parametrize("name", NETWORKS)
def test_meta_gradients_are_the_derivatives_under_every_executor(name: str) -> None:
    network = made(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    method = maml(network, rate=0.3, steps=2)
    found = [meta_gradient(method, executor)[1] for executor in (Vmap(), Vmap(chunk=1), Loop())]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-12)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items()), "nothing has moved"

    parameters, source = list(network.parameters()), torch.Generator().manual_seed(2)
    directions = [torch.randn(p.shape, generator=source, dtype=p.dtype) for p in parameters]

    def at(distance: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(distance * d)
        value, _ = meta_gradient(method, Loop())
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(distance * d)
        return value

    slope = sum((g * d).sum().item() for g, d in zip(found[0], directions, strict=True))
    assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_first_order_is_the_same_under_every_executor(name: str) -> None:
    method = maml(made(name), rate=0.3, steps=2, first_order=True)
    vmapped, looped = (meta_gradient(method, executor)[1] for executor in (Vmap(), Loop()))
    torch.testing.assert_close(vmapped, looped, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_torchs_own(name: str) -> None:
    network = made(name)
    for module in network.modules():
        if type(module) in (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.RReLU):
            module.eval()
        for rate in ("p", "dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    x, theirs = tasks().query.x[0], copy.deepcopy(network) if name[:6] != "weight" else network
    ours = call(network, {}, x).output
    torch.testing.assert_close(ours, theirs(x), rtol=1e-9, atol=1e-12)


def test_dropout_is_a_function_of_the_seed_and_absent_from_evaluation() -> None:
    method = maml(made("TransformerEncoderLayer"), rate=0.3, steps=2)
    torch.manual_seed(3)
    one = meta_gradient(method, Vmap())
    torch.manual_seed(4)
    assert meta_gradient(method, Vmap())[0] == one[0], "torch's global generator has no part in it"
    assert meta_gradient(method, Vmap(), seed=1)[0] != one[0]
    adapted = [method.adapt(tasks().support).value for _ in range(2)]
    torch.testing.assert_close(adapted[0], adapted[1], rtol=0, atol=0)
    still = maml(transformer(0.0).double(), rate=0.3, steps=2)
    still.learner.network.load_state_dict(method.learner.network.state_dict())
    torch.testing.assert_close(still.adapt(tasks().support).value, adapted[0], rtol=0, atol=0)


def test_masks_differ_between_steps_tasks_and_queries_and_keep_the_mean() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(torch.ones(len(x), 3, dtype=x.dtype), 0.25) * self.weight

    method = maml(Shown(), rate=0.1, steps=2)
    noise = method.noise(tasks(), generator(0, 0, "noise"))
    (first,), (second,), (query,) = (*(step["network"] for step in noise["stages"][0]), noise["query"]["network"])
    assert first.shape == (2, 6, 3)
    assert query.shape == (2, 5, 3)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    drawn = call(
        Shown(), {}, torch.ones(10_000, 8, dtype=torch.float64), None, [torch.ones(10_000, 3, dtype=torch.uint8)]
    ).output
    assert drawn.mean().item() == pytest.approx(4 / 3)


def test_plain_layers_are_left_alone_and_hooks_are_not_plain() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    assert is_plain(network)
    network[0].register_forward_hook(lambda module, inputs, output: output)
    assert not is_plain(network)
    assert not is_plain(nn.Sequential(nn.LayerNorm(3)))
    assert not is_plain(nn.Embedding(3, 2, max_norm=1.0))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x * torch.randint(2, (1,)), "torch.randint"),
        (lambda x: x + torch.randn(3, generator=torch.Generator()), "a generator of its own"),
        (lambda x: F.gumbel_softmax(x), "gumbel_softmax"),
    ],
)
def test_draws_that_no_seed_can_tell_are_refused_by_name(forward: Callable[[Tensor], Tensor], message: str) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.layer(x))

    method = maml(Own().double(), rate=0.1)
    with pytest.raises(ValueError, match=message):
        method.draws(tasks(), generator(0, 0, "noise"))


@pytest.mark.parametrize("name", ["BatchNorm1d", "functions in forward"])
def test_statistics_act_on_torchs_own_batch_norm(name: str) -> None:
    method = maml(made(name), rate=0.3, steps=2)
    task = tasks()
    point = method.adapt(task.support, statistics="running")
    assert method.learner.batch_normalised

    def predictions(statistics: Any, queries: slice) -> Tensor:
        query = Batch(*(tensor[:, queries] for tensor in task.query))
        return method.predict(point, query, task.support, statistics=statistics)

    for statistics in ("support", "joined", "running"):
        whole, part = predictions(statistics, slice(None)), predictions(statistics, slice(0, 2))
        torch.testing.assert_close(whole[:, :2], part, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(predictions("query", slice(None))[:, :2], predictions("query", slice(0, 2)))
    # By hand: the support's moments at the adapted weights.
    if name == "BatchNorm1d":
        adapted = {key: tensor[0] for key, tensor in point.value.items()}
        support, query = (F.linear(b.x[0], adapted["0.weight"], adapted["0.bias"]) for b in task)
        normal = (query - support.mean(0)) / (support.var(0, correction=0) + 1e-5).sqrt()
        hidden = torch.tanh(normal * adapted["1.weight"] + adapted["1.bias"])
        by_hand = F.linear(hidden, adapted["3.weight"], adapted["3.bias"])
        torch.testing.assert_close(predictions("support", slice(None))[0], by_hand, rtol=1e-9, atol=1e-12)


def test_rows_that_see_each_other_otherwise_are_known() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            return h - h.mean(0)

    method = maml(Centred().double(), rate=0.1)
    point = method.adapt(tasks().support)
    assert method.learner.batch_normalised
    with pytest.raises(ValueError, match='predict with "joined"'):
        method.predict(point, tasks().query, tasks().support, statistics="support")
    query = tasks().query
    few = Batch(*(tensor[:, :2] for tensor in query))
    whole, part = (method.predict(point, q, tasks().support, statistics="joined") for q in (query, few))
    torch.testing.assert_close(whole[:, :2], part)


def test_a_network_can_be_copied_and_pickled_after_use() -> None:
    method = maml(made("a buffer that moves"), rate=0.3)
    meta_gradient(method, Vmap())
    assert method.learner.network.seen is None
    copy.deepcopy(method.learner.network)
    pickle.dumps(method.learner.network)
