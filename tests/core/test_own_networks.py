"""Any ``nn.Module`` of a user: its derivatives, its draws, its state. See ``core/network/operations.py``."""

import copy
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layer_table
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES, Case
from own_networks import NETWORKS, made, tasks, transformer
from pages import ROOT
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fewstep import algorithms
from fewstep.algorithms import maml
from fewstep.core import Batch, Differentiate, Executor, Loop, Method, Task, Vmap, generator
from fewstep.core.network import primitives
from fewstep.core.network.operations import call, is_plain
from fewstep.estimators.classifier import FewShotClassifier
from fewstep.networks import Ensemble, Generated
from fewstep.training.checkpoint import State, load_checkpoint, save_checkpoint

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_methods_on_fewsteps_own_networks_run_as_they_are(case: Case) -> None:
    assert case.build()[0].learner.plain


def test_an_ensemble_is_as_plain_as_its_members() -> None:
    """One whose members draw is looked after as any other network that does: without noise there are no draws."""

    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(super().forward(x), 0.5)

    assert is_plain(Ensemble(lambda: nn.Linear(2, 3), 2))
    assert is_plain(nn.Sequential(nn.Flatten(), Ensemble(lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU()), 2)))
    noisy, x = Ensemble(lambda: Noisy(2, 3), 2), torch.randn(4, 2)
    assert not is_plain(noisy)
    expected = torch.einsum("moi,ri->rmo", noisy.get_parameter("weight"), x) + noisy.get_parameter("bias")
    torch.testing.assert_close(call(noisy, {}, x).output, expected.flatten(1))


def test_plain_layers_are_left_alone_and_hooks_are_not_plain() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    assert is_plain(network)
    network[0].register_forward_hook(lambda module, inputs, output: output)
    assert not is_plain(network)
    assert not is_plain(nn.Sequential(nn.LayerNorm(3)))
    assert not is_plain(nn.Embedding(3, 2, max_norm=1.0))


class Own(nn.Module):
    """A linear layer, and whatever a user does with what it gives."""

    def __init__(self, forward: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.before, self.after = nn.Linear(8, 3, dtype=torch.float64), forward, last

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(self.before(x)))


def after(function: Callable[[Tensor], Tensor]) -> Own:
    return Own(lambda x: x, function)


OWN_GENERATORS: dict[str, Any] = {
    "python": random.Random(0),
    "numpy": np.random.default_rng(0),
    "numpy, old": np.random.RandomState(0),
}


class OfItsOwn(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.rng = nn.Linear(8, 3, dtype=torch.float64), copy.deepcopy(OWN_GENERATORS[kind])

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.rng.uniform(0.5, 1.5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (after(lambda x: x * torch.randint(2, (1,))), "torch.randint"),
        (after(lambda x: x + torch.randn(3, generator=torch.Generator())), "a generator of its own"),
        (after(lambda x: x * torch.empty_like(x).bernoulli_(generator=torch.Generator())), "a generator of its own"),
        (after(lambda x: F.gumbel_softmax(x)), "gumbel_softmax"),
        (after(lambda x: x * random.random()), "Python's `random`"),
        (after(lambda x: x * np.random.rand()), r"`numpy\.random`"),  # noqa: NPY002
        (after(lambda x: x * torch.native_dropout(x, 0.5, True)[1]), "torch's global generator"),
        (after(lambda x: x * nn.init.normal_(torch.empty(3))), "torch's global generator"),
        *((OfItsOwn(kind), "its generator rng") for kind in OWN_GENERATORS),
    ],
)
def test_draws_that_no_seed_can_tell_are_refused_by_name(network: nn.Module, message: str) -> None:
    method = maml(network, rate=0.1)
    with pytest.raises(ValueError, match=message):
        method.draws(tasks(), generator(0, 0, "noise"))
    with pytest.raises(ValueError, match=message):
        method.adapt(tasks().support, Loop())


def chances(h: Tensor) -> Tensor:
    return torch.full_like(h, 0.5)


def with_in_place(change: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """A product with ones that ``change`` has changed."""

    def forward(h: Tensor) -> Tensor:
        mask = torch.ones_like(h)
        change(mask)
        return h * mask

    return forward


def with_rows(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda h: h * change(torch.ones_like(h))


def of_first_two(draw: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return with_rows(lambda ones: torch.cat([draw(ones[:, :2]), ones[:, 2:]], 1))


def seen_from_before(h: Tensor) -> Tensor:
    mask = torch.ones_like(h)
    view = mask[:, :2]
    mask.bernoulli_(0.5)
    return h * torch.cat([view, mask[:, 2:]], 1)


IN_PLACE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "bernoulli_ into a view": (
        with_in_place(lambda mask: mask[:, :2].bernoulli_(0.5)),
        of_first_two(lambda part: torch.bernoulli(chances(part))),
    ),
    "normal_ into a view": (with_in_place(lambda mask: mask[:, :2].normal_()), of_first_two(torch.randn_like)),
    "uniform_ into a view": (with_in_place(lambda mask: mask[:, :2].uniform_()), of_first_two(torch.rand_like)),
    "into a view of a view": (with_in_place(lambda mask: mask.t()[:2].t().normal_()), of_first_two(torch.randn_like)),
    "dropout into a view": (
        with_in_place(lambda mask: F.dropout(mask[:, :2], 0.5, inplace=True)),
        of_first_two(lambda part: F.dropout(part, 0.5)),
    ),
    "dropout, result unused": (
        with_in_place(lambda mask: F.dropout(mask, 0.5, True, True)),
        with_rows(lambda ones: F.dropout(ones, 0.5)),
    ),
    "seen by an earlier view": (seen_from_before, with_rows(lambda ones: torch.bernoulli(chances(ones)))),
    "bernoulli, out": (
        with_in_place(lambda mask: torch.bernoulli(chances(mask), out=mask)),
        with_rows(lambda ones: torch.bernoulli(chances(ones))),
    ),
    "rand, out": (with_in_place(lambda mask: torch.rand(mask.shape, out=mask)), with_rows(torch.rand_like)),
    "randn, out of all tasks": (
        lambda h: h * torch.randn(3, out=torch.empty(3, dtype=h.dtype)),
        lambda h: h * torch.randn(3, dtype=h.dtype),
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_draws_in_place_are_those_that_are_not(name: str) -> None:
    in_place, plain = (maml(after(forward), rate=0.3, steps=2) for forward in IN_PLACE[name])
    wanted = meta_gradient(plain, Vmap())
    assert meta_gradient(plain, Vmap(), seed=1)[0] != wanted[0], "something is drawn"
    for executor in (Vmap(), Loop()):
        torch.testing.assert_close(meta_gradient(in_place, executor), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(in_place.adapt(tasks().support).value, plain.adapt(tasks().support).value)


def shared_by_tasks(h: Tensor) -> Tensor:
    mask = torch.ones(3, dtype=h.dtype)
    mask[:2].bernoulli_()
    return h * mask


def old_view(h: Tensor) -> Tensor:
    mask = torch.ones(3, dtype=h.dtype)
    view = mask[:2]
    mask.normal_()
    return h * torch.cat([view, mask[2:]])


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3, dtype=torch.float64)
        self.register_buffer("mask", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.mask[:2].normal_()
        return self.layer(x) * self.mask


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (after(shared_by_tasks), "draws into a part of a tensor .*draw a tensor of its own"),
        (after(old_view), "takes a view of a tensor, changes the tensor in place"),
        (Held(), "draws into a part of its input or of what it holds"),
        (Own(lambda x: x[:, :4].bernoulli_(0.5).sum() + x), "draws into a part of its input or of what it holds"),
    ],
)
def test_draws_that_would_be_lost_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_gradient(maml(network, rate=0.3), Vmap())


def test_noise_is_lent_and_not_changed() -> None:
    method = maml(after(lambda h: h * torch.randn_like(h).mul_(2).add_(1)), rate=0.3)
    for executor in (Vmap(), Loop()):
        noise = method.noise(tasks(), generator(0, 0, "noise"))
        before = copy.deepcopy(noise)
        method.objective(tasks(), noise, executor)
        torch.testing.assert_close(noise, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        (lambda x: x.mul_(2), lambda x: 2 * x),
        (lambda x: F.elu(x, inplace=True), F.elu),
        (lambda x: F.dropout(x, 1.0, inplace=True), torch.zeros_like),
        (lambda x: x.__setitem__((slice(None), 0), 7.0) or x, lambda x: torch.cat([7 + 0 * x[:, :1], x[:, 1:]], 1)),
    ],
)
@pytest.mark.parametrize("executor", [Vmap(), Loop()], ids=["vmap", "loop"])
def test_inputs_that_a_forward_changes_are_as_they_were_in_the_next(
    change: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], executor: Executor
) -> None:
    method, other, given = maml(Own(change), rate=0.3, steps=2), maml(Own(plain), rate=0.3, steps=2), tasks()
    draws = [m.draws(given, generator(0, 0, "noise")) for m in (method, other)]
    found, wanted = (Differentiate(m, executor)(given, d) for m, d in zip((method, other), draws, strict=True))
    torch.testing.assert_close(found.gradients, wanted.gradients)
    torch.testing.assert_close(given, tasks(), rtol=0, atol=0)


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


# -- what a network holds ---------------------------------------------------------------------------------------------


def frozen_body() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Tanh()).requires_grad_(False)
    return nn.Sequential(body, nn.Linear(6, 3)).double()


@pytest.mark.parametrize(
    "make",
    [
        lambda network: maml(network, rate=0.3, steps=2),
        lambda network: maml(network, rate=0.3, steps=2, first_order=True),
        lambda network: algorithms.meta_sgd(network, steps=2),
        lambda network: algorithms.meta_curvature(network, rate=0.3),
        lambda network: algorithms.meta_lstm(network, steps=2),
        lambda network: algorithms.imaml(network, rate=0.3, steps=2, prox=1.0),
        lambda network: algorithms.reptile(network, rate=0.3, steps=2),
        lambda network: algorithms.protomaml(nn.Sequential(*network[:2], Generated()), rate=0.3, steps=1),
        lambda network: algorithms.anil(network, rate=0.3, steps=2),
    ],
)
def test_frozen_parameters_stay_as_they_are_in_both_loops(make: Callable[[nn.Sequential], Method]) -> None:
    network = frozen_body()
    kept = {name: p.clone() for name, p in network[0].named_parameters()}
    method = make(network)
    method.learner.double()
    trained = method.learner.trained()
    assert not {id(p) for p in network[0].parameters()} & {id(p) for p in trained}
    step = Differentiate(method)(tasks(), method.draws(tasks(), generator(0, 0, "noise")))
    assert len(step.gradients) == len(trained)
    assert not any(name.startswith("0.") for name in method.adapt(tasks().support).value)
    for name, p in network[0].named_parameters():
        assert torch.equal(p, kept[name])


def test_a_choice_may_be_names_and_a_wrong_one_is_named() -> None:
    by_name = maml(frozen_body(), rate=0.3, adapts=["1.bias"])
    assert list(by_name.adapt(tasks().support).value) == ["1.bias"]
    with pytest.raises(ValueError, match=r"no parameters named 2\.bias; it has 0\.0\.weight"):
        maml(frozen_body(), rate=0.3, adapts=["2.bias"])
    with pytest.raises(ValueError, match="all are frozen"):
        maml(frozen_body().requires_grad_(False), rate=0.3)


def test_tied_parameters_are_trained_and_kept(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3)).double()
        network[2].weight = network[0].weight
        return network

    method, other = maml(tied(), rate=0.3, steps=2), maml(tied(), rate=0.3, steps=2)
    adapted = method.adapt(tasks().support)
    assert "2.weight" not in adapted.value
    x, weights = tasks().query.x[0], {name: tensor[0] for name, tensor in adapted.value.items()}
    hidden = F.linear(
        torch.tanh(F.linear(x, weights["0.weight"], weights["0.bias"])), weights["0.weight"], weights["2.bias"]
    )
    by_hand = F.linear(hidden, weights["3.weight"], weights["3.bias"])
    torch.testing.assert_close(method.predict(adapted, tasks().query)[0], by_hand)
    save_checkpoint(tmp_path / "tied.safetensors", method.learner, State())
    load_checkpoint(tmp_path / "tied.safetensors", other.learner)
    torch.testing.assert_close(other.adapt(tasks().support).value, adapted.value, rtol=0, atol=0)
    assert other.learner.network[2].weight is other.learner.network[0].weight


def test_unused_integer_and_complex_parameters() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.unused = nn.Linear(8, 3), nn.Parameter(torch.ones(2))
            self.order = nn.Parameter(torch.arange(8).flip(0), requires_grad=False)
            self.phase = nn.Parameter(torch.ones(8, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer((x[:, self.order] * self.phase).real)

    network = Odd()
    network.layer.double(), network.unused.data.double()
    method = maml(network, rate=0.3, steps=2)
    step = Differentiate(method, Loop())(tasks(), None)
    torch.testing.assert_close(step.gradients, Differentiate(method)(tasks(), None).gradients)
    assert "order" not in method.adapt(tasks().support).value


def shared_views() -> nn.Module:
    memory = torch.zeros(2, 8)
    network = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 2))
    network[0].weight, network[1].bias = nn.Parameter(memory), nn.Parameter(memory[0, :2])
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: torch.compile(nn.Linear(8, 3)), "compiled by itself"),
        (lambda: nn.DataParallel(nn.Linear(8, 3)), r"give its `\.module`"),
        (lambda: nn.LazyLinear(3), "weight has no shape yet; run the network once"),
        (lambda: nn.Linear(8, 3, device="meta"), "meta device"),
        (shared_views, r"0\.weight and 1\.bias share memory"),
    ],
)
def test_what_would_fail_later_is_refused_when_a_method_is_made(network: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maml(network(), rate=0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_method_can_be_copied_and_pickled(case: Case) -> None:
    method, support = case.build()[0], case.tasks().support
    wanted = method.adapt(support)
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        torch.testing.assert_close(other.adapt(support), wanted, rtol=0, atol=0)


# -- LEO on rows of any length ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [8, 64, 384])
@pytest.mark.parametrize("seed", range(5))
def test_leo_is_finite_at_its_defaults(features: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(4, 5, features), torch.eye(5).expand(4, 5, 5)
    batch = Batch(x, y, torch.ones(4, 5))
    method = algorithms.leo(features)
    step = Differentiate(method)(Task(batch, batch), method.draws(Task(batch, batch), generator(seed, 0, "noise")))
    assert step.objective.isfinite()
    assert all(gradient.isfinite().all() for gradient in step.gradients)


def test_leo_says_what_overflowed() -> None:
    torch.manual_seed(0)
    batch = Batch(torch.randn(4, 5, 64), torch.eye(5).expand(4, 5, 5), torch.ones(4, 5))
    method = algorithms.leo(64, normalise=False, latent_clip=None)
    found = r"4 of 4 tasks .* code overflowed at point \d+ of \d+ .*longest support row has length 9\.\d+.*`normalise`"
    with pytest.warns(RuntimeWarning, match=found):
        Differentiate(method)(Task(batch, batch), method.draws(Task(batch, batch), generator(0, 0, "noise")))


def test_leo_scales_rows_as_its_authors_do() -> None:
    torch.manual_seed(0)
    x, y = 7 * torch.randn(4, 5, 16, dtype=torch.float64), torch.eye(5, dtype=torch.float64).expand(4, 5, 5)
    whole, parts = algorithms.leo(16), algorithms.leo(16, normalise=False)
    whole.learner.double(), parts.learner.double()
    parts.learner.start.load_state_dict(whole.learner.start.state_dict())
    support = Batch(x, y, torch.ones(4, 5, dtype=torch.float64))
    scaled = support._replace(x=x / x.norm(dim=2, keepdim=True))
    torch.testing.assert_close(whole.adapt(support).value, parts.adapt(scaled).value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in ("LayerNorm", "weight_norm", "GRU") else pytest.mark.slow) for n in NETWORKS],
)
def test_the_page_has_the_layers_verdicts(name: str) -> None:
    if not torch.__version__.startswith("2.13."):
        pytest.skip("the page is of torch 2.13, and says what differs in 2.15")
    assert layer_table.row(name) in (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").splitlines()


def test_the_classifier_says_what_depends_on_the_rows_beside() -> None:
    x, y = tasks().support.x[0].numpy(), [0, 1, 2, 0, 1, 2]
    method = maml(made("BatchNorm1d"), rate=0.3)
    with pytest.warns(UserWarning, match="depend on the rows that are asked with it"):
        FewShotClassifier(method, statistics="query").fit(x, y)
    alone, together = (FewShotClassifier(method).fit(x, y).predict_proba(rows) for rows in (x[:1], x))
    torch.testing.assert_close(torch.tensor(alone[0]), torch.tensor(together[0]))


# -- what strangers brought -------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(5, 4, padding_idx=0), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.table((x.abs() * 3).long().clamp(max=4)).mean(1)))


def test_the_padding_of_an_embedding_stays_under_every_executor() -> None:
    torch.manual_seed(0)
    method = maml(Tokens().double(), rate=0.5, steps=2)
    vmapped, looped = (meta_gradient(method, executor)[1] for executor in (Vmap(), Loop()))
    torch.testing.assert_close(vmapped, looped)
    for executor in (Vmap(), Loop()):
        table = method.adapt(tasks().support, executor).value["table.weight"]
        assert table[:, 0].abs().max() == 0
        assert (table[:, 1:] - method.learner.network.table.weight[1:]).abs().max() > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_by_torch_is_refused(reentrant: bool) -> None:
    network = Own(lambda x: checkpoint(torch.tanh, x, use_reentrant=reentrant))
    with pytest.raises(ValueError, match=r"torch\.utils\.checkpoint.*recompute=True"):
        maml(network, rate=0.1).adapt(tasks().support, Loop())


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


class Once(Sine):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


def test_functions_without_a_rule_for_vmap_run_in_a_loop() -> None:
    method = maml(after(Sine.apply), rate=0.3, steps=2)
    # Since torch 2.15 it is called from C, and its name is not to be had.
    named = "Sine, a torch" if hasattr(torch.autograd.Function.apply, "__func__") else "a torch"
    with pytest.raises(ValueError, match=rf"asks for {named}.* by the executor Loop\(\).*--training\.executor loop"):
        meta_gradient(method, Vmap())
    torch.testing.assert_close(
        meta_gradient(method, Loop()), meta_gradient(maml(after(torch.sin), rate=0.3, steps=2), Loop())
    )


def test_operations_that_look_at_values_are_named() -> None:
    method = maml(after(lambda h: h if h.sum() > 0 else -h), rate=0.3)
    with pytest.raises(ValueError, match=r"asks for torch\.Tensor\.__bool__.* by the executor Loop\(\)"):
        meta_gradient(method, Vmap())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Once.apply, "the backward of Once is marked once_differentiable"),
        (lambda h: h + F.multi_margin_loss(h, torch.zeros(len(h), dtype=torch.long)), "multi_margin_loss_backward"),
    ],
)
def test_lost_second_derivatives_are_refused_and_first_order_takes_them(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"cannot differentiate again.*fomaml.*{message}"):
        meta_gradient(maml(after(function), rate=0.3), Loop())
    if function == Once.apply:  # and so where a loop of one's own differentiates the objective
        with pytest.raises(ValueError, match="the backward of Once is marked once_differentiable"):
            maml(after(function), rate=0.3).objective(tasks(), None, Loop())
        assert (
            maml(after(function), rate=0.3, first_order=True).objective(tasks(), None, Loop()).objective.requires_grad
        )
    assert meta_gradient(maml(after(function), rate=0.3, first_order=True), Loop())[1][0].abs().max() > 0


@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, float("inf")])
def test_distances_are_torchs_with_derivatives_that_are_zero_at_zero(p: float) -> None:
    x, y = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y[0, 0] = x[0, 0]
    x.requires_grad_()
    theirs, ours = torch.cdist(x, y, p), primitives.cdist(x, y, p)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(primitives.pdist(x[0], p), F.pdist(x[0], p))
    if p:
        (wanted,), (found,) = (
            torch.autograd.grad(d.square().sum() + d.sum(), x, create_graph=True) for d in (theirs, ours)
        )
        torch.testing.assert_close(found, wanted)
        assert torch.autograd.grad(found.square().sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_bags_are_torchs(mode: str, padding: int | None) -> None:
    source = torch.Generator().manual_seed(0)
    table = torch.randn(6, 3, generator=source, dtype=torch.float64, requires_grad=True)
    rows, flat = torch.randint(6, (4, 5), generator=source), torch.randint(6, (9,), generator=source)
    rows[1] = 2  # all padding
    begins, bounds = torch.tensor([0, 2, 2, 5]), torch.tensor([0, 2, 2, 5, 7])
    cases = [(rows, None, False), (flat, begins, False), (flat[:7], bounds, True)]
    for x, offsets, last in cases:
        options: dict[str, Any] = {"mode": mode, "padding_idx": padding, "include_last_offset": last}
        results = [bag(x, table, offsets, **options) for bag in (F.embedding_bag, primitives.embedding_bag)]
        torch.testing.assert_close(results[1], results[0])
        slopes = [torch.autograd.grad(result.square().sum(), table) for result in results]
        torch.testing.assert_close(slopes[1], slopes[0])
    if mode == "sum":
        share = torch.randn(4, 5, generator=source, dtype=torch.float64)
        theirs, ours = (
            bag(rows, table, mode=mode, per_sample_weights=share) for bag in (F.embedding_bag, primitives.embedding_bag)
        )
        torch.testing.assert_close(ours, theirs)


def test_norms_of_parts_of_rows_are_not_normalised_by_a_support() -> None:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(2), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(x.reshape(-1, 2)).view(len(x), 4, 2).relu().mean(1))

    method = maml(Points().double(), rate=0.1)
    with pytest.raises(ValueError, match='predict with "joined"'):
        method.predict(method.adapt(tasks().support), tasks().query, tasks().support, statistics="support")


def test_a_buffer_that_moves_unseen_is_named_and_put_back() -> None:
    class Unseen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 3)
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            self.count.data.add_(1)
            return self.last(x)

    network = Unseen().double()
    with pytest.raises(ValueError, match=r"moves its count through a view or `\.data`"):
        maml(network, rate=0.1).adapt(tasks().support, Loop())
    assert network.count.tolist() == [0, 0]


def test_a_classifier_takes_networks_whose_first_layer_is_not_of_rows() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 4), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.view(len(x), 4, 2)).flatten(1))

    x = tasks().support.x[0].numpy()
    assert FewShotClassifier(maml(Pairs(), rate=0.1)).fit(x, [0, 1] * 3).predict_proba(x).shape == (6, 2)


@pytest.fixture
def busy() -> Iterator[dict[str, Any]]:
    """Generators that another thread draws from all the time, as it does from the global ones."""
    shared = {"python": random.Random(0), "torches": torch.Generator()}
    # Before NumPy 2.4 a lock that this thread could hold and use is not to be had.
    if exclusive := isinstance(np.random.PCG64().lock, type(threading.RLock())):
        shared["numpys"] = np.random.default_rng(0)
    stop, began = threading.Event(), threading.Event()

    def draw() -> None:
        while not stop.is_set():
            (torch.rand(1), torch.rand(1, generator=shared["torches"]), random.random(), shared["python"].random())
            if exclusive:
                np.random.rand(), shared["numpys"].random()  # noqa: NPY002
            began.set()

    other = threading.Thread(target=draw)
    other.start()
    assert began.wait(10)
    yield shared
    stop.set()
    other.join()


def test_what_another_thread_draws_is_not_the_networks(busy: dict[str, Any]) -> None:
    for _ in range(5):
        attending = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        network = nn.Sequential(nn.Linear(8, 8), attending, nn.Dropout(0.5), nn.Linear(8, 3)).double()
        vars(network).update(busy)
        method = maml(network, rate=0.1)
        method.draws(tasks(), generator(0, 0, "noise"))
        method.adapt(tasks().support)
