"""An ensemble is its members: one by one, in adaptation, and in what they learn."""

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.core import Batch, Loop, Method, Task, Vmap
from fewstep.networks import Ensemble, mlp
from fewstep.networks.ensemble import squared_error_of_each, squared_error_of_the_mean
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.network import Network
from fewstep.recipes.problems.functions import SineOrLineTasks, SinusoidTasks
from fewstep.recipes.problems.problem import Problem
from fewstep.training.device import Place

M = 3
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
NETWORK = Network("mlp", (6, 5))


def ensemble(*widths: int, members: int = M) -> tuple[Ensemble, list[nn.Sequential]]:
    """In float64, with its members."""
    made: list[nn.Sequential] = []

    def make() -> nn.Module:
        network = mlp(widths)
        made.append(copy.deepcopy(network).double())
        return network

    return Ensemble(make, members).double(), made


def member(weights: dict[str, Tensor], m: int, prefix: str = "") -> dict[str, Tensor]:
    """Of stacked weights those of one member, under the names of an mlp."""
    return {name.removeprefix(prefix): tensor[m] for name, tensor in weights.items()}


def side_by_side(each: list[Tensor]) -> Tensor:
    return torch.cat(each, -1)


def test_predictions_are_those_of_the_members_one_by_one() -> None:
    together, alone = ensemble(2, 5, 4, 3)
    x = torch.randn(7, 2, dtype=torch.float64)
    found = together(x)
    assert found.shape == (7, M * 3)
    torch.testing.assert_close(found, side_by_side([network(x) for network in alone]), **CLOSE)
    assert not torch.allclose(found[:, :3], found[:, 3:6]), "members of different weights"


def test_tasks_are_mapped_over() -> None:
    together, alone = ensemble(2, 5, 1)
    x = torch.randn(4, 7, 2, dtype=torch.float64)
    shifts = torch.randn(4, dtype=torch.float64)
    own = {name: p.detach() + shifts.view(-1, *[1] * p.dim()) for name, p in together.named_parameters()}
    found = torch.func.vmap(lambda weights, x: functional_call(together, weights, (x,)))(own, x)
    for t in range(4):
        for m in range(M):
            weights = member({name: tensor[t] for name, tensor in own.items()}, m)
            torch.testing.assert_close(found[t, :, m : m + 1], functional_call(alone[m], weights, (x[t],)), **CLOSE)


# -- MAML of an ensemble -----------------------------------------------------------------------------------------------


def problem(kind: Any = SineOrLineTasks) -> Problem:
    opened: Problem = kind().open(Place(torch.device("cpu"), torch.float64), lambda _: None)
    return opened


def separate(method: Method, **settings: Any) -> list[Method]:
    """A MAML for each member, from its weights."""
    weights = {name: p.detach().clone() for name, p in method.learner.network.named_parameters()}
    methods = []
    for m in range(M):
        one = Maml(network=NETWORK, **settings).build(problem())
        one.learner.double()
        one.learner.network.load_state_dict(member(weights, m))
        methods.append(one)
    return methods


def meta_gradient(method: Method, tasks: Task) -> dict[str, Tensor]:
    parameters = dict(method.learner.named_parameters())
    objective = method.objective(tasks, None).objective
    return dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 0.05, "steps": 3},
        {"rate": 0.01, "steps": 2, "support_reduction": "sum"},
        {"rate": 0.05, "steps": 3, "first_order": True},
    ],
    ids=["mean", "sum", "first order"],
)
def test_maml_of_an_ensemble_is_a_maml_of_each_member(settings: dict[str, Any]) -> None:
    tasks = problem().source("train", tasks=4, seed=0).batch(0)
    method = Maml(network=NETWORK, members=M, **settings).build(problem())
    method.learner.double()
    alone = separate(method, **settings)

    together = method.adapt(tasks.support)
    adapted = [one.adapt(tasks.support) for one in alone]
    for m, point in enumerate(adapted):
        assert point.value.keys() == member(together.value, 0).keys()
        for name, tensor in point.value.items():
            torch.testing.assert_close(together.value[name][:, m], tensor, **CLOSE)
            moved = tensor - dict(alone[m].learner.network.named_parameters())[name]
            assert moved.abs().max() > 1e-4, "adaptation goes somewhere"
    predictions = [one.predict(point, tasks.query) for one, point in zip(alone, adapted, strict=True)]
    torch.testing.assert_close(method.predict(together, tasks.query), side_by_side(predictions), **CLOSE)

    gradients = [meta_gradient(one, tasks) for one in alone]
    for name, found in meta_gradient(method, tasks).items():
        expected = torch.stack(
            [
                of_one[name[: len("network.")] + member({name: found}, 0, "network.").popitem()[0]]
                for of_one in gradients
            ]
        )
        torch.testing.assert_close(found, expected, **CLOSE)

    # What is logged: the members' losses added up, and the error of their mean.
    estimate = method.estimate(tasks, None)
    torch.testing.assert_close(estimate.objective, sum(one.estimate(tasks, None).objective for one in alone), **CLOSE)
    mean = torch.stack(predictions).mean(0)
    torch.testing.assert_close(estimate.metrics["mse"], (mean - tasks.query.y).square().mean((1, 2)), **CLOSE)


def test_executors_agree_on_an_ensemble() -> None:
    tasks = problem().source("train", tasks=3, seed=0).batch(0)
    method = Maml(network=NETWORK, members=M, rate=0.05).build(problem())
    method.learner.double()
    vmapped, chunked, looped = (
        method.estimate(tasks, None, executor).objective for executor in (Vmap(), Vmap(2), Loop())
    )
    torch.testing.assert_close(chunked, vmapped, **CLOSE)
    torch.testing.assert_close(looped, vmapped, **CLOSE)


# -- as a module -------------------------------------------------------------------------------------------------------


def test_weights_are_kept_copied_and_moved() -> None:
    (one, _), (other, _) = ensemble(2, 4, 1), ensemble(2, 4, 1)
    x = torch.randn(5, 2, dtype=torch.float64)
    assert {name: p.shape for name, p in one.named_parameters()} == {
        "0.weight": (M, 4, 2),
        "0.bias": (M, 4),
        "2.weight": (M, 1, 4),
        "2.bias": (M, 1),
    }
    assert one.state_dict().keys() == dict(one.named_parameters()).keys(), "the shape's own weights are nobody's"
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(load(save(one.state_dict())))
    assert torch.equal(one(x), other(x))

    copied = copy.deepcopy(one)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert torch.equal(one(x), other(x))
    assert not copied(x).any()

    before = other(x)
    single = one.to(torch.float32)(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), before, rtol=1e-5, atol=1e-6)
    assert one.to("meta")(x.float().to("meta")).shape == (5, M)


def test_one_member_is_a_network() -> None:
    together, (alone,) = ensemble(2, 4, 3, members=1)
    x = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(together(x), alone(x), **CLOSE)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    members, y = np.random.default_rng(0).normal(size=(4, M, 2)), np.random.default_rng(1).normal(size=(4, 2))
    each, mean = [], []
    for row in range(4):
        each.append(sum(((members[row, m] - y[row]) ** 2).mean() for m in range(M)))
        mean.append(((sum(members[row, m] for m in range(M)) / M - y[row]) ** 2).mean())
    prediction, target = torch.from_numpy(members).flatten(1), torch.from_numpy(y)
    assert squared_error_of_each(prediction, target).tolist() == pytest.approx(each)
    assert squared_error_of_the_mean(prediction, target).tolist() == pytest.approx(mean)


# -- refusals ----------------------------------------------------------------------------------------------------------


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "no members": (lambda: Ensemble(lambda: mlp((1, 1)), 0), "Ensemble: at least one member is needed, got 0."),
    "buffers": (
        lambda: Ensemble(lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 2),
        "Ensemble: members with buffers (1.running_mean, 1.running_var, 1.num_batches_tracked) are not stacked.",
    ),
    "classification": (
        lambda: Maml(network=NETWORK, rate=0.1, members=2).build(Problem(lambda: None, (4,), 5, {})),  # type: ignore
        "an ensemble predicts regression targets; for classification leave method.members out.",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals(kind: str) -> None:
    make, message = REFUSALS[kind]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_any_regression_takes_an_ensemble() -> None:
    tasks = problem(SinusoidTasks).source("train", tasks=2, seed=0).batch(0)
    method = Maml(network=NETWORK, members=2, rate=0.01).build(problem(SinusoidTasks))
    method.learner.double()
    assert isinstance(tasks.query, Batch)
    assert method.predict(method.adapt(tasks.support), tasks.query).shape == (2, 10, 2)
