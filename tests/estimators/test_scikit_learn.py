"""scikit-learn's own checks, and its tools around the estimators.

A model that was meta-trained takes rows of one width, and the checks give others. So each check that a trained LEO
fails is shown to fail for that reason alone, and passes once a model widens the rows.
"""

import re
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from torch import Tensor, nn

from fewstep import FewShotClassifier, FewShotRegressor, MetaLearner, maml
from fewstep.core import Batch, Point, regression
from fewstep.core.types import Statistics
from fewstep.estimators.model import Model, TrainedModel
from fewstep.estimators.opened import opened
from fewstep.evaluation.simple import Simple

LEO = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0" / "leo-features-1shot"


class Widened(Model):
    """A model whose rows are cut or filled up with zeros to the width that another takes."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __repr__(self) -> str:
        return f"Widened({self.model})"

    def __deepcopy__(self, memo: Any) -> "Widened":
        return self

    def rows(self, x: NDArray[Any]) -> Tensor:
        width = self.model.width
        return self.model.rows(np.pad(x[:, :width], [(0, 0), (0, max(0, width - x.shape[1]))]))  # type: ignore[no-any-return]

    def check(self, support: Batch, statistics: Statistics) -> None:
        self.model.check(support, statistics)

    def adapt(self, support: Batch, statistics: Statistics) -> Point:
        return self.model.adapt(support, statistics)  # type: ignore[no-any-return]

    def logits(self, point: Point | None, query: Batch, support: Batch, statistics: Statistics) -> Tensor:
        return self.model.logits(point, query, support, statistics)  # type: ignore[no-any-return]


COPIES = "LEO gives every row a code, and steps on them add up: a row twice is not one of twice the weight"


@parametrize_with_checks(
    [FewShotClassifier(), FewShotRegressor(), FewShotClassifier(Widened(opened(LEO)))],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": COPIES} if estimator.model is not None else {}
    ),
)
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def test_rows_of_another_width_are_the_one_reason_for_which_a_trained_leo_fails_a_check() -> None:
    found = check_estimator(FewShotClassifier(opened(LEO)), on_fail=None)
    failed = [row for row in found if row["status"] == "failed"]
    assert len(failed) > 20
    for row in failed:
        told = " ".join(chain(row["exception"]))
        assert re.search(r"X has \d+ features, but the model takes 8: give the features", told), row["check_name"]


def clusters(rows: int = 24, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    source = np.random.default_rng(seed)
    index = np.arange(rows) % 3
    centres = 3 * np.random.default_rng(1).normal(size=(3, 8))
    return centres[index] + source.normal(size=(rows, 8)), np.array(["auk", "gull", "tern"])[index]


@pytest.mark.parametrize("model", [None, str(LEO), Simple("ridge")], ids=["default", "leo", "ridge"])
def test_tools_of_scikit_learn(model: Any) -> None:
    x, y = clusters()
    classifier = FewShotClassifier(model)
    scores = cross_val_score(make_pipeline(StandardScaler(), classifier), x, y, cv=3)
    assert scores.mean() > 0.5
    search = GridSearchCV(FewShotClassifier(), {"model": [None, model]}, cv=3).fit(x, y)
    assert search.predict(x).shape == (24,)
    fitted = classifier.fit(x, y)
    assert not hasattr(clone(fitted), "classes_")


def test_frames_tensors_and_strange_arrays_are_the_same_rows() -> None:
    x, y = clusters()
    wanted = FewShotClassifier().fit(x, y).predict_proba(x)
    names = [f"f{i}" for i in range(8)]
    for frame in (pd.DataFrame(x, columns=names), pl.DataFrame(x, schema=names)):
        model = FewShotClassifier().fit(frame, frame_of_labels(frame, y))
        assert model.feature_names_in_.tolist() == names
        np.testing.assert_allclose(model.predict_proba(frame), wanted, rtol=1e-12)
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(frame[names[::-1]])
    scaler = StandardScaler().set_output(transform="pandas")
    assert make_pipeline(scaler, FewShotClassifier()).fit(x, y)[-1].feature_names_in_.tolist() == [
        f"x{i}" for i in range(8)
    ]
    half = torch.from_numpy(x).bfloat16()  # of which NumPy has no type
    for kind in (torch.bfloat16, torch.float32, torch.float64):  # what is asked may be of another than what was fitted
        np.testing.assert_array_equal(FewShotClassifier().fit(half, y).predict(half.to(kind)), y)
    others = [torch.from_numpy(x), x.tolist(), x.astype(">f8"), np.asfortranarray(x), x[::-1].copy()[::-1]]
    for other in [*others, x.astype(np.longdouble), x.astype(object)]:
        np.testing.assert_allclose(FewShotClassifier().fit(other, y).predict_proba(other), wanted, rtol=1e-12)


def frame_of_labels(frame: Any, y: NDArray[Any]) -> Any:
    return pd.Series(y) if isinstance(frame, pd.DataFrame) else pl.Series(y)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.array([["1", "2"], ["3", "4"]]), ValueError, "X must be numbers, but holds text"),
        (np.array([["2026-01-01"], ["2026-01-02"]], "datetime64[D]"), ValueError, "X must be numbers, but holds dates"),
        (np.array([[object()], [object()]]), (TypeError, ValueError), "float"),
        (np.array([[1.0, None], [2.0, 3.0]]), ValueError, "1 of 2 rows of X hold NaN or infinity, the first is row 0"),
        (pl.DataFrame({"when": [date(2026, 1, 1), date(2026, 1, 2)]}), ValueError, "X must be .* holds dates"),
        (pd.DataFrame({"when": pd.to_datetime(["2026-01-01", "2026-01-02"]), "x": [1.0, 2.0]}), ValueError, "dates"),
        (np.ones((2, 2)) * 1j, ValueError, "Complex data not supported"),
        (pd.DataFrame(np.ones((2, 2)) * 1j), ValueError, "Complex data not supported"),
        (np.ones(2), ValueError, r"Expected 2D array, got 1D array of the shape \(2,\): Reshape your data"),
        (csr_array(np.eye(2)), TypeError, "dense data is required. Use '.toarray"),
        (None, ValueError, "X must be numbers, but is None"),
        (np.ones((2, 0)), ValueError, r"0 feature\(s\)"),
    ],
)
@pytest.mark.parametrize("estimator", [FewShotClassifier, FewShotRegressor, MetaLearner])
def test_what_is_no_rows_of_numbers_is_refused_in_a_line(estimator: Any, x: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as told:
        estimator().fit(x, [0, 1])
    assert "\n" not in str(told.value)
    if estimator is not MetaLearner or not message.startswith("1 of 2 rows"):  # whose words for that are scikit-learn's
        assert re.search(message, str(told.value))


def test_the_default_is_class_means_by_the_support_and_knows_one_class_and_rows_of_zeros() -> None:
    x, y = clusters()
    centre = x.mean(0)
    e = (x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True)
    means = np.stack([e[y == name].mean(0) for name in np.unique(y)])
    logits = -np.square(e[:, None] - means).sum(-1)
    model = FewShotClassifier().fit(x, y)
    np.testing.assert_allclose(model.decision_function(x), logits, atol=1e-12)
    np.testing.assert_allclose(
        model.predict_proba(x), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-12
    )
    assert FewShotClassifier().fit(x, ["a"] * 24).predict(x[:2]).tolist() == ["a", "a"]
    zeros = FewShotClassifier().fit(np.zeros((4, 3)), list("abab")).predict_proba(np.zeros((1, 3)))
    np.testing.assert_array_equal(zeros, [[0.5, 0.5]])


def test_weights_are_repetitions_for_whoever_averages() -> None:
    x, y = clusters(9)
    weight = np.array([1, 2, 1, 3, 1, 1, 0, 1, 2])
    for model in (None, Simple("ridge", 0.3), Simple("logistic regression")):
        weighted = FewShotClassifier(model).fit(x, y, weight).predict_proba(x)
        repeated = FewShotClassifier(model).fit(np.repeat(x, weight, 0), np.repeat(y, weight)).predict_proba(x)
        np.testing.assert_allclose(weighted, repeated, atol=1e-3 if str(model).startswith("log") else 1e-9)
    with pytest.raises(ValueError, match="at least one non-zero"):
        FewShotClassifier().fit(x, y, np.zeros(9))


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns after 10 µs, not after five milliseconds, so that few calls meet one another often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_share_what_they_like() -> None:
    """One fitted estimator asked by eight threads, and eight estimators of one model: all as alone."""
    x, y = clusters()
    queries = [clusters(30, seed)[0] for seed in range(8)]
    normed = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    line = TrainedModel(maml(normed, rate=0.1, steps=3, loss=regression()))
    fitted = [FewShotClassifier(LEO).fit(x, y), FewShotRegressor(line).fit(x, x[:, 0])]
    model = opened(LEO)

    def fit(seed: int) -> NDArray[Any]:
        return FewShotClassifier(model).fit(*clusters(24, seed)).predict_proba(queries[seed])

    def ask(estimator: Any, query: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(getattr(estimator, "predict_proba", estimator.predict)(query))

    alone = [[ask(one, query) for query in queries] for one in fitted]
    apart = [fit(seed) for seed in range(8)]
    parallel = joblib.Parallel(n_jobs=8, prefer="threads")
    for _ in range(2):
        for one, expected in zip(fitted, alone, strict=True):
            np.testing.assert_array_equal(parallel(joblib.delayed(ask)(one, query) for query in queries), expected)
        np.testing.assert_array_equal(parallel(joblib.delayed(fit)(seed) for seed in range(8)), apart)


def test_what_is_no_model() -> None:
    x, y = clusters()
    with pytest.raises(ValueError, match=r"runs/none is no run, no file, and no model that ships with fewstep"):
        FewShotClassifier("runs/none").fit(x, y)
    with pytest.raises(ValueError, match=r"model must be a run or its folder, .* got int"):
        FewShotClassifier(3).fit(x, y)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        FewShotClassifier(str(LEO)).predict(x)
    with pytest.raises(ValueError, match=r"of classes: .* use FewShotClassifier"):
        FewShotRegressor(LEO).fit(x, x[:, 0])


def test_linear_regression_without_a_model_knows_how_sure_it_is() -> None:
    source = np.random.default_rng(0)
    x = source.normal(size=(40, 3))
    y = x @ [1.0, -2.0, 0.5] + 3 + 0.1 * source.normal(size=40)
    model = FewShotRegressor(samples=400).fit(x, y)
    queries = source.normal(size=(2000, 3))
    mean, deviation = model.predict(queries, return_std=True)
    truth = queries @ [1.0, -2.0, 0.5] + 3 + 0.1 * source.normal(size=2000)
    assert np.abs((truth - mean) / deviation).std() < 0.75
    assert ((truth - mean) / deviation).std() == pytest.approx(1, abs=0.15)
    low, high = model.predict_distribution(queries).interval(0.9)
    assert np.mean((low < truth) & (truth < high)) == pytest.approx(0.9, abs=0.04)
    both = FewShotRegressor().fit(x, np.stack([y, 100 * y], 1)).predict(queries, return_std=True)
    np.testing.assert_allclose(both[1][:, 1] / both[1][:, 0], 100, rtol=0.2)
