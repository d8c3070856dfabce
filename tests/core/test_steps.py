"""What goes by the inner step or by how far training has come: norms of each step, losses that fade, orders."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from torch import Tensor, nn

from fewstep.algorithms import fomaml, maml, maml_plus_plus
from fewstep.core import SGD, Descend, Fading, Learner, Loop, Method, MultiStep, Params, Shared, Task, Vmap, regression
from fewstep.data import Sinusoids
from fewstep.networks import StepwiseBatchNorm, mlp
from fewstep.training import Training
from fewstep.training.trainer import Trainer


def stepwise(steps: int) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(6, 5), StepwiseBatchNorm(5, steps), nn.LeakyReLU(0.01), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network


def of_network(method: Method, tasks: Task) -> list[Tensor]:
    """The objective, and the mean meta-gradients of the network's parameters."""
    objective = method.objective(tasks, None).objective
    return [objective.detach(), *torch.autograd.grad(objective, list(method.learner.network.parameters()))]


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, [0.2] * 5),
        (5, [0.133333] * 4 + [0.466667]),
        (14, [0.013333] * 4 + [0.946667]),
        (15, [0.0] * 4 + [1.0]),
        (99, [0.0] * 4 + [1.0]),
    ],
)
def test_weights_of_steps_fade(epoch: int, expected: Sequence[float]) -> None:
    fading = Fading(steps=5, fades=15)
    for progress in (500 * epoch / 50_000, (500 * epoch + 499) / 50_000):
        found = fading(torch.tensor(progress))  # of 32 bits: the first step of an epoch is not in the one before
        torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)
    floor = Fading(steps=5, fades=100)(torch.tensor(0.99))
    torch.testing.assert_close(floor, torch.tensor([0.006] * 4 + [0.976]), rtol=0, atol=1e-6)


def test_a_loss_after_every_step_in_a_network_that_knows_the_step_by_hand() -> None:
    """A loop over tasks and steps: the support of step k sees γ_k, β_k, and so does the query after it."""
    steps, tasks, network = 3, classification_tasks(6, shots=3), stepwise(2)
    tasks.support.weight[:] = 1
    method = maml_plus_plus(network, rate=0.4, steps=steps, adapts=["0.weight", "0.bias", "3.weight", "3.bias"])
    method.learner.double()
    method.learner.progress.fill_(0.06)
    rates = [rule.rates for rule in method.learner.stages[0].rule.rules]
    with torch.no_grad():
        for rate in rates:
            for parameter in rate.parameters():
                parameter += 0.2 * torch.rand_like(parameter)
    p = dict(network.named_parameters())

    def forward(phi: Params, x: Tensor, step: int) -> Tensor:
        step = min(step, 1)  # the network has two
        h = F.linear(x, phi["0.weight"], phi["0.bias"])
        h = F.batch_norm(h, None, None, p["1.weight"][step], p["1.bias"][step], training=True)
        return F.linear(F.leaky_relu(h, 0.01), phi["3.weight"], phi["3.bias"])

    total = torch.tensor(0.0).double()
    for t in range(4):
        phi = {name: p[name] for name in ("0.weight", "0.bias", "3.weight", "3.bias")}
        for k, weight in enumerate([0.2, 0.2, 0.6]):  # (1 − 6/15)/3
            loss = F.cross_entropy(forward(phi, tasks.support.x[t], k), tasks.support.y[t].argmax(1))
            slopes = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {n: v - rates[k].get_parameter(n) * g for (n, v), g in zip(phi.items(), slopes, strict=True)}
            query = F.cross_entropy(forward(phi, tasks.query.x[t], k), tasks.query.y[t].argmax(1))
            total = total + weight * query / 4
    parameters = list(method.learner.parameters())
    expected = [total.detach(), *torch.autograd.grad(total, parameters)]
    for executor in (Vmap(), Loop()):
        objective = method.objective(tasks, None, executor).objective
        found = [objective.detach(), *torch.autograd.grad(objective, parameters)]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)

    points = method.adapt(tasks.support)
    assert points.context["1.step"].tolist() == [2.0] * 4
    torch.testing.assert_close(
        method.predict(points, tasks.query)[-1], forward(phi, tasks.query.x[-1], 2), rtol=1e-9, atol=1e-11
    )


def test_with_equal_rates_and_the_last_loss_alone_it_is_maml() -> None:
    tasks, network = classification_tasks(6), mlp((6, 5, 3), norm=True).double()
    method = maml_plus_plus(network, rate=0.3, steps=3)
    method.learner.double()
    method.learner.progress.fill_(0.15)
    torch.testing.assert_close(
        of_network(method, tasks), of_network(maml(network, rate=0.3, steps=3), tasks), rtol=1e-10, atol=1e-12
    )


def test_second_derivatives_begin_at_a_part_of_training() -> None:
    tasks, network = classification_tasks(6), mlp((6, 5, 3), norm=True).double()
    method = maml_plus_plus(network, rate=0.3, steps=3, fades=0, first_order_until=0.5)
    method.learner.double()
    for progress, other in ((0.49, fomaml), (0.5, maml)):
        method.learner.progress.fill_(progress)
        expected = of_network(other(network, rate=0.3, steps=3), tasks)
        torch.testing.assert_close(of_network(method, tasks), expected, rtol=1e-10, atol=1e-12)


def test_as_many_weights_as_steps() -> None:
    learner = Learner(mlp((6, 5, 3)), Shared(), [Descend(SGD(0.1), 2)])
    with pytest.raises(ValueError, match="3 weights were given for 2 inner steps"):
        Method(learner, MultiStep(Fading(3, 15)))
    with pytest.raises(ValueError, match="one inner step or more, got 0"):
        StepwiseBatchNorm(4, steps=0)


# -- the outer loop ----------------------------------------------------------------------------------------------------


def train(folder: Path, source: Sinusoids) -> Trainer:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 6), StepwiseBatchNorm(6, 2), nn.ReLU(), nn.Linear(6, 1))
    method = maml_plus_plus(network, rate=0.05, steps=2, fades=3, epochs=6, first_order_until=0.5, loss=regression())
    outer = {"steps": 6, "tasks": 2, "rate": 0.01, "decay": "cosine", "rate_floor": 0.002}
    options = Training(**outer, checkpoint_every=3, validate_every=6, compile="off")  # type: ignore[arg-type]
    return Trainer(method, source, options, lambda m: 0.0, folder=folder, higher_is_better=False)


def test_training_says_how_far_it_has_come_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    source, seen = Sinusoids(shots=6, queries=5, tasks=2, seed=0), []
    whole = train(tmp_path / "whole", source)
    for _ in range(6):
        whole.advance()
        seen.append(whole.method.learner.progress.item())
    assert seen == pytest.approx([i / 6 for i in range(6)])
    first = train(tmp_path / "parts", source)
    for _ in range(3):
        first.advance()
    second = train(tmp_path / "parts", source)
    assert second.state.step == 3
    for _ in range(3):
        second.advance()
    expected, found = (run.method.learner.state_dict() for run in (whole, second))
    assert not [name for name in expected if "progress" in name or name.endswith("step")]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_outer_rate_falls_to_its_floor() -> None:
    for decay in ("linear", "cosine"):
        options = Training(steps=10, rate=0.1, decay=decay, rate_floor=0.02)  # type: ignore[arg-type]
        assert [options.rate_at(step) for step in (0, 5, 10)] == pytest.approx([0.1, 0.06, 0.02])
