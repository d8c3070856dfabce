from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Augmentation, Dataset
from fewstep.evaluation import centred_nearest_mean, evaluate
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES
from fewstep.recipes.problems.images import CifarImages
from fewstep.training import load_checkpoint
from fewstep.training.checkpoint import read_state

NAMES = ["nearest class mean", "ridge", "nearest class mean, centred", "logistic regression"]


def shades(split: str) -> Dataset:
    """Classes that are patterns of any strength on top of a common one, which tell no class until it is taken off."""
    random = np.random.default_rng({"train": 1, "val": 2, "test": 3}[split])
    common = np.random.default_rng(0).integers(40, 200, (3, 32, 32))
    classes = np.repeat(random.choice([-1, 1], (6, 3, 32, 32)), 25, 0)
    pixels = (common + random.integers(1, 40, (150, 1, 1, 1)) * classes).astype(np.uint8)
    return Dataset.from_sorted(pixels, np.arange(0, 151, 25), split=split)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(crop=4)])
def test_all_baselines_are_centred_by_the_training_classes(
    augmentation: Augmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.data.cifar_fs", lambda split, **_: shades(split))
    data = CifarImages(augmentation=augmentation)
    run = Run.create(replace(RECIPES["protonet-cifarfs-5way-1shot"](), data=data), tmp_path / "run")
    scores = run.test(tasks=8, queries=5, baselines="all").scores
    assert [name for name in scores if "adapted" not in name] == NAMES
    centre = torch.from_numpy(shades("train").store.mean(0) / 255)
    source = run.problem.source("test", tasks=8, seed=run.config.testing.seed, queries=5)
    by_hand = {"by hand": lambda support, query: centred_nearest_mean(support, query, centre)}
    np.testing.assert_array_equal(
        scores[NAMES[2]], evaluate(run.method, source, 8, unadapted=False, baselines=by_hand).scores["by hand"]
    )
    assert scores[NAMES[2]].mean() > scores[NAMES[0]].mean(), "the centre is not without effect here"
    assert [name for name in run.test(tasks=2, queries=5).scores if "adapted" not in name] == NAMES[:2]


def test_the_mean_of_kept_checkpoints_is_scored_beside_the_best(tmp_path: Path) -> None:
    """By hand: each checkpoint adapts by its own rates, and their logits are averaged."""
    config = RECIPES["meta-sgd-omniglot-5way-1shot"]()
    network = replace(config.method.network, hidden=(4, 4, 4, 4))
    training = replace(config.training, steps=6, tasks=2, rate=0.05, validate_every=2, validation_tasks=2, keep=2)
    small = replace(config, method=replace(config.method, network=network), training=training)
    run = Run.create(small, tmp_path)
    run.train()
    name, found = "mean of 2 checkpoints", Run.open(tmp_path).test(tasks=4, queries=3, baselines="none")
    source = run.problem.source("test", tasks=4, seed=run.config.testing.seed, queries=3)
    task, logits = source.batch(0), []
    for step in read_state(tmp_path / "last.safetensors").kept:
        load_checkpoint(tmp_path / f"best-at-{step}.safetensors", run.method.learner)
        logits.append(run.method.predict(run.method.adapt(task.support), task.query, task.support).detach())
    assert not torch.allclose(*logits)
    right = torch.stack(logits).mean(0).argmax(-1) == task.query.y.argmax(-1)
    np.testing.assert_allclose(found.scores[name], right.double().mean(1), rtol=1e-12)
    assert found.baselines == ()
    one = replace(small, training=replace(training, keep=1))
    assert name not in Run.create(one, tmp_path / "one").test(tasks=2, queries=3, baselines="none").scores


def test_a_regression_has_no_baselines(tmp_path: Path) -> None:
    run = Run.create(RECIPES["maml-sinusoid"](), tmp_path / "run")
    assert not set(run.test(tasks=2, baselines="all").scores) & set(NAMES)
    assert run.problem.examples is None, "there are no rows to take a mean of"
