import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from torch.nn.functional import one_hot

from fewstep.core import Batch
from fewstep.evaluation.simple import Rule, Simple

CENTRE = torch.tensor([0.5, -0.5, 0.2, 0.1])


def task(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    source = np.random.default_rng(seed)
    y = np.array([0, 0, 1, 1, 1, 2])
    return source.normal(size=(3, 4))[y] + 0.5 * source.normal(size=(6, 4)), y, source.normal(size=(50, 4))


def predicted(simple: Simple, x: NDArray[np.float64], y: NDArray[np.int64], xq: NDArray[np.float64]) -> torch.Tensor:
    # and a row without weight
    rows = torch.cat([torch.from_numpy(x), torch.full((1, 4), 7.0).double()])
    labels = one_hot(torch.from_numpy(np.append(y, 0)), 3).double()
    weight = torch.ones(7).double()
    weight[-1] = 0
    support = Batch(rows[None], labels[None], weight[None])
    return simple(support, Batch(torch.from_numpy(xq)[None], torch.zeros(1, 50, 3), torch.ones(1, 50)))[0]


def centred(rows: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    return (rows - c) / np.linalg.norm(rows - c, axis=1, keepdims=True)


@pytest.mark.parametrize("of", [None, CENTRE], ids=["plain", "centred"])
def test_they_are_what_scikit_learn_fits(of: torch.Tensor | None) -> None:
    x, y, xq = task()
    rows, queries = (x, xq) if of is None else (centred(r, of.double().numpy()) for r in (x, xq))
    means = NearestCentroid().fit(rows, y).predict(queries)
    np.testing.assert_array_equal(predicted(Simple(centre=of), x, y, xq).argmax(1), means)
    linear = Ridge(0.3).fit(rows, np.eye(3)[y]).predict(queries)
    np.testing.assert_allclose(predicted(Simple("ridge", 0.3, of), x, y, xq), linear, atol=1e-6)
    unit = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in (rows, queries)]
    logistic = LogisticRegression(C=5, max_iter=1000).fit(unit[0], y).predict_proba(unit[1])
    found = predicted(Simple("logistic regression", 0.2, of), x, y, xq).softmax(1)
    np.testing.assert_allclose(found, logistic, atol=2e-3)


def test_the_centre_of_the_support_is_its_weighted_mean_and_a_row_on_it_is_near_to_every_class() -> None:
    x, y, xq = task()
    xq[0] = x.mean(0)
    by_support = predicted(Simple(centre="support"), x, y, xq)
    given = predicted(Simple(centre=torch.from_numpy(x.mean(0))), x, y, xq)
    np.testing.assert_allclose(by_support, given, atol=1e-12)
    rows = centred(x, x.mean(0))
    by_hand = [-((0 - rows[y == c].mean(0)) ** 2).sum() for c in range(3)]
    np.testing.assert_allclose(by_support[0], by_hand, atol=1e-12)


@pytest.mark.parametrize("rule", ["class means", "ridge", "logistic regression"])
def test_normalised_rows_are_those_of_length_1(rule: Rule) -> None:
    x, y, xq = task()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, xq)]
    found = predicted(Simple(rule, centre=CENTRE, normalise=True), x, y, 3 * xq)
    np.testing.assert_allclose(found, predicted(Simple(rule, centre=CENTRE), unit[0], y, unit[1]), atol=1e-6)


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="must be positive and finite, got 0"):
        Simple("ridge", 0.0)
    x, y, xq = task()
    with pytest.raises(ValueError, match="ridge, centred, penalty 1: rows have 4 features, but the centre has 3"):
        predicted(Simple("ridge", centre=torch.zeros(3)), x, y, xq)
