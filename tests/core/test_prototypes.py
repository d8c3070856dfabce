"""Prototypical networks, Proto-MAML and ANIL against distances and hand-written loops that share no code with them.

As in ``test_witnesses.py``: real rows only, one task at a time, ``torch.nn.functional`` and ``torch.autograd.grad``.
"""

from collections.abc import Callable, Collection

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_witnesses import CLOSE, Forward, averaged, meta_gradient, slope
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from fewstep.algorithms import anil, maml, protomaml, protonet
from fewstep.core import Batch, Method, Params, Prototypes, Task
from fewstep.networks import Conv4, Generated, mlp, without_norms

RATE = 0.1

# -- witnesses ---------------------------------------------------------------------------------------------------------


def embed_mlp(p: Params, x: Tensor) -> Tensor:
    for i in (0, 3):
        x = F.linear(x, p[f"{i}.weight"], p[f"{i}.bias"])
        x = F.relu(F.batch_norm(x, None, None, p[f"{i + 1}.weight"], p[f"{i + 1}.bias"], training=True, eps=1e-5))
    return x


def embed_conv(p: Params, x: Tensor) -> Tensor:
    for i in (0, 3):
        x = F.conv2d(x, p[f"blocks.{i}.weight"], p[f"blocks.{i}.bias"], stride=2, padding=1)
        norm = f"blocks.{i + 1}"
        x = F.relu(F.batch_norm(x, None, None, p[f"{norm}.weight"], p[f"{norm}.bias"], training=True, eps=1e-3))
    return x.mean((2, 3))


def rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """Inputs and labels, every row as often as its weight says."""
    times = batch.weight.long()
    return batch.x.repeat_interleave(times, 0), batch.y.argmax(1).repeat_interleave(times)


def class_means(embed: Forward, p: Params, support: Batch) -> list[Tensor]:
    x, label = rows(support)
    embedded = embed(p, x)
    return [embedded[label == n].mean(0) for n in range(support.y.shape[1])]


def distances(embed: Forward, p: Params, task: Task) -> Tensor:
    """``‖e(x) − c_n‖²`` of the query's real rows, one at a time."""
    means = class_means(embed, p, task.support)
    return torch.stack([torch.stack([((e - c) ** 2).sum() for c in means]) for e in embed(p, rows(task.query)[0])])


def prototype_loss(embed: Forward, p: Params, task: Task) -> Tensor:
    return F.cross_entropy(-distances(embed, p, task), rows(task.query)[1])


def linear_loss(embed: Forward, p: Params, w: Tensor, b: Tensor, batch: Batch) -> Tensor:
    x, label = rows(batch)
    return F.cross_entropy(F.linear(embed(p, x), w, b), label)


def unrolled(
    embed: Forward,
    theta: Params,
    task: Task,
    steps: int,
    *,
    order: int = 2,
    cut: bool = False,
    moved: Collection[str] = (),
) -> Tensor:
    """Proto-MAML's query loss by hand; ``cut`` stops the gradient at the prototypes."""
    means = torch.stack(class_means(embed, theta, task.support))
    means = means.detach().requires_grad_() if cut else means
    # Copies: a step's gradient in φ takes the head as it is, though that was made of θ.
    phi, w, b = {name: p.clone() for name, p in theta.items()}, 2 * means, -torch.stack([c @ c for c in means])
    for _ in range(steps):
        moving = [*(phi[name] for name in moved), w, b]
        loss = linear_loss(embed, phi, w, b, task.support)
        found = torch.autograd.grad(loss, moving, create_graph=order == 2, retain_graph=True)
        *new, w, b = (p - RATE * g for p, g in zip(moving, found, strict=True))
        phi |= dict(zip(moved, new, strict=True))
    return linear_loss(embed, phi, w, b, task.query)


def head_only(embed: Forward, theta: Params, head: str, task: Task, steps: int, order: int = 2) -> Tensor:
    """ANIL's query loss by hand: the trunk is evaluated with the same parameters throughout."""
    w, b = theta[f"{head}weight"], theta[f"{head}bias"]
    for _ in range(steps):
        loss = linear_loss(embed, theta, w, b, task.support)
        by_w, by_b = torch.autograd.grad(loss, (w, b), create_graph=order == 2, retain_graph=True)
        w, b = w - RATE * by_w, b - RATE * by_b
    return linear_loss(embed, theta, w, b, task.query)


# -- what is witnessed -------------------------------------------------------------------------------------------------


def unequal(*shape: int) -> Task:
    """One, two and three shots, and queries of unequal number; what stands in the padding is absurd."""
    tasks = classification_tasks(*shape, shots=3, queries=3, tasks=3)
    for batch, padded in ((tasks.support, [1, 2, 5]), (tasks.query, [0, 4])):
        batch.weight[:] = 1
        batch.weight[:, padded] = 0
        batch.x[:, padded] = 50.0
    return tasks


Made = tuple[Callable[[int | None], nn.Module], Forward, Callable[[], Task], str]
NETWORKS: dict[str, Made] = {
    "mlp": (lambda outputs: mlp((6, 5, 4, outputs), norm=True), embed_mlp, lambda: unequal(6), "6."),
    "conv": (
        lambda outputs: Conv4(outputs, inputs=2, channels=(4, 5), scale=True),
        embed_conv,
        lambda: unequal(2, 7, 8),
        "head.",
    ),
}
networks = pytest.mark.parametrize("kind", NETWORKS)


def build(kind: str, outputs: int | None = None) -> tuple[nn.Module, Params, Forward, Task, str]:
    make, embed, tasks, head = NETWORKS[kind]
    return *moved_off(make(outputs)), embed, tasks(), head


def moved_off(network: nn.Module) -> tuple[nn.Module, Params]:
    """In float64, with parameters that are not 0 or 1 all over."""
    with torch.no_grad():
        for p in network.double().parameters():
            p += 0.2 * torch.randn_like(p)
    return network, dict(network.named_parameters())


def predictions(method: Method, tasks: Task) -> Tensor:
    return method.predict(method.adapt(tasks.support), tasks.query)


def one(tasks: Task, i: int) -> Task:
    return tree_map(lambda t: t[i], tasks)


# -- prototypical networks ---------------------------------------------------------------------------------------------


@networks
def test_logits_are_negative_squared_distances_up_to_a_term_of_the_row(kind: str) -> None:
    network, theta, embed, tasks, _ = build(kind)
    found = predictions(protonet(network), tasks)
    for i in range(3):
        task = one(tasks, i)
        expected, logits = -distances(embed, theta, task).detach(), found[i][task.query.weight > 0]
        torch.testing.assert_close(logits.softmax(1), expected.softmax(1), **CLOSE)
        squared = embed(theta, rows(task.query)[0]).square().sum(1, keepdim=True).detach()
        torch.testing.assert_close(logits - squared, expected, **CLOSE)


@networks
def test_protonet_loss_and_meta_gradient_are_those_of_distances(kind: str) -> None:
    network, theta, embed, tasks, _ = build(kind)
    method = protonet(network)
    expected = averaged(lambda task: slope(prototype_loss(embed, theta, task), theta), tasks)
    torch.testing.assert_close(meta_gradient(method, tasks), expected, **CLOSE)
    losses = torch.stack([prototype_loss(embed, theta, one(tasks, i)) for i in range(3)]).detach()
    torch.testing.assert_close(method.objective(tasks, None).metrics["loss"], losses, **CLOSE)
    assert {f"network.{name}" for name in theta} == method.learner.start.start_parameters(network)


def test_training_may_have_other_ways_and_shots_than_testing() -> None:
    network, theta = moved_off(mlp((6, 5, 4, None), norm=True))
    method = protonet(network)
    for ways, shots in ((8, 1), (3, 4), (2, 2)):
        tasks = classification_tasks(6, ways=ways, shots=shots)
        tasks.support.weight[:] = 1
        expected = averaged(lambda task: slope(prototype_loss(embed_mlp, theta, task), theta), tasks)
        torch.testing.assert_close(meta_gradient(method, tasks), expected, **CLOSE)


def test_a_head_alone_is_the_nearest_class_mean() -> None:
    tasks = unequal(6)
    found = predictions(protonet(Generated()), tasks)
    for i in range(3):
        task = one(tasks, i)
        nearest = distances(lambda p, x: x, {}, task).argmin(1)
        assert torch.equal(found[i][task.query.weight > 0].argmax(1), nearest)


def test_a_class_without_rows_has_its_prototype_at_the_origin() -> None:
    network, theta = moved_off(mlp((6, 5, 4, None)))
    tasks = classification_tasks(6, shots=2, tasks=2)
    tasks.support.weight[:, 4:] = 0
    method = protomaml(network, rate=RATE, steps=2)
    gradients = meta_gradient(method, tasks)
    assert all(g.isfinite().all() for g in gradients.values())
    point = protonet(network).adapt(tasks.support)
    slots = {**point.context, **point.value}
    assert not slots["4.weight"][:, 2].any()
    assert not slots["4.bias"][:, 2].any()
    two = tree_map(lambda t: t[:, :4], tasks.support)
    two = two._replace(y=two.y[..., :2])
    torch.testing.assert_close(protonet(network).adapt(two).value["4.weight"], slots["4.weight"][:, :2], **CLOSE)
    assert theta.keys() == gradients.keys()


# -- Proto-MAML --------------------------------------------------------------------------------------------------------


@networks
@pytest.mark.parametrize("order", [1, 2])
def test_protomaml_is_the_loop_that_begins_at_prototypes(kind: str, order: int) -> None:
    network, theta, embed, tasks, _ = build(kind)
    found = meta_gradient(protomaml(network, rate=RATE, steps=2, first_order=order == 1), tasks)

    def by_hand(order: int = order, cut: bool = False) -> Params:
        def loss(task: Task) -> Tensor:
            return unrolled(embed, theta, task, 2, order=order, cut=cut, moved=theta.keys())

        return averaged(lambda task: slope(loss(task), theta), tasks)

    torch.testing.assert_close(found, by_hand(), **CLOSE)
    for other in (by_hand(order=3 - order), by_hand(cut=True)):
        assert any((other[n] - found[n]).abs().max() > 1e-3 for n in found), "this path would not be noticed"


@networks
def test_protomaml_that_adapts_some_parameters_or_the_head_alone(kind: str) -> None:
    network, theta, embed, tasks, _ = build(kind)
    selected = without_norms(network)
    for adapts, moved in ((selected, selected), ((), [])):
        assert len(moved) < len(theta)
        method = protomaml(network, rate=RATE, steps=2, adapts=adapts)
        expected = averaged(lambda task, m=moved: slope(unrolled(embed, theta, task, 2, moved=m), theta), tasks)
        torch.testing.assert_close(meta_gradient(method, tasks), expected, **CLOSE)


@networks
def test_protomaml_without_steps_is_protonet(kind: str) -> None:
    network, _, _, tasks, _ = build(kind)
    still = protomaml(network, rate=RATE, steps=0)
    torch.testing.assert_close(meta_gradient(still, tasks), meta_gradient(protonet(network), tasks), **CLOSE)
    torch.testing.assert_close(predictions(still, tasks), predictions(protonet(network), tasks), **CLOSE)
    steps = predictions(protomaml(network, rate=RATE, steps=1), tasks) - predictions(still, tasks)
    assert steps.abs().max() > 1e-3


# -- for any shape of task ---------------------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> Task:
    """Rows in any order, each class at least once in the support; a weight of 2 is the row twice."""
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    ways = draw(st.integers(2, 6), label="ways")

    def batch(name: str) -> Batch:
        more = draw(st.lists(st.tuples(st.integers(0, ways - 1), st.sampled_from([0, 1, 2])), max_size=9), label=name)
        first = draw(st.lists(st.integers(1, 2), min_size=ways, max_size=ways), label=f"{name}, first shots")
        label, weight = torch.tensor([*enumerate(first), *more])[torch.randperm(ways + len(more), generator=source)].T
        x = torch.randn(len(label), 4, generator=source, dtype=torch.float64)
        x = torch.where(weight[:, None] > 0, x, 50.0)
        return Batch(x, torch.eye(ways, dtype=torch.float64)[label], weight.double())

    return Task(batch("support"), batch("query"))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2))
def test_any_ways_shots_and_row_weights(task: Task, steps: int) -> None:
    torch.manual_seed(0)
    network, theta = moved_off(mlp((4, 6, 3, None), norm=True))
    tasks = tree_map(lambda t: t.unsqueeze(0), task)
    close = {"rtol": 1e-8, "atol": 1e-9}
    probabilities = predictions(protonet(network), tasks)[0].softmax(1).repeat_interleave(task.query.weight.long(), 0)
    torch.testing.assert_close(probabilities, (-distances(embed_mlp, theta, task)).softmax(1).detach(), **close)
    expected = slope(prototype_loss(embed_mlp, theta, task), theta)
    torch.testing.assert_close(meta_gradient(protonet(network), tasks), expected, **close)
    for order in (1, 2):
        method = protomaml(network, rate=RATE, steps=steps, first_order=order == 1)
        expected = slope(unrolled(embed_mlp, theta, task, steps, order=order, moved=theta.keys()), theta)
        torch.testing.assert_close(meta_gradient(method, tasks), expected, **close)

    order = torch.randperm(task.support.y.shape[1])
    renamed = Task(*(batch._replace(y=batch.y[..., order]) for batch in tasks))
    method = protomaml(network, rate=RATE, steps=steps)
    torch.testing.assert_close(predictions(method, renamed), predictions(method, tasks)[..., order], **close)
    torch.testing.assert_close(meta_gradient(method, renamed), meta_gradient(method, tasks), **close)


# -- ANIL --------------------------------------------------------------------------------------------------------------


@networks
@pytest.mark.parametrize("order", [1, 2])
def test_anil_is_the_loop_that_moves_the_last_layer(kind: str, order: int) -> None:
    network, theta, embed, tasks, head = build(kind, outputs=3)

    def by_hand(order: int) -> Params:
        return averaged(lambda task: slope(head_only(embed, theta, head, task, 2, order), theta), tasks)

    found = meta_gradient(anil(network, rate=RATE, steps=2, first_order=order == 1), tasks)
    torch.testing.assert_close(found, by_hand(order), **CLOSE)
    given = meta_gradient(anil(network, rate=RATE, steps=2, head=head, first_order=order == 1), tasks)
    torch.testing.assert_close(given, found, **CLOSE)
    everything = meta_gradient(maml(network, rate=RATE, steps=2, first_order=order == 1), tasks)
    for other in (by_hand(3 - order), everything):
        assert any((other[n] - found[n]).abs().max() > 1e-3 for n in found), "this path would not be noticed"


@networks
def test_anil_moves_the_head_and_nothing_else(kind: str) -> None:
    network, _, _, tasks, head = build(kind, outputs=3)
    point = anil(network, rate=RATE).adapt(tasks.support)
    assert {*point.value, *point.context} == {f"{head}weight", f"{head}bias"}


def test_anil_names_the_parameters_when_none_is_a_head() -> None:
    with pytest.raises(ValueError, match=r"begins with 'head\.'; they are \(0\.weight, 0\.bias, 2\.weight, 2\.bias\)"):
        anil(mlp((6, 5, 3)), rate=RATE, head="head.")
    with pytest.raises(ValueError, match="no parameter"):
        anil(nn.ReLU(), rate=RATE)


# -- generated heads ---------------------------------------------------------------------------------------------------


@networks
def test_without_a_head_s_weights_the_network_is_its_embedding(kind: str) -> None:
    network, theta, embed, tasks, head = build(kind)
    x = tasks.query.x[0]
    torch.testing.assert_close(network(x), embed(theta, x), **CLOSE)
    features = embed(theta, x).shape[1]
    w, b = torch.randn(7, features, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    filled = functional_call(network, {f"{head}weight": w, f"{head}bias": b}, (x,))
    torch.testing.assert_close(filled, F.linear(embed(theta, x), w, b), **CLOSE)
    torch.testing.assert_close(functional_call(network, {f"{head}weight": w}, (x,)), embed(theta, x) @ w.T, **CLOSE)
    assert network.state_dict().keys() == theta.keys()


def test_errors_name_the_modules() -> None:
    support = one(unequal(6), 0).support
    for network, found in (
        (mlp((6, 5, 3)), r"found none among \(0, 1, 2\)"),
        (nn.Sequential(Generated(), nn.ReLU(), Generated()), "0, 2 are such heads"),
    ):
        for make in (protonet, lambda network: protomaml(network, rate=RATE)):
            with pytest.raises(ValueError, match=found):
                make(network)
        with pytest.raises(ValueError, match=found):
            Prototypes().begin(network.double(), support, None)
    with pytest.raises(ValueError, match=r"only the last width can be None.*\(6, None, 3\)"):
        mlp((6, None, 3))
