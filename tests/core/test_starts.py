"""Starts in closed form, between others and around others, against scikit-learn, normal equations and baselines."""

import numpy as np
import pytest
import torch
from cases import classification_tasks
from sklearn.linear_model import Ridge as Reference
from torch import Tensor, nn

from fewstep.algorithms import protonet, r2d2, residual_prototypes
from fewstep.core import (
    SGD,
    Alternatives,
    Backprop,
    Batch,
    Blend,
    Decode,
    Descend,
    Learner,
    Method,
    Prototypes,
    Ridge,
    Shifted,
    Task,
)
from fewstep.data import Dataset, class_directions, l2_normalise
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


def test_a_blend_is_the_weighted_sum_of_its_starts() -> None:
    given = tasks()
    starts = (Prototypes(()), Ridge(0.5, learned=False))
    one, other = (of_head(start).adapt(given.support).value["weight"] for start in starts)
    mixed = of_head(Blend(*starts, shares=(0.25, 0.75))).adapt(given.support).value["weight"]
    torch.testing.assert_close(mixed, 0.25 * one + 0.75 * other)
    torch.testing.assert_close(of_head(Blend(*starts)).adapt(given.support).value["weight"], one)
    with pytest.raises(ValueError, match="got 2 and 1"):
        Blend(*starts, shares=(1.0,))
    network = mlp((6, 4, None)).double()
    with pytest.raises(ValueError, match="begin at other values"):
        Method(Learner(network, Blend(Prototypes(), Ridge()).double(), []), Backprop()).adapt(given.support)


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
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
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
    torch.testing.assert_close(weight[1], still["weight"] - slope, rtol=0, atol=1e-6)


def test_a_step_in_codes_is_one_of_the_weights_within_what_the_decoder_spans() -> None:
    given, decoder = tasks(), torch.randn(6, 2, dtype=torch.float64)
    start = Shifted(Prototypes((), 2.0), 6, 2, decoder)
    method = Method(Learner(Generated(), start.double(), [Descend(SGD(0.3), 1), Decode()]), Backprop())
    found, begun = method.adapt(given.support).value, of_head(Prototypes((), 2.0)).adapt(given.support).value
    for i, (x, y, weight) in enumerate(zip(*given.support, strict=True)):
        off = (x @ begun["weight"][i].T + begun["bias"][i]).softmax(-1) - y
        slope = (off * (weight / weight.sum()).unsqueeze(1)).T @ x
        torch.testing.assert_close(found["weight"][i], begun["weight"][i] - 0.3 * slope @ decoder @ decoder.T)
        torch.testing.assert_close(found["bias"][i], begun["bias"][i])


def test_codes_are_for_a_classifier_alone_and_have_directions_of_their_number() -> None:
    with pytest.raises(ValueError, match=r"must have the shape \[6, 2\], got \[6, 3\]"):
        Shifted(Prototypes(()), 6, 2, torch.zeros(6, 3))
    network = mlp((6, 4, None)).double()
    whole = Method(Learner(network, Shifted(Prototypes(), 4, 2).double(), []), Backprop())
    with pytest.raises(ValueError, match="not a classifier alone"):
        whole.adapt(tasks().support)
    assert {name for name, _ in Shifted(Prototypes(()), 6, 2, learned=True).named_parameters()} == {"decoder"}


def test_directions_are_those_in_which_class_means_vary() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.1, 0.0, 0.0])
    rows = torch.eye(5)[0] * 10 + torch.randn(40, 1, 5) * spread + 0.01 * torch.randn(40, 6, 5)
    data, centre = Dataset.from_sorted(rows.flatten(0, 1), range(0, 241, 6)), torch.zeros(5)
    found = class_directions(data, centre, 7)
    unit = l2_normalise(l2_normalise(rows.double())).mean(1)
    covariance = torch.cov(unit.T)
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close(found[:, :5] @ found[:, :5].T, (vectors * values) @ vectors.T / values.max())
    assert found.shape == (5, 7)
    assert not found[:, 5:].any()


def test_options_set_the_same_things_and_nothing_that_is_trained() -> None:
    with pytest.raises(ValueError, match="must set the same things"):
        Alternatives("strength", {"a": {"x": 1.0}, "b": {"y": 1.0}})
    learner = residual_prototypes(torch.zeros(6), hidden=4).learner
    with pytest.raises(ValueError, match="which is not there"):
        Alternatives("strength", {"a": {"elsewhere": 1.0}}).take(learner, "a")
    with pytest.raises(ValueError, match="which would be trained"):
        Alternatives("strength", {"a": {"start.starts.0.log_scale": 1.0}}).take(learner, "a")
