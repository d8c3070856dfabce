"""Reptile against loops on ``torch.optim`` that share no code with it."""

from collections.abc import Callable

import pytest
import torch
from test_witnesses import NETWORKS, Forward, averaged, build, plain_loss, slope
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import reptile
from fewstep.core import SGD, Adam, Batch, Descend, Difference, Learner, Loop, Method, Params, Shared, Task, generator

CLOSE = {"rtol": 1e-8, "atol": 1e-8}  # an inner Adam blows rounding in a gradient that is exactly 0 up, to 1e-9 or so
networks = pytest.mark.parametrize("kind", NETWORKS)
STEPS = 5


def real(batch: Batch) -> Batch:
    return Batch(*(tensor[batch.weight > 0] for tensor in batch))


def dealt(support: Batch, keys: Tensor, steps: int, size: int) -> list[Batch]:
    """Mini-batches by the words of the paper's code: shuffle, deal out, shuffle again, and go on."""
    rows = [i for i, weight in enumerate(support.weight) if weight > 0]
    stream: list[int] = []
    while len(stream) < steps * size:
        row_keys = keys[len(stream) // len(rows) % len(keys)].tolist()
        stream += sorted(rows, key=row_keys.__getitem__)
    return [Batch(*(t[stream[i * size : (i + 1) * size]] for t in support)) for i in range(steps)]


def sgd(parameters: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=rate)


def adam(parameters: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, betas=(0.0, 0.999), eps=1e-8)


OPTIMISERS: dict[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {"sgd": sgd, "adam": adam}
rules = pytest.mark.parametrize("rule", OPTIMISERS)


def trained(
    forward: Forward, theta: Params, schedule: list[Batch], optimiser: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> Params:
    """φ_K: a copy of θ that a torch optimiser trains on one batch after another."""
    phi = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    inner = optimiser(list(phi.values()))
    for batch in schedule:
        inner.zero_grad()
        plain_loss(forward, phi, batch).backward()
        inner.step()
    return {name: p.detach() for name, p in phi.items()}


def run_from(start: Params, phi: Params, inner: torch.optim.Optimizer, forward: Forward, batches: list[Batch]) -> None:
    """Put φ at ``start``, and let the optimiser take a step on each batch; its own state is left as it is found."""
    with torch.no_grad():
        for name, p in phi.items():
            p.copy_(start[name])
    for rows in batches:
        inner.zero_grad()
        plain_loss(forward, phi, rows).backward()
        inner.step()


def minus(a: Params, b: Params) -> Params:
    return {name: (a[name] - b[name]).detach() for name in a}


def found_gradient(method: Method, tasks: Task, noise: object = None) -> Params:
    method.learner.double().zero_grad()
    method.objective(tasks, noise).objective.backward()
    named = method.learner.named_parameters()
    return {name.removeprefix("network."): p.grad for name, p in named}


def task_of(tree: Task, i: int) -> Task:
    return tree_map(lambda t: t[i], tree)


@networks
@rules
def test_meta_gradient_on_full_batches_is_start_minus_end(kind: str, rule: str) -> None:
    network, theta, forward, tasks = build(kind)
    method = reptile(network, rate=0.05, steps=STEPS, rule=rule)
    by_hand = averaged(
        lambda task: minus(
            theta, trained(forward, theta, [real(task.support)] * STEPS, lambda p: OPTIMISERS[rule](p, 0.05))
        ),
        tasks,
    )
    torch.testing.assert_close(found_gradient(method, tasks), by_hand, **CLOSE)


@networks
@rules
def test_meta_gradient_on_mini_batches_is_start_minus_end(kind: str, rule: str) -> None:
    network, theta, forward, tasks = build(kind)
    method = reptile(network, rate=0.05, steps=STEPS, batch=4, rule=rule)
    noise = method.learner.noise(tasks, generator(0, 7, "noise"))
    keys = noise["shuffles"][0]["keys"]
    ends = []
    for i in range(len(tasks.support.weight)):
        schedule = dealt(task_of(tasks, i).support, keys[i], STEPS, 4)
        ends.append(minus(theta, trained(forward, theta, schedule, lambda p: OPTIMISERS[rule](p, 0.05))))
    by_hand = {name: torch.stack([end[name] for end in ends]).mean(0) for name in theta}
    found = found_gradient(method, tasks, noise)
    torch.testing.assert_close(found, by_hand, **CLOSE)
    whole = found_gradient(reptile(network, rate=0.05, steps=STEPS, rule=rule), tasks)
    assert any((found[n] - whole[n]).abs().max() > 1e-3 for n in found), "mini-batches would not be noticed"


@networks
def test_with_sgd_the_end_is_the_start_minus_the_sum_of_the_gradients_on_the_way(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    method = reptile(network, rate=0.1, steps=STEPS, rule="sgd")

    def summed(task: Task) -> Params:
        phi, total = theta, {name: torch.zeros_like(p) for name, p in theta.items()}
        for _ in range(STEPS):
            phi = {name: p.detach().requires_grad_() for name, p in phi.items()}
            gradient = slope(plain_loss(forward, phi, task.support), phi)
            total = {name: total[name] + gradient[name] for name in total}
            phi = {name: phi[name] - 0.1 * gradient[name] for name in phi}
        return {name: 0.1 * t for name, t in total.items()}

    torch.testing.assert_close(found_gradient(method, tasks), averaged(summed, tasks), rtol=1e-9, atol=1e-11)


@rules
def test_an_outer_step_of_rate_epsilon_goes_that_part_of_the_way(rule: str) -> None:
    network, theta, forward, tasks = build("mlp")
    before = {name: p.detach().clone() for name, p in theta.items()}
    ends = averaged(
        lambda task: trained(forward, theta, [real(task.support)] * 3, lambda p: OPTIMISERS[rule](p, 0.05)), tasks
    )
    method = reptile(network, rate=0.05, steps=3, rule=rule)
    outer = torch.optim.SGD(method.learner.parameters(), lr=0.3)
    found_gradient(method, tasks)
    outer.step()
    after = {name: before[name] + 0.3 * (ends[name] - before[name]) for name in before}
    torch.testing.assert_close({name: p.detach() for name, p in theta.items()}, after, **CLOSE)


def test_the_query_does_not_matter() -> None:
    network, _, _, tasks = build("mlp")
    method = reptile(network, rate=0.1, steps=3)
    other = tasks._replace(query=tasks.query._replace(x=-3 * tasks.query.x, y=tasks.query.y.flip(-1)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(found_gradient(method, tasks).values(), found_gradient(method, other).values(), strict=True)
    )


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("batch", [None, 4])
def test_serial_reptile_is_the_authors_loop(carried: bool, batch: int | None) -> None:
    """Their loop puts the weights back after each task, and not the slots of Adam; and moves them after each task."""
    network, theta, forward, tasks = build("mlp")
    phi = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    method = reptile(network, rate=0.05, steps=3, batch=batch, carried=carried)
    method.learner.double()
    outer = torch.optim.SGD(method.learner.parameters(), lr=0.25)
    inner = adam(list(phi.values()), 0.05)
    for i in (0, 1, 3, 2):
        one = tree_map(lambda t, i=i: t[i : i + 1], tasks)
        noise = method.learner.noise(one, generator(0, i, "noise"))
        outer.zero_grad()
        method.objective(one, noise, Loop()).objective.backward()
        outer.step()

        support = task_of(tasks, i).support
        schedule = [real(support)] * 3
        if batch is not None:
            schedule = dealt(support, noise["shuffles"][0]["keys"][0], 3, batch)
        start = {name: p.detach().clone() for name, p in phi.items()}
        if not carried:
            inner = adam(list(phi.values()), 0.05)
        run_from(start, phi, inner, forward, schedule)
        with torch.no_grad():
            for name, p in phi.items():
                p.copy_(start[name] + 0.25 * (p - start[name]))
    torch.testing.assert_close(
        {n: p.detach() for n, p in theta.items()}, {n: p.detach() for n, p in phi.items()}, rtol=1e-7, atol=1e-7
    )


def test_tasks_of_one_batch_hand_moments_on_but_not_weights() -> None:
    network, theta, forward, tasks = build("mlp")
    method = reptile(network, rate=0.05, steps=3, carried=True)
    method.learner.double().zero_grad()
    method.objective(tasks, None, Loop()).objective.backward()
    phi = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    inner, total = adam(list(phi.values()), 0.05), {name: torch.zeros_like(p) for name, p in theta.items()}
    for i in range(4):
        run_from(theta, phi, inner, forward, [task_of(tasks, i).support] * 3)
        total = {name: t + (theta[name] - phi[name]).detach() / 4 for name, t in total.items()}
    torch.testing.assert_close({n: p.grad for n, p in theta.items()}, total, rtol=1e-7, atol=1e-7)


def test_evaluation_starts_from_carried_moments_and_leaves_them() -> None:
    network, theta, forward, tasks = build("mlp")
    method = reptile(network, rate=0.05, steps=3, carried=True)
    method.learner.double()
    first = tree_map(lambda t: t[1:2], tasks)
    method.objective(first, None, Loop())
    moments = {name: b.clone() for name, b in method.learner.named_buffers()}
    method.learner.eval()
    point = method.adapt(tree_map(lambda t: t[2:3], tasks.support))
    assert all(torch.equal(b, moments[name]) for name, b in method.learner.named_buffers())

    phi = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    inner = adam(list(phi.values()), 0.05)
    for i in (1, 2):
        run_from(theta, phi, inner, forward, [task_of(tasks, i).support] * 3)
    torch.testing.assert_close(
        {n: p[0] for n, p in point.value.items()}, {n: p.detach() for n, p in phi.items()}, rtol=1e-7, atol=1e-7
    )


def test_the_objective_is_half_the_squared_distance_and_so_is_what_is_logged() -> None:
    network, theta, forward, tasks = build("mlp")
    estimate = reptile(network, rate=0.1, steps=3, rule="sgd").estimate(tasks, None)
    for i in range(4):
        schedule = [real(task_of(tasks, i).support)] * 3
        end = trained(forward, theta, schedule, lambda p: sgd(p, 0.1))
        of_query = plain_loss(forward, end, task_of(tasks, i).query)
        assert estimate.metrics["loss"][i].item() == pytest.approx(of_query.item(), rel=1e-9)
        apart = minus(theta, end)
        squared = sum(float(d.square().sum()) for d in apart.values())
        assert estimate.objective[i].item() == pytest.approx(squared / 2, rel=1e-9)
        assert estimate.metrics["distance"][i].item() == pytest.approx(squared**0.5, rel=1e-9)


def test_a_pull_is_part_of_the_descent() -> None:
    """Nobody's composition: the steps of ``L_S + λ/2 ‖φ − θ‖²``, by hand."""
    network, theta, forward, tasks = build("mlp")
    method = Method(Learner(network, Shared(), [Descend(SGD(0.1), 3, prox=2.0)]), Difference())

    def by_hand(task: Task) -> Params:
        phi = theta
        for _ in range(3):
            phi = {name: p.detach().requires_grad_() for name, p in phi.items()}
            gradient = slope(plain_loss(forward, phi, task.support), phi)
            phi = {n: phi[n] - 0.1 * (gradient[n] + 2.0 * (phi[n] - theta[n])) for n in phi}
        return minus(theta, phi)

    torch.testing.assert_close(found_gradient(method, tasks), averaged(by_hand, tasks), rtol=1e-9, atol=1e-11)


def test_carried_moments_are_refused_with_sgd() -> None:
    with pytest.raises(ValueError, match=r"SGD has no moments.*rule='adam'"):
        reptile(nn.Linear(2, 2), rate=0.1, steps=1, rule="sgd", carried=True)


def test_carried_moments_are_refused_when_tasks_run_beside_one_another() -> None:
    network, _, _, tasks = build("mlp")
    method = reptile(network, rate=0.1, steps=2, carried=True)
    method.learner.double()
    assert isinstance(method.learner.stages[0].rule, Adam)
    with pytest.raises(ValueError, match="one after another"):
        method.objective(tasks, None)
