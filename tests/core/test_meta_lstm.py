"""Meta-LSTM against a loop over coordinates, written from the equations, that shares no code with it."""

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import meta_lstm
from fewstep.core import LSTM, Backprop, Batch, FirstOrder, Method, Params, Task
from fewstep.core.rule.lstm import Memory, preprocess
from fewstep.networks import Conv4, mlp

Forward = Callable[[Params, Tensor], Tensor]
Feedback = Literal["before", "after"]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
STEPS, HIDDEN = 3, 3


# -- the witness: one coordinate after another ---------------------------------------------------------------------


def mlp_forward(p: Params, x: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, p["0.weight"], p["0.bias"])), p["2.weight"], p["2.bias"])


def conv_forward(p: Params, x: Tensor) -> Tensor:
    for i in (0, 3):
        x = F.conv2d(x, p[f"blocks.{i}.weight"], p[f"blocks.{i}.bias"], stride=2, padding=1)
        gamma, beta = p[f"blocks.{i + 1}.weight"], p[f"blocks.{i + 1}.bias"]
        x = F.relu(F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3))
    return F.linear(x.mean((2, 3)), p["head.weight"], p["head.bias"])


def plain_loss(forward: Forward, p: Params, batch: Batch) -> Tensor:
    real = batch.weight > 0
    return F.cross_entropy(forward(p, batch.x[real]), batch.y[real].argmax(1))


def two_numbers(x: float) -> list[float]:
    if abs(x) > math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1, x)]
    return [-1.0, math.exp(10) * x]


def gate(weights: Params, row: int, inputs: Tensor) -> Tensor:
    return (weights["layer.weight"][row] * inputs).sum() + weights["layer.bias"][row]


def one_coordinate(
    weights: Params, theta: Tensor, g: float, loss: float, memory: dict[str, Tensor], feedback: Feedback
) -> tuple[Tensor, dict[str, Tensor]]:
    """θ_t of one coordinate, from scalars."""
    units = len(memory["h"])
    known = torch.tensor(two_numbers(loss) + two_numbers(g), dtype=torch.float64)
    inputs = torch.cat([known, memory["h"]])
    h, c = [], []
    for unit in range(units):
        take, keep, show = (torch.sigmoid(gate(weights, unit + units * k, inputs)) for k in range(3))
        c.append(keep * memory["c"][unit] + take * torch.tanh(gate(weights, unit + units * 3, inputs)))
        h.append(show * torch.tanh(c[-1]))
    following = {"h": torch.stack(h), "c": torch.stack(c)}
    opened = {}
    for row, name in enumerate("fi"):
        seen = torch.cat([following["h"], theta.reshape(1), memory[name].reshape(1)])
        raw = (weights["gates.weight"][row] * seen).sum() + weights["gates.bias"][row]
        opened[name] = 1 / (1 + torch.exp(-raw))
        following[name] = raw if feedback == "before" else opened[name]
    return opened["f"] * theta - opened["i"] * g, following


def by_hand(
    forward: Forward, theta: Params, weights: Params, task: Task, feedback: Feedback, scale: float
) -> tuple[Params, Tensor]:
    """The adapted weights and the query loss: a graph of θ₀ and of the meta-learner's weights."""
    zero = torch.zeros((), dtype=torch.float64)
    fresh = {"h": zero.expand(HIDDEN), "c": zero.expand(HIDDEN), "f": zero, "i": zero}
    memories = {name: [fresh] * p.numel() for name, p in theta.items()}
    phi = dict(theta)
    for _ in range(STEPS):
        here = {name: p.detach().requires_grad_() for name, p in phi.items()}
        loss = plain_loss(forward, here, task.support)
        gradients = dict(zip(here, torch.autograd.grad(loss, list(here.values())), strict=True))
        for name, p in phi.items():
            moved = []
            for j, (value, g) in enumerate(zip(p.reshape(-1), gradients[name].reshape(-1).tolist(), strict=True)):
                value, memories[name][j] = one_coordinate(
                    weights, value, scale * g, loss.item(), memories[name][j], feedback
                )
                moved.append(value)
            phi[name] = torch.stack(moved).reshape(p.shape)
    return phi, plain_loss(forward, phi, task.query)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Forward, Callable[[], Task]]] = {
    "mlp": (lambda: mlp((4, 4, 3)), mlp_forward, lambda: classification_tasks(4, tasks=2)),
    "conv": (
        lambda: Conv4(3, channels=(2, 2), scale=True),
        conv_forward,
        lambda: classification_tasks(1, 6, 6, shots=2, tasks=2),
    ),
}


def rule_of(method: Method) -> LSTM:
    rule = method.learner.stages[0].rule
    assert isinstance(rule, LSTM)
    return rule


def build(kind: str, feedback: Feedback = "before", scale: float = 1.0) -> tuple[Method, Forward, Task]:
    make, forward, tasks = NETWORKS[kind]
    method = meta_lstm(make(), steps=STEPS, hidden=HIDDEN, feedback=feedback, gradient_scale=scale)
    method.learner.double()
    rule = rule_of(method)
    with torch.no_grad():
        for p in method.learner.network.parameters():  # away from γ = 1 and β = 0
            p += 0.2 * torch.randn_like(p)
        for p in rule.parameters():  # away from gates that say nothing
            p.copy_(0.6 * torch.randn_like(p))
        rule.gates.bias += torch.tensor([2.0, -1.0])
    return method, forward, tasks()


@pytest.mark.parametrize(
    ("kind", "feedback", "scale"), [("mlp", "before", 1.0), ("mlp", "after", 0.25), ("conv", "before", 0.5)]
)
def test_adaptation_and_meta_gradient_are_the_equations(kind: str, feedback: Feedback, scale: float) -> None:
    method, forward, tasks = build(kind, feedback, scale)
    method.objective(tasks, None).objective.backward()
    found = {name: p.grad for name, p in method.learner.named_parameters()}
    adapted = method.adapt(tasks.support).value

    theta, weights = (dict(part.named_parameters()) for part in (method.learner.network, rule_of(method)))
    leaves = {f"network.{n}": p for n, p in theta.items()} | {f"stages.0.rule.{n}": p for n, p in weights.items()}
    assert found.keys() == leaves.keys()
    expected = {name: torch.zeros_like(p) for name, p in leaves.items()}
    count = len(tasks.support.weight)
    for i in range(count):
        task = tree_map(lambda t, i=i: t[i], tasks)
        phi, loss = by_hand(forward, theta, weights, task, feedback, scale)
        torch.testing.assert_close({n: p[i] for n, p in adapted.items()}, {n: p.detach() for n, p in phi.items()})
        for name, gradient in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            expected[name] += gradient / count
    torch.testing.assert_close(found, expected, **CLOSE)
    silent = {name for name, g in expected.items() if g.abs().max() < 1e-5}
    # What a convolution adds to all rows, batch normalisation takes away again.
    assert silent == {name for name in leaves if "blocks" in name and name.endswith(("0.bias", "3.bias"))}


@pytest.mark.parametrize("kind", NETWORKS)
def test_second_derivatives_are_left_out(kind: str) -> None:
    method, _, tasks = build(kind)
    assert type(method.meta_gradient) is FirstOrder
    parameters = list(method.learner.parameters())
    first = torch.autograd.grad(method.objective(tasks, None).objective, parameters)
    whole = torch.autograd.grad(Method(method.learner, Backprop()).objective(tasks, None).objective, parameters)
    assert all(bool(g.isfinite().all()) for g in whole)
    assert max((a - b).abs().max().item() for a, b in zip(first, whole, strict=True)) > 1e-3


# -- its parts -------------------------------------------------------------------------------------------------------


def test_the_first_layer_is_an_lstm_cell() -> None:
    rule, cell = LSTM(hidden=5).double(), nn.LSTMCell(4, 5).double()
    order = torch.arange(20).reshape(4, 5)[[0, 1, 3, 2]].flatten()  # torch: input, forget, candidate, output
    with torch.no_grad():
        for p in rule.layer.parameters():
            p.copy_(torch.randn_like(p))
        cell.weight_ih.copy_(rule.layer.weight[order, :4])
        cell.weight_hh.copy_(rule.layer.weight[order, 4:])
        cell.bias_ih.copy_(rule.layer.bias[order])
        cell.bias_hh.zero_()
    ours = theirs = (torch.zeros(7, 5, dtype=torch.float64), torch.zeros(7, 5, dtype=torch.float64))
    for _ in range(4):
        loss, gradient = torch.randn(2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
        ours = rule.first_layer(loss, gradient, *ours)
        theirs = cell(torch.cat([loss.expand(7, 2), gradient], 1), theirs)
        torch.testing.assert_close(ours, theirs, **CLOSE)


EDGE = math.exp(-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_preprocessing_on_both_sides_of_its_threshold(dtype: torch.dtype) -> None:
    sizes = [0.0, 1e-40, 1e-12, 0.5 * EDGE, 0.999 * EDGE, EDGE, 1.001 * EDGE, 2 * EDGE, 0.3, 1.0, 7.0, 1e30]
    numbers = sizes + [-size for size in sizes]
    x = torch.tensor(numbers, dtype=dtype, requires_grad=True)
    found = preprocess(x)
    expected = torch.tensor([two_numbers(number) for number in numbers], dtype=dtype)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-6)
    for column in found.unbind(1):
        (slope,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
        assert bool(slope.isfinite().all())
    (slope,) = torch.autograd.grad(found.sum(), x)
    expected_slope = [1 / (10 * n) if abs(n) > EDGE * 1.0001 else math.exp(10) for n in numbers]
    away = [i for i, n in enumerate(numbers) if abs(n) != EDGE]
    torch.testing.assert_close(slope[away], torch.tensor(expected_slope, dtype=dtype)[away], rtol=1e-5, atol=0)


def test_a_fresh_rule_nearly_keeps_and_takes_little() -> None:
    rule = LSTM()
    assert rule.layer.weight.shape == (80, 24)
    assert rule.gates.weight.shape == (2, 22)
    for tensor in (rule.layer.weight, rule.layer.bias, rule.gates.weight):
        assert tensor.abs().max() <= 0.01
        assert tensor.std().item() == pytest.approx(0.02 / math.sqrt(12), rel=0.3)
    assert 4 <= rule.gates.bias[0] <= 5
    assert -5 <= rule.gates.bias[1] <= -4
    value, gradient = {"w": torch.ones(3, 2)}, {"w": torch.full((3, 2), 0.5)}
    step, _ = rule.update(gradient, rule.init(value), value, torch.tensor(1.0))
    assert ((step["w"] > -0.03) & (step["w"] < -0.01)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"hidden": 0}, "one unit or more, got 0"), ({"gradient_scale": 0.0}, "must be positive and finite, got 0.0")],
)
def test_wrong_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTM(**arguments)  # type: ignore[arg-type]


@st.composite
def coordinates(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], int, Feedback, int]:
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4), label="shapes")
    feedback = draw(st.sampled_from(["before", "after"]))
    return shapes, draw(st.integers(1, 6), label="hidden"), feedback, draw(st.integers(0, 2**31), label="seed")


def steps_of(rule: LSTM, value: Params, gradients: list[Params], losses: Tensor) -> tuple[Params, Memory]:
    memory = rule.init(value)
    for gradient, loss in zip(gradients, losses, strict=True):
        step, memory = rule.update(gradient, memory, value, loss)
        value = {name: value[name] + step[name] for name in value}
    return value, memory


@settings(max_examples=25, deadline=None, derandomize=True)
@given(coordinates())
def test_coordinates_do_not_know_of_each_other(problem: tuple[list[tuple[int, ...]], int, Feedback, int]) -> None:
    """Their order, the tensors that they are in, and the order of gradients' names change nothing."""
    shapes, hidden, feedback, seed = problem
    source = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    rule = LSTM(hidden, feedback).double()
    with torch.no_grad():
        for p in rule.parameters():
            p.copy_(0.5 * draw(tuple(p.shape)))
    value = {f"{i}.w": draw(shape) for i, shape in enumerate(shapes)}
    gradients = [{name: draw(tuple(t.shape)) for name, t in reversed(value.items())} for _ in range(3)]
    losses = draw((3,)).exp()
    found, memory = steps_of(rule, value, gradients, losses)
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in value.items()}

    def flat(params: Params) -> Tensor:
        return torch.cat([params[name].reshape(-1) for name in value])

    order = torch.randperm(len(flat(value)), generator=source)
    shuffled = [{"all": flat(gradient)[order]} for gradient in gradients]
    other, other_memory = steps_of(rule, {"all": flat(value)[order]}, shuffled, losses)
    torch.testing.assert_close(other["all"], flat(found)[order], **CLOSE)
    torch.testing.assert_close(tuple(other_memory), tuple(t[order] for t in memory), **CLOSE)
