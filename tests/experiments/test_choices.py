"""A run that chooses settings on validation tasks: what was chosen is used, kept, reported and found again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import fewstep
from fewstep.estimators.model import TrainedModel
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Twelve classes, told apart in half of the features alone; far from the origin."""
    random = np.random.default_rng(0)
    centres, noise = random.normal(size=(36, 1, 8)), random.normal(size=(36, 20, 8))
    rows = np.concatenate([centres + 0.5 * noise, 1.5 * random.normal(size=(36, 20, 8))], -1) + 2
    split = np.repeat([0, 1, 2], 12).astype(np.uint8)
    np.savez(tmp_path / "features.npz", features=rows.astype(np.float32), split=split)
    return tmp_path / "features.npz"


def config(features: Path) -> Config:
    made = RECIPES["residual-prototypes-features-1shot"]()
    training = replace(made.training, steps=60, validate_every=60, validation_tasks=50, rate=5e-3)
    method = replace(made.method, hidden=16)  # type: ignore[type-var]
    return replace(made, data=replace(made.data, path=str(features)), training=training, method=method)


def test_what_was_chosen_is_used_kept_reported_and_found_again(features: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Run.create(config(features), folder, lambda _: None)
    state = run.train().state
    kept = json.loads((folder / "choices.json").read_text())
    strength, head, _, rate = kept["decisions"]
    assert strength["chosen"] != "0", "half of the features are noise, and the residual has not learned to leave it out"
    assert strength["gains"][strength["chosen"]]["mean"] > 0.05
    best = load_file(folder / "best.safetensors")
    assert f"{best['learner/embedding.2.strength'].item():g}" == strength["chosen"]
    last = rate["options"][rate["chosen"]]["mean"]
    assert state.best == pytest.approx(last)

    run.record(run.test(tasks=50))
    report = (folder / "report.md").read_text()
    assert f"- strength: **{strength['chosen']}**. Over 0: 0.05 +" in report
    assert f"- head: **{head['chosen']}**" in report

    again = Run.resume(folder, lambda _: None)
    assert again.train().state.best == state.best
    (folder / "choices.json").unlink()  # as if killed before it was written
    Run.resume(folder, lambda _: None).train()
    assert json.loads((folder / "choices.json").read_text()) == kept
    after = load_file(folder / "best.safetensors")
    assert all(np.array_equal(after[name], best[name]) for name in best)

    features.unlink()
    random = np.random.default_rng(1)
    x = random.normal(size=(9, 16)).astype(np.float32)
    loaded = fewstep.load(folder)
    assert loaded.model.method.learner.get_buffer("embedding.1.centre").norm() > 0.5, "the centre is kept with the run"
    found = loaded.fit(x[:3], ["a", "b", "c"]).predict_proba(x[3:])
    model = TrainedModel(run.method, normalise=True)
    other = fewstep.FewShotClassifier(model).fit(x[:3], ["a", "b", "c"])
    np.testing.assert_allclose(found, other.predict_proba(x[3:]), atol=1e-6)


def test_what_another_run_chose_is_taken_where_validation_classes_are_trained_on(
    features: Path, tmp_path: Path
) -> None:
    given = config(features)
    both = replace(given, data=replace(given.data, train_on="trainval"))
    with pytest.raises(ValueError, match="cannot choose strength, head, latent rate, rate"):
        Run.create(both, tmp_path / "refused", lambda _: None)
    assert not (tmp_path / "refused").exists()
    choices = (("strength", "0.35"), ("head", "ridge 0.3"), ("latent rate", "0.1, sharpness 10"), ("rate", "0"))
    settled = replace(both, method=replace(both.method, choices=choices))  # type: ignore[type-var]
    run = Run.create(settled, tmp_path / "run", lambda _: None)
    assert run.method.learner.get_buffer("embedding.2.strength") == 1, "it is trained at full strength"
    classes = run.method.learner.get_buffer("start.prior.classes")
    assert classes.any(1).sum() == 24, "of the twelve of training and the twelve of validation"
    run.train()
    kept = json.loads((tmp_path / "run" / "choices.json").read_text())["decisions"]
    assert tuple((decision["name"], decision["chosen"]) for decision in kept) == choices
    assert run.method.learner.get_buffer("embedding.2.strength").item() == pytest.approx(0.35)
    run.record(run.test(tasks=20))
    assert "- head: **ridge 0.3**, as given." in (tmp_path / "run" / "report.md").read_text()
    wrong = replace(given, method=replace(given.method, choices=(("head", "none"),)))  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"head may be class means, ridge 0\.03"):
        Run.create(wrong, tmp_path / "wrong", lambda _: None)


def test_a_test_below_a_baseline_says_so_first(features: Path, tmp_path: Path) -> None:
    made = RECIPES["leo-features-1shot"]()
    training = replace(made.training, steps=1, validate_every=1, validation_tasks=4)
    run = Run.create(
        replace(made, data=replace(made.data, path=str(features)), training=training), tmp_path / "run", lambda _: None
    )
    run.train()
    found = run.test(tasks=50)
    shortfall = found.shortfall()
    assert shortfall.startswith("below ")
    assert "which needs no meta-learning: -" in shortfall.replace("−", "-")
    assert str(found.table().title).startswith(shortfall)
    run.record(found)
    assert (tmp_path / "run" / "report.md").read_text().splitlines()[2] == f"**test: {shortfall}.**"
    better = replace(found, scores={**found.scores, "adapted": np.ones(50)})
    assert better.shortfall() == ""
