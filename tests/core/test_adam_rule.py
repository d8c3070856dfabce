"""The inner Adam against torch's optimiser, and moments that are carried from task to task."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from fewstep.core import Adam, Backprop, Descend, FirstOrder, Learner, Loop, Method, Params, Shared, Task, Vmap
from fewstep.networks import mlp

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
BETAS = [(0.0, 0.999), (0.9, 0.999), (0.7, 0.5)]
STEPS = 4
betas_given = pytest.mark.parametrize("betas", BETAS)


def build(betas: tuple[float, float], carried: bool, rate: float = 0.05, eps: float = 1e-8) -> tuple[Method, Task]:
    torch.manual_seed(0)
    network = mlp((6, 5, 3)).double()
    rule = Adam(rate, betas, eps, carried=dict(network.named_parameters()) if carried else None)
    return Method(Learner(network, Shared(), [Descend(rule, STEPS)]), FirstOrder()), classification_tasks(6)


def theirs(optimiser: torch.optim.Adam, network: nn.Module, start: Params, task: Task) -> Params:
    """A task on torch's optimiser, whatever its state: put the weights back, and step."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(start[name])
    real = task.support.weight > 0
    for _ in range(STEPS):
        optimiser.zero_grad()
        F.cross_entropy(network(task.support.x[real]), task.support.y[real].argmax(1)).backward()
        optimiser.step()
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def witness(betas: tuple[float, float], tasks: Task, start: Params, carried: bool) -> Params:
    network, found = mlp((6, 5, 3)).double(), []
    kept = torch.optim.Adam(network.parameters(), lr=0.05, betas=betas)
    for i in range(len(tasks.support.weight)):
        optimiser = kept if carried else torch.optim.Adam(network.parameters(), lr=0.05, betas=betas)
        found.append(theirs(optimiser, network, start, tree_map(lambda t, i=i: t[i], tasks)))
    return {name: torch.stack([one[name] for one in found]) for name in start}


def start_of(method: Method) -> Params:
    return {name: p.detach().clone() for name, p in method.learner.network.named_parameters()}


def rule_of(method: Method) -> Adam:
    rule = method.learner.stages[0].rule
    assert isinstance(rule, Adam)
    return rule


@betas_given
def test_every_task_is_torchs_adam(betas: tuple[float, float]) -> None:
    method, tasks = build(betas, carried=False)
    expected = witness(betas, tasks, start_of(method), carried=False)
    for executor in (Vmap(), Loop()):
        torch.testing.assert_close(method.adapt(tasks.support, executor).value, expected, **CLOSE)
    assert not rule_of(method).state_dict()


def test_corrections_keep_their_digits_in_float32() -> None:
    rule, value = Adam(1.0, eps=1e-30), {"w": torch.ones(())}
    step, _ = rule.update({"w": torch.tensor(0.3)}, rule.init(value), value, torch.zeros(()))
    assert step["w"].item() == pytest.approx(-1, abs=2e-7)  # β₁ = 0: the first step is the gradient's sign


# -- derivatives -----------------------------------------------------------------------------------------------------


@betas_given
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_the_unrolled_loop_is_differentiable_with_a_dead_unit(betas: tuple[float, float], eps: float) -> None:
    method, tasks = build(betas, carried=False, eps=eps)
    method = Method(method.learner, Backprop())
    with torch.no_grad():
        method.learner.network.get_parameter("0.bias")[2] = -100.0
    method.objective(tasks, None).objective.backward()
    source = torch.Generator().manual_seed(3)
    for name, p in method.learner.named_parameters():
        assert p.grad is not None
        assert bool(p.grad.isfinite().all()), name
        if eps < 1e-6:
            continue  # steps of size ±α turn where a gradient crosses ε: too sharp for a finite difference
        direction, values, h = torch.randn(p.shape, generator=source, dtype=torch.float64), [], 1e-6
        with torch.no_grad():
            for sign in (1, -2, 1):
                p += sign * h * direction
                values.append(method.objective(tasks, None).objective.item())
        measured = (values[0] - values[1]) / (2 * h)
        assert measured == pytest.approx((p.grad * direction).sum().item(), rel=1e-4, abs=1e-7), name
    assert method.learner.network.get_parameter("0.weight").grad[2].abs().max() == 0  # type: ignore[index]


def test_carried_moments_are_constants_and_the_rest_is_differentiable() -> None:
    method, tasks = build((0.9, 0.999), carried=True, eps=0.02)
    one, two = (tree_map(lambda t, i=i: t[i : i + 1], tasks) for i in (1, 2))
    method.adapt(one.support, Loop())
    began = rule_of(method).init(start_of(method))
    whole = Method(method.learner, Backprop())
    whole.objective(two, None, Loop()).objective.backward()

    # The same unroll by hand from that state, on torch's own derivative.
    theta = {name: p.detach().requires_grad_() for name, p in start_of(method).items()}
    phi, m, v, t = dict(theta), began.first, began.second, int(began.steps)
    loss_at = {}
    for split, batch in (("support", two.support), ("query", two.query)):
        loss_at[split] = lambda p, b=batch: F.cross_entropy(
            functional_call(method.learner.network, p, (b.x[0],)), b.y[0].argmax(1)
        )
    for _ in range(STEPS):
        t += 1
        slope = torch.autograd.grad(loss_at["support"](phi), list(phi.values()), create_graph=True)
        g = dict(zip(phi, slope, strict=True))
        m = {n: 0.9 * m[n] + 0.1 * g[n] for n in g}
        v = {n: 0.999 * v[n] + 0.001 * g[n] ** 2 for n in g}
        phi = {n: p - 0.05 * (m[n] / (1 - 0.9**t)) / ((v[n] / (1 - 0.999**t)) ** 0.5 + 0.02) for n, p in phi.items()}
    expected = torch.autograd.grad(loss_at["query"](phi), list(theta.values()))
    found = [p.grad for p in method.learner.network.parameters()]
    torch.testing.assert_close(found, list(expected), **CLOSE)
    assert not any(buffer.requires_grad for buffer in rule_of(method).buffers())


# -- carried moments -------------------------------------------------------------------------------------------------


@betas_given
def test_carried_moments_are_one_optimiser_whose_weights_are_put_back(betas: tuple[float, float]) -> None:
    method, tasks = build(betas, carried=True)
    expected = witness(betas, tasks, start_of(method), carried=True)
    torch.testing.assert_close(method.adapt(tasks.support, Loop()).value, expected, **CLOSE)
    assert int(rule_of(method).get_buffer("steps")) == STEPS * len(tasks.support.weight)
    fresh = witness(betas, tasks, start_of(method), carried=False)
    assert max((fresh[name][1:] - expected[name][1:]).abs().max().item() for name in fresh) > 1e-3


def test_meta_training_carries_them_too() -> None:
    adapted, trained = build((0.9, 0.999), carried=True), build((0.9, 0.999), carried=True)
    adapted[0].adapt(adapted[1].support, Loop())
    trained[0].objective(trained[1], None, Loop()).objective.backward()
    states = [rule_of(method).state_dict() for method, _ in (adapted, trained)]
    torch.testing.assert_close(states[0], states[1], **CLOSE)


def test_evaluation_reads_what_is_carried_and_writes_nothing() -> None:
    method, tasks = build((0.9, 0.999), carried=True)
    fresh = method.adapt(tree_map(lambda t: t[:1], tasks.support), Loop()).value
    before = tree_map(torch.clone, dict(rule_of(method).state_dict()))
    method.learner.eval()
    adapted = [method.adapt(tasks.support, executor).value for executor in (Loop(), Vmap())]
    torch.testing.assert_close(adapted[0], adapted[1], **CLOSE)
    assert all(torch.equal(before[key], tensor) for key, tensor in rule_of(method).state_dict().items())
    assert max((adapted[0][name][:1] - fresh[name]).abs().max().item() for name in fresh) > 1e-3


def test_what_is_carried_is_in_the_checkpoint(tmp_path: Path) -> None:
    method, tasks = build((0.9, 0.999), carried=True)
    method.adapt(tasks.support, Loop())
    save_file(method.learner.state_dict(), tmp_path / "learner.safetensors")
    resumed, _ = build((0.9, 0.999), carried=True)
    resumed.learner.load_state_dict(load_file(tmp_path / "learner.safetensors"))
    assert int(rule_of(resumed).get_buffer("steps")) == STEPS * len(tasks.support.weight)
    going_on = [one.adapt(tasks.support, Loop()).value for one in (method, resumed)]
    assert all(torch.equal(going_on[0][name], going_on[1][name]) for name in going_on[0])


def mapped(method: Method, tasks: Task) -> None:
    method.objective(tasks, None, Vmap())


def in_chunks(method: Method, tasks: Task) -> None:
    method.objective(tasks, None, Vmap(chunk=1))


def step_by_step(method: Method, tasks: Task) -> None:
    method.objective(tasks, None, Loop(), "step")


def recomputing(method: Method, tasks: Task) -> None:
    method.learner.recompute = True
    method.objective(tree_map(lambda t: t[:1], tasks), None, Loop()).objective.backward()


@pytest.mark.parametrize("way", [mapped, in_chunks, step_by_step, recomputing])
def test_carried_moments_need_one_whole_task_after_another(way) -> None:  # type: ignore[no-untyped-def]
    method, tasks = build((0.0, 0.999), carried=True)
    with pytest.raises(ValueError, match=r'training\.executor="loop" \(fewstep\.core\.Loop\)'):
        way(method, tasks)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "must be positive and finite, got 0.0"),
        ({"rate": 0.1, "eps": 0.0}, "must be positive and finite, got 0.1 and 0.0"),
        ({"rate": 0.1, "betas": (0.9, 1.0)}, r"\[0, 1\), got \(0.9, 1.0\)"),
        ({"rate": 0.1, "betas": (-0.1, 0.9)}, r"\[0, 1\), got \(-0.1, 0.9\)"),
    ],
)
def test_wrong_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adam(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [{"a.w": (2, 4)}, {"b": (2, 3)}, {"a.w": (2, 3), "b": (1,)}])
def test_moments_of_other_values(value: dict[str, tuple[int, ...]]) -> None:
    rule = Adam(0.1, carried={"a.w": torch.zeros(2, 3)})
    given: dict[str, Tensor] = {name: torch.zeros(shape) for name, shape in value.items()}
    with pytest.raises(ValueError, match=r"carried for \{'a\.w': \(2, 3\)\}, but the adapted values are"):
        rule.init(given)
