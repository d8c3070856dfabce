"""Features so large or so small that float32 has no length for them are refused, never scored as if they were zeros."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewstep import FewShotClassifier, FewShotRegressor, MetaLearner
from fewstep.algorithms import maml
from fewstep.commands.main import main
from fewstep.core import regression
from fewstep.data import Dataset
from fewstep.data.features.report import inspect_embeddings
from fewstep.evaluation.simple import Simple
from fewstep.networks import mlp
from fewstep.recipes import RECIPES
from fewstep.training.device import prepare_device

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = np.random.default_rng(0).normal(size=(24, 4))
LABELS = np.repeat(np.arange(6), 4)

OUTSIDE = pytest.mark.parametrize(
    ("factor", "dtype"), [(1e30, "float32"), (1e-42, "float32"), (1e-30, "float64"), (1e300, "float64")]
)


def stored(path: Path, rows: np.ndarray) -> Path:
    names = np.array(["train", "train", "val", "val", "test", "test"])
    np.savez(path, features=rows, labels=LABELS, split=names[LABELS])
    return path


@OUTSIDE
@pytest.mark.parametrize("normalise", [True, False])
def test_recipes_and_the_inspection_refuse_them(
    tmp_path: Path, factor: float, dtype: str, normalise: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stored(tmp_path / "f.npz", (factor * ROWS).astype(dtype))
    config = RECIPES["protonet-features-1shot"]()
    data = replace(config.data, path=str(file), ways=2, queries=2, normalise=normalise)
    with pytest.raises(ValueError, match=r"scale the features"):
        data.open(prepare_device("cpu"), lambda line: None)
    with pytest.raises(SystemExit) as end:
        main(["data", "inspect", str(file)])
    assert end.value.code == 1
    assert "8 rows of train without a length in float32" in " ".join(capsys.readouterr().out.split())


def test_rows_of_zeros_and_of_usual_lengths_are_as_they_were(tmp_path: Path) -> None:
    rows = 1e-4 * ROWS.astype(np.float32)
    rows[0] = 0
    report = inspect_embeddings(stored(tmp_path / "f.npz", rows))
    assert not report.refusals
    assert any("1 row of train of zeros" in warning for warning in report.warnings)
    short = inspect_embeddings(stored(tmp_path / "g.npz", 1e-4 * rows * 1e-4))
    assert any("shorter than 1e-06" in warning for warning in short.warnings)
    assert np.isfinite(FewShotClassifier().fit(rows, LABELS).predict_proba(rows)).all()


@pytest.mark.parametrize("factor", [1e30, 1e-30])
@pytest.mark.parametrize(
    "model",
    [None, Simple(), Simple("ridge"), maml(mlp((4, 8, 6)), rate=0.1)],
    ids=["default", "class means", "ridge", "maml"],
)
def test_classifiers_refuse_them(factor: float, model: object) -> None:
    near = ROWS.astype(np.float32)
    with pytest.raises(ValueError, match="24 of 24 rows of X have no length in float32"):
        FewShotClassifier(model).fit(factor * near, LABELS)
    with pytest.raises(ValueError, match="24 of 24 rows of X have no length in float32"):
        FewShotClassifier(model).fit(near, LABELS).predict(factor * near)


def test_learners_tasks_and_regressors_refuse_numbers_beyond_their_dtype() -> None:
    with pytest.raises(ValueError, match="rows of X have no length in float32"):
        MetaLearner("protonet-features-1shot", **{"data.ways": 2, "data.queries": 2}).fit(1e300 * ROWS, LABELS)
    with pytest.raises(ValueError, match="is beyond torch"):
        Dataset.from_labels(1e300 * ROWS, LABELS).gather(np.arange(3))
    model = maml(mlp((4, 8, 1)), rate=0.1, loss=regression())
    with pytest.raises(ValueError, match="X has numbers beyond torch"):
        FewShotRegressor(model).fit(1e300 * ROWS, ROWS[:, 0])
    with pytest.raises(ValueError, match="y has numbers beyond torch"):
        FewShotRegressor(model).fit(ROWS, 1e300 * ROWS[:, 0])


@pytest.mark.parametrize(
    ("of_x", "of_y"), [(1e9, 1.0), (1e-9, 1.0), (1.0, 1e9), (1.0, 1e-9), (1e300, 1e300), (1e-42, 1)]
)
def test_a_regression_without_training_does_not_depend_on_units(of_x: float, of_y: float) -> None:
    x, y = ROWS[:, :2], ROWS[:, 0] - 2 * ROWS[:, 1] + 0.1 * ROWS[:, 2]
    plain = FewShotRegressor().fit(x, y).predict(x)
    found = FewShotRegressor().fit(of_x * x, of_y * y).predict(of_x * x) / of_y
    np.testing.assert_allclose(found, plain, atol=1e-3)
    with pytest.raises(ValueError, match="too far apart"):
        FewShotRegressor().fit(1e-300 * x, 1e300 * y)
