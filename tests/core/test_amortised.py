"""A distribution over initialisations: PLATIPUS against numbers by hand, and what it is without a draw."""

import math

import pytest
import torch
from cases import SAMPLED, regression_tasks, vectors
from torch import Tensor, nn

from fewstep.algorithms import maml, platipus
from fewstep.core import (
    SGD,
    Amortised,
    Backprop,
    Batch,
    Descend,
    Learner,
    Loss,
    Method,
    PerStep,
    Shared,
    Task,
    generator,
    regression,
)
from fewstep.evaluation.functions import Functions
from fewstep.networks import mlp

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_objective_and_gradient_of_a_linear_regression() -> None:
    """Support of two rows, query of three, halves of squared errors; every number by numpy, with finite differences."""
    x = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1]], dtype=torch.float64)
    y = values(1.2, -0.4, 0.9).unsqueeze(1)
    rows = [Batch(x[:n][None], y[:n][None], torch.ones(1, n).double()) for n in (2, 3)]
    network = nn.Linear(2, 1, bias=False).double()
    network.weight.data = values(0.3, -0.2)[None]
    halves = Loss(lambda prediction, target: 0.5 * (prediction - target).square().mean(-1))
    method = platipus(network, rate=0.05, prior_rate=0.1, posterior_rate=0.2, kl_weight=0.1, loss=halves)
    start = method.learner.start
    start.get_parameter("log_deviation.weight").data = values(0.5, 0.4).log()[None]
    start.get_parameter("posterior_log_deviation.weight").data = values(0.2, 0.3).log()[None]
    noise = method.noise(Task(*rows), generator(0, 0, "noise"))
    noise["stages"][1]["decode"]["weight"][:] = values(0.7, -1.3)
    found = method.objective(Task(*rows), noise)
    assert found.metrics["kl"].item() == pytest.approx(0.0569806, abs=1e-7)
    assert found.metrics["loss"].item() == pytest.approx(0.248739, abs=5.01e-7)
    assert found.objective.item() == pytest.approx(0.305720, abs=5.01e-7)
    (gradient,) = torch.autograd.grad(found.objective, network.weight)
    torch.testing.assert_close(gradient[0], values(-0.224738, -0.412905), rtol=0, atol=5.01e-7)


def test_without_a_draw_it_is_maml_with_a_prior_step() -> None:
    """Objective and gradients, of γ_p too."""
    torch.manual_seed(0)
    network, tasks = mlp((6, 4, 3), norm=True).double(), vectors()
    method = platipus(network, rate=0.3, steps=2, **SAMPLED)
    method.learner.double()
    rule = PerStep([SGD(0.2), SGD(0.3), SGD(0.3)])
    plain = Method(Learner(network, Shared(), [Descend(rule, 3)]), Backprop())
    both = [one.objective(tasks, None).objective for one in (method, plain)]
    torch.testing.assert_close(*both, **CLOSE)
    gradients = [torch.autograd.grad(objective, list(network.parameters())) for objective in both]
    torch.testing.assert_close(*gradients, **CLOSE)


def test_draws_follow_the_prior_whose_mean_took_its_step_without_them() -> None:
    """Of many samples without steps after the draw: the mean, and σ."""
    torch.manual_seed(0)
    network, one = nn.Linear(1, 1).double(), regression_tasks(tasks=1)
    method = platipus(network, rate=0.1, steps=0, deviation=0.5, prior_rate=0.1, loss=regression())
    method.learner.double()
    many = Batch(*(t.expand(2000, *t.shape[1:]) for t in one.support))
    drawn = method.adapt(many, noise=method.learner.noise(Task(many, many), generator(0, 0, "sample"))).value
    stepped = maml(network, rate=0.1, loss=regression()).adapt(one.support).value
    for name, samples in drawn.items():
        assert samples.std(0).item() == pytest.approx(0.5, rel=0.05)
        assert samples.mean(0).item() == pytest.approx(stepped[name].item(), abs=3 * 0.5 / math.sqrt(2000))


def test_functions_are_samples() -> None:
    method, tasks = platipus(mlp((1, 6, 1)), rate=0.1, loss=regression(), **SAMPLED), regression_tasks()
    method.learner.double()
    (found,) = Functions(method, samples=7)(tasks, tasks.query.x[..., 0])
    assert found.shape == (4, 7, 5)
    assert found.std(1).min() > 1e-3


def test_what_no_posterior_trains_is_refused_by_name() -> None:
    learner = platipus(mlp((6, 3)), rate=0.1).learner
    with pytest.raises(ValueError, match=r"start\.posterior\.rule.*untrained"):
        Method(learner, Backprop())
    with pytest.raises(ValueError, match=r"must be NormalWeights.*it is Shared"):
        Method(maml(mlp((6, 3)), rate=0.1).learner, Amortised())
    with pytest.raises(ValueError, match="at least 0"):
        Amortised(-1.0)
    with pytest.raises(ValueError, match=r"^deviation must be"):
        platipus(mlp((6, 3)), rate=0.1, deviation=0.0)
