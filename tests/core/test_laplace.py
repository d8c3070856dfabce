"""Laplace's approximation: K-FAC held against equations that share no code with it, and LLAMA against what it is."""

import math
from collections.abc import Callable

import pytest
import torch
from cases import classification_tasks, conv, images, vectors
from torch import Tensor, nn

from fewstep.algorithms import llama, maml
from fewstep.core import SGD, Backprop, Batch, Descend, Laplace, Learner, Loss, Method, Point, Shared, Task, regression
from fewstep.core.network.taps import taps
from fewstep.networks import mlp

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
WEIGHT = torch.tensor([[0.2, -0.1], [0.4, 0.3]], dtype=torch.float64)
ROWS = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1], [0.2, 0.1]], dtype=torch.float64)


def linear() -> Method:
    return llama(nn.Linear(2, 2, bias=False).double(), rate=0.1)


@pytest.mark.parametrize(("exact", "expected"), [(False, -6.431753), (True, -11.339756)], ids=["K-FAC", "exact"])
@pytest.mark.parametrize("padding", [0, 2])
def test_log_determinant_of_a_softmax_layer(exact: bool, expected: float, padding: int) -> None:
    rows = torch.cat([ROWS, 9 * torch.ones(padding, 2).double()])
    weight = torch.cat([torch.ones(4), torch.zeros(padding)]).double()
    point, query = Point({"weight": WEIGHT}, {}), Batch(rows, torch.eye(2).double()[[0] * len(rows)], weight)
    found = Laplace(1.0, damping=0.1, exact=exact).log_det(linear().learner, point, query)
    assert found.item() == pytest.approx(expected, abs=5.01e-7)


def errors_of(network: nn.Module, x: Tensor, layers: list[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of layers and, by torch's own hooks and tape, ``p_n ∂(−log p_n)`` at their outputs, for each n alone."""
    inputs, outputs = [], []
    hooks = [
        one.register_forward_hook(lambda _, given, out: (inputs.append(given[0]), outputs.append(out), None)[2])
        for one in layers
    ]
    logits = network(x)
    for hook in hooks:
        hook.remove()
    p = logits.softmax(1).detach()
    found = []
    for n in range(logits.shape[1]):
        loss = -(p[:, n].sqrt() * logits.log_softmax(1)[:, n]).sum()
        found.append(torch.autograd.grad(loss, outputs, retain_graph=True))
    return inputs, [torch.stack(of_layer) for of_layer in zip(*found, strict=True)]


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_log_determinant_is_that_of_the_kronecker_products(kind: str) -> None:
    """Of every layer the matrix itself; patches of a convolution one by one."""
    torch.manual_seed(0)
    network = (
        mlp((6, 4, 3), norm=True)
        if kind == "mlp"
        else nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    ).double()
    x = torch.randn(5, *((6,) if kind == "mlp" else (1, 4, 4)), dtype=torch.float64)
    layers = [layer for layer in network if isinstance(layer, nn.Linear | nn.Conv2d)]
    inputs, errors = errors_of(network, x, layers)
    expected = torch.zeros((), dtype=torch.float64)
    for layer, given, error in zip(layers, inputs, errors, strict=True):
        if isinstance(layer, nn.Conv2d):
            padded = nn.functional.pad(given, (1, 1, 1, 1))
            patches = [padded[:, :, i : i + 3, j : j + 3].flatten(1) for i in (0, 2) for j in (0, 2)]
            a = sum(one.T @ one for one in (torch.cat([p, torch.ones(5, 1).double()], 1) for p in patches)) / 5
            flat = error.movedim(2, -1).reshape(-1, 2)
            g = flat.T @ flat / (5 * 4)
        else:
            one = torch.cat([given, torch.ones(5, 1).double()], 1)
            a, flat = one.T @ one / 5, error.flatten(0, 1)
            g = flat.T @ flat / 5
        damped = [matrix + 0.2 * torch.eye(len(matrix)).double() for matrix in (a, g)]
        expected = expected + torch.linalg.slogdet(torch.kron(*damped)).logabsdet
    value = {name: p.detach() for name, p in network.named_parameters()}
    query = Batch(x, torch.eye(3).double()[[0] * 5], torch.ones(5).double())
    found = Laplace(1.0, damping=0.2).log_det(llama(network, rate=0.1).learner, Point(value, {}), query)
    torch.testing.assert_close(found, expected.detach(), **CLOSE)


def test_of_least_squares_errors_are_of_variance_one() -> None:
    """``A ⊗ I``: nothing that is learned can change G."""
    x = torch.randn(6, 3, dtype=torch.float64)
    layer = nn.Linear(3, 2, bias=False).double()
    learner = llama(layer, rate=0.1, loss=regression()).learner
    query = Batch(x, torch.zeros(6, 2).double(), torch.ones(6).double())
    found = Laplace(1.0, damping=0.1).log_det(learner, Point({"weight": layer.weight.detach()}, {}), query)
    a = x.T @ x / 6 + 0.1 * torch.eye(3).double()
    expected = torch.linalg.slogdet(torch.kron(1.1 * torch.eye(2).double(), a)).logabsdet
    torch.testing.assert_close(found, expected, **CLOSE)


def test_layers_that_do_not_adapt_have_no_part() -> None:
    """The last layer's information alone, where it alone moves."""
    torch.manual_seed(0)
    network, tasks = mlp((6, 4, 3)).double(), vectors()
    value = {name: p.detach() for name, p in network.named_parameters() if name.startswith("2.")}
    one = Batch(*(t[1] for t in tasks.query))
    (tap,) = taps(network, Point(value, {}), one.x, one.weight, lambda prediction: prediction.unsqueeze(0))
    assert tap.inputs.shape == (9, 1, 5)
    assert tap.errors.shape == (1, 9, 1, 3)


@pytest.mark.parametrize("tasks", [vectors, images])
def test_with_weight_zero_it_is_maml_and_beside_it_the_weight_is_a_factor(tasks: Callable[[], Task]) -> None:
    torch.manual_seed(0)
    network, given = (mlp((6, 4, 3), norm=True) if tasks is vectors else conv()).double(), tasks()
    parameters = list(network.parameters())

    def gradients(method: Method) -> list[Tensor]:
        return list(torch.autograd.grad(method.objective(given, None).objective, parameters))

    plain, none, some, more = (
        gradients(method)
        for method in (
            maml(network, rate=0.2, steps=2),
            *(llama(network, rate=0.2, steps=2, weight=w, damping=0.1) for w in (0.0, 0.1, 0.3)),
        )
    )
    torch.testing.assert_close(none, plain, **CLOSE)
    torch.testing.assert_close(
        [b - a for a, b in zip(plain, more, strict=True)],
        [3 * (b - a) for a, b in zip(plain, some, strict=True)],
        rtol=1e-8,
        atol=1e-11,
    )
    assert max(float((b - a).abs().max()) for a, b in zip(plain, some, strict=True)) > 1e-4


def test_steps_of_linear_regression_end_at_the_most_probable_weights() -> None:
    """K steps are the posterior mean of a normal prior about θ, and Laplace's approximation is then exact."""
    x = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1]], dtype=torch.float64)
    y = torch.tensor([1.2, -0.4, 0.9], dtype=torch.float64)
    network = nn.Linear(2, 1, bias=False).double()
    network.weight.data = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    halves = Loss(lambda prediction, target: 0.5 * (prediction - target).square().sum(-1), support="sum")
    learner = Learner(network, Shared(), [Descend(SGD(0.1), 3)], loss=halves)
    rows = Batch(x[None], y[None, :, None], torch.ones(1, 3).double())
    end = learner.adapt(Batch(*(t[0] for t in rows)))[0].value["weight"][0]
    torch.testing.assert_close(end, torch.tensor([0.636377, -0.146809]).double(), rtol=0, atol=5.01e-7)
    values, vectors_ = torch.linalg.eigh(x.T @ x)
    prior = vectors_ @ torch.diag(((1 - 0.1 * values) ** -3 - 1) / values) @ vectors_.T
    theta = network.weight.detach()[0]
    evidence = torch.distributions.MultivariateNormal(x @ theta, torch.eye(3).double() + x @ prior @ x.T).log_prob(y)
    information = x.T @ x + torch.linalg.inv(prior)
    laplace = (
        -0.5 * (y - x @ end).square().sum()
        + torch.distributions.MultivariateNormal(theta, prior).log_prob(end)
        - 1.5 * math.log(2 * math.pi)
        - 0.5 * torch.linalg.slogdet(information / (2 * math.pi)).logabsdet
    )
    assert evidence.item() == pytest.approx(-4.620448, abs=5.01e-7)
    torch.testing.assert_close(laplace, evidence, **CLOSE)
    halved = Loss(lambda prediction, target: 1.5 * (prediction - target).square().sum(-1), support="sum")
    learner.loss = halved  # of three rows: half the sum is 3/2 of the mean
    learner.stages[0].rule.rate = 0.1 / 3
    found = Method(learner, Backprop()).objective(Task(rows, rows), None).objective
    (slope,) = torch.autograd.grad(found, network.weight)
    torch.testing.assert_close(slope[0], torch.tensor([-0.519563, -0.110379]).double(), rtol=0, atol=5.01e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(-1.0, 0.1), "the weight must be at least 0"),
        (lambda: Laplace(1.0, 0.0), "the damping must be positive"),
        (
            lambda: llama(mlp((1, 4, 1)), rate=0.1, loss=Loss(lambda a, b: (a - b).abs().mean(-1))),
            "cross-entropy and of",
        ),
        (lambda: objective(llama(mlp((6, 4, 3)), rate=0.1, exact=True)), "needs a single linear layer"),
        (
            lambda: objective(llama(mlp((6, 4, 3)), rate=0.1, adapts=["0.bias"])),
            "needs a linear layer or a convolution",
        ),
    ],
)
def test_what_has_no_such_information_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def objective(method: Method) -> Tensor:
    method.learner.double()
    return method.objective(classification_tasks(6), None).objective
