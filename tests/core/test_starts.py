"""Starts in closed form, between others and around others, against scikit-learn, normal equations and baselines."""

import numpy as np
import pytest
import torch
from cases import classification_tasks, known_vectors
from sklearn.linear_model import Ridge as Reference
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from fewstep.algorithms import dfsl, gaussian_prior, ppa, protonet, r2d2, residual_prototypes
from fewstep.core import (
    SGD,
    Alternatives,
    Attending,
    Backprop,
    Batch,
    Blend,
    ClassPrior,
    Decode,
    Descend,
    KnownTask,
    Learner,
    Method,
    Prototypes,
    Ridge,
    Shifted,
    Task,
)
from fewstep.data import Dataset, EpisodeSampler, KnownTasks, Sinusoids, class_means, l2_normalise
from fewstep.evaluation import centred_nearest_mean, ridge
from fewstep.networks import Generated, mlp


def tasks(shots: int = 2) -> Task:
    """Three classes of six features; with ten shots there are more rows than features."""
    given = classification_tasks(6, shots=shots)
    rows = given.support.x.shape[1]
    weight = given.support.weight * torch.linspace(0.5, 1.5, rows, dtype=torch.float64)  # the first padded row stays 0
    return given._replace(support=given.support._replace(weight=weight))


def of_head(start: Ridge | Prototypes | Blend) -> Method:
    return Method(Learner(Generated(), start.double(), []), Backprop())


@pytest.mark.parametrize("shots", [2, 10])
def test_the_solution_is_that_of_scikit_learn(shots: int) -> None:
    given = tasks(shots)
    start = Ridge(penalty=0.7, scale=2.0)
    found, penalty = of_head(start).adapt(given.support).value, start.log_penalty.exp().item()
    for i, (x, y, weight) in enumerate(zip(*given.support, strict=True)):
        fit = Reference(alpha=penalty).fit(x, y, sample_weight=weight)
        np.testing.assert_allclose(found["weight"][i], 2 * fit.coef_, atol=1e-12)
        np.testing.assert_allclose(found["bias"][i], 2 * fit.intercept_, atol=1e-12)


def test_its_predictions_are_those_of_the_baseline() -> None:
    given = tasks()
    method = of_head(Ridge(penalty=0.3))
    found = method.predict(method.adapt(given.support), given.query)
    torch.testing.assert_close(found, ridge(given.support, given.query, penalty=0.3))


@pytest.mark.parametrize("shots", [2, 10])
def test_r2d2_solves_the_normal_equations_with_a_feature_that_is_one(shots: int) -> None:
    given, network = tasks(shots), mlp((6, 5, None))
    method = r2d2(network, penalty=0.2, scale=3.0)
    method.learner.double()
    found = method.adapt(given.support).value
    for i, (x, y, weight) in enumerate(zip(*given.support, strict=True)):
        features = torch.cat([network(x), torch.ones(len(x), 1)], 1).detach()
        share = torch.diag(weight / weight.sum())
        system = features.T @ share @ features + 0.2 * torch.eye(6)
        solution = torch.linalg.inv(system) @ features.T @ share @ y
        torch.testing.assert_close(found["2.weight"][i], 3 * solution[:-1].T)
        torch.testing.assert_close(found["2.bias"][i], 3 * solution[-1])


def test_what_is_learned_is_positive_and_named() -> None:
    learned = dict(Ridge(penalty=2.0, scale=3.0).named_parameters())
    assert {name: round(p.exp().item(), 4) for name, p in learned.items()} == {"log_penalty": 2.0, "log_scale": 3.0}
    fixed = Ridge(learned=False)
    assert not list(fixed.parameters())
    assert set(fixed.state_dict()) == {"log_penalty", "log_scale"}
    for wrong in ({"penalty": 0.0}, {"scale": -1.0}, {"penalty": float("inf")}):
        with pytest.raises(ValueError, match="must be positive and finite"):
            Ridge(**wrong)


def test_a_scale_multiplies_the_logits_of_prototypes() -> None:
    given = tasks()
    plain, scaled = (of_head(Prototypes((), scale)).adapt(given.support).value for scale in (None, 4.0))
    torch.testing.assert_close(scaled["weight"], 4 * plain["weight"])
    torch.testing.assert_close(scaled["bias"], 4 * plain["bias"])
    with pytest.raises(ValueError, match="must be positive and finite, got 0"):
        Prototypes((), 0.0)


def test_weights_are_predicted_from_activations() -> None:
    """At first φ is the direction of what is positive in a class mean; checked by hand."""
    method = ppa(3)
    method.learner.double()
    labels, weight = torch.eye(2, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    x = torch.tensor([[[2.0, 0, 4], [0, -1, 2], [4, 0, 4]]], dtype=torch.float64)
    point = method.adapt(Batch(x, labels[None, [0, 1, 0]], weight))
    expected = torch.tensor([[0.6, 0, 0.8], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(point.value["weight"][0], expected, rtol=0, atol=5.01e-7)
    query = Batch(torch.tensor([[[1.0, 2, 2], [0, 1, 3]]], dtype=torch.float64), labels[None], weight[:, :2])
    logits = torch.tensor([[[2.2, 2.0], [2.4, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(method.predict(point, query), logits, rtol=0, atol=5.01e-7)
    loss = method.objective(Task(Batch(x, labels[None, [0, 1, 0]], weight), query), None).objective
    assert loss.item() == pytest.approx(0.517813, abs=5.01e-7)


def attending() -> Attending:
    """With the numbers of the witness."""
    start = Attending(3, torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])).double()
    with torch.no_grad():
        start.keys.copy_(torch.eye(3))
        start.asking.weight.copy_(torch.eye(3))
        start.asking.weight[0, 1] = 0.1
        start.mean_gain.copy_(torch.tensor([1.0, 0.9, 1.1]))
        start.attended_gain.copy_(torch.tensor([0.5, 1.0, 1.0]))
    return start


def test_a_cosine_classifier_attends_to_known_classes() -> None:
    start, rows = attending(), torch.tensor([[1.0, 2, 0], [2, 1, 1]], dtype=torch.float64)
    x, ones = rows / rows.norm(dim=1, keepdim=True), torch.ones(2, dtype=torch.float64)
    weight, bias = start.fit(x, ones[:, None], ones)
    made = torch.tensor([0.811557, 1.080456, 0.583941], dtype=torch.float64)
    torch.testing.assert_close(weight[0], 10 * made / made.norm(), rtol=0, atol=6e-6)
    assert not bias.any()
    queries = torch.tensor([[1.0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    queries = queries / queries.norm(dim=1, keepdim=True)
    expected = torch.tensor([[9.088245, 5.0, 7.071068, 8.164966], [3.966792, 7.071068, 0, 5.773503]]).double()
    torch.testing.assert_close(queries @ weight.T, expected[:, :1], rtol=0, atol=2e-6)
    start.others, elsewhere = 1, torch.tensor([3])
    head = start.begin_known(Generated(), Batch(x, ones[:, None], ones), elsewhere, None)[0].value
    found = queries @ head["weight"].T + head["bias"]  # the new class, then those that are known
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_a_tasks_own_classes_are_out_of_sight() -> None:
    """As if the start did not have them; and without any that is known, class means remain."""
    start, labels = attending(), torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]], dtype=torch.float64)
    support = Batch(x, labels, torch.ones(2, dtype=torch.float64))
    learner = Learner(Generated(), start, [])
    seen = [learner.adapt(support, classes=classes)[0].value["weight"] for classes in (None, torch.tensor([0, 2]))]
    without = attending()
    for parameter in (without.weights, without.keys):
        parameter.data = parameter.data[1:2]
    torch.testing.assert_close(seen[1], without.fit(*support)[0])
    assert (seen[0] - seen[1]).abs().max() > 0.1
    absent = attending()
    absent.weights.data[[0, 2]] = 0
    torch.testing.assert_close(absent.fit(*support)[0], seen[1])
    start.others = 1
    head = learner.adapt(support, classes=torch.tensor([0, 2]))[0].value
    answers = (x @ head["weight"].T + head["bias"]).softmax(1)
    assert answers[:, [2, 4]].max() == 0  # after the two of the task, known classes 0 and 2
    assert answers[:, 3].min() > 0
    averaged = Attending(3, 0, scale=2.0).double().fit(*support)[0]
    torch.testing.assert_close(averaged, 2 * x)


def test_tasks_say_which_classes_they_are_of() -> None:
    data = Dataset.from_sorted(torch.arange(60.0).view(60, 1), range(0, 61, 10))
    sampler = EpisodeSampler(data, ways=3, shots=2, queries=2, tasks=4, seed=0)
    known = KnownTasks(sampler)
    task = known.batch(5)
    assert (known.ways, known.tasks) == (3, 4)
    assert torch.equal(task.support.x[..., 0] // 10, task.classes.repeat_interleave(2, 1))
    part, plain = known.batch(5, slice(1, 3)), sampler.batch(5, slice(1, 3))
    assert torch.equal(part.classes, task.classes[1:3])
    assert all(torch.equal(a, b) for a, b in zip((*part.support, *part.query), sum(plain, ()), strict=True))
    with pytest.raises(ValueError, match="the classes of Sinusoids have no numbers; take an EpisodeSampler"):
        KnownTasks(Sinusoids(tasks=4, shots=5, queries=5, seed=0))


def test_rows_of_other_known_classes_stand_beside_a_tasks_own() -> None:
    data = Dataset.from_sorted(torch.arange(60.0).view(60, 1), range(0, 61, 10))
    sampler = EpisodeSampler(data, ways=3, shots=2, queries=2, tasks=4, seed=0)
    known, plain = KnownTasks(sampler, known=5, others=40), KnownTasks(sampler).batch(5)
    task = known.batch(5)
    assert task.query.y.shape == (4, 6 + 40, 3 + 5)
    torch.testing.assert_close(task.query.y[:, :6, :3], plain.query.y)
    torch.testing.assert_close(task.query.x[:, :6], plain.query.x)
    of = task.query.x[:, 6:, 0] // 10
    torch.testing.assert_close(task.query.y[:, 6:].argmax(2), of.long() + 3)
    assert task.query.y.sum(2).eq(1).all()
    assert task.query.weight.eq(1).all()
    for own, others in zip(task.classes.tolist(), of.tolist(), strict=True):
        assert {*others} == {0.0, 1, 2, 3, 4} - {*map(float, own)}  # the sixth is not known
    part = known.batch(5, slice(1, 3))
    assert all(torch.equal(a, b[1:3]) for a, b in zip(part.query, task.query, strict=True))
    assert not torch.equal(known.batch(6).query.x[:, 6:], task.query.x[:, 6:])
    with pytest.raises(ValueError, match="tasks of 3 classes leave none of 3 known ones for other rows"):
        KnownTasks(sampler, known=3, others=1)


def test_meta_training_hides_a_tasks_own_classes() -> None:
    """The objective of known tasks is that with their weights away."""
    method, given = dfsl(6, 5, others=0), tasks()
    method.learner.double()
    classes = torch.tensor([[0, 1, 2], [1, 2, 3], [4, 0, 1], [2, 3, 4]])
    together = method.objective(KnownTask(*given, classes), None).metrics["loss"]
    assert isinstance(method.learner.start, Attending)
    kept = method.learner.start.weights.data.clone()
    for i, own in enumerate(classes):
        method.learner.start.weights.data[own] = 0
        alone = method.objective(Task(*(Batch(*(t[i : i + 1] for t in side)) for side in given)), None).metrics["loss"]
        torch.testing.assert_close(together[i : i + 1], alone)
        method.learner.start.weights.data.copy_(kept)


def test_meta_training_is_among_new_and_known_classes() -> None:
    """The loss by hand: a softmax over a task's own classes and the known ones that it is not of."""
    method, task, unit = dfsl(6, 5, others=4), known_vectors(others=4), nn.functional.normalize
    method.learner.double()
    start = method.learner.start
    assert isinstance(start, Attending)
    found = method.objective(task, None).metrics["loss"]
    for i, own in enumerate(task.classes.tolist()):
        support = Batch(*(t[i] for t in task.support))
        weight, _ = start.fit(unit(support.x, dim=1), support.y, support.weight, task.classes[i])
        left = [c for c in range(5) if c not in own]
        scores = unit(task.query.x[i], dim=1) @ torch.cat([weight, 10 * unit(start.weights[left], dim=1)]).T
        columns = [0, 1, 2, *(3 + c for c in left)]
        expected = nn.functional.cross_entropy(scores, task.query.y[i][:, columns].argmax(1))
        torch.testing.assert_close(found[i], expected.detach(), rtol=1e-6, atol=0)


KNOWN = [[1.0, 0, 2], [3, 1, 0], [2, -1, 1], [2, 0, -1]]


@pytest.mark.parametrize(
    ("covariance", "ridge", "expected"),
    [
        ("isotropic", 0.0, [[2.556865, 0.022884, 0.297126], [1.443135, -0.022884, 0.702874]]),
        ("full", 0.1, [[2.506414, 0.271060, -0.028046], [1.493586, -0.271060, 1.028046]]),
    ],
)
def test_descent_from_a_gaussian_ends_at_the_most_probable_weights(
    covariance: str, ridge: float, expected: list[list[float]]
) -> None:
    """As Newton's method finds them, in a program that shares no code."""
    known = torch.tensor(KNOWN, dtype=torch.float64)
    method = gaussian_prior(known, covariance=covariance, ridge=ridge, rate=0.4, steps=60)  # type: ignore[arg-type]
    x = torch.tensor([[[1.0, 0.5, 0], [0, 1, 1], [1, 1, 1], [-1, 0, 1]]], dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[None, [0, 1, 0, 1]]
    support = Batch(x, y, torch.ones(1, 4, dtype=torch.float64))
    weight = method.adapt(support).value["weight"][0]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5.01e-7)
    torch.testing.assert_close(weight.mean(0), known.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        method.adapt(support._replace(weight=0 * support.weight)).value["weight"][0, 1], known.mean(0)
    )
    with pytest.raises(ValueError, match="covariance of 2 classes' weights is singular; give a ridge"):
        gaussian_prior(known[:2], covariance="full")


def test_a_blend_is_the_weighted_sum_of_its_starts() -> None:
    given = tasks()
    starts = (Prototypes(()), Ridge(0.5, learned=False))
    one, other = (of_head(start).adapt(given.support).value["weight"] for start in starts)
    mixed = of_head(Blend(*starts, shares=(0.25, 0.75))).adapt(given.support).value["weight"]
    torch.testing.assert_close(mixed, 0.25 * one + 0.75 * other)
    torch.testing.assert_close(of_head(Blend(*starts)).adapt(given.support).value["weight"], one)
    with pytest.raises(ValueError, match="got 2 and 1"):
        Blend(*starts, shares=(1.0,))


def probabilities(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def test_without_strength_and_steps_it_is_centred_nearest_class_mean() -> None:
    given, centre = tasks(), torch.randn(6, dtype=torch.float64) / 6
    unit = Task(*(batch._replace(x=l2_normalise(batch.x)) for batch in given))
    expected = 2.0 * centred_nearest_mean(*unit, centre=centre)
    method = residual_prototypes(centre, hidden=4, scale=2.0)
    method.learner.double()
    nn.init.normal_(method.learner.get_parameter("embedding.2.outer.weight"))
    apart = method.predict(method.adapt(given.support), given.query)
    assert not torch.allclose(probabilities(apart), probabilities(expected), atol=1e-3), "the residual does nothing"
    for setting in method.alternatives:
        setting.take(method.learner, next(iter(setting.options)))
    found = method.predict(method.adapt(given.support), given.query)
    torch.testing.assert_close(probabilities(found), probabilities(expected), rtol=0, atol=1e-7)


def test_its_head_may_be_a_ridge_regression_and_its_steps_those_of_descent() -> None:
    given, centre = tasks(), torch.zeros(6, dtype=torch.float64)
    method = residual_prototypes(centre, hidden=4, scale=1.0, steps=1)
    method.learner.double()
    strength, head, rate = method.alternatives
    strength.take(method.learner, "0")
    head.take(method.learner, "ridge 0.3")
    unit = Task(*(batch._replace(x=l2_normalise(batch.x)) for batch in given))
    expected = ridge(*unit, penalty=0.3)
    found = method.predict(method.adapt(given.support), given.query)
    torch.testing.assert_close(found, expected, rtol=0, atol=5.01e-7)
    rate.take(method.learner, "1")
    weight = method.adapt(given.support).value["weight"]
    begun = protonet(Generated()).adapt(unit.support).value  # class means, to be told from
    assert weight.shape == begun["weight"].shape
    rows = Batch(*(tensor[1] for tensor in unit.support))
    still = method.learner.start.begin(Generated(), rows, None)[0].value
    slope = torch.func.grad(
        lambda w: (
            -(rows.weight * ((rows.x @ w.T + still["bias"]).log_softmax(-1) * rows.y).sum(-1)).sum() / rows.weight.sum()
        )
    )(still["weight"])
    torch.testing.assert_close(weight[1], still["weight"] - slope, rtol=0, atol=5.01e-7)


def test_a_prior_is_a_mixture_around_the_classes_that_there_are() -> None:
    """As scikit-learn scores it, up to a constant; on rows that an embedding of rows of length 1 has turned."""
    torch.manual_seed(0)
    means, classes = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = nn.Linear(3, 3, bias=False).double()
    turned.weight.data.copy_(turn)
    prior = ClassPrior(torch.cat([classes, torch.zeros(2, 3)]), sharpness=0.7, embedding=turned).double()
    mixture = GaussianMixture(5, covariance_type="spherical")
    mixture.weights_, mixture.means_ = np.full(5, 0.2), (classes @ turn.T).numpy()
    mixture.precisions_cholesky_ = np.full(5, np.sqrt(1.4))
    expected = -mixture.score_samples(means.numpy()) / 1.4
    found = np.array([prior(mean[None], prior.embedded()).item() for mean in means])
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-7)
    assert prior(means, prior.embedded()).item() == pytest.approx(found.sum())
    assert {*prior.state_dict()} == {"classes", "sharpness"}
    assert not [*prior.parameters()], "the embedding is the learner's"


@pytest.mark.parametrize("latents", [None, 2])
def test_a_step_in_codes_moves_class_means_by_the_gradients_of_support_and_prior(latents: int | None) -> None:
    given, classes = tasks(), torch.randn(5, 6, dtype=torch.float64)
    decoder = None if latents is None else torch.randn(6, latents, dtype=torch.float64)
    start = Shifted(Prototypes((), 2.0), decoder, prior=ClassPrior(classes, sharpness=0.5)).double()
    method = Method(Learner(Generated(), start, [Descend(SGD(0.3), 1), Decode()]), Backprop())
    found = method.adapt(given.support).value
    spanned = torch.eye(6, dtype=torch.float64) if decoder is None else decoder @ decoder.T
    for i, (x, y, weight) in enumerate(zip(*given.support, strict=True)):
        means = (y.T * weight) @ x / (y.T * weight).sum(1, keepdim=True)
        off = (-2.0 * torch.cdist(x, means).square()).softmax(-1) - y
        slope = 4.0 * torch.einsum("kn,kd->nd", off * (weight / weight.sum()).unsqueeze(1), x)
        slope -= 4.0 * (off * (weight / weight.sum()).unsqueeze(1)).sum(0).unsqueeze(1) * means
        near = (-0.5 * torch.cdist(means, classes).square()).softmax(-1)
        moved = means - 0.3 * (slope + means - near @ classes) @ spanned
        torch.testing.assert_close(found["weight"][i], 4 * moved)
        torch.testing.assert_close(found["bias"][i], -2 * moved.square().sum(1))


def test_means_are_of_centred_rows_at_even_distances_and_zeros_follow() -> None:
    torch.manual_seed(0)
    rows, centre = torch.randn(5, 4, 3), torch.randn(3) / 5
    data = Dataset.from_sorted(rows.flatten(0, 1), range(0, 21, 4))
    seen = rows / rows.norm(dim=-1, keepdim=True) - centre
    expected = (seen / seen.norm(dim=-1, keepdim=True)).mean(1).double()
    torch.testing.assert_close(class_means(data, centre, 7)[:5], expected, rtol=0, atol=1e-6)
    assert not class_means(data, centre, 7)[5:].any()
    torch.testing.assert_close(class_means(data, centre, 3), expected[::2], rtol=0, atol=1e-6)


def test_options_set_the_same_things_and_nothing_that_is_trained() -> None:
    with pytest.raises(ValueError, match="must set the same things"):
        Alternatives("strength", {"a": {"x": 1.0}, "b": {"y": 1.0}})
    learner = residual_prototypes(torch.zeros(6), hidden=4).learner
    with pytest.raises(ValueError, match="which is not there"):
        Alternatives("strength", {"a": {"elsewhere": 1.0}}).take(learner, "a")
    with pytest.raises(ValueError, match="which would be trained"):
        Alternatives("strength", {"a": {"start.starts.0.log_scale": 1.0}}).take(learner, "a")
