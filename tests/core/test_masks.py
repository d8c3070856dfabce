"""Rules that draw, masks of units, and T-net and MT-net, held against Meta-Curvature."""

import copy
from typing import Any

import pytest
import torch
from cases import classification_tasks, conv
from torch import Tensor, nn

from fewstep.algorithms import mt_net, t_net
from fewstep.core import SGD, Backprop, Chain, Curvature, Descend, Learner, Masked, Method, PerStep, Shared, generator
from fewstep.networks import mlp, transformed

KINDS = {"mlp": lambda: mlp((6, 5, 3)), "conv": conv}
SHAPES = {"mlp": (6,), "conv": (1, 8, 8)}


def is_matrix(name: str) -> bool:
    return name.endswith("weight") and "blocks.1." not in name and "blocks.4." not in name


def draws_for(logistic: Tensor) -> Tensor:
    """Noise by which the logistic number of every unit is the given one: ``log(eˡ/1)``."""
    zero = torch.zeros_like(logistic)
    return torch.stack([torch.stack([(logistic / 2).exp(), zero]), torch.stack([zero + 1, zero])])


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logit", "temperature", "chance", "slope"),
    [
        (0.0, 1.0, 0.5, 1 / 6),
        (0.5, 1.0, 0.622459, 0.162561),
        (-1.0, 1.0, 0.268941, 0.150948),
        (0.0, 0.1, 0.5, 0.247989),
    ],
)
def test_how_often_a_unit_moves_and_the_mean_of_its_slope(
    logit: float, temperature: float, chance: float, slope: float
) -> None:
    """Over the quantiles of the logistic distribution; the slope is (1/T) E[s(1 − s)], s = σ((ζ + l)/T)."""
    quantiles = (torch.arange(200_001).double() + 0.5) / 200_001
    rule = Masked({"w": (len(quantiles), 1)}, temperature).double()
    nn.init.constant_(rule.get_parameter("logits.units"), logit)
    mask = rule.init({"w": torch.zeros(len(quantiles), 1).double()}, {"units": draws_for(quantiles.logit())})["units"]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(chance, abs=1e-5)
    mask.mean().backward()
    found = rule.get_parameter("logits.units").grad
    assert found is not None
    assert found.sum().item() == pytest.approx(slope, abs=1e-5)


def test_draws_of_noise_are_logistic() -> None:
    """By its quantiles, through the noise that a method draws for many tasks."""
    tasks = classification_tasks(6, tasks=20)
    method = mt_net(mlp((6, 1000, 3)), rate=0.1)
    drawn = method.noise(tasks, generator(0, 0, "noise"))["shuffles"][0]["rule"]["0"]["0.units"]
    one, other = drawn.square().sum(2).unbind(1)
    found = (one / other).log().flatten().quantile(torch.tensor([0.1, 0.5, 0.8]).double())
    expected = torch.tensor([0.1, 0.5, 0.8]).double().logit()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.06)


def test_one_mask_for_all_steps_of_a_task_and_all_values_of_a_layer() -> None:
    """Units that are not drawn stay, bit for bit; the others move; tasks differ."""
    tasks, network = classification_tasks(6), mlp((6, 5, 3)).double()
    method = mt_net(network, rate=0.5, steps=4)
    noise = method.noise(tasks, generator(0, 0, "noise"))
    value = method.adapt(tasks.support, noise=noise).value
    start = {name: p.detach() for name, p in network.named_parameters()}
    for layer in ("0", "2"):
        one, other = noise["shuffles"][0]["rule"]["0"][f"{layer}.units"].square().sum(2).unbind(1)
        for name in (f"{layer}.weight", f"{layer}.bias"):
            moved = (value[name] != start[name]).view(*one.shape, -1).any(2)
            assert moved.any()
            assert not moved[one <= other].any()
    assert torch.equal(moved, one > other)  # of the last layer, where no ReLU keeps a unit still
    assert len({tuple(row) for row in moved.tolist()}) > 1


def test_every_weight_may_have_a_mask_of_its_own() -> None:
    """Weights that are not drawn stay, bit for bit, the others of their unit move; ζ learns of each alone."""
    tasks, network = classification_tasks(6), mlp((6, 5, 3)).double()
    method = mt_net(network, rate=0.5, steps=4, mask_of="weights")
    noise = method.noise(tasks, generator(0, 0, "noise"))
    value = method.adapt(tasks.support, noise=noise).value
    start = {name: p.detach() for name, p in network.named_parameters()}
    for name in ("2.weight", "2.bias"):  # of the last layer, where no ReLU keeps a unit still
        one, other = noise["shuffles"][0]["rule"]["0"][name].square().sum(2).unbind(1)
        moved = value[name] != start[name]
        assert torch.equal(moved, one > other)
    slopes = gradients(method, tasks, noise)
    assert slopes["stages.0.rule.rules.0.logits.2.weight"].shape == (3, 5)


def test_in_evaluation_a_mask_is_its_mean() -> None:
    tasks, network = classification_tasks(6), mlp((6, 5, 3)).double()
    halved = mt_net(network, rate=0.4, steps=2)
    plain = t_net(network, rate=0.2, steps=2)
    torch.testing.assert_close(halved.adapt(tasks.support), plain.adapt(tasks.support), rtol=1e-12, atol=1e-14)


def test_rules_pass_on_what_is_drawn_for_them() -> None:
    shapes = {"w": (3, 2)}
    chain = Chain(SGD(1.0), PerStep([Masked(shapes), Masked(shapes)]))
    assert list(chain.init_sites()) == ["1"]
    drawn = draws_for(torch.tensor([-1.0, 1.0, 2.0]))
    value = {"w": torch.ones(3, 2)}
    state = chain.init(value, {"1": {"units": drawn}})
    step, _ = chain.for_step(1).update(value, state, value, torch.tensor(0.0))
    torch.testing.assert_close(step["w"][:, 0], torch.tensor([0.0, -1.0, -1.0]))
    assert SGD(1.0).init_sites() == {}


# -- T-net and MT-net --------------------------------------------------------------------------------------------------


def effective(network: nn.Module, plain: nn.Module) -> dict[str, Tensor]:
    """Put T W and T b into a network without T, and return the T of each of its values."""
    ours, matrices = dict(network.named_parameters()), {}
    for name, p in plain.named_parameters():
        transform = ours.get(f"{name.rpartition('.')[0]}.transform")
        p.data = ours[name].detach().clone()
        if transform is not None:
            matrices[name] = transform.detach()
            p.data = (matrices[name] @ p.data.flatten(1) if p.dim() > 1 else matrices[name] @ p.data).view(p.shape)
    return matrices


@pytest.mark.parametrize("masked", [False, True], ids=["t-net", "mt-net"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_of_the_effective_weights_it_is_meta_curvature(kind: str, masked: bool) -> None:
    """With ``M = T diag(m) Tᵀ``, for predictions after three steps and every meta-gradient, by the chain rule.

    ``∇_W = Tᵀ∇_E``, ``∇_b = Tᵀ∇_e``, ``∇_T = ∇_E Wᵀ + ∇_e bᵀ + (∇_M + ∇_Mᵀ) T diag(m)``, ``∇_m = diag(Tᵀ∇_M T)``.
    """
    tasks, plain = classification_tasks(*SHAPES[kind], tasks=1), KINDS[kind]().double()
    network = copy.deepcopy(plain)
    method = mt_net(network, rate=0.3, steps=3, masked=masked, adapts=is_matrix)
    method.learner.double()
    with torch.no_grad():
        for p in method.learner.parameters():
            p += 0.2 * torch.randn_like(p)
    noise = method.noise(tasks, generator(0, 1, "noise"))

    matrices = effective(network, plain)
    curvature = Curvature({name: p.shape for name, p in plain.named_parameters() if is_matrix(name)}, rate=0.3).double()
    masks, soft = {}, {}
    for name in [name for name in matrices if is_matrix(name)]:
        layer = f"{name.rpartition('.')[0]}.units"
        masks[name] = torch.ones(len(matrices[name])).double()
        if masked:
            one, other = noise["shuffles"][0]["rule"]["0"][layer][0].square().sum(1)
            raised = (
                method.learner.stages[0].rule.get_parameter(f"rules.0.logits.{layer}").detach() + (one / other).log()
            )
            masks[name], soft[name] = (raised > 0).double(), raised.sigmoid()
        curvature[name]["out"].data = matrices[name] @ masks[name].diag() @ matrices[name].T
    learner = Learner(plain, Shared(is_matrix), [Descend(curvature, 3)])
    reference = Method(learner, Backprop())

    ours = method.predict(method.adapt(tasks.support, noise=noise), tasks.query)
    torch.testing.assert_close(
        ours, reference.predict(reference.adapt(tasks.support), tasks.query), rtol=1e-10, atol=1e-12
    )
    found, expected = gradients(method, tasks, noise), gradients(reference, tasks, None)
    weights = {f"network.{name}": p.detach() for name, p in network.named_parameters()}
    for name, matrix in matrices.items():
        key = f"network.{name}"
        slope = expected[key].flatten(1) if is_matrix(name) else expected[key][:, None]
        torch.testing.assert_close(found[key], (matrix.T @ slope).view(weights[key].shape), rtol=1e-9, atol=1e-12)
    for name in masks:
        layer, matrix = name.rpartition(".")[0], matrices[name]
        of_metric = expected[f"stages.0.rule.factors.{name}.out"]
        by_weights = expected[f"network.{name}"].flatten(1) @ weights[f"network.{name}"].flatten(1).T
        by_bias = torch.outer(expected[f"network.{layer}.bias"], weights[f"network.{layer}.bias"])
        by_metric = (of_metric + of_metric.T) @ matrix @ masks[name].diag()
        torch.testing.assert_close(
            found[f"network.{layer}.transform"], by_weights + by_bias + by_metric, rtol=1e-9, atol=1e-12
        )
        if masked:
            slope = (matrix.T @ of_metric @ matrix).diagonal() * soft[name] * (1 - soft[name])
            logits = found[f"stages.0.rule.rules.0.logits.{layer}.units"]
            torch.testing.assert_close(logits, slope, rtol=1e-9, atol=1e-12)


def gradients(method: Method, tasks: Any, noise: Any) -> dict[str, Tensor]:
    named = dict(method.learner.named_parameters())
    objective = method.objective(tasks, noise).objective
    return dict(zip(named, torch.autograd.grad(objective, list(named.values()), allow_unused=True), strict=True))


def test_a_step_by_numbers() -> None:
    """``Δy = −α T diag(m) Tᵀ ∂L/∂y ‖x‖²`` for ∂L/∂y = [.5, −.25]."""
    weight, matrix = torch.tensor([[0.2, -0.1], [0.4, 0.3]]), torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    layer = transformed(nn.Linear(2, 2, bias=False))
    layer.load_state_dict({"weight": weight, "transform": matrix})
    x = torch.tensor([1.0, -1.0])
    before = layer(x)
    torch.testing.assert_close(before, matrix @ weight @ x)
    before.backward(torch.tensor([0.5, -0.25]))
    gradient = {"weight": layer.get_parameter("weight").grad}
    torch.testing.assert_close(gradient["weight"], torch.tensor([[0.5, -0.5], [-0.25, 0.25]]))
    for mask, change in ([1.0, 1.0], [-0.075, 0.1]), ([1.0, 0.0], [-0.1, 0.0]):
        rule = Chain(Masked({"weight": (2, 2)}), SGD(0.1))
        state = rule.init(gradient, {"0": {"units": draws_for(torch.tensor(mask) - 0.5)}})
        step, _ = rule.update(gradient, state, gradient, torch.tensor(0.0))
        torch.testing.assert_close(matrix @ step["weight"] @ x, torch.tensor(change))


def test_a_network_is_transformed_once_and_at_first_changes_nothing() -> None:
    for kind, make in KINDS.items():
        network = make().double()
        before, names = copy.deepcopy(network), [name for name, _ in network.named_parameters()]
        assert transformed(transformed(network)) is network
        kept = [name for name, _ in network.named_parameters() if not name.endswith("transform")]
        assert kept == names
        x = torch.randn(4, *SHAPES[kind]).double()
        torch.testing.assert_close(network(x), before(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Masked({"w": (2, 2)}, temperature=0.0), "must be positive, got 0.0"),
        (lambda: Masked({"a.w": (2, 2), "a.b": (3,)}), r"'a.b' has shape \(3,\)"),
        (lambda: Masked({"w": ()}), r"'w' has shape \(\)"),
        (lambda: Masked({"w": (2,)}).init({"v": torch.ones(2)}), "masks|shapes"),
        (lambda: transformed(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))), "0 is a convolution in groups"),
        (lambda: transformed(nn.ReLU()), "ReLU has no layer"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
