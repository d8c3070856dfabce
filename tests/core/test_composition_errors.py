"""Every start with every rule under every meta-gradient: refused at construction, or all of it is trained."""

from collections.abc import Callable, Mapping
from inspect import unwrap  # past the tests' own check of types
from itertools import product
from typing import Any

import pytest
import torch
from cases import classification_tasks
from torch import nn

from fewstep.algorithms import imaml, maml, meta_sgd, reptile
from fewstep.core import (
    LSTM,
    SGD,
    Adam,
    Backprop,
    Chain,
    Curvature,
    Decode,
    Descend,
    Difference,
    FirstOrder,
    Generator,
    Implicit,
    LearnedRates,
    Learner,
    MetaGradient,
    Method,
    MultiStep,
    NetworkGenerator,
    PerStep,
    Prototypes,
    Rule,
    Shared,
    generator,
    slots,
)
from fewstep.networks import Generated, mlp

Shapes = Mapping[str, tuple[int | None, ...]]
STEPS = 2


def network(outputs: int | None = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, outputs) if outputs else Generated())


BODY: Shapes = {"0.weight": (4, 6), "0.bias": (4,)}
HEAD: Shapes = {"2.weight": (3, 4), "2.bias": (3,)}
MADE: Shapes = {"2.weight": (None, 4), "2.bias": (None,)}  # for any number of ways
CODE: Shapes = {"code": (None, 3)}
WEIGHT: Shapes = {"weight": (None, 6)}


def rates(shapes: Shapes) -> LearnedRates:
    return LearnedRates({name: torch.tensor(0.1) for name in shapes})


RULES: dict[str, Callable[[Shapes], Rule]] = {
    "sgd": lambda shapes: SGD(0.1),
    "adam": lambda shapes: Adam(0.05, eps=0.1),
    "rates": rates,
    "curvature": lambda shapes: Curvature(shapes, rate=0.1),
    "lstm": lambda shapes: LSTM(3),
    "chain": lambda shapes: Chain(Curvature(shapes, rate=1.0), rates(shapes)),
    "per step": lambda shapes: PerStep([rates(shapes), rates(shapes)]),
    "per step in a chain": lambda shapes: Chain(SGD(1.0), PerStep([rates(shapes), rates(shapes)])),
}
LEARN_NOTHING = {"sgd", "adam"}
MakeDescend = Callable[[Shapes], Descend]
STARTS: dict[str, Callable[[MakeDescend], Learner]] = {
    "shared": lambda descend: Learner(network(), Shared(), [descend({**BODY, **HEAD})]),
    "some shared": lambda descend: Learner(network(), Shared(HEAD.__contains__), [descend(HEAD)]),
    "prototypes": lambda descend: Learner(network(None), Prototypes(), [descend({**BODY, **MADE})]),
    "prototypes alone": lambda descend: Learner(network(None), Prototypes(lambda name: False), [descend(MADE)]),
    "codes": lambda descend: Learner(Generated(), Generator(6, 3), [descend(CODE)]),
    "decoded": lambda descend: Learner(Generated(), Generator(6, 3), [Decode(), descend(WEIGHT)]),
    "codes and decoded": lambda descend: Learner(
        Generated(), Generator(6, 3), [descend(CODE), Decode(), descend(WEIGHT)]
    ),
}
ESTIMATORS: dict[str, Callable[[], MetaGradient]] = {
    "backprop": Backprop,
    "first order": FirstOrder,
    "support statistics": lambda: Backprop("support"),
    "difference": Difference,
    "implicit": Implicit,
    "multi-step": lambda: MultiStep([0.4, 0.6]),
}


def refused(start: str, rule: str, estimator: str) -> bool:
    if estimator in ("difference", "implicit") and rule not in LEARN_NOTHING:
        return True
    if estimator == "difference" and start in ("some shared", "codes"):
        return True
    return estimator in ("difference", "implicit", "multi-step") and start == "codes and decoded"


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("start", STARTS)
def test_refused_or_everything_is_trained(start: str, estimator: str) -> None:
    tasks = classification_tasks(6)
    for rule, proximal in product(RULES, ("none", "every", "last")):
        if (estimator == "implicit") == (proximal == "none") or (estimator, proximal) == ("multi-step", "last"):
            continue

        def descend(shapes: Shapes, rule: str = rule, proximal: str = proximal) -> Descend:
            pulled = {} if proximal == "none" else {"prox": 0.5, "proximal": proximal}
            return Descend(RULES[rule](shapes), STEPS, **pulled)

        torch.manual_seed(0)
        learner = STARTS[start](descend).double()
        if refused(start, rule, estimator):
            with pytest.raises(ValueError, match=r"untrained|Descend stages"):
                Method(learner, ESTIMATORS[estimator]())
            continue
        method = Method(learner, ESTIMATORS[estimator]())
        method.objective(tasks, learner.noise(tasks, generator(0, 0, "noise"))).objective.backward()
        idle = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12]
        assert not idle, (rule, proximal, idle)


def message(build: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r"[.]$") as error:  # a whole sentence
        build()
    return str(error.value)


def learner_of(rule: Rule, steps: int = STEPS, **options: object) -> Learner:
    return Learner(network(), Shared(), [Descend(rule, steps, **options)])


ALL: Shapes = {**BODY, **HEAD}


@pytest.mark.parametrize(
    ("rule", "named"), [("rates", "rates.0.weight"), ("curvature", "factors.0.weight.out"), ("lstm", "gates.weight")]
)
@pytest.mark.parametrize("estimator", ["difference", "implicit"])
def test_estimators_that_do_not_differentiate_steps_name_the_parameters_of_rules(
    rule: str, named: str, estimator: str
) -> None:
    learner = learner_of(RULES[rule](ALL), prox=1.0)
    said = message(lambda: Method(learner, ESTIMATORS[estimator]()))
    assert f"stages.0.rule.{named}" in said
    assert type(ESTIMATORS[estimator]()).__name__ in said
    assert "Backprop" in said


def test_reptile_on_a_generator_names_its_decoder() -> None:
    learner = STARTS["codes"](lambda shapes: Descend(SGD(0.1), 2))
    said = message(lambda: Method(learner, Difference()))
    assert "leaves start.decoder.weight untrained" in said


def test_reptile_names_the_parameters_that_do_not_adapt_and_no_others() -> None:
    learner = STARTS["some shared"](lambda shapes: Descend(SGD(0.1), 2))
    said = message(lambda: Method(learner, Difference()))
    assert "leaves network.0.bias, network.0.weight untrained" in said


def test_long_lists_are_cut_short() -> None:
    learner = Learner(mlp((2, 3, 3, 3, 3, 3, 3)), Shared(lambda name: name == "10.bias"), [Descend(SGD(0.1), 1)])
    assert "network.2.weight, network.4.bias and 5 more untrained" in message(lambda: Method(learner, Difference()))


def test_reptile_without_a_step_learns_nothing() -> None:
    said = message(lambda: reptile(network(), rate=0.1, steps=0))
    assert "got 0" in said
    assert "one step or more" in said


def test_implicit_needs_a_pull() -> None:
    said = message(lambda: Method(learner_of(SGD(0.1)), Implicit()))
    assert "prox > 0 (got 0.0)" in said
    assert "prox > 0" in message(lambda: imaml(network(), rate=0.1, steps=2, prox=0.0))


def test_implicit_needs_the_whole_support() -> None:
    assert "leave out Descend's batch" in message(lambda: Method(learner_of(SGD(0.1), prox=1.0, batch=2), Implicit()))


@pytest.mark.parametrize("estimator", ["difference", "implicit", "multi-step"])
@pytest.mark.parametrize("count", [0, 2])
def test_some_estimators_need_exactly_one_descent(estimator: str, count: int) -> None:
    learner = Learner(network(), Shared(), [Descend(SGD(0.1), 2, prox=1.0) for _ in range(count)])
    said = message(lambda: Method(learner, ESTIMATORS[estimator]()))
    assert f"has {count} Descend stages" in said
    assert "exactly one" in said


def test_multi_step_needs_a_weight_for_each_step() -> None:
    said = message(lambda: Method(learner_of(SGD(0.1), 2), MultiStep([0.2, 0.3, 0.5])))
    assert "3 weights were given for 2 inner steps" in said
    assert "one weight for each step" in said
    assert "one weight for each inner step" in message(lambda: MultiStep([]))


def test_multi_step_has_no_weight_for_a_last_pull() -> None:
    learner = learner_of(SGD(0.1), 2, prox=1.0, proximal="last")
    assert "proximal='every'" in message(lambda: Method(learner, MultiStep([0.5, 0.5])))


@pytest.mark.parametrize("rule", ["rates", "curvature", "chain", "per step"])
def test_a_rule_for_other_parameters_is_refused_before_any_task(rule: str) -> None:
    said = message(lambda: Learner(network(), Shared(), [Descend(RULES[rule](HEAD), STEPS)]))
    assert "the adapted values are ['0.bias', '0.weight', '2.bias', '2.weight']" in said
    assert "were given for ['2.bias', '2.weight']" in said


def test_adam_s_carried_moments_of_other_parameters_are_refused_before_any_task() -> None:
    rule = Adam(0.1, carried=dict(nn.Linear(2, 2).named_parameters()))
    assert "moments are carried for {'weight': (2, 2)" in message(
        lambda: Learner(network(), Shared(), [Descend(rule, 1)])
    )


@pytest.mark.parametrize("make", [lambda n, a: maml(n, rate=0.1, adapts=a), lambda n, a: meta_sgd(n, adapts=a)])
def test_adapting_no_parameter_is_refused_before_any_task(make: Callable[..., Method]) -> None:
    said = message(lambda: make(network(), lambda name: name == "head.weight"))
    assert "selects none of the network's parameters (0.weight, 0.bias, 2.weight, 2.bias)" in said


def test_rules_are_held_against_large_networks_without_memory() -> None:
    """An LSTM's state for them would be 4 TB."""
    with torch.device("meta"):
        large = nn.Linear(100_000, 1_000_000)
    Learner(large, Shared(), [Descend(LSTM(5), 1)])


def test_rules_that_no_step_uses_are_named() -> None:
    said = message(lambda: Method(learner_of(rates(ALL), 0), Backprop()))
    assert "no inner step uses stages.0.rule.rates.0.bias" in said
    assert "leave the stage out" in said
    said = message(lambda: Method(learner_of(PerStep([rates(ALL), rates(ALL), rates(ALL)]), 2), Backprop()))
    assert "stages.0.rule.rules.2." in said
    assert "rules.1." not in said
    said = message(lambda: Method(learner_of(Chain(SGD(1.0), PerStep([rates(ALL), rates(ALL)])), 1), FirstOrder()))
    assert "stages.0.rule.rules.1.rules.1." in said
    assert "no inner step uses" in message(lambda: meta_sgd(network(), steps=0))


def test_a_last_pull_uses_a_rule_of_its_own() -> None:
    rules = PerStep([rates(ALL), rates(ALL), rates(ALL)])
    Method(learner_of(rules, 2, prox=1.0, proximal="last"), Backprop())


def test_a_descent_without_a_step_is_fine_where_its_rule_learns_nothing() -> None:
    Method(learner_of(SGD(0.1), 0), Backprop())


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            lambda: unwrap(Descend.__init__)(Descend.__new__(Descend), SGD(0.1), 1, proximal="each"),
            r"'every'.*'last'.*got 'each'",
        ),
        (lambda: Descend(SGD(0.1), 1, prox=-1.0), r"λ ≥ 0.*got -1"),
        (lambda: Descend(SGD(0.1), 1, prox=float("nan")), r"got nan"),
        (lambda: Descend(SGD(0.1), -1), r"got -1"),
        (lambda: Descend(SGD(0.1), 1, batch=0), r"at least one row, got 0; omit it"),
        (lambda: Implicit(iterations=0), r"at least one iteration, got 0"),
        (lambda: Implicit(damping=-1.0), r"must be ≥ 0, got -1"),
        (lambda: imaml(network(), rate=0.1, steps=1, prox=1.0, variant="code"), r"'paper', 'authors', got 'code'"),
        (lambda: reptile(network(), rate=0.1, steps=1, rule="rmsprop"), r"'sgd', 'adam', got 'rmsprop'"),
    ],
)
def test_what_is_out_of_range_is_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build()


def generating(*stages: Any, head: str = "") -> Learner:
    return Learner(nn.Sequential(nn.Linear(6, 4), Generated()), Generator(4, 3, head=head or "1."), stages)


@pytest.mark.parametrize(
    ("make", "adapted", "given"),
    [
        (lambda rule: generating(Descend(rule({"weight": torch.ones(1)}), 1)), "['code']", "['weight']"),
        (lambda rule: generating(Decode(), Descend(rule({"code": torch.ones(3)}), 1)), "['1.weight']", "['code']"),
        (
            lambda rule: Learner(
                nn.Sequential(nn.Linear(6, 4), Generated()),
                Prototypes(lambda name: False),
                [Descend(rule({"0.weight": torch.ones(1)}), 1)],
            ),
            "['1.bias', '1.weight']",
            "['0.weight']",
        ),
        (
            lambda rule: Learner(
                net := mlp((1, 3, 1)),
                NetworkGenerator(slots(net, ["2.bias"]), 1, 1),
                [Decode(), Descend(rule({"0.bias": torch.ones(1)}), 1)],
            ),
            "['2.bias']",
            "['0.bias']",
        ),
    ],
)
@pytest.mark.parametrize(
    "rule",
    [
        LearnedRates,
        lambda rates: Chain(LearnedRates(rates), SGD(0.1)),
        lambda rates: PerStep([LearnedRates(rates)]),
        lambda rates: Curvature({name: rate.shape for name, rate in rates.items()}, rate=0.1),
    ],
)
def test_rules_for_other_values_than_a_task_starts_from_are_refused_before_any_task(
    make: Callable[..., Learner], adapted: str, given: str, rule: Callable[..., Any]
) -> None:
    said = message(lambda: make(rule))
    assert f"the adapted values are {adapted}" in said
    assert given in said


def test_a_network_without_the_place_that_a_start_fills_is_refused_before_any_task() -> None:
    assert "which is no slot of the network" in message(lambda: generating(head="2."))
    plain = nn.Linear(6, 3)
    assert "must end with one Generated head" in message(lambda: Learner(plain, Prototypes(), []))


def test_what_is_no_stage_is_refused() -> None:
    """Once ``Method.on`` dropped it without a word."""
    with pytest.raises(ValueError, match="SGD is no Stage; give stages such as Descend"):
        unwrap(Learner.__init__)(Learner.__new__(Learner), network(), Shared(), [SGD(0.1)])
