"""Runs of fewstep 0.1.0, whose checkpoints had other names of meta-parameters: they open, score as then, and go on.

``tests/fixtures/runs-0.1.0`` was written by that release: three runs stopped after 10 of 20 meta-steps, what their best
meta-parameters scored in the test (``scores.json``) and said of rows of one's own (``predictions.json``), and what they
scored when the release had resumed them (``scores_resumed.json``).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fewstep
from fewstep import FewShotClassifier
from fewstep.commands.main import main
from fewstep.experiments.run import Run
from fewstep.recipes import from_json

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"


@pytest.fixture(params=["meta-sgd-sinusoid", "leo-features-1shot", "reptile-sinusoid"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an old run: learned rates; rates after curvature; moments that Adam carries from task to task."""
    monkeypatch.chdir(OLD)  # where the features are
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(OLD / request.param, tmp_path / "run"))


def scores(run: Run) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in run.test().scores.items()}


def test_it_opens_and_scores_as_it_did(folder: Path) -> None:
    stored = json.loads((folder / "scores.json").read_text())
    found = scores(Run.open(str(folder)))  # a path in words will do
    assert {name: found[name] for name in stored} == pytest.approx(stored, abs=1e-6)  # beside newer baselines


def test_it_predicts_for_own_data_what_it_did(folder: Path) -> None:
    stored = json.loads((folder / "predictions.json").read_text())
    x, y, queries = (np.array(stored[name]) for name in ("x", "y", "queries"))
    x, queries = (rows if rows.ndim > 1 else rows[:, None] for rows in (x, queries))
    learned = fewstep.load(folder).fit(x.astype(np.float32), y)
    classifies = isinstance(learned, FewShotClassifier)
    found = learned.predict_proba(queries) if classifies else learned.predict(queries)
    np.testing.assert_allclose(found, stored["predictions"], atol=1e-6)


@pytest.mark.parametrize("folder", ["leo-features-1shot"], indirect=True)
def test_one_with_settings_that_are_no_longer_taken_is_used_but_not_trained(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["training"] |= {"patience": -1, "rate": 0.0}
    config["method"]["orthogonality_weight"] = -1.0
    (folder / "config.json").write_text(json.dumps(config))
    stored = json.loads((folder / "scores.json").read_text())
    found = scores(Run.open(folder))
    assert {name: found[name] for name in stored} == pytest.approx(stored, abs=1e-6)
    main(["export", str(folder), str(tmp_path / "old")])
    fewstep.load(tmp_path / "old.fewstep.safetensors")
    for refused in (lambda: Run.resume(folder), lambda: from_json(folder / "config.json")):
        with pytest.raises(ValueError, match=r"(rate|patience|orthogonality_weight) must be") as told:
            refused()
        assert "\n" not in str(told.value)


def test_it_resumes_to_what_the_release_came_to(folder: Path) -> None:
    stored = json.loads((folder / "scores_resumed.json").read_text())
    run = Run.resume(folder)
    run.train()
    found, again = scores(run), scores(Run.open(folder))
    assert {name: found[name] for name in stored} == pytest.approx(stored, abs=1e-6)
    assert again == pytest.approx(found, abs=1e-6)  # and what it wrote opens again
