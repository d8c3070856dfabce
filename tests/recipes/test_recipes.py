"""Recipes: what they ask of their data, and that each of them trains."""

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.core import Backprop, Batch, Clip, Differentiate
from fewstep.core.network.heads import TaskHead
from fewstep.data import Augmentation, Dataset
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config
from fewstep.recipes.config import from_json, to_json
from fewstep.recipes.problems.functions import OscillationTasks
from fewstep.recipes.problems.images import CifarImages, ImageNetImages
from fewstep.recipes.problems.omniglot_features import OmniglotFeatures
from fewstep.recipes.problems.problem import SPLITS, Problem
from fewstep.training import Training
from fewstep.training.device import Place
from fewstep.training.pretraining import Architecture, Pretraining

HERE = Place(torch.device("cpu"), torch.float32)


@functools.cache
def noise(split: str, size: int, channels: int) -> Dataset:
    """Sixty classes of 25 images, of another colour in every split."""
    shade = {"train": 40, "val": 120, "test": 200}[split]
    pixels = np.random.default_rng(shade).integers(shade, shade + 40, (1500, channels, size, size), np.uint8)
    return Dataset.from_sorted(pixels, np.arange(0, 1501, 25), name="noise", split=split)


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.data.omniglot", lambda split, **_: noise(split, 28, 1))
    for loader in ("cifar_fs", "fc100"):
        monkeypatch.setattr(f"fewstep.data.{loader}", lambda split, **_: noise(split, 32, 3))
    for loader in ("mini_imagenet", "tiered_imagenet"):
        monkeypatch.setattr(f"fewstep.data.{loader}", lambda split, path, size, **_: noise(split, size, 3))


def opened(config: Config) -> Problem:
    data = replace(config.data, path="somewhere") if isinstance(config.data, ImageNetImages) else config.data
    return data.open(HERE, lambda _: None)


IMAGES = [name for name in RECIPES if "way-" in name]


@pytest.mark.parametrize("name", IMAGES)
def test_a_recipes_tasks_and_network_are_those_of_its_name(name: str) -> None:
    config = RECIPES[name]()
    problem = opened(config)
    ways, shots = (int("".join(filter(str.isdigit, part))) for part in name.split("-")[-2:])
    task = problem.source("test", tasks=1, seed=0, queries=config.testing.queries).batch(0)
    assert task.support.y.shape == (1, ways * shots, ways)
    assert problem.inputs == ((1, 28, 28) if "omniglot" in name else (3, 32, 32) if "cifar" in name else (3, 84, 84))
    learner = config.method.build(problem).learner.eval()
    made = any(isinstance(module, TaskHead) for module in learner.network.modules())
    assert made or learner.features(Batch(*(rows[0, :2] for rows in task.support))).shape[1] == ways
    assert config.recipe == name


@pytest.mark.parametrize("name", [name for name in IMAGES if "cifarfs-5way-1shot" in name])
def test_a_recipe_for_photographs_takes_a_meta_step(name: str) -> None:
    config = RECIPES[name]()
    shots = {"train_shots": 2} if config.data.fewest_shots is None else {"fewest_shots": 5}  # whose network wants all
    config = replace(config, data=replace(config.data, queries=1, train_ways=None, **shots))
    problem = opened(config)
    method = config.method.build(problem)
    source = problem.source("train", tasks=2, seed=0)
    tasks = source.batch(0)
    step = Differentiate(method, config.training.make_executor())(tasks, method.learner.draws(tasks, torch.Generator()))
    assert torch.isfinite(step.objective)
    for name, gradient in zip(dict(method.learner.named_parameters()), step.gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        # A bias before a normalisation changes nothing, nor does what is behind a gate that begins shut.
        assert gradient.abs().max() > 0 or "bias" in name or (".conditioning." in name and "gate" not in name), name


def test_shots_may_be_drawn_for_each_task_of_training() -> None:
    config = RECIPES["snail-omniglot-5way-1shot"]()
    problem = opened(config)
    assert problem.protocol["training"] == "5-way 1- to 5-shot"
    weight = problem.source("train", tasks=50, seed=0).batch(0).support.weight.view(50, 5, 5)
    assert weight.sum(2).unique().tolist() == [1, 2, 3, 4, 5]
    assert problem.source("test", tasks=3, seed=0, queries=1).batch(0).support.weight.shape == (3, 5)


def test_images_are_augmented_in_training_only() -> None:
    plain, changed = CifarImages(queries=2), CifarImages(queries=2, augmentation=Augmentation(crop=4, flip=True))
    one, other = (data.open(HERE, lambda _: None) for data in (plain, changed))
    for split in ("train", "val", "test"):
        a, b = (problem.source(split, tasks=2, seed=0, queries=2).batch(0).support.x for problem in (one, other))
        assert torch.equal(a, b) == (split != "train"), split
    assert "augmentation" not in one.protocol
    assert other.protocol["augmentation"]["crop"] == 4


def test_a_configuration_with_augmentation_survives_json(tmp_path: Path) -> None:
    config = replace(
        RECIPES["maml-cifarfs-5way-1shot"](), data=CifarImages(augmentation=Augmentation(2, True, 0.2), path="here")
    )
    (tmp_path / "config.json").write_text(to_json(config))
    assert from_json(tmp_path / "config.json") == config


def test_images_that_cannot_be_fetched_are_asked_for() -> None:
    config = RECIPES["protonet-miniimagenet-5way-1shot"]()
    with pytest.raises(ValueError, match=r"miniImageNet cannot be downloaded freely: give .* --data.path"):
        config.data.open(HERE, lambda _: None)


def test_pretraining_before_a_recipe_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr("fewstep.recipes.problems.omniglot_features.SECONDS_BETWEEN_REPORTS", 0.0)
    told: list[str] = []
    network = Architecture(widths=(4, 8), pools=2)
    OmniglotFeatures(pretraining=Pretraining(network=network, epochs=2, batch=500)).open(HERE, told.append)
    assert any(re.match(r"pretraining: 3 of 6 batches \(50%\), 0:\d\d:\d\d left, loss \d", line) for line in told), told


def test_rates_halve() -> None:
    options = Training(steps=10_000, rate=2.0, decay="halving", halve_every=2000)
    assert [options.rate_at(step) for step in (0, 1999, 2000, 9999)] == [2.0, 2.0, 1.0, 0.125]


def test_rates_drop() -> None:
    options = Training(steps=10, rate=2.0, decay="drops", drops=((6, 0.01), (4, 0.1)))
    assert [options.rate_at(step) for step in (0, 3, 4, 5, 6, 9)] == [2.0, 2.0, 0.2, 0.2, 0.02, 0.02]


def test_forecasts_are_scored_beside_autoregression_and_the_exact_answer(tmp_path: Path) -> None:
    """Yardsticks cost more, and are scored where all baselines are asked for."""
    config = replace(RECIPES["maml-oscillations"](), data=OscillationTasks(queries=2))
    run = Run.create(config, tmp_path / "run")
    found = {level: run.test(tasks=3, queries=4, baselines=level).scores for level in ("none", "quick", "all")}
    own = ["adapted", "unadapted"]
    assert [list(scores) for scores in found.values()] == [
        own,
        [*own, "autoregression"],
        [*own, "autoregression", "exact forecast"],
    ]
    assert found["all"]["exact forecast"].mean() < found["all"]["autoregression"].mean()
    for data in (OscillationTasks(seen=1), OscillationTasks(noise=0.0)):  # of which one of them can say nothing
        problem = opened(replace(config, data=data))
        assert [*problem.baselines, *problem.yardsticks] == (
            ["exact forecast"] if data.seen == 1 else ["autoregression"]
        )


def test_leo_on_images_has_features_of_length_one_and_inductive_training() -> None:
    config = RECIPES["leo-joint-omniglot"]()
    method = config.method.build(opened(config))
    assert method.learner.embedding is not None
    torch.testing.assert_close(method.learner.embedding(torch.rand(5, 1, 28, 28)).norm(dim=1), torch.ones(5))
    assert isinstance(method.meta_gradient, Backprop)
    assert method.meta_gradient.statistics == "support"


@pytest.mark.parametrize("recipe", ["leo-oscillations", "maml-oscillations"])
def test_inner_gradients_of_recurrences_are_shortened(recipe: str) -> None:
    """Both by the same norm: one without would be another comparison."""
    config = RECIPES[recipe]()
    found = [m for m in config.method.build(opened(config)).learner.modules() if isinstance(m, Clip)]
    assert [rule.norm for rule in found] == [1.0]


def test_copies_of_images_are_left_out_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def loaded(split: str, *, copies: str, **_: object) -> Dataset:
        asked.append(copies)
        return noise(split, 32, 3)

    monkeypatch.setattr("fewstep.data.cifar_fs", loaded)
    protocols = [CifarImages(copies=how).open(HERE, lambda _: None).protocol for how in ("keep", "drop")]
    assert set(asked) == {"keep", "drop"}
    assert [protocol.get("copies of images") for protocol in protocols] == [None, "left out"]


def test_functions_of_fewer_points_are_of_training_alone() -> None:
    data = replace(RECIPES["leo-sine-line"]().data, fewest_shots=2)
    problem = data.open(HERE, lambda _: None)
    points = {split: problem.source(split, tasks=100, seed=0).batch(0).support.weight.sum(1) for split in SPLITS}
    assert {split: set(found.tolist()) for split, found in points.items()} == {
        "train": {2, 3, 4, 5},
        "val": {5},
        "test": {5},
    }
    assert problem.protocol["training"] == "2- to 5-shot"
