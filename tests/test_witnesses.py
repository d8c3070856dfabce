"""MAML, first-order MAML and Meta-SGD against hand-written loops and closed forms that share no code with them.

The witnesses see only real rows (padding is removed), run one task at a time on ``torch.nn.functional`` and plain
``torch.autograd.grad``, and normalise by torch's own ``batch_norm``.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import fomaml, maml, meta_sgd
from fewstep.core import Batch, LearnedRates, Learner, Method, Params, Task, classification, regression
from fewstep.networks import Conv4, mlp

Forward = Callable[[Params, Tensor], Tensor]
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


# -- witnesses ---------------------------------------------------------------------------------------------------------


def mlp_forward(p: Params, x: Tensor) -> Tensor:
    h = F.linear(x, p["0.weight"], p["0.bias"])
    h = F.relu(F.batch_norm(h, None, None, p["1.weight"], p["1.bias"], training=True, eps=1e-5))
    h = F.linear(h, p["3.weight"], p["3.bias"])
    h = F.relu(F.batch_norm(h, None, None, p["4.weight"], p["4.bias"], training=True, eps=1e-5))
    return F.linear(h, p["6.weight"], p["6.bias"])


def conv_forward(p: Params, x: Tensor) -> Tensor:
    for i in ("0", "3"):
        x = F.conv2d(x, p[f"blocks.{i}.weight"], p[f"blocks.{i}.bias"], stride=2, padding=1)
        norm = f"blocks.{int(i) + 1}"
        x = F.relu(F.batch_norm(x, None, None, p[f"{norm}.weight"], p[f"{norm}.bias"], training=True, eps=1e-3))
    return F.linear(x.mean((2, 3)), p["head.weight"], p["head.bias"])


def plain_loss(forward: Forward, p: Params, batch: Batch, reduction: str = "mean") -> Tensor:
    real = batch.weight > 0
    return F.cross_entropy(forward(p, batch.x[real]), batch.y[real].argmax(1), reduction=reduction)


def slope(loss: Tensor, p: Params, **options: bool) -> Params:
    return dict(zip(p, torch.autograd.grad(loss, list(p.values()), **options), strict=True))


def unrolled(forward: Forward, theta: Params, rates: Params, task: Task, steps: int, reduction: str = "mean") -> Tensor:
    """The query loss after ``steps`` differentiable steps; parameters without a rate stay where they are."""
    phi = theta
    for _ in range(steps):
        moving = {name: phi[name] for name in rates}
        gradient = slope(plain_loss(forward, phi, task.support, reduction), moving, create_graph=True)
        phi = phi | {name: phi[name] - rates[name] * gradient[name] for name in rates}
    return plain_loss(forward, phi, task.query)


def recursion(forward: Forward, theta: Params, rates: Params, task: Task, steps: int) -> tuple[Params, Params, Params]:
    """Gradients by the adjoint recursion, nothing unrolled: of θ, of θ to first order, and of the rates.

    ``v ← ∇L_Q(φ_K)``; for k = K−1 … 0: ``ᾱ ← ᾱ − v ∘ ∇L_S(φ_k)``, ``v ← v − H_S(φ_k)(α ∘ v)``.
    """
    path = [{name: p.detach().requires_grad_() for name, p in theta.items()}]
    for _ in range(steps):
        gradient = slope(plain_loss(forward, path[-1], task.support), path[-1])
        path.append({n: (p - rates[n] * gradient[n]).detach().requires_grad_() for n, p in path[-1].items()})
    v = first = slope(plain_loss(forward, path[-1], task.query), path[-1])
    of_rates = {name: torch.zeros_like(p) for name, p in theta.items()}
    for phi in reversed(path[:-1]):
        gradient = slope(plain_loss(forward, phi, task.support), phi, create_graph=True)
        of_rates = {n: total - v[n] * gradient[n].detach() for n, total in of_rates.items()}
        along = torch.stack([(gradient[n] * (rates[n] * v[n]).detach()).sum() for n in v]).sum()
        hessian = slope(along, phi)
        v = {n: v[n] - hessian[n] for n in v}
    return v, first, of_rates


def averaged(per_task: Callable[[Task], Params], tasks: Task) -> Params:
    found = [per_task(tree_map(lambda t, i=i: t[i], tasks)) for i in range(len(tasks.support.weight))]
    return {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}


# -- what is witnessed -------------------------------------------------------------------------------------------------


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Forward, Callable[[], Task]]] = {
    "mlp": (lambda: mlp((6, 5, 4, 3), norm=True), mlp_forward, lambda: classification_tasks(6)),
    "conv": (
        lambda: Conv4(3, inputs=2, channels=(4, 5), scale=True),
        conv_forward,
        lambda: classification_tasks(2, 7, 8, tasks=3),
    ),
}
networks = pytest.mark.parametrize("kind", NETWORKS)
STEPS = 3


def build(kind: str) -> tuple[nn.Module, Params, Forward, Task]:
    make, forward, tasks = NETWORKS[kind]
    network = make().double()
    with torch.no_grad():
        for p in network.parameters():  # away from γ = 1 and β = 0
            p += 0.2 * torch.randn_like(p)
    return network, dict(network.named_parameters()), forward, tasks()


def meta_gradient(method: Method, tasks: Task, prefix: str = "network.") -> Params:
    method.learner.double().zero_grad()
    method.objective(tasks, None).objective.backward()
    named = method.learner.named_parameters()
    return {name.removeprefix(prefix): p.grad for name, p in named if name.startswith(prefix)}


def fill(rate: float, theta: Params) -> Params:
    return {name: torch.full_like(p, rate) for name, p in theta.items()}


@networks
def test_maml_is_the_unrolled_loop_and_the_hessian_recursion(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    found, rates = meta_gradient(maml(network, rate=0.3, steps=STEPS), tasks), fill(0.3, theta)
    by_hand = averaged(lambda task: slope(unrolled(forward, theta, rates, task, STEPS), theta), tasks)
    by_recursion = averaged(lambda task: recursion(forward, theta, rates, task, STEPS)[0], tasks)
    torch.testing.assert_close(found, by_hand, **CLOSE)
    torch.testing.assert_close(found, by_recursion, **CLOSE)


@networks
def test_first_order_maml_is_the_query_gradient_where_adaptation_ends(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    found = meta_gradient(fomaml(network, rate=0.3, steps=STEPS), tasks)
    full, first = (
        averaged(lambda task, i=i: recursion(forward, theta, fill(0.3, theta), task, STEPS)[i], tasks) for i in (0, 1)
    )
    torch.testing.assert_close(found, first, **CLOSE)
    assert any((first[n] - full[n]).abs().max() > 1e-3 for n in found), "second derivatives would not be noticed"


@networks
def test_maml_with_a_summed_support_loss_and_some_parameters_adapted(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    adapted = {name for name in theta if name.startswith(("0.", "6.", "head", "blocks.0"))}
    method = maml(network, rate=0.05, steps=STEPS, loss=classification("sum"), adapts=adapted.__contains__)
    rates = {name: torch.tensor(0.05, dtype=torch.float64) for name in adapted}
    by_hand = averaged(lambda task: slope(unrolled(forward, theta, rates, task, STEPS, "sum"), theta), tasks)
    torch.testing.assert_close(meta_gradient(method, tasks), by_hand, **CLOSE)


@networks
def test_meta_sgd_at_constant_rates_is_maml(kind: str) -> None:
    network, _, _, tasks = build(kind)
    method = meta_sgd(network, rate=0.3, steps=STEPS)
    torch.testing.assert_close(
        meta_gradient(method, tasks), meta_gradient(maml(network, rate=0.3, steps=STEPS), tasks), **CLOSE
    )


@networks
def test_meta_sgd_gradients_of_initialisation_and_rates(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    method = meta_sgd(network, rate=(0.05, 0.5), steps=STEPS)
    found = meta_gradient(method, tasks)
    rule = rates_of(method.learner)
    rates = {name: rule[name].detach().clone().requires_grad_() for name in theta}
    both = {**theta, **{f"rate of {name}": rate for name, rate in rates.items()}}
    by_hand = averaged(lambda task: slope(unrolled(forward, theta, rates, task, STEPS), both), tasks)
    found |= {f"rate of {name}": rule[name].grad for name in theta}
    torch.testing.assert_close(found, by_hand, **CLOSE)
    of_theta, _, of_rates = (
        averaged(lambda task, i=i: recursion(forward, theta, rates, task, STEPS)[i], tasks) for i in range(3)
    )
    torch.testing.assert_close(found, {**of_theta, **{f"rate of {n}": g for n, g in of_rates.items()}}, **CLOSE)


def rates_of(learner: Learner) -> LearnedRates:
    rule = learner.stages[0].rule
    assert isinstance(rule, LearnedRates)
    return rule


# -- for any shape of task ---------------------------------------------------------------------------------------------


def random_task(draw: st.DrawFn, ways: int, features: int, weight: st.SearchStrategy[float], least: int) -> Task:
    """Rows of random classes in any number, some of them weighted down or, at weight zero, absurd."""
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def batch(name: str) -> Batch:
        rows = ways * draw(st.integers(1, 4), label=f"{name} shots") + least
        weights = torch.ones(rows, dtype=torch.float64)
        weights[least:] = torch.tensor(draw(st.lists(weight, min_size=rows - least, max_size=rows - least)))
        x = torch.randn(rows, features, generator=source, dtype=torch.float64)
        y = torch.eye(ways, dtype=torch.float64)[torch.randint(ways, (rows,), generator=source)]
        return Batch(torch.where(weights[:, None] > 0, x, 50.0), y, weights)

    return Task(batch("support"), batch("query"))


@st.composite
def classification_problems(draw: st.DrawFn) -> tuple[int, int, Task]:
    ways = draw(st.integers(2, 5), label="ways")
    return ways, draw(st.integers(0, 3), label="steps"), random_task(draw, ways, 4, st.sampled_from([0.0, 1.0]), 3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(classification_problems())
def test_any_ways_shots_and_steps_and_rows_of_weight_zero_are_no_rows(problem: tuple[int, int, Task]) -> None:
    ways, steps, task = problem
    torch.manual_seed(0)
    network = mlp((4, 6, 5, ways), norm=True).double()
    theta = dict(network.named_parameters())
    one = tree_map(lambda t: t.unsqueeze(0), task)
    exact, first, _ = recursion(mlp_forward, theta, fill(0.3, theta), task, steps)
    torch.testing.assert_close(meta_gradient(maml(network, rate=0.3, steps=steps), one), exact, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(meta_gradient(fomaml(network, rate=0.3, steps=steps), one), first, rtol=1e-8, atol=1e-10)


@st.composite
def regression_problems(draw: st.DrawFn) -> tuple[int, Task]:
    task = random_task(draw, 3, 4, st.floats(0, 2, allow_subnormal=False), 2)
    return draw(st.integers(0, 6), label="steps"), task


@settings(max_examples=25, deadline=None, derandomize=True)
@given(regression_problems())
def test_maml_on_a_quadratic_has_a_closed_form(problem: tuple[int, Task]) -> None:
    """Least squares, weighted by row: ``φ_K = MᴷW + α Σ_{j<K} Mʲb`` and ``∇ = Mᴷ ∇L_Q(φ_K)``, with M = I − αA."""
    steps, task = problem
    rate, outputs = 0.2, 3
    torch.manual_seed(0)
    network = nn.Linear(4, outputs, bias=False).double()

    def curvature(batch: Batch) -> tuple[Tensor, Tensor]:
        scaled = batch.x.T * (2 / outputs * batch.weight / batch.weight.sum())
        return scaled @ batch.x, scaled @ batch.y  # L = ½ tr(WᵀAW) − tr(Wᵀb) + constant, one column an output

    a, b = curvature(task.support)
    step = torch.eye(4, dtype=torch.float64) - rate * a
    powers = [torch.linalg.matrix_power(step, j) for j in range(steps + 1)]
    end = powers[-1] @ network.weight.detach().T + rate * sum((m @ b for m in powers[:-1]), torch.zeros_like(b))
    a_query, b_query = curvature(task.query)
    expected = (powers[-1] @ (a_query @ end - b_query)).T

    method = maml(network, rate=rate, steps=steps, loss=regression())
    found = meta_gradient(method, tree_map(lambda t: t.unsqueeze(0), task))
    torch.testing.assert_close(found["weight"], expected, rtol=1e-9, atol=1e-9)
