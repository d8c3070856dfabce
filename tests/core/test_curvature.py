"""Learned curvature against explicit Kronecker matrices, and Meta-Curvature against loops unrolled with them."""

import re
from collections.abc import Callable
from functools import reduce

import pytest
import torch
from cases import conv, is_weight
from hypothesis import given, settings
from hypothesis import strategies as st
from test_witnesses import CLOSE, Forward, averaged, build, meta_gradient, networks, plain_loss, slope
from torch import Tensor, nn

from fewstep.algorithms import maml, meta_curvature
from fewstep.core import Curvature, Descend, Learner, Params, Rule, Shared, Task

LOSS = torch.zeros(())
Transform = Callable[[int, str, Tensor], Tensor]
"""Step, name and gradient to the gradient that is descended."""


# -- witnesses ---------------------------------------------------------------------------------------------------------


def kronecker(factors: list[Tensor]) -> Tensor:
    """``M_o ⊗ M_i ⊗ M_f``, on tensors read row by row; vectors are diagonals."""
    return reduce(torch.kron, [torch.diag(factor) if factor.dim() == 1 else factor for factor in factors])


def by_matrix(matrix: Tensor, gradient: Tensor) -> Tensor:
    return (matrix @ gradient.reshape(-1)).reshape(gradient.shape)


def factors_of(parameters: Params, rule: str, name: str) -> list[Tensor]:
    """The factors of a weight as a checkpoint holds them, in the order of its modes."""
    paths = [f"{rule}.factors.{name}.{mode}" for mode in ("out", "in", "kernel", "vector")]
    return [parameters[path] for path in paths if path in parameters]


def unrolled(forward: Forward, theta: Params, transform: Transform, task: Task, rate: float, steps: int) -> Tensor:
    """The query loss after ``steps`` differentiable steps along transformed gradients."""
    phi = theta
    for step in range(steps):
        gradient = slope(plain_loss(forward, phi, task.support), phi, create_graph=True)
        phi = {name: p - rate * transform(step, name, gradient[name]) for name, p in phi.items()}
    return plain_loss(forward, phi, task.query)


def disturb(parameters: Params, scale: float = 0.2) -> None:
    """Move meta-parameters of rules, in place, away from where they start."""
    with torch.no_grad():
        for name, p in parameters.items():
            if ".rule." in name:
                p += scale * torch.randn_like(p)


def step_of(rule: Rule, value: Params, gradient: Params) -> Params:
    return rule.update(gradient, rule.init(value), value, LOSS)[0]


# -- the transform -----------------------------------------------------------------------------------------------------

sizes = st.integers(1, 4)
shapes = st.one_of(
    st.tuples(sizes),
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes, sizes),
    st.tuples(sizes, sizes, sizes, sizes),
    st.tuples(sizes, sizes, st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)),
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(shapes, st.booleans(), st.integers(0, 2**31))
def test_any_shape_is_transformed_by_the_kronecker_product(shape: tuple[int, ...], diagonal: bool, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    rule = Curvature({"a.weight": shape}, rate=0.7, diagonal=diagonal).double()
    parameters = dict(rule.named_parameters(prefix="rule"))
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(torch.randn(p.shape, generator=source))
    g = torch.randn(shape, generator=source, dtype=torch.float64)
    expected = -0.7 * by_matrix(kronecker(factors_of(parameters, "rule", "a.weight")), g)
    torch.testing.assert_close(step_of(rule, {"a.weight": g}, {"a.weight": g})["a.weight"], expected, **CLOSE)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(sizes, min_size=1, max_size=4), st.data(), st.booleans(), st.integers(0, 2**31))
def test_a_mode_without_a_size_carries_no_factor(
    shape: list[int], data: st.DataObject, diagonal: bool, seed: int
) -> None:
    free = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)), label="free")
    source = torch.Generator().manual_seed(seed)
    given_shape = [None if f else size for f, size in zip(free, shape, strict=True)]
    rule = Curvature({"code": given_shape}, rate=1.0, diagonal=diagonal).double()
    with torch.no_grad():
        for p in rule.parameters():
            p.copy_(torch.randn(p.shape, generator=source))
    modes = ["vector"] if len(shape) == 1 else ["out", "in", "kernel"]
    merged = [torch.Size(part).numel() for part in (shape[:1], shape[1:2], shape[2:]) if part]
    learned = rule["code"]
    varies = [free[0], *free[1:2], *([any(free[2:])] if free[2:] else [])]
    assert list(learned) == [mode for mode, none in zip(modes, varies, strict=False) if not none]
    filled = [learned.get(mode, torch.eye(size).double()) for mode, size in zip(modes, merged, strict=False)]
    g = torch.randn(shape, generator=source, dtype=torch.float64)
    found = step_of(rule, {"code": g}, {"code": g})["code"]
    torch.testing.assert_close(found, -by_matrix(kronecker(filled), g), **CLOSE)


def test_a_scalar_has_one_factor() -> None:
    rule, scale = Curvature({"scale": ()}, rate=0.5), torch.tensor(3.0)
    nn.init.constant_(rule["scale"]["vector"], 2.0)
    torch.testing.assert_close(step_of(rule, {"scale": scale}, {"scale": scale})["scale"], torch.tensor(-3.0))


# -- the algorithm -----------------------------------------------------------------------------------------------------


@networks
@pytest.mark.parametrize("options", [{}, {"diagonal": True}, {"per_step": True}], ids=str)
def test_at_identity_it_is_maml(kind: str, options: dict[str, bool]) -> None:
    network, _, _, tasks = build(kind)
    method = meta_curvature(network, rate=0.3, steps=3, **options)
    expected = meta_gradient(maml(network, rate=0.3, steps=3), tasks)
    torch.testing.assert_close(meta_gradient(method, tasks), expected, rtol=1e-13, atol=1e-15)


@networks
@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("per_step", [False, True], ids=["shared", "per step"])
def test_gradients_of_initialisation_and_matrices(kind: str, diagonal: bool, per_step: bool) -> None:
    network, theta, forward, tasks = build(kind)
    method = meta_curvature(network, rate=0.3, steps=2, diagonal=diagonal, per_step=per_step)
    meta_parameters = dict(method.learner.named_parameters())
    disturb(meta_parameters)

    def transform(step: int, name: str, gradient: Tensor) -> Tensor:
        rule = f"stages.0.rule.rules.{step}" if per_step else "stages.0.rule"
        return by_matrix(kronecker(factors_of(meta_parameters, rule, name)), gradient)

    by_hand = averaged(lambda task: slope(unrolled(forward, theta, transform, task, 0.3, 2), meta_parameters), tasks)
    torch.testing.assert_close(meta_gradient(method, tasks, prefix=""), by_hand, **CLOSE)


def test_only_what_is_adapted_has_factors_and_they_are_named_by_weight_and_mode() -> None:
    names = [name for name, _ in meta_curvature(conv(), rate=0.1, adapts=is_weight).learner.stages.named_parameters()]
    assert names == [
        "0.rule.factors.blocks.0.weight.out",
        "0.rule.factors.blocks.0.weight.in",
        "0.rule.factors.blocks.0.weight.kernel",
        "0.rule.factors.blocks.0.bias.vector",
        "0.rule.factors.head.weight.out",
        "0.rule.factors.head.weight.in",
        "0.rule.factors.head.bias.vector",
    ]


def test_diagonal_factors_are_vectors() -> None:
    method = meta_curvature(conv(), rate=0.1, steps=2, diagonal=True, per_step=True)
    assert {p.dim() for p in method.learner.stages.parameters()} == {1}


def test_factors_are_of_the_network_s_dtype() -> None:
    method = meta_curvature(conv().double(), rate=0.1, steps=2, per_step=True)
    assert {p.dtype for p in method.learner.parameters()} == {torch.float64}


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan")])
def test_rates_that_are_not_positive(rate: float) -> None:
    with pytest.raises(ValueError, match=f"Curvature: the rate must be positive and finite, got {rate}"):
        Curvature({"w": (2, 2)}, rate=rate)
    with pytest.raises(ValueError, match=f"rate must be positive and finite, got {rate}"):
        meta_curvature(nn.Linear(2, 2), rate=rate)


def test_other_values_than_factors_were_made_for() -> None:
    rule = Curvature({"b": (2,), "a": (2, 2)}, rate=0.1)
    message = "Curvature: the adapted values are ['a', 'c'], but shapes were given for ['a', 'b']; give the shape of"
    with pytest.raises(ValueError, match=re.escape(message)):
        rule.init({"c": torch.zeros(2), "a": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=re.escape("are ['a'], but shapes were given for ['a', 'b']")):
        rule.init({"a": torch.zeros(2, 2)})


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (4, 2), (2, 4, 1), (2,)], ids=str)
def test_other_shapes_than_factors_were_made_for(shape: tuple[int, ...]) -> None:
    rule = Curvature({"b": (2,), "a": (2, 4)}, rate=0.1)
    message = f"Curvature: the adapted value 'a' has shape {shape}, but its factors were made for (2, 4); give the"
    with pytest.raises(ValueError, match=re.escape(message)):
        rule.init({"a": torch.zeros(shape), "b": torch.zeros(2)})
    assert rule.init({"a": torch.zeros(2, 4), "b": torch.zeros(2)}) == ()


def test_a_free_mode_takes_every_size_and_the_others_one() -> None:
    rule = Curvature({"code": (None, 4)}, rate=0.1)
    for ways in (2, 5):
        assert rule.init({"code": torch.zeros(ways, 4)}) == ()
    with pytest.raises(ValueError, match=re.escape("has shape (5, 3), but its factors were made for (None, 4)")):
        rule.init({"code": torch.zeros(5, 3)})


def test_a_learner_refuses_a_curvature_of_another_network() -> None:
    network = build("mlp")[0]
    rule = Curvature({name: (*p.shape, 1) for name, p in network.named_parameters()}, rate=0.1)
    with pytest.raises(ValueError, match=re.escape("its factors were made for (5, 6, 1)")):
        Learner(network, Shared(), [Descend(rule, 1)])


def test_steps_of_their_own_need_a_step() -> None:
    with pytest.raises(ValueError, match="PerStep: at least one rule is needed, got none"):
        meta_curvature(nn.Linear(2, 2), rate=0.1, steps=0, per_step=True)
