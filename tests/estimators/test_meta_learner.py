"""Meta-learning by scikit-learn's conventions, and probabilities that are what they say."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

import fewstep
from fewstep import ClassKFold, MetaLearner
from fewstep.evaluation.calibration import calibration_error, error_at, fit_temperature

SHORT = {
    "training.steps": 20,
    "training.validate_every": 20,
    "training.validation_tasks": 20,
    "training.compile": "off",
    "data.ways": 3,
}


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Twelve classes, told apart in four of eight features alone."""
    source = np.random.default_rng(0)
    centres = np.concatenate([2 * source.normal(size=(12, 4)), np.zeros((12, 4))], 1)
    index = np.repeat(np.arange(12), 20)
    scale = np.array([0.5] * 4 + [3.0] * 4)
    return centres[index] + scale * source.normal(size=(240, 8)), np.array([f"class {i:02}" for i in index])


def learner(**settings: Any) -> MetaLearner:
    return MetaLearner("protonet-features-1shot", tasks=100, **(SHORT | settings))


def test_it_learns_on_base_classes_adapts_to_others_and_is_scored_on_them(data: Any, tmp_path: Any) -> None:
    x, y = data
    base = y < "class 08"
    model = learner(**{"training.steps": 60, "training.validate_every": 60}).fit(x[base], y[base])
    assert len(model.validation_classes_) == 3
    assert {*model.validation_classes_} < {*model.classes_}
    found = model.evaluate(x[~base], y[~base])
    gain = found.scores["adapted"] - found.scores["nearest class mean"]
    assert gain.mean() > 3 * gain.std() / 10, "it has learned which features tell classes apart"
    assert model.score(x[~base], y[~base]) == found.scores["adapted"].mean()
    few = np.flatnonzero(~base)[[0, 1, 20, 21, 40, 41]]
    new = model.adapt(x[few], y[few])
    assert new.classes_.tolist() == ["class 08", "class 09", "class 10"]
    again = fewstep.load(model.save(tmp_path / "it")).fit(x[few], y[few])
    np.testing.assert_array_equal(again.predict_proba(x), new.predict_proba(x))
    with pytest.raises(ValueError, match="6 classes were trained on, such as 'class 02': score others"):
        model.score(x[40:], y[40:])


def test_folds_and_searches_are_of_classes(data: Any) -> None:
    x, y = data
    for train, test in ClassKFold(4).split(x, y):
        assert not {*y[train]} & {*y[test]}
    scores = cross_val_score(learner(), x, y, cv=ClassKFold(2))
    assert scores.shape == (2,)
    assert (scores > 0.4).all()
    search = GridSearchCV(
        learner(), {"training.rate": [1e-9, 1e-2], "recipe": ["protonet-features-1shot"]}, cv=ClassKFold(2)
    )
    assert search.fit(x, y).best_params_["training.rate"] == 1e-2
    named = learner(validation=["class 01", "class 04", "class 05"]).fit(x, y)
    assert named.validation_classes_.tolist() == ["class 01", "class 04", "class 05"]
    copied = clone(learner(**{"method.dropout": 0.25}).set_params(**{"training.rate": 0.5}))
    assert copied.get_params(deep=False)["training.rate"] == 0.5
    assert copied.get_params()["training.tasks"] == fewstep.recipes.RECIPES["protonet-features-1shot"]().training.tasks


def test_what_it_cannot_do_is_said(data: Any) -> None:
    x, y = data
    with pytest.raises(NotFittedError):
        learner().score(x, y)
    with pytest.raises(ValueError, match=r"has no setting 'training\.rat'; training\.rate\?"):
        learner(**{"training.rat": 1.0}).fit(x, y)
    with pytest.raises(ValueError, match=r"no recipe 'leo-feature-1shot'; leo-features-1shot\?"):
        MetaLearner("leo-feature-1shot").fit(x, y)
    with pytest.raises(ValueError, match="maml-sinusoid is not of features"):
        MetaLearner("maml-sinusoid").fit(x, y)
    with pytest.raises(ValueError, match=r"a share of the classes, between 0 and 1, or classes; got 1\.0"):
        learner(validation=1.0).fit(x, y)
    with pytest.raises(ValueError, match="y has 5 classes, of which validation takes 3: too few for 3-way tasks"):
        learner().fit(x[:100], y[:100])
    with pytest.raises(ValueError, match="validation names 1 classes that y has not: 'owl'"):
        learner(validation=["owl", "class 01"]).fit(x, y)
    with pytest.raises(ValueError, match="MetaLearner: 1 of 240 labels are text and the others are not"):
        learner().fit(x, ["3", *(i // 20 for i in range(1, 240))])
    with pytest.raises(ValueError, match=r"Complex data not supported: labels are complex128\Z"):
        learner().fit(x, 1j * np.ones(240))
    with pytest.raises(ValueError, match="MetaLearner: random_state is a whole number, got None"):
        learner().set_params(random_state=None).fit(x, y)
    with pytest.raises(ValueError, match="give their labels as y"):
        next(ClassKFold(2).split(x))


def test_a_temperature_that_does_not_calibrate_is_left_out(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data
    monkeypatch.setattr("fewstep.estimators.meta_learner.fit_temperature", lambda *_: 1e-3)  # as good as sure
    untouched = learner().fit(x, y)
    assert untouched.model_.temperature == 1.0
    assert untouched.calibration_error_["with"] == untouched.calibration_error_["without"]


def test_temperature_is_the_one_that_made_the_logits_and_calibrates_them() -> None:
    """Labels drawn from softmax(z): of the logits z·T the temperature is T, and at T they are calibrated."""
    source = np.random.default_rng(0)
    z = 2 * source.normal(size=(20_000, 5))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = (p.cumsum(1) < source.random((20_000, 1))).sum(1)
    for scale in (0.05, 1.0, 30.0):
        temperature = fit_temperature(scale * z, labels)
        assert temperature == pytest.approx(scale, rel=0.05)
        assert error_at(scale * z, labels, temperature) < 0.015
    assert error_at(30 * z, labels, 1.0) > 0.2
    assert calibration_error(np.array([[0.6, 0.4], [1.0, 0.0]]), np.array([1, 0])) == pytest.approx(0.3)
