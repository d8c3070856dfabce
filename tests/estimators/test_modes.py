"""Torch's modes around a call change nothing: results have the bits of those without."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fewstep
from fewstep import FewShotClassifier, FewShotRegressor
from fewstep.algorithms import maml
from fewstep.core import Method
from fewstep.data import Sinusoids
from fewstep.estimators import opened
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config
from fewstep.training import Trainer, Training

Mode = Callable[[], AbstractContextManager[object]]

MODES = pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "no_grad", "autocast"],
)

ROWS = np.random.default_rng(0).normal(size=(12, 4))
LABELS = np.arange(8) % 2


def method() -> Method:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    return maml(network, rate=0.5, steps=2)


@MODES
def test_a_classifier_fits_and_predicts_alike(mode: Mode) -> None:
    made = FewShotClassifier(method(), statistics="support").fit(ROWS[:8], LABELS)
    wanted = made.predict_proba(ROWS[8:])
    with mode():
        np.testing.assert_array_equal(made.predict_proba(ROWS[8:]), wanted)
        within = FewShotClassifier(method(), statistics="support").fit(torch.tensor(ROWS[:8]), LABELS)
        np.testing.assert_array_equal(within.predict_proba(torch.tensor(ROWS[8:])), wanted)
    np.testing.assert_array_equal(within.predict_proba(ROWS[8:]), wanted)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder = tmp_path_factory.mktemp("plain") / "run"
    run = Run.create(config(), folder)
    run.train()
    return folder, run.test(tasks=4).scores["adapted"].tolist()


def config() -> Config:
    recipe = RECIPES["maml-sinusoid"]()
    short = replace(recipe.training, steps=2, tasks=2, validate_every=2, validation_tasks=2, compile="off")
    return replace(recipe, training=short)


@MODES
def test_a_run_trains_tests_and_loads_alike(trained: tuple[Path, list[float]], mode: Mode, tmp_path: Path) -> None:
    folder, wanted = trained
    with mode():
        run = Run.create(config(), tmp_path / "run")
        run.train()
        assert run.test(tasks=4).scores["adapted"].tolist() == wanted
        assert Run.open(folder).test(tasks=4).scores["adapted"].tolist() == wanted
        loaded = fewstep.load(tmp_path / "run")
    few = [[0.0], [1.0], [2.0]], [0.0, 0.8, 0.9]
    found = loaded.fit(*few).predict([[1.5]])
    np.testing.assert_array_equal(found, FewShotRegressor(opened.opened(folder)).fit(*few).predict([[1.5]]))


def test_a_network_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with torch.inference_mode():
        made = method()
    with pytest.raises(ValueError, match="inference_mode, which bars training"):
        Trainer(made, Sinusoids(shots=2, queries=2, tasks=2, seed=0), Training(1), lambda _: 0.0, folder=tmp_path)
