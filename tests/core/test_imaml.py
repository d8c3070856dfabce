"""The implicit meta-gradient against finite differences of inner problems that are solved to machine precision.

The witnesses solve by Newton's method on a flat vector, with dense Hessians from ``torch.autograd.functional``; they
share no code with the estimator.
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

from fewstep.algorithms import imaml
from fewstep.core import (
    SGD,
    Backprop,
    Batch,
    Decode,
    Descend,
    FirstOrder,
    Generator,
    Implicit,
    Learner,
    Method,
    Params,
    Prototypes,
    Shared,
    Task,
    classification,
    generator,
)
from fewstep.core.meta_gradient.implicit import conjugate_gradients
from fewstep.networks import Generated

few = settings(max_examples=40, deadline=None, derandomize=True)
Objective = Callable[[Tensor], Tensor]


# -- witnesses ---------------------------------------------------------------------------------------------------------


def newton(objective: Objective, at: Tensor) -> Tensor:
    """Where a smooth convex function of a vector is smallest, to machine precision."""
    at = at.detach().clone()
    for _ in range(30):
        at.requires_grad_()
        (slope,) = torch.autograd.grad(objective(at), at)
        at = at.detach()
        if slope.abs().max() < 1e-14:
            break
        hessian = torch.autograd.functional.hessian(objective, at, vectorize=True)
        assert torch.linalg.eigvalsh(hessian).min() > 0, "the witness needs a convex problem"
        at = at - torch.linalg.solve(hessian, slope)
    assert slope.abs().max() < 1e-12, slope.abs().max()
    return at


def flat(p: Params) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in p.values()])


def unflat(vector: Tensor, like: Params) -> Params:
    parts = vector.split([tensor.numel() for tensor in like.values()])
    return {name: part.view(like[name].shape) for (name, part) in zip(like, parts, strict=True)}


def net(p: Params, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(F.linear(x, p["0.weight"], p["0.bias"])), p["2.weight"], p["2.bias"])


def loss_of(p: Params, batch: Batch) -> Tensor:
    real = batch.weight > 0
    return F.cross_entropy(net(p, batch.x[real]), batch.y[real].argmax(1))


def solved(theta: Params, adapted: set[str], task: Task, prox: float) -> Tensor:
    """``L_Q(φ*(θ))`` for ``φ* = argmin L_S(φ) + λ/2 ‖φ − θ‖²`` over the adapted parameters."""
    start = {name: p.detach() for name, p in theta.items() if name in adapted}
    anchor = flat(start)

    def inner(vector: Tensor) -> Tensor:
        own = loss_of(theta | unflat(vector, start), task.support)
        return own + 0.5 * prox * (vector - anchor).square().sum()

    return loss_of(theta | unflat(newton(inner, anchor), start), task.query)


def measured(function: Callable[[Params], Tensor], theta: Params, direction: Params, h: float = 1e-4) -> float:
    """A directional derivative by central differences of fourth order."""
    values = {
        k: float(function({n: p.detach() + k * h * direction[n] for n, p in theta.items()})) for k in (-2, -1, 1, 2)
    }
    return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)


def directions(theta: Params, count: int) -> list[Params]:
    source = torch.Generator().manual_seed(11)
    found = []
    for _ in range(count):
        drawn = {n: torch.randn(p.shape, generator=source, dtype=torch.float64) for n, p in theta.items()}
        norm = flat(drawn).norm()
        found.append({n: d / norm for n, d in drawn.items()})
    # And each parameter alone: an error in a small one would drown in the sum.
    return found + [{n: drawn[n] * (n == name) for n in theta} for name in theta]


def along(gradient: Params, direction: Params) -> float:
    return float(sum((gradient[n] * d).sum() for n, d in direction.items()))


# -- what is witnessed -------------------------------------------------------------------------------------------------

LAMBDA = 1.5
ALL = {"0.weight", "0.bias", "2.weight", "2.bias"}
EXACT = {"iterations": 40, "tolerance": 1e-28}


def smooth() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def vectors(tasks: int = 3) -> Task:
    return classification_tasks(4, tasks=tasks)


def gradient_of(method: Method, tasks: Task, noise: object = None) -> Params:
    method.learner.double().zero_grad()
    method.objective(tasks, noise).objective.backward()
    return {n.removeprefix("network."): p.grad for n, p in method.learner.named_parameters()}


@pytest.mark.parametrize("adapted", [ALL, {"2.weight", "2.bias"}, {"0.weight", "2.bias"}], ids=["all", "head", "some"])
def test_finite_differences_of_the_solved_inner_problem(adapted: set[str]) -> None:
    network, tasks = smooth(), vectors()
    method = imaml(network, rate=0.35, steps=80, prox=LAMBDA, adapts=adapted.__contains__, **EXACT)
    found, theta = gradient_of(method, tasks), dict(network.named_parameters())

    def mean_loss(at: Params) -> Tensor:
        return torch.stack([solved(at, adapted, tree_map(lambda t, i=i: t[i], tasks), LAMBDA) for i in range(3)]).mean()

    for direction in directions(theta, 1):
        assert measured(mean_loss, theta, direction) == pytest.approx(along(found, direction), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("selected", [frozenset(), frozenset({"0.weight"})], ids=["head", "some"])
def test_finite_differences_from_prototypes(selected: frozenset[str]) -> None:
    """The start depends on the whole network, and parts of it that do not adapt are in both losses as well."""
    network, tasks = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), Generated()).double(), vectors(2)
    learner = Learner(network, Prototypes(selected.__contains__), [Descend(SGD(0.15), 110, prox=2.0)])
    method = Method(learner, Implicit(**EXACT))
    found, theta = gradient_of(method, tasks), dict(network.named_parameters())

    def one(at: Params, task: Task) -> Tensor:
        support = Batch(*(t[task.support.weight > 0] for t in task.support))

        def embed(p: Params, x: Tensor) -> Tensor:
            return torch.tanh(F.linear(x, p["0.weight"], p["0.bias"]))

        means = torch.stack([embed(at, support.x[support.y[:, n] > 0]).mean(0) for n in range(3)])
        start = {name: at[name] for name in selected} | {"w": 2 * means, "b": -means.square().sum(1)}
        anchor = flat(start)

        def loss(vector: Tensor, batch: Batch) -> Tensor:
            p = at | unflat(vector, start)
            return F.cross_entropy(F.linear(embed(p, batch.x), p["w"], p["b"]), batch.y.argmax(1))

        end = newton(lambda v: loss(v, support) + (v - anchor).square().sum(), anchor)
        return loss(end, task.query)

    def mean_loss(at: Params) -> Tensor:
        return torch.stack([one(at, tree_map(lambda t, i=i: t[i], tasks)) for i in range(2)]).mean()

    for direction in directions(theta, 1):
        assert measured(mean_loss, theta, direction) == pytest.approx(along(found, direction), rel=1e-7, abs=1e-10)


def leo_query_loss(p: Params, task: Task, code_noise: Tensor, decode: Tensor, decode_query: Tensor) -> Tensor:
    """LEO after the authors' code, its codes solved for: ``L_Q(w(z*)) + 0.2 KL``. Rows are sorted by class."""
    ways, shots = 3, 2
    x = task.support.x
    h = x @ p["encoder.weight"].T
    pairs = torch.cat([h[:, None].expand(-1, len(h), -1), h[None].expand(len(h), -1, -1)], -1)
    for i in range(3):
        pairs = pairs @ p[f"relation.layers.{i}.weight"].T
        pairs = pairs.relu() if i < 2 else pairs
    mean, u = pairs.mean(1).view(ways, shots, -1).mean(1).repeat_interleave(shots, 0).chunk(2, -1)
    sigma = (u.exp() - 1).clamp(min=1e-10)
    z = mean + sigma * code_noise
    kl = (-0.5 * code_noise**2 - sigma.log() + 0.5 * z**2).mean()

    def loss(vector: Tensor, batch: Batch, noise: Tensor) -> Tensor:
        centre, v = (vector.view_as(z) @ p["decoder.weight"].T).chunk(2, -1)
        w = centre + (v.exp() - 1 + (2 / (ways + 6)) ** 0.5).clamp(min=1e-10) * noise
        logits = batch.x @ w.view(ways, shots, -1).mean(1).T
        return F.cross_entropy(logits, batch.y.argmax(1), reduction="none")

    anchor = z.detach().reshape(-1)
    end = newton(lambda c: loss(c, task.support, decode).sum() + 0.5 * 3.0 * (c - anchor).square().sum(), anchor)
    return loss(end, task.query, decode_query).mean() + 0.2 * kl


def test_finite_differences_in_the_space_of_leos_codes() -> None:
    """Of encoder, relation network and decoder, for which the losses are where the gradient enters."""
    tasks = tree_map(lambda t: t[1:3], classification_tasks(6))
    tasks.support.x.mul_(0.5)
    learner = Learner(
        Generated(),
        Generator(6, 3, kl_weight=0.2),
        [Descend(SGD(0.1), 110, prox=3.0), Decode()],
        loss=classification("sum"),
    ).double()
    noise = learner.noise(tasks, generator(0, 0, "noise"))
    descent = noise["stages"][0]
    for entry in descent[:-1]:  # one problem to solve, not another one at every step
        entry["decode"]["weight"].copy_(descent[-1]["decode"]["weight"])
    found = {
        n.removeprefix("start."): g for n, g in gradient_of(Method(learner, Implicit(**EXACT)), tasks, noise).items()
    }
    theta = dict(learner.start.named_parameters())

    def mean_loss(at: Params) -> Tensor:
        drawn = (
            noise["begin"]["start"]["code"],
            descent[-1]["decode"]["weight"],
            noise["stages"][1]["decode"]["weight"],
        )
        return torch.stack(
            [leo_query_loss(at, tree_map(lambda t, i=i: t[i], tasks), *(d[i] for d in drawn)) for i in range(2)]
        ).mean()

    assert set(found) == set(theta)
    assert all(g.abs().max() > 1e-4 for g in found.values())
    for direction in directions(theta, 1):
        assert measured(mean_loss, theta, direction, 1e-5) == pytest.approx(along(found, direction), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("adapted", [ALL, {"2.weight", "2.bias"}], ids=["all", "head"])
def test_a_long_unrolled_descent_has_the_same_gradient(adapted: set[str]) -> None:
    network, tasks = smooth(), vectors()
    learner = Learner(network, Shared(adapted.__contains__), [Descend(SGD(0.35), 100, prox=LAMBDA)])
    unrolled = gradient_of(Method(learner, Backprop()), tasks)
    torch.testing.assert_close(gradient_of(Method(learner, Implicit(**EXACT)), tasks), unrolled, rtol=1e-8, atol=1e-11)


def test_a_strong_pull_is_first_order_maml() -> None:
    network, tasks = smooth(), vectors()
    errors = []
    for prox in (1e1, 1e2, 1e3, 1e4):
        learner = Learner(network, Shared(), [Descend(SGD(0.5 / prox), 3, prox=prox)])
        implicit, first = (flat(gradient_of(Method(learner, e), tasks)) for e in (Implicit(**EXACT), FirstOrder()))
        errors.append(float((implicit - first).norm() / first.norm()))
    assert errors[0] > 1e-3
    for stronger, weaker in zip(errors[1:], errors, strict=False):
        assert weaker / stronger == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("kind", ["paper", "authors"])
@pytest.mark.parametrize("damping", [None, 0.3])
@pytest.mark.parametrize("adapted", [ALL, {"2.weight", "2.bias"}], ids=["all", "head"])
def test_few_steps_and_an_exact_solution_by_hand(kind: str, damping: float | None, adapted: set[str]) -> None:
    """Nothing need have converged: K steps, then one dense linear system where they end."""
    network, tasks = smooth(), vectors()
    theta, prox, rate = dict(network.named_parameters()), 2.0, 0.2
    options = {"variant": kind, "damping": damping, "adapts": adapted.__contains__, **EXACT}
    method = imaml(network, rate=rate, steps=3, prox=prox, **options)

    def by_hand(task: Task) -> Params:
        start = {n: p for n, p in theta.items() if n in adapted}
        origin = flat(start)

        def support(vector: Tensor, rest: Params = theta) -> Tensor:
            return loss_of(rest | unflat(vector, start), task.support)

        phi = origin
        for _ in range(3):
            (slope,) = torch.autograd.grad(support(phi.requires_grad_()), phi)
            phi = (phi - rate * (slope + (prox * (phi - origin) if kind == "paper" else 0))).detach()
        if kind == "authors":
            phi = phi - rate * prox * (phi - origin)
        shift, scale = (1.0, prox + 10) if kind == "authors" else (0.0, prox)
        hessian = torch.autograd.functional.hessian(support, phi)
        matrix = (1 + (shift if damping is None else damping)) * torch.eye(len(phi), dtype=phi.dtype) + hessian / scale
        at = phi.clone().requires_grad_()
        (of_query,) = torch.autograd.grad(loss_of(theta | unflat(at, start), task.query), at)
        x = torch.linalg.solve(matrix, of_query)
        found = unflat(x, start)
        others = {n: p for n, p in theta.items() if n not in adapted}
        if others:  # ∂/∂ψ [L_Q(φ) − ⟨x, ∇L_S(φ)⟩/λ]
            direct = torch.autograd.grad(loss_of(theta | unflat(phi, start), task.query), list(others.values()))
            (slope,) = torch.autograd.grad(support(at), at, create_graph=True)
            mixed = torch.autograd.grad(slope @ x / prox, list(others.values()))
            found |= {n: d - m for n, d, m in zip(others, direct, mixed, strict=True)}
        return found

    hands = [by_hand(tree_map(lambda t, i=i: t[i], tasks)) for i in range(3)]
    expected = {n: torch.stack([h[n] for h in hands]).mean(0) for n in theta}
    torch.testing.assert_close(gradient_of(method, tasks), expected, rtol=1e-9, atol=1e-11)
    logged = method.estimate(tasks, None).metrics
    assert logged["residual"].max() < 1e-10
    assert not logged["negative_curvature"].any()


def test_what_is_logged_says_how_far_from_rest_the_descent_ended() -> None:
    network, tasks = smooth(), vectors()
    theta = dict(network.named_parameters())
    method = imaml(network, rate=0.2, steps=3, prox=2.0)
    ends, logged = method.adapt(tasks.support), method.estimate(tasks, None).metrics["slope_left"]
    for i in range(3):
        phi = {name: value[i].clone().requires_grad_() for name, value in ends.value.items()}
        apart = sum((phi[name] - theta[name].detach()).square().sum() for name in phi)
        inner = loss_of(phi, tree_map(lambda t, i=i: t[i], tasks.support)) + 0.5 * 2.0 * apart
        left = torch.cat([g.flatten() for g in torch.autograd.grad(inner, list(phi.values()))]).norm()
        assert logged[i].item() == pytest.approx(left.item(), rel=1e-9)
        assert left > 1e-3
    solved_for = imaml(network, rate=0.35, steps=80, prox=LAMBDA).estimate(tasks, None).metrics["slope_left"]
    assert solved_for.max() < 1e-9


@pytest.mark.parametrize("proximal", ["every", "last"])
def test_backpropagation_through_a_pulled_descent(proximal: str) -> None:
    network, tasks = smooth(), vectors()
    theta, prox, rate = dict(network.named_parameters()), 0.8, 0.3
    learner = Learner(network, Shared(), [Descend(SGD(rate), 3, prox=prox, proximal=proximal)])

    # The pull's slope λ (φ − θ) is written out: θ is both where the descent is and what pulls it.
    def by_hand(task: Task) -> Params:
        phi, pulls = theta, proximal == "every"
        for _ in range(3):
            slope = torch.autograd.grad(loss_of(phi, task.support), list(phi.values()), create_graph=True)
            move = {n: s + (prox * (phi[n] - theta[n]) if pulls else 0) for n, s in zip(phi, slope, strict=True)}
            phi = {n: phi[n] - rate * move[n] for n in phi}
        if not pulls:
            phi = {n: phi[n] - rate * prox * (phi[n] - theta[n]) for n in phi}
        return dict(zip(theta, torch.autograd.grad(loss_of(phi, task.query), list(theta.values())), strict=True))

    hands = [by_hand(tree_map(lambda t, i=i: t[i], tasks)) for i in range(3)]
    expected = {n: torch.stack([h[n] for h in hands]).mean(0) for n in theta}
    torch.testing.assert_close(gradient_of(Method(learner, Backprop()), tasks), expected, rtol=1e-10, atol=1e-12)


# -- conjugate gradients -----------------------------------------------------------------------------------------------


def solve(matrix: Tensor, right: Tensor, iterations: int, tolerance: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Of a vector that is kept in two pieces, as parameters are."""
    cut = max(1, len(right) // 2)

    def pieces(v: Tensor) -> Params:
        return {"a": v[:cut], "b": v[cut:].unsqueeze(0)}

    def whole(p: Params) -> Tensor:
        return torch.cat([p["a"], p["b"].squeeze(0)])

    found = conjugate_gradients(lambda p: pieces(matrix @ whole(p)), pieces(right), iterations, tolerance)
    return whole(found.x), found.residual, found.negative_curvature


@st.composite
def systems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    size = draw(st.integers(2, 8), label="size")
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31), label="seed"))
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=source, dtype=torch.float64))
    values = torch.tensor(draw(st.lists(st.floats(0.1, 20), min_size=size, max_size=size)), dtype=torch.float64)
    return basis @ torch.diag(values) @ basis.T, torch.randn(size, generator=source, dtype=torch.float64)


@few
@given(systems())
def test_conjugate_gradients_solve_positive_definite_systems(system: tuple[Tensor, Tensor]) -> None:
    matrix, right = system
    x, residual, negative = solve(matrix, right, 3 * len(right), tolerance=1e-26)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)
    assert negative == 0
    assert residual == pytest.approx(float((right - matrix @ x).norm() / right.norm()), abs=1e-11, rel=1e-3)


@few
@given(systems(), st.integers(1, 3))
def test_after_a_few_iterations_x_is_the_best_of_the_krylov_space(system: tuple[Tensor, Tensor], few: int) -> None:
    """The minimiser of ``½ xᵀAx − bᵀx`` over b, Ab, A²b …: what defines the method."""
    matrix, right = system
    space = [right]
    for _ in range(min(few, len(right)) - 1):
        space.append(matrix @ space[-1])
    basis, _ = torch.linalg.qr(torch.stack(space, 1))
    best = basis @ torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ right)
    x, residual, _ = solve(matrix, right, min(few, len(right)))
    torch.testing.assert_close(x, best, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(residual, (right - matrix @ x).norm() / right.norm(), rtol=1e-5, atol=1e-10)


@few
@given(systems(), st.integers(1, 8))
def test_negative_curvature_is_reported_and_stops(system: tuple[Tensor, Tensor], iterations: int) -> None:
    matrix, right = system
    values, basis = torch.linalg.eigh(matrix)
    values[0] = -values[0]
    matrix = basis @ torch.diag(values) @ basis.T
    if abs(basis[:, 0] @ right) < 1e-3:
        return  # not excited: nothing need be met
    x, _, negative = solve(matrix, right, iterations, 1e-20)
    assert x.isfinite().all()
    if iterations >= len(right) + 2 or right @ matrix @ right <= 0:
        assert negative == 1
    if right @ matrix @ right <= 0:
        torch.testing.assert_close(x, right, rtol=0, atol=0)
    else:  # every point on the way goes downhill, so the solution never points against b
        assert x @ right > 0
        # By the textbook, in plain steps until the curvature turns.
        own, r = torch.zeros_like(right), right.clone()
        p = r.clone()
        for _ in range(iterations):
            if p @ matrix @ p <= 0 or r @ r <= 1e-20:
                break
            length = r @ r / (p @ matrix @ p)
            own, after = own + length * p, r - length * (matrix @ p)
            p, r = after + (after @ after) / (r @ r) * p, after
        torch.testing.assert_close(x, own, rtol=1e-7, atol=1e-9)


def test_a_singular_direction_counts_as_negative_and_gives_no_nan() -> None:
    x, residual, negative = solve(torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), 4)
    assert negative == 1
    assert torch.equal(x, torch.ones(3, dtype=torch.float64))
    assert residual.isfinite()


def test_a_right_hand_side_of_zero_gives_zero() -> None:
    x, residual, negative = solve(torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 5)
    assert torch.equal(x, torch.zeros(4, dtype=torch.float64))
    assert residual == 0
    assert negative == 0
    x, _, negative = solve(-torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 5)
    assert torch.equal(x, torch.zeros(4, dtype=torch.float64))
    assert negative == 0


def test_the_tolerance_stops_early() -> None:
    torch.manual_seed(3)
    half = torch.randn(10, 10, dtype=torch.float64)
    matrix, right = half @ half.T + torch.eye(10, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    paths = [torch.zeros_like(right)] + [solve(matrix, right, k)[0] for k in range(1, 10)]
    sizes = [float((right - matrix @ x).square().sum()) for x in paths]
    seen = set()
    for size in sizes[1:]:  # the first iteration is always taken
        first = next(k for k, s in enumerate(sizes) if k and s < 1.0001 * size)
        found = solve(matrix, right, 30, 1.0001 * size / sizes[0])[0]
        torch.testing.assert_close(found, paths[first], rtol=1e-12, atol=1e-14)
        seen.add(first)
    assert len(seen) > 3, "residuals that fall sometimes"


def test_under_vmap_each_task_stops_on_its_own() -> None:
    torch.manual_seed(4)
    half = torch.randn(5, 6, 6, dtype=torch.float64)
    matrices = half @ half.mT + torch.eye(6, dtype=torch.float64)
    matrices[1] = 2 * torch.eye(6)  # done after one iteration
    matrices[2] = -matrices[2]  # refused at once
    matrices[3] = torch.diag(torch.tensor([1.0, 2, 3, 4, 5, -0.1]))  # refused later
    rights = torch.randn(5, 6, dtype=torch.float64)
    rights[4] = 0
    mapped = torch.vmap(lambda a, b: solve(a, b, 9, 1e-20))(matrices, rights)
    for i in range(5):
        torch.testing.assert_close([m[i] for m in mapped], list(solve(matrices[i], rights[i], 9, 1e-20)))
    assert mapped[2].tolist() == [0, 0, 1, 1, 0]
    assert all(m.isfinite().all() for m in mapped)
