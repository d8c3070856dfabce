"""Rules made of rules, and Meta-SGD with fewer rates and with rates by step, against loops unrolled by hand."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import vectors
from safetensors.torch import save
from test_curvature import by_matrix, disturb, factors_of, kronecker, step_of, unrolled
from test_witnesses import CLOSE, averaged, build, fill, meta_gradient, networks, rates_of, slope
from torch import Tensor, nn

from fewstep.algorithms import leo_network, meta_sgd
from fewstep.core import (
    SGD,
    Backprop,
    Chain,
    Clip,
    Curvature,
    Descend,
    LearnedRates,
    Learner,
    Method,
    Params,
    PerStep,
    Rule,
    Shared,
)
from fewstep.networks import mlp

STEPS = 3


def learned(theta: Params, rate: float = 0.3) -> LearnedRates:
    return LearnedRates(fill(rate, theta))


def curvature(theta: Params) -> Curvature:
    return Curvature({name: p.shape for name, p in theta.items()}, rate=1.0)


def method_of(network: nn.Module, rule: Rule, steps: int = STEPS) -> Method:
    method = Method(Learner(network, Shared(), [Descend(rule, steps)]), Backprop())
    method.learner.double()
    disturb(dict(method.learner.named_parameters()))
    return method


class Momentum(Rule):
    """``m ← ½m + g``, ``φ ← φ − rate·m``."""

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate

    def init(self, value: Params, noise: Any = None) -> Params:
        return {name: torch.zeros_like(tensor) for name, tensor in value.items()}

    def update(self, gradient: Params, state: Params, value: Params, loss: Tensor) -> tuple[Params, Params]:
        state = {name: 0.5 * state[name] + g for name, g in gradient.items()}
        return {name: -self.rate * m for name, m in state.items()}, state


# -- rules one after another -------------------------------------------------------------------------------------------


def test_a_chain_of_matrices_is_their_product_in_order() -> None:
    shape, value = (3, 4), torch.randn(3, 4)
    params = {"w": value}
    first, second = Curvature({"w": shape}, rate=0.5), Curvature({"w": shape}, rate=0.3)
    for p in (*first.parameters(), *second.parameters()):
        nn.init.normal_(p)
    one, two = (kronecker(list(rule["w"].values())) for rule in (first, second))
    found = step_of(Chain(first, second), params, params)["w"]
    torch.testing.assert_close(found, by_matrix(-0.5 * 0.3 * two @ one, value))
    assert not torch.allclose(found, by_matrix(-0.5 * 0.3 * one @ two, value))
    torch.testing.assert_close(
        step_of(Chain(first), {"w": value}, {"w": value}), step_of(first, {"w": value}, {"w": value})
    )


@networks
@pytest.mark.parametrize("per_step", [False, True], ids=["shared", "per step"])
def test_gradients_through_rates_along_curvature(kind: str, per_step: bool) -> None:
    network, theta, forward, tasks = build(kind)
    along = PerStep([curvature(theta) for _ in range(STEPS - 1)]) if per_step else curvature(theta)
    method = method_of(network, Chain(along, learned(theta)))
    meta_parameters = dict(method.learner.named_parameters())

    def transform(step: int, name: str, gradient: Tensor) -> Tensor:
        rule = "stages.0.rule.rules.0" + (f".rules.{min(step, STEPS - 2)}" if per_step else "")
        rates = meta_parameters[f"stages.0.rule.rules.1.rates.{name}"]
        return rates * by_matrix(kronecker(factors_of(meta_parameters, rule, name)), gradient)

    by_hand = averaged(
        lambda task: slope(unrolled(forward, theta, transform, task, 1.0, STEPS), meta_parameters), tasks
    )
    torch.testing.assert_close(meta_gradient(method, tasks, prefix=""), by_hand, **CLOSE)


def test_a_chain_keeps_the_state_of_every_rule() -> None:
    rule = Chain(Momentum(), SGD(0.1), Momentum(0.2))
    gradients = torch.randn(4, 3)
    value = {"w": torch.zeros(3)}
    state: Any = rule.init(value)
    inner = outer = torch.zeros(3)
    for step, g in enumerate(gradients):
        moved, state = rule.for_step(step).update({"w": g}, state, value, torch.zeros(()))
        inner = 0.5 * inner + g
        outer = 0.5 * outer + 0.1 * inner
        torch.testing.assert_close(moved["w"], -0.2 * outer)
    assert isinstance(state, tuple)
    assert len(state) == 3


def test_the_chain_of_a_step_takes_no_parameters_away() -> None:
    theta = dict(mlp((6, 5, 3)).named_parameters())
    rule = Chain(PerStep([curvature(theta), curvature(theta)]), learned(theta))
    learner = Learner(mlp((6, 5, 3)), Shared(), [Descend(rule, 2)])
    before = [(name, id(p)) for name, p in learner.named_parameters(remove_duplicate=False)]
    view = rule.for_step(1)
    assert [(name, id(p)) for name, p in learner.named_parameters(remove_duplicate=False)] == before
    assert {id(p) for p in view.parameters()} <= {i for _, i in before}
    save(learner.state_dict())  # refuses tensors that are registered twice


# -- a rule for each step ----------------------------------------------------------------------------------------------


def test_gradients_that_are_too_long_are_shortened_and_others_are_not() -> None:
    """Over all values together, and the derivative goes through the norm: against one written out."""
    rule, value = Clip(2.0), {"a": torch.zeros(2), "b": torch.zeros(1)}
    for scale, length in ((0.1, 0.1 * 3), (10.0, 2.0)):
        gradient = {"a": scale * torch.tensor([1.0, -2.0]), "b": scale * torch.tensor([2.0])}  # of norm 3
        step = step_of(rule, value, gradient)
        torch.testing.assert_close(torch.cat(list(step.values())).norm(), torch.tensor(length))
        torch.testing.assert_close(step["a"] / step["b"], gradient["a"] / gradient["b"])
        assert step["b"] < 0
    point = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(step_of(rule, {"a": point}, {"a": point})["a"][0], point)
    # d(−2 g/‖g‖)/dg = −2 (I/‖g‖ − g gᵀ/‖g‖³)
    torch.testing.assert_close(slope, torch.tensor([-2 * (1 / 5 - 9 / 125), 2 * 12 / 125], dtype=torch.float64))
    steep = {"a": torch.tensor([3e30, 4e30])}  # whose square is infinite in float32
    torch.testing.assert_close(step_of(rule, steep, steep)["a"], torch.tensor([-1.2, -1.6]))
    flat = torch.zeros(2, requires_grad=True)
    (slope,) = torch.autograd.grad(step_of(rule, {"a": flat}, {"a": flat})["a"].sum(), flat)
    assert slope.tolist() == [-1.0, -1.0]  # and no NaN of a root at zero


def test_steps_beyond_the_last_rule_use_the_last() -> None:
    rules = [SGD(0.1), SGD(0.2), SGD(0.3)]
    per_step = PerStep(rules)
    assert [per_step.for_step(step) for step in range(5)] == [*rules, rules[-1], rules[-1]]


def test_rules_by_step_within_rules_by_step() -> None:
    rules = [SGD(0.1), SGD(0.2)]
    nested = PerStep([PerStep(rules)])
    assert [nested.for_step(step) for step in range(3)] == [*rules, rules[-1]]


def test_state_passes_from_one_step_s_rule_to_the_next() -> None:
    """Two steps on the loss ``½‖φ‖²`` of a learner without data to speak of, by its own descent."""
    descent = Descend(PerStep([Momentum(0.1), Momentum(0.2)]), 2)
    network = nn.Linear(1, 1, bias=False)
    learner = Learner(network, Shared(), [descent])
    learner.support_loss = lambda point, support, noise=None: 0.5 * point.value["weight"].square().sum()  # type: ignore
    nn.init.constant_(network.weight, 1.0)
    one = type(vectors().support)(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1))
    point, _ = learner.adapt(one)
    # φ₁ = 1 − 0.1·1 = 0.9; m = ½·1 + 0.9 = 1.4; φ₂ = 0.9 − 0.2·1.4
    assert point.value["weight"].item() == pytest.approx(0.62)


# -- Meta-SGD's rates --------------------------------------------------------------------------------------------------


@networks
@pytest.mark.parametrize("per_step", [False, True], ids=["shared", "per step"])
def test_rates_of_a_layer_are_constant_rates_of_its_parameters(kind: str, per_step: bool) -> None:
    """The same meta-gradient of θ, and of a layer's rate the sum over its parameters' rates."""
    network, theta, _, tasks = build(kind)
    few = meta_sgd(network, rate=(0.1, 0.5), steps=STEPS, rates="layer", per_step=per_step)
    many = meta_sgd(network, rate=0.3, steps=STEPS, per_step=per_step)
    few.learner.double()
    many.learner.double()
    sets = dict(few.learner.stages.named_parameters())
    assert len(sets) == len(theta) * (STEPS if per_step else 1)
    assert {p.shape for p in sets.values()} == {torch.Size([])}
    with torch.no_grad():
        for name, p in many.learner.stages.named_parameters():
            p.fill_(sets[name])
    found, expected = meta_gradient(few, tasks, prefix=""), meta_gradient(many, tasks, prefix="")
    summed = {name: g.sum() if name.startswith("stages") else g for name, g in expected.items()}
    torch.testing.assert_close(found, summed, **CLOSE)


@networks
def test_gradients_of_rates_of_each_step(kind: str) -> None:
    network, theta, forward, tasks = build(kind)
    method = meta_sgd(network, rate=(0.05, 0.5), steps=STEPS, per_step=True)
    method.learner.stages[0].steps = STEPS + 1  # the last step has no rates of its own
    meta_parameters = dict(method.learner.named_parameters())

    def transform(step: int, name: str, gradient: Tensor) -> Tensor:
        last = min(step, STEPS - 1)
        return meta_parameters[f"stages.0.rule.rules.{last}.rates.{name}"] * gradient

    by_hand = averaged(
        lambda task: slope(unrolled(forward, theta, transform, task, 1.0, STEPS + 1), meta_parameters), tasks
    )
    torch.testing.assert_close(meta_gradient(method, tasks, prefix=""), by_hand, **CLOSE)


def test_rates_are_drawn_in_the_order_of_the_parameters_then_of_the_steps() -> None:
    network = mlp((6, 5, 3))
    torch.manual_seed(7)
    shared = rates_of(meta_sgd(network).learner)
    torch.manual_seed(7)
    by_step = list(meta_sgd(network, steps=2, per_step=True).learner.stages[0].rule.rules)
    torch.manual_seed(7)
    draws = [{name: torch.empty(p.shape).uniform_(0.005, 0.1) for name, p in network.named_parameters()} for _ in "12"]
    for rule, drawn in ((shared, draws[0]), (by_step[0], draws[0]), (by_step[1], draws[1])):
        assert all(torch.equal(rule[name], rate) for name, rate in drawn.items())


# -- rates in a unit of their own --------------------------------------------------------------------------------------


def test_a_unit_changes_what_is_learned_and_not_the_step() -> None:
    rates, gradient = {"a.b": torch.tensor([0.02, -0.03, 0.05])}, {"a.b": torch.tensor([3.0, 4.0, -5.0])}
    plain, scaled = LearnedRates(rates), LearnedRates(rates, unit=0.01)
    torch.testing.assert_close(scaled["a.b"], rates["a.b"])
    (stored,), (expected,) = scaled.parameters(), plain.parameters()
    torch.testing.assert_close(stored.detach(), torch.tensor([2.0, -3.0, 5.0]))
    for rule in (plain, scaled):
        moved = step_of(rule, gradient, gradient)["a.b"]
        torch.testing.assert_close(moved, torch.tensor([-0.06, 0.12, 0.25]))
        moved.square().sum().backward()
    torch.testing.assert_close(stored.grad, 0.01 * expected.grad)  # type: ignore[operator]


def test_an_outer_step_changes_rates_in_units_in_proportion_to_them() -> None:
    """Adam's first step is as long as its rate: 1e-3 takes ten times themselves from rates of 1e-4, or a thousandth."""
    initial = torch.full((4,), 1e-4)
    after = {}
    for unit in (1.0, 1e-4):
        rule = LearnedRates({"w": initial}, unit)
        optimiser = torch.optim.Adam(rule.parameters(), lr=1e-3)
        (-step_of(rule, {"w": torch.ones(4)}, {"w": torch.ones(4)})["w"]).sum().backward()
        optimiser.step()
        after[unit] = (rule["w"].detach() / initial).tolist()
    assert after[1.0] == pytest.approx([-9.0] * 4, rel=1e-3)
    assert after[1e-4] == pytest.approx([0.999] * 4, rel=1e-5)


def test_rates_of_leo_for_networks_are_in_units_of_their_initial_ones() -> None:
    method = leo_network(mlp((1, 3, 1)), 1, 1, latent_rate=0.02, finetuning_steps=1, finetuning_rate=3e-4)
    stored = torch.cat([p.detach().flatten() for p in method.learner.stages.parameters()])
    torch.testing.assert_close(stored, torch.ones(16 + 10))
    assert method.learner.stages[0].rule["code"].tolist() == pytest.approx([0.02] * 16)
    assert method.learner.stages[2].rule["0.weight"].flatten().tolist() == pytest.approx([3e-4] * 3)


# -- refusals ----------------------------------------------------------------------------------------------------------


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "a chain without a rule": (lambda: Chain(), "Chain: at least one rule is needed, got none."),
    "steps without a rule": (lambda: PerStep([]), "PerStep: at least one rule is needed, got none."),
    "rules of two kinds": (
        lambda: PerStep([SGD(0.1), LearnedRates({"w": torch.ones(1)})]),
        "PerStep: the rules of all steps must be of one kind, got LearnedRates, SGD.",
    ),
    "one rule twice": (
        lambda: PerStep([SGD(0.1)] * 2),
        "PerStep: a rule is given for more than one step; make a new one for each step.",
    ),
    "names of rates": (
        lambda: LearnedRates({"b": torch.ones(1), "a": torch.ones(1)}).init({"a": torch.ones(1)}),
        "LearnedRates: the adapted values are ['a'], but rates were given for ['a', 'b']; make one set of rates for "
        "each adapted value.",
    ),
    "names of a later step's rates": (
        lambda: PerStep([LearnedRates({n: torch.ones(1)}) for n in "ab"]).init({"a": torch.ones(1)}),
        "LearnedRates: the adapted values are ['a'], but rates were given for ['b']",
    ),
    "names of a chained rule's rates": (
        lambda: Chain(SGD(1.0), LearnedRates({"b": torch.ones(1)})).init({"a": torch.ones(1)}),
        "LearnedRates: the adapted values are ['a'], but rates were given for ['b']",
    ),
    **{
        f"a unit of {unit}": (
            lambda unit=unit: LearnedRates({"w": torch.ones(1)}, unit),
            f"LearnedRates: unit is a rate that others are multiples of, above 0; got {unit}.",
        )
        for unit in (0.0, -0.1, float("nan"))
    },
    **{
        f"a norm of {norm}": (lambda norm=norm: Clip(norm), f"Clip: the norm must be positive and finite, got {norm}.")
        for norm in (0.0, -1.0, float("nan"), float("inf"))
    },
    "rates of what": (
        lambda: meta_sgd(mlp((6, 3)), rates="tensor"),
        "rates must be one of 'parameter', 'layer', got 'tensor'",
    ),
    "rates of no step": (
        lambda: meta_sgd(mlp((6, 3)), steps=0, per_step=True),
        "PerStep: at least one rule is needed, got none.",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals(kind: str) -> None:
    make, message = REFUSALS[kind]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_no_step_is_taken_without_its_number() -> None:
    value = {"w": torch.ones(1)}
    for rule in (PerStep([SGD(0.1)]), Chain(SGD(1.0), PerStep([SGD(0.1)]))):
        with pytest.raises(
            TypeError, match=re.escape("PerStep: a step is moved by the rule of that step; call update")
        ):
            step_of(rule, value, value)
