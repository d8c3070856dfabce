"""Contexts that are encoded from the support, and the variational bound, beside torch's distributions."""

import math

import numpy as np
import pytest
import torch
from cases import classification_tasks, regression_tasks
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_map

from fewstep.algorithms import cnp, maml, neural_process
from fewstep.core import (
    SGD,
    Backprop,
    Batch,
    Descend,
    Encoded,
    Learner,
    Method,
    Mixture,
    Task,
    Zeros,
    classification,
    generator,
    normal_regression,
    regression,
)
from fewstep.core.normal import divergence, log_density
from fewstep.evaluation.functions import Functions
from fewstep.networks import mlp

SIZES = {"width": 4, "hidden": 6, "encoder_depth": 2, "decoder_depth": 2}


def process(**options: int) -> Method:
    torch.manual_seed(0)
    method = neural_process(1, 1, **{"latents": 3} | SIZES | options)
    method.learner.double()
    return method


def of(task: int, tasks: Task) -> Task:
    return tree_map(lambda t: t[task], tasks)


def by_hand(method: Method, task: Task, drawn: Tensor) -> Tensor:
    """The objective of one task, by the modules of its start and its network and torch's distributions."""
    start, network = method.learner.start, method.learner.network
    assert isinstance(start, Encoded)
    pairs = {name: torch.cat([batch.x, batch.y], 1) for name, batch in zip(("S", "Q"), task, strict=True)}
    both = torch.cat([pairs["S"], pairs["Q"]])

    def q(rows: Tensor) -> Normal:
        mean, raw = start.moments(start.latent(rows).mean(0)).chunk(2)
        return Normal(mean, 0.1 + 0.9 * torch.sigmoid(raw))

    prior, posterior = q(pairs["S"]), q(both)
    context = torch.cat([start.encoder(pairs["S"]).mean(0), posterior.mean + posterior.stddev * drawn])
    rows = torch.cat([both[:, :1], context.expand(len(both), -1)], 1)
    for layer in list(network)[1:]:  # the first one adds the context
        rows = layer(rows)
    likelihood = Normal(rows[:, 0], 0.1 + 0.9 * torch.log1p(rows[:, 1].exp())).log_prob(both[:, 1])
    return -(likelihood - kl_divergence(posterior, prior).sum() / len(both)).mean()


@pytest.mark.parametrize("smooth", [False, True])
def test_a_neural_process_is_the_bound_of_its_program(smooth: bool) -> None:
    method, tasks = process(smooth=smooth), regression_tasks()
    between = {type(module) for module in method.learner.modules()} & {nn.ReLU, nn.GELU}
    assert between == {nn.GELU if smooth else nn.ReLU}
    noise = method.noise(tasks, generator(0, 0, "noise"))
    drawn = noise["begin"]["start"]["code"]
    expected = torch.stack([by_hand(method, of(i, tasks), drawn[i]) for i in range(4)]).mean()
    found = method.objective(tasks, noise).objective
    parameters = list(method.learner.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(objective, parameters) for objective in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_likelihood_by_samples_is_of_their_mixture(weighted: bool) -> None:
    method, tasks = process(width=0, samples=3, weighted=weighted), regression_tasks()
    start, network = method.learner.start, method.learner.network
    assert isinstance(start, Encoded)
    noise = method.noise(tasks, generator(0, 0, "noise"))

    def likelihood(rows: Batch, code: Tensor) -> Tensor:
        h = torch.cat([rows.x, code.expand(len(rows.x), -1)], 1)
        for layer in list(network)[1:]:  # the first one adds the context
            h = layer(h)
        return Normal(h[:, 0], 0.1 + 0.9 * torch.log1p(h[:, 1].exp())).log_prob(rows.y[:, 0]).sum()

    losses = []
    for i, drawn in enumerate(noise["copies"]["begin"]["start"]["code"]):
        support, query = of(i, tasks)
        mean, raw = start.moments(start.latent(torch.cat([support.x, support.y], 1)).mean(0)).chunk(2)
        codes = mean + (0.1 + 0.9 * torch.sigmoid(raw)) * drawn
        weights = torch.stack([weighted * likelihood(support, code) for code in codes]).exp()
        p = torch.stack([likelihood(query, code) for code in codes]).exp()
        losses.append(-(weights @ p / weights.sum()).log() / len(query.x))
    expected, found = torch.stack(losses).mean(), method.objective(tasks, noise).objective
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"latents": 0, "samples": 2}, {"samples": 0, "weighted": True}])
def test_samples_are_of_codes_and_weights_of_samples(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="samples are of codes, and weights are of samples"):
        process(**options)


def test_divergence_and_bound_have_the_known_values() -> None:
    """Of the reference notes: two latents, and two targets of one density each."""
    one, other = (0.1 + 0.9 * torch.sigmoid(torch.tensor(raw).double()) for raw in ([0.2, -0.4], [0.0, 0.0]))
    mean, origin = torch.tensor([0.3, -0.1]).double(), torch.tensor([0.0, 0.2]).double()
    kl = divergence(mean, one, origin, other).sum()
    assert kl.item() == pytest.approx(0.331678, abs=5e-7)
    density = log_density(*(torch.tensor(number).double() for number in (1.0, 0.8, 0.5)))
    assert (kl / 2 - density).item() == pytest.approx(0.471630, abs=5e-7)


def test_by_class_a_context_is_the_means_of_all_classes_and_zeros_where_there_is_no_row() -> None:
    method, support = cnp(6, 3, by_class=True, loss=classification(), **SIZES), classification_tasks(6).support
    method.learner.double()
    first = tree_map(lambda t: t[:1].clone(), support)
    labels = first.y[0].argmax(1)
    first.weight[0, labels == 1] = 0
    start = method.learner.start
    assert isinstance(start, Encoded)
    encoded = [start.encoder(row).detach() for row in first.x[0]]
    kept = {label: [encoded[i] for i in torch.nonzero((labels == label) & (first.weight[0] > 0))] for label in range(3)}
    assert [len(rows) for rows in kept.values()] == [2, 0, 1]
    means = [sum(rows) / len(rows) if rows else torch.zeros(4).double() for rows in kept.values()]
    torch.testing.assert_close(method.adapt(first).value["0.context"][0], torch.cat(means), rtol=1e-12, atol=1e-14)


def test_numbers_have_no_classes_to_be_encoded_apart() -> None:
    with pytest.raises(ValueError, match="by_class is for rows that have classes"):
        cnp(1, 1, by_class=True)


def test_order_and_copies_of_the_whole_support_change_nothing_and_a_copy_of_one_row_does() -> None:
    method, support = process(), regression_tasks().support
    order = [3, 1, 4, 0, 2]
    context = method.adapt(support).value["0.context"]
    for rows, same in ((order, True), ([*order, *range(5)], True), ([*order, 2], False)):
        other = method.adapt(tree_map(lambda t, rows=rows: t[:, rows], support)).value["0.context"]
        assert torch.allclose(context, other, rtol=1e-12, atol=1e-14) == same


def test_without_noise_codes_are_the_means_of_the_prior_and_with_it_they_spread() -> None:
    method, tasks = process(), regression_tasks()
    start = method.learner.start
    assert isinstance(start, Encoded)
    pairs = torch.cat([tasks.support.x, tasks.support.y], 2)
    mean, raw = start.moments(start.latent(pairs).mean(1)).chunk(2, 1)
    torch.testing.assert_close(method.adapt(tasks.support).value["0.context"][:, 4:], mean.detach())
    many = Functions(method, samples=2000).adapt(tasks.support).points.value["0.context"][:, 4:].unflatten(0, (4, 2000))
    torch.testing.assert_close(many.std(1), 0.1 + 0.9 * raw.sigmoid().detach(), rtol=0.1, atol=0)


def test_a_conditional_process_has_nothing_to_draw_and_costs_no_divergence() -> None:
    method, tasks = cnp(1, 1, **SIZES), regression_tasks()
    method.learner.double()
    noise = method.noise(tasks, generator(0, 0, "noise"))
    drawn, still = method.objective(tasks, noise), method.objective(tasks, None)
    assert set(drawn.metrics) == {"loss", "mse"}
    torch.testing.assert_close(drawn.objective, still.objective)
    both = tree_map(lambda *pair: torch.cat(pair, 1), *tasks)
    mean, deviation = method.learner.loss.readout(method.predict(method.adapt(tasks.support), both))
    expected = -Normal(mean, deviation).log_prob(both.y).mean()
    torch.testing.assert_close(still.objective, expected)


def test_samples_of_the_prior_can_be_trained_together() -> None:
    """Another estimator does not ask for the posterior: −log of the mean likelihood, of codes of the support alone."""
    method, tasks = process(), regression_tasks()
    method = Method(method.learner, Mixture(samples=3))
    noise = method.noise(tasks, generator(0, 0, "noise"))
    found = method.objective(tasks, noise)
    assert set(found.metrics) == {"loss", "mse", "effective_samples"}
    likelihoods = []
    for m in range(3):
        one = tree_map(lambda t, m=m: t[:, m], noise["copies"])
        points = method.adapt(tasks.support, noise=one)
        prediction = method.predict(points, tasks.query)
        rows = method.learner.loss.rows(prediction.flatten(0, 1), tasks.query.y.flatten(0, 1)).view(4, 5)
        likelihoods.append(-rows.sum(1))
    together = torch.stack(likelihoods).logsumexp(0) - math.log(3)
    torch.testing.assert_close(found.objective, -together.mean() / 5)


def test_steps_go_on_from_the_encoding() -> None:
    """With an encoder of zeros that is CAVIA."""
    tasks, encoder = regression_tasks(), nn.Linear(2, 2).double()
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    torch.manual_seed(0)
    network, descent = mlp((1, 5, 1), context=2).double(), [Descend(SGD(0.3), 2)]
    learners = [Learner(network, start, descent, loss=regression()) for start in (Encoded(encoder), Zeros())]
    found = [Method(learner, Backprop()).objective(tasks, None).objective for learner in learners]
    torch.testing.assert_close(*found)


def test_support_rows_of_a_network_that_answers_row_by_row_count_as_the_querys() -> None:
    tasks = regression_tasks()
    learner = maml(mlp((1, 5, 1)).double(), rate=0.1, loss=regression()).learner
    both = Task(tasks.support, Batch(*(torch.cat(pair, 1) for pair in zip(*tasks, strict=True))))
    found, expected = Method(learner, Backprop(support_rows=True)), Method(learner, Backprop())
    torch.testing.assert_close(found.objective(tasks, None).objective, expected.objective(both, None).objective)


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is encoded"):
        Encoded(None)
    with pytest.raises(ValueError, match="needs all of latent, moments and latents"):
        Encoded(None, nn.Linear(2, 3))
    with pytest.raises(ValueError, match="must have a Contextual layer"):
        Learner(mlp((1, 5, 1)), Encoded(nn.Linear(2, 2)), [])
    two = nn.Sequential(*mlp((1, 5), context=2), *mlp((5, 1), context=2))
    with pytest.raises(ValueError, match=r"it fills one context, but the network reads 0\.context, 2\.context"):
        Learner(two, Encoded(nn.Linear(2, 2)), [])
    method = Method(Learner(mlp((1, 5, 1), context=3), Encoded(nn.Linear(2, 2)), [], loss=regression()), Backprop())
    with pytest.raises(ValueError, match=r"reads a context of 3 numbers, but 2 are encoded: make it with context=2"):
        method.adapt(tree_map(Tensor.float, regression_tasks().support))
    with pytest.raises(ValueError, match="floor is a deviation between 0 and 1, got 0"):
        normal_regression(floor=0.0)


def test_deviations_that_are_predicted_reach_the_functions() -> None:
    method, tasks = process(), regression_tasks()
    ((values, spread),) = Functions(method, samples=3).read(tasks, tasks.query.x[..., 0])
    assert spread is not None
    assert values.shape == spread.shape == (4, 3, 5)
    (only,) = Functions(method, samples=3)(tasks, tasks.query.x[..., 0])
    np.testing.assert_array_equal(only, values)
    assert (spread > 0.1).all()
