"""SVGD, the chaser loss and Bayesian MAML, against loops that share no code with them."""

import math
from collections.abc import Callable

import pytest
import torch
from cases import images, particles, regression_tasks, vectors
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import bayesian_maml
from fewstep.core import SGD, SVGD, Backprop, Chaser, Descend, Learner, Method, Params, Shared, Task, regression
from fewstep.networks import Ensemble, Particle, mlp
from fewstep.networks.particles import classification_of_each, regression_of_each

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def rows(*numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# -- the rule ----------------------------------------------------------------------------------------------------------

PLACES = rows([0.0, 1.0], [0.9, 0.2])
SLOPES = rows([1.0, -1.0], [-0.5, 0.25])  # of log p


def stepped(rule: SVGD, places: Tensor, slopes: Tensor) -> Tensor:
    value = {"w": places[:, :1], "b": places[:, 1]}  # a matrix and a number of each particle
    step, _ = rule.update({"w": -slopes[:, :1], "b": -slopes[:, 1]}, (), value, torch.tensor(0.0))
    return places + torch.cat([step["w"], step["b"].unsqueeze(1)], 1)


@pytest.mark.parametrize(
    ("halved", "directions"),
    [
        (True, rows([0.329943, -0.373143], [-0.017443, -0.095607])),
        (False, rows([0.222385, -0.277537], [0.090115, -0.191213])),
    ],
    ids=["authors", "kernel's derivative"],
)
def test_directions_of_two_particles(halved: bool, directions: Tensor) -> None:
    found = stepped(SVGD(1.0, halved=halved), PLACES, SLOPES) - PLACES
    torch.testing.assert_close(found, directions, rtol=0, atol=5.01e-7)


def test_a_follower_a_leader_and_their_distance() -> None:
    rule = SVGD(0.1, halved=True)
    follower = stepped(rule, PLACES, SLOPES)
    leader = stepped(rule, follower, rows([0.4, -0.3], [-0.1, 0.2]))
    torch.testing.assert_close(follower, rows([0.032994, 0.962686], [0.898256, 0.190439]), rtol=0, atol=5.01e-7)
    torch.testing.assert_close(leader, rows([0.040597, 0.960135], [0.909403, 0.186740]), rtol=0, atol=5.01e-7)
    square = Chaser(Descend(rule, 1))._square({"w": follower}, {"w": leader})
    assert square.item() == pytest.approx(2.02e-4, abs=5.01e-7)


def test_repulsion_is_the_derivative_of_the_kernel() -> None:
    """By differentiation, where no slope pulls; four particles have six distances, and a median of sixteen."""
    places = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    squares = sorted(((a - b) ** 2).sum().item() for a in places for b in places)
    width = (squares[7] + squares[8]) / 2 / math.log(4)
    others = places.clone().requires_grad_()
    kernel = torch.stack([torch.stack([(-((a - b) ** 2).sum() / width).exp() for b in others]) for a in places])
    expected = [torch.autograd.grad(k.sum(), others, retain_graph=True)[0].sum(0) / 4 for k in kernel]
    step, _ = SVGD(1.0).update({"w": torch.zeros(4, 3).double()}, (), {"w": places}, torch.tensor(0.0))
    torch.testing.assert_close(step["w"], torch.stack(expected), **CLOSE)


def test_particles_find_a_posterior() -> None:
    """Twenty particles from far away, on a normal density: its mean, and most of its deviation."""
    rule, value = SVGD(1.0), {"w": torch.linspace(5, 7, 20, dtype=torch.float64)}
    for _ in range(500):
        step, _ = rule.update({"w": (value["w"] - 1) / 4}, (), value, torch.tensor(0.0))
        value = {"w": value["w"] + step["w"]}
    assert value["w"].mean().item() == pytest.approx(1, abs=0.01)
    assert value["w"].std().item() == pytest.approx(2, rel=0.1)


def test_particles_of_one_place_move_alike_and_a_lone_one_by_its_slope() -> None:
    slopes = rows([1.0, -1.0], [1.0, -1.0])
    together = stepped(SVGD(0.5), PLACES[:1].repeat(2, 1), slopes)
    torch.testing.assert_close(together, PLACES[:1].repeat(2, 1) + 0.5 * slopes, **CLOSE)
    torch.testing.assert_close(stepped(SVGD(0.5), PLACES[:1], slopes[:1]), PLACES[:1] + 0.5 * slopes[:1], **CLOSE)


# -- the method --------------------------------------------------------------------------------------------------------


def log_posterior(one: Params, x: Tensor, y: Tensor) -> Tensor:
    """Of one particle, a perceptron with one hidden layer, up to a constant."""
    h = torch.relu(x @ one["network.0.weight"].T + one["network.0.bias"])
    f = h @ one["network.2.weight"].T + one["network.2.bias"]
    gamma, lam = one["log_noise"].exp(), one["log_precision"].exp()
    weights = [t for name, t in one.items() if name.startswith("network.")]
    size = sum(t.numel() for t in weights)
    likelihood = torch.distributions.Normal(f, gamma**-0.5).log_prob(y).sum()
    prior = 0.5 * size * lam.log() - 0.5 * lam * sum((t**2).sum() for t in weights)
    for number, rate in ((gamma, 0.2), (lam, 2.0)):  # of log x the density is x times that of x
        shape, scale = gamma.new_tensor(2.0), gamma.new_tensor(rate)
        prior = prior + torch.distributions.Gamma(shape, scale).log_prob(number) + number.log()
    return likelihood + prior


def moved(theta: list[Params], x: Tensor, y: Tensor, rate: float) -> list[Params]:
    """One step of SVGD with the authors' repulsion, particle by particle."""
    slopes = []
    for one in theta:
        found = torch.autograd.grad(log_posterior(one, x, y), list(one.values()), create_graph=True)
        slopes.append(dict(zip(one, found, strict=True)))
    squares = [[sum(((a[n] - b[n]) ** 2).sum() for n in a) for b in theta] for a in theta]
    listed = sorted(s.item() for row in squares for s in row)
    count = len(listed)
    width = (listed[(count - 1) // 2] + listed[count // 2]) / 2 / math.log(len(theta))
    result = []
    for i, one in enumerate(theta):
        step = {name: torch.zeros_like(t) for name, t in one.items()}
        for j, other in enumerate(theta):
            k = torch.exp(-squares[i][j] / width)
            step = {n: s + k * slopes[j][n] + k * (one[n] - other[n]) / width for n, s in step.items()}
        result.append({n: t + rate / len(theta) * step[n] for n, t in one.items()})
    return result


def chased(theta: list[Params], task: Task, rate: float, steps: int, leader_steps: int) -> Tensor:
    x, y = (getattr(task.support, part) for part in ("x", "y"))
    follower = theta
    for _ in range(steps):
        follower = moved(follower, x, y, rate)
    leader = follower
    for _ in range(leader_steps):
        leader = moved(leader, torch.cat([x, task.query.x]), torch.cat([y, task.query.y]), rate)
    pairs = zip(follower, leader, strict=True)
    return sum(((a[n] - b[n].detach()) ** 2).sum() for a, b in pairs for n in a if "log" not in n)


def test_bayesian_maml_is_a_loop_over_particles() -> None:
    """Objective and every gradient: of weights, of log λ and of log γ."""
    torch.manual_seed(0)
    network, tasks, rate = particles(hidden=4), regression_tasks(tasks=2), 0.02
    method = bayesian_maml(network.double(), rate=rate, steps=2, leader_steps=2, loss=regression_of_each())
    whole = dict(network.named_parameters())
    theta = [{name: t[m] for name, t in whole.items()} for m in range(3)]
    each = [chased(theta, tree_map(lambda t, i=i: t[i], tasks), rate, 2, 2) for i in range(2)]
    expected = torch.stack(each).mean()
    found = method.objective(tasks, None)
    torch.testing.assert_close(found.objective, expected, **CLOSE)
    torch.testing.assert_close(found.metrics["distance"].square(), torch.stack(each), **CLOSE)
    parameters = list(whole.values())
    gradients = torch.autograd.grad(found.objective, parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, parameters), **CLOSE)
    assert all(float(gradient.abs().max()) > 1e-9 for gradient in gradients)


def test_one_particle_climbs_its_log_posterior() -> None:
    """Gradient descent to the most probable weights: MAP."""
    torch.manual_seed(0)
    network = Ensemble(lambda: Particle(mlp((1, 4, 1)), 0.5), 1).double()
    tasks = regression_tasks()
    method = bayesian_maml(network, rate=0.01, steps=3, loss=regression_of_each())
    point = method.adapt(tasks.support).value
    one = {name: p.detach()[0] for name, p in network.named_parameters()}
    x, y = tasks.support.x[0], tasks.support.y[0]
    for _ in range(3):
        one = {name: t.detach().requires_grad_() for name, t in one.items()}
        slopes = torch.autograd.grad(log_posterior(one, x, y), list(one.values()))
        one = {name: t + 0.01 * slope for (name, t), slope in zip(one.items(), slopes, strict=True)}
    torch.testing.assert_close({name: t[0, 0] for name, t in point.items()}, one, **CLOSE)


def test_without_leader_the_query_loss_of_all_particles_is_learned_from() -> None:
    method = bayesian_maml(particles(), rate=0.1, leader_steps=0)
    assert isinstance(method.meta_gradient, Backprop)


# -- the chaser --------------------------------------------------------------------------------------------------------


def test_a_chaser_without_query_rows_is_the_way_that_is_left() -> None:
    """On a quadratic: ``2 (φ_K − φ_{K+S}) ∂φ_K/∂θ``, whatever the labels of a query that has no weight."""
    line, tasks = nn.Linear(1, 1, bias=False).double(), regression_tasks()
    nn.init.ones_(line.weight)
    tasks.query.weight.zero_()
    tasks.query.weight[:, 0] = 1e-300  # a mean of no rows is not a number
    rule = SGD(0.1)
    learner = Learner(line, Shared(), [Descend(rule, 2)], loss=regression("sum"))
    (found,) = torch.autograd.grad(
        Method(learner, Chaser(Descend(rule, 3))).objective(tasks, None).objective, line.weight
    )
    x, y, weight = (t.squeeze(-1) if t.dim() == 3 else t for t in tasks.support)
    curvature, slope = 2 * (weight * x * x).sum(1), 2 * (weight * x * y).sum(1)
    minimum, shrink = slope / curvature, 1 - 0.1 * curvature
    end, beyond = (minimum + shrink**k * (1 - minimum) for k in (2, 5))
    torch.testing.assert_close(found.item(), (2 * (end - beyond) * shrink**2).mean().item(), **CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rule: Method(Learner(nn.Linear(1, 1), Shared(), []), Chaser(Descend(rule, 1))), "one descent"),
        (lambda rule: Method(two_steps(rule), Chaser(Descend(rule, 0))), "the leader one step or more"),
        (
            lambda rule: Method(Learner(nn.Linear(1, 1), Shared(), [Descend(rule, 0)]), Chaser(Descend(rule, 1))),
            "Descend",
        ),
        (lambda rule: SVGD(0.0), "rate must be positive"),
        (lambda rule: SVGD(0.1, bandwidth=-1.0), "bandwidth must be positive"),
        (lambda rule: Learner(mlp((1, 4, 1)), Shared(), [Descend(SVGD(0.1), 1)]), "0.weight 4, 0.bias 4, 2.weight 1"),
        (lambda rule: bayesian_maml(mlp((1, 4, 1))), "one part of the network must be an Ensemble"),
    ],
)
def test_what_cannot_be_chased_or_has_no_particles_is_refused(make: Callable[[SGD], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SGD(0.1))


def two_steps(rule: SGD) -> Learner:
    return Learner(nn.Linear(1, 1), Shared(), [Descend(rule, 2)])


# -- the losses --------------------------------------------------------------------------------------------------------


def test_losses_add_up_over_particles_and_scores_are_of_their_mean() -> None:
    logits, y = torch.randn(5, 6, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    loss = classification_of_each(members=2)
    each = [nn.functional.cross_entropy(one, y.argmax(1), reduction="none") for one in logits.split(3, 1)]
    torch.testing.assert_close(loss.rows(logits, y), sum(each), **CLOSE)
    mean = sum(one.softmax(1) for one in logits.split(3, 1))
    torch.testing.assert_close(loss.answer(logits).exp(), mean / 2, **CLOSE)
    for prediction in (logits, loss.answer(logits)):
        torch.testing.assert_close(loss.score(prediction, y), (mean.argmax(1) == y.argmax(1)).double())
    targets, numbers = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    loss = regression_of_each()
    pairs = [(numbers[:, i : i + 2], numbers[:, i + 2 : i + 4]) for i in (0, 4)]  # means, and log γ
    expected = sum(-torch.distributions.Normal(f, (-g / 2).exp()).log_prob(targets).sum(1) for f, g in pairs)
    torch.testing.assert_close(loss.rows(numbers, targets), expected, **CLOSE)
    torch.testing.assert_close(
        loss.score(numbers, targets), ((pairs[0][0] + pairs[1][0]) / 2 - targets).square().mean(1)
    )


@pytest.mark.parametrize("tasks", [vectors, images])
def test_features_are_shared_and_learned_through_the_particles_steps(tasks: Callable[[], Task]) -> None:
    given = tasks()
    features = nn.Sequential(nn.Flatten(), nn.Linear(given.support.x[0, 0].numel(), 4), nn.ReLU())
    network = nn.Sequential(features, Ensemble(lambda: nn.Linear(4, 3), 2)).double()
    method = bayesian_maml(network, rate=0.1)
    point = method.adapt(given.support)
    assert all(name.startswith("1.") for name in point.value)
    gradients = torch.autograd.grad(method.objective(given, None).objective, list(features.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)
