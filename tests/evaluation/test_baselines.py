from functools import partial

import numpy as np
import pytest
import torch
from cases import classification_tasks
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid

from fewstep.core import Batch, Task
from fewstep.evaluation import all_baselines, centred_nearest_mean, logistic_regression, nearest_mean, ridge

CENTRE = torch.linspace(-1, 2, 20, dtype=torch.float64)
FOUR = list(all_baselines(CENTRE).values())


@pytest.fixture
def task() -> Task:
    """Twenty features, fifteen rows; the last row of the first task is padding."""
    return classification_tasks(20, shots=5)


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_ridge_is_sklearns(task: Task, i: int, penalty: float) -> None:
    support, query = (Batch(*(t[i] for t in side)) for side in task)
    witness = Ridge(alpha=penalty).fit(support.x, support.y, sample_weight=support.weight)
    torch.testing.assert_close(ridge(*task, penalty)[i], torch.from_numpy(witness.predict(query.x)), rtol=0, atol=1e-10)


def test_ridge_weighs_rows(task: Task) -> None:
    weighted = task.support._replace(weight=torch.rand_like(task.support.weight) + 0.1)
    witness = Ridge(alpha=0.5).fit(weighted.x[1], weighted.y[1], sample_weight=weighted.weight[1])
    expected = torch.from_numpy(witness.predict(task.query.x[1]))
    torch.testing.assert_close(ridge(weighted, task.query, 0.5)[1], expected, rtol=0, atol=1e-10)


def test_nearest_mean_is_sklearns(task: Task) -> None:
    for i in range(4):
        real = task.support.weight[i] > 0
        witness = NearestCentroid().fit(task.support.x[i][real], task.support.y[i][real].argmax(-1))
        np.testing.assert_array_equal(nearest_mean(*task)[i].argmax(-1), witness.predict(task.query.x[i]))
        squares = np.square(task.query.x[i].numpy()[:, None] - witness.centroids_).sum(-1)
        np.testing.assert_allclose(-nearest_mean(*task)[i], squares, rtol=1e-12)


@pytest.mark.parametrize("baseline", FOUR)
def test_padding_counts_for_nothing(task: Task, baseline) -> None:
    moved = task.support.x.clone()
    moved[0, -1] = -1000 * moved[0, -1] + 1
    there = baseline(task.support._replace(x=moved), task.query)
    torch.testing.assert_close(there, baseline(*task), rtol=0, atol=1e-12)


@pytest.mark.parametrize("baseline", FOUR)
def test_images_are_flattened(task: Task, baseline) -> None:
    support, query = (side._replace(x=side.x.unflatten(2, (1, 4, 5))) for side in task)
    torch.testing.assert_close(baseline(support, query), baseline(*task), rtol=0, atol=0)


@pytest.mark.parametrize("i", [0, 1])
def test_centred_nearest_mean_is_sklearns(task: Task, i: int) -> None:
    real = task.support.weight[i] > 0
    x, xq = ((rows - CENTRE).numpy() for rows in (task.support.x[i][real], task.query.x[i]))
    x, xq = (rows / np.sqrt(np.square(rows).sum(1, keepdims=True)) for rows in (x, xq))
    witness = NearestCentroid().fit(x, task.support.y[i][real].argmax(-1))
    squares = np.square(xq[:, None] - witness.centroids_).sum(-1)
    np.testing.assert_allclose(-centred_nearest_mean(*task, CENTRE)[i], squares, rtol=1e-12)


@pytest.mark.parametrize("ways", [2, 3])
@pytest.mark.parametrize("c", [0.3, 1.0, 30.0])
def test_logistic_regression_is_where_its_objective_is_flat(ways: int, c: float) -> None:
    """The slope by hand, at the weights that the logits of unit vectors and of zero tell."""
    support, query = classification_tasks(20, shots=5, ways=ways, tasks=2)
    weight = support.weight * torch.linspace(0.5, 3, support.weight.shape[1])
    probe = torch.cat([torch.zeros(1, 20), 7 * torch.eye(20)]).double()  # a row's length must not matter
    probes = query._replace(x=probe.expand(2, -1, -1), y=torch.zeros(2, 21, ways), weight=torch.ones(2, 21))
    logits = logistic_regression(support._replace(weight=weight), probes, c)
    for i in range(2):
        bias, weights = logits[i, 0].numpy(), (logits[i, 1:] - logits[i, 0]).numpy()
        x, y, w = support.x[i].numpy(), support.y[i].numpy(), weight[i].numpy()[:, None]
        x = x / np.sqrt(np.square(x).sum(1, keepdims=True))
        odds = np.exp(x @ weights + bias)
        error = c * w * (odds / odds.sum(1, keepdims=True) - y)
        for slope in (x.T @ error + weights, error.sum(0)):
            assert np.abs(slope).max() < 1e-8 * c * w.sum()
        assert np.abs(x.T @ error).max() > 2e-3 * c * w.sum(), "without the penalty it would not be flat"


def test_logistic_regression_is_sklearns(task: Task) -> None:
    """Where it is asked for as many digits."""
    for i in (0, 1):
        real, x = task.support.weight[i] > 0, task.support.x[i] / task.support.x[i].norm(dim=1, keepdim=True)
        witness = LogisticRegression(C=3.0, tol=1e-10, max_iter=10_000).fit(x[real], task.support.y[i][real].argmax(-1))
        xq = task.query.x[i] / task.query.x[i].norm(dim=1, keepdim=True)
        expected = torch.from_numpy(witness.predict_log_proba(xq))
        found = logistic_regression(*task, 3.0)[i].log_softmax(-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("baseline", FOUR)
def test_heads_have_the_largest_logits_of_the_predictions(task: Task, baseline) -> None:
    """Far from the origin, in single precision, of two tasks at once, which have a centre in common."""
    sides = (Batch((s.x + 30).float(), s.y.float(), s.weight.float()) for s in task)
    support, query = sides
    predict = baseline.by_class(support)
    for i in range(4):
        found = predict(query.x[i], torch.tensor([i, 0]))[0].T
        expected = baseline(support, query)[i]
        torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), rtol=1e-3, atol=1e-3)


def test_logistic_regression_knows_classes_by_their_labels(task: Task) -> None:
    """Rows in another order are the same task; classes in another order give the logits in that order."""
    rows = torch.randperm(15)
    support = Batch(*(side[:, rows] for side in task.support))
    renamed = support._replace(y=support.y[..., [2, 0, 1]])
    expected = logistic_regression(*task)
    torch.testing.assert_close(logistic_regression(support, task.query), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(logistic_regression(renamed, task.query), expected[..., [2, 0, 1]], rtol=0, atol=1e-7)


def test_single_precision_far_from_the_origin(task: Task) -> None:
    """Features of a ReLU network have a large common mean: float32 must not lose the differences in it."""
    for baseline in (nearest_mean, ridge, partial(centred_nearest_mean, centre=CENTRE + 300)):
        support, query = (
            side._replace(x=(side.x + 300).float(), y=side.y.float(), weight=side.weight.float()) for side in task
        )
        exact = baseline(*(Batch(*(t.double() for t in side)) for side in (support, query)))
        torch.testing.assert_close(baseline(support, query).double(), exact, rtol=1e-5, atol=1e-5)


def test_ridge_in_single_precision_with_a_small_penalty(task: Task) -> None:
    """Near-copies of a row make X̃X̃ᵀ nearly singular, with a penalty far below what float32 resolves of it."""
    x = task.support.x.float() * 30
    x[:, 1::2] = x[:, :-1:2] + 0.03 * torch.randn(x[:, 1::2].shape)
    support = task.support._replace(x=x, y=task.support.y.float(), weight=torch.ones(x.shape[:2]))
    query = task.query._replace(x=task.query.x.float() * 30)
    for i in range(4):
        witness = Ridge(alpha=1e-3, solver="svd").fit(x[i].double(), support.y[i].double())
        expected = torch.from_numpy(witness.predict(query.x[i].double())).float()
        torch.testing.assert_close(ridge(support, query, 1e-3)[i], expected, rtol=1e-4, atol=1e-4)


def test_errors(task: Task) -> None:
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        ridge(*task, 0.0)
    with pytest.raises(ValueError, match="positive and finite, got inf"):
        logistic_regression(*task, float("inf"))
    with pytest.raises(ValueError, match="the centre has 19 numbers and a row 20"):
        centred_nearest_mean(*task, CENTRE[1:])
    task.support.weight[2, 5:10] = 0
    for baseline in (nearest_mean, logistic_regression):
        with pytest.raises(ValueError, match=f"{baseline.__name__}: class 1 of task 2 has no support row"):
            baseline(*task)
