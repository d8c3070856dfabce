"""Recipes on stored features: the published settings, the rows of the ablation, and what a search may draw."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pages import ROOT
from sklearn.linear_model import LogisticRegression

import fewstep
from fewstep.core import Differentiate
from fewstep.data import cosine_weights, embeddings, softmax_weights
from fewstep.data.images.class_splits import class_split
from fewstep.experiments.ablate.rows import table_2
from fewstep.experiments.compare.procedure import compare
from fewstep.experiments.repeat.procedure import repeat
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config, Range, with_settings
from fewstep.recipes.config import Algorithm
from fewstep.recipes.methods.adapting import MetaSgd
from fewstep.recipes.methods.leo import Leo
from fewstep.recipes.methods.others import ResidualPrototypes
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training.device import Place

HERE = Place(torch.device("cpu"), torch.float32)
SHARED = ROOT.parent / "shared"
CELLS = [(dataset, shots) for dataset in ("miniimagenet", "tieredimagenet") for shots in (1, 5)]
README_ROWS = {
    "outer_lr": "training.rate",
    "l2_penalty_weight": "method.l2_weight",
    "orthogonality_penalty_weight": "method.orthogonality_weight",
    "dropout_rate": "method.dropout",
    "kl_weight": "method.kl_weight",
    "encoder_penalty_weight": "method.encoder_penalty_weight",
}
PAPER_ROWS = {
    "η": "training.rate",
    "λ1": "method.l2_weight",
    "λ2": "method.orthogonality_weight",
    "pkeep": "method.dropout",
    "β": "method.kl_weight",
    "γ": "method.encoder_penalty_weight",
}


def setting(config: Config, path: str) -> float:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, float)
    return value


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Four classes a split, each around a direction of its own, of lengths that are not 1."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 1, 16)) * 4
    rows = (centres + random.normal(size=(12, 30, 16))).astype(np.float16)
    np.savez(tmp_path / "features.npz", features=rows, split=np.repeat([0, 1, 2], 4).astype(np.uint8))
    return tmp_path / "features.npz"


def tiny(features: Path, name: str = "leo-cifarfs-1shot") -> Config:
    config = RECIPES[name]()
    assert isinstance(config.data, Embeddings)
    if isinstance(config.method, Leo):  # so few dimensions do not stand the usual rate
        config = replace(config, method=replace(config.method, latent_rate=0.1))
    return replace(
        config,
        data=replace(config.data, path=str(features), ways=3, queries=5),
        training=replace(config.training, steps=4, tasks=3, validate_every=2, validation_tasks=4),
        testing=replace(config.testing, tasks=6),
        threads=1,
    )


@pytest.mark.parametrize("column", range(4))
def test_recipes_of_the_authors_have_the_values_that_they_publish(column: int) -> None:
    if not SHARED.exists():
        pytest.skip("the reference material in ../shared is not here")
    dataset, shots = CELLS[column]
    text = (SHARED / "reference/methods.md").read_text()
    config = RECIPES[f"leo-{dataset}-{shots}shot"]()
    for row, path in README_ROWS.items():
        cells = re.search(rf"^\| {row} \|(.*)\|$", text, re.M)
        assert cells is not None, row
        assert setting(config, path) == float(cells[1].split("|")[column]), row
    paper = next(
        p
        for p in (SHARED / "seeds").glob("*.txt")
        if "Latent Embedding Optimization" in p.read_text()[:9000] and "0.00043653954" in p.read_text()
    )
    config = RECIPES[f"leo-{dataset}-paper-{shots}shot"]()
    for row, path in PAPER_ROWS.items():
        line = re.search(rf"^{row}\b[^\t]*\t(.*)$", paper.read_text(), re.M)
        assert line is not None, row
        value = float(line[1].split("\t")[column])
        assert setting(config, path) == pytest.approx(1 - value if row == "pkeep" else value, rel=1e-12), row
    assert isinstance(config.method, Leo)
    assert config.method.formulation == "paper"
    assert (config.training.task_reduction, config.training.clip_scope) == ("sum", "global")


def test_the_ranges_hold_what_the_authors_found() -> None:
    for dataset, shots in CELLS:
        recipe = RECIPES[f"leo-{dataset}-{shots}shot"]
        assert len(recipe.space) == 6
        for one in recipe.space:
            assert one.low < setting(recipe(), one.setting) < one.high, one


OF_PAPERS = [f"{method}-miniimagenet-features-1shot" for method in ("tpn", "tadam", "dfsl")]
NEUTRAL = [name for name in RECIPES if re.fullmatch(r"(?!.*(imagenet|cifarfs)).*-features-[15]shot", name)]


@pytest.mark.parametrize("name", [*(n for n in RECIPES if "cifarfs" in n and "way-" not in n), *NEUTRAL, *OF_PAPERS])
def test_a_recipe_on_features_trains_every_parameter(name: str, features: Path) -> None:
    config = tiny(features, name)
    problem = config.data.open(HERE, lambda _: None)
    torch.manual_seed(0)
    method = config.method.build(problem)
    if isinstance(config.method, ResidualPrototypes):  # what it adds is zero at first, and so is the slope of its parts
        torch.nn.init.ones_(method.learner.get_parameter("embedding.2.outer.weight"))
    for one, parameter in method.learner.named_parameters():
        if one.endswith("gate"):  # shut at first
            torch.nn.init.ones_(parameter)
    if not method.learner.trained():
        pytest.skip("nothing is meta-learned")
    tasks = problem.source("train", tasks=2, seed=0).batch(0)
    assert torch.allclose(tasks.support.x.norm(dim=-1), torch.ones(()), atol=1e-5)
    step = Differentiate(method, config.training.make_executor())(tasks, method.learner.draws(tasks, torch.Generator()))
    for name, gradient in zip(dict(method.learner.named_parameters()), step.gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


def test_every_method_has_recipes_on_features_of_ones_own() -> None:
    configs = [RECIPES[name]() for name in NEUTRAL]
    assert {type(config.method) for config in configs} == {*get_args(Algorithm)}
    assert {config.data.shots for config in configs} == {1, 5}
    for config in configs:
        assert config.data.path is None  # type: ignore[union-attr]
        assert config.data.dataset == "own"  # type: ignore[union-attr]
    assert len(NEUTRAL) == 2 * (len(get_args(Algorithm)) + 3), "first-order MAML, T-net and CNP have their own"


@pytest.mark.parametrize("name", [name for name in NEUTRAL if "1shot" in name])
def test_a_recipe_on_features_of_ones_own_trains(name: str, features: Path, tmp_path: Path) -> None:
    run = Run.create(tiny(features, name), tmp_path / "run", lambda _: None)
    assert run.train().state.nonfinite == 0
    assert np.isfinite(run.test().scores["adapted"]).all()


def test_a_run_that_learns_nothing_is_a_run_like_any_other(features: Path, tmp_path: Path) -> None:
    """Its prior is in its checkpoint; gone on with, it has nothing to do."""
    config = tiny(features, "gaussian-prior-features-5shot")
    run = Run.create(config, tmp_path / "run", lambda _: None)
    state = run.train().state
    assert (state.step, state.finished) == (0, True)
    run.record(run.test())
    assert Run.resume(tmp_path / "run", lambda _: None).train().state.best == state.best
    assert "gaussian" in (tmp_path / "run" / "report.md").read_text()
    features.unlink()
    prior = fewstep.load(tmp_path / "run").model.method.learner.start
    for name, tensor in run.method.learner.start.state_dict().items():
        assert torch.equal(prior.state_dict()[name], tensor)


def test_softmax_weights_are_those_of_scikit_learn(features: Path) -> None:
    data = embeddings(features, "train")
    found = softmax_weights(data, rows=7, penalty=0.01)
    own = np.concatenate([np.unique(np.linspace(30 * c, 30 * c + 29, 7).round().astype(int)) for c in range(4)])
    x, y = data.gather(own, dtype=torch.float64).numpy(), np.repeat(np.arange(4), 7)
    fit = LogisticRegression(C=1 / (0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(found, fit.coef_, atol=1e-5)


def test_cosine_weights_are_a_minimum_and_better_than_class_means(features: Path) -> None:
    data = embeddings(features, "train")
    rows = data.gather(np.arange(len(data)), dtype=torch.float64)
    y = torch.from_numpy(data.labels)

    def loss(weights: torch.Tensor) -> float:
        scores = rows @ weights.T / rows.norm(dim=1, keepdim=True) / weights.norm(dim=1)
        return torch.nn.functional.cross_entropy(2 * scores, y).item()

    found = cosine_weights(data, rows=30, scale=2.0, iterations=1000)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
    means = torch.stack([rows[y == c].mean(0) for c in range(4)])
    assert loss(found) < loss(means) - 0.01
    for seed in range(5):
        step = 1e-3 * torch.randn(found.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert loss(found + step) > loss(found)


def stated(data: Embeddings) -> str:
    return str(data.open(HERE, lambda _: None).protocol["dataset"])


def test_reports_name_the_data_and_not_those_of_the_recipe(features: Path, tmp_path: Path) -> None:
    run = Run.create(tiny(features, "protonet-cifarfs-features-1shot"), tmp_path / "run", lambda _: None)
    run.train()
    run.record(run.test())
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| dataset | features.npz |" in report
    assert "| dataset | CIFAR-FS |" not in report
    here = str(features)
    for dataset, title in (("own", "features.npz"), ("miniImageNet", "features.npz"), ("birds", "birds")):
        assert stated(Embeddings(dataset=dataset, path=here)) == title
    held, names = dict(np.load(features)), [class_split("CIFAR-FS", split)[:4] for split in ("train", "val", "test")]
    np.savez(features, **held, class_names=np.concatenate(names))
    assert stated(Embeddings(dataset="CIFAR-FS", path=here)) == "CIFAR-FS", "its classes are those"
    assert stated(Embeddings(dataset="miniImageNet", path=here)) == "features.npz"


def test_published_numbers_of_other_data_are_not_shown_beside_ones_own(features: Path, tmp_path: Path) -> None:
    assert RECIPES["meta-sgd-miniimagenet-features-1shot"].published
    run = Run.create(tiny(features, "meta-sgd-miniimagenet-features-1shot"), tmp_path / "run", lambda _: None)
    run.train()
    found = compare([tmp_path / "run"], out=tmp_path / "compared", tasks=2, note=lambda _: None)
    assert found.protocol["dataset"] == "features.npz"
    assert found.rows[0].published == ()


def test_the_last_stage_trains_on_validation_classes_too(features: Path) -> None:
    config = tiny(features)
    assert isinstance(config.data, Embeddings)
    data = replace(config.data, ways=8, queries=1, train_on="trainval")
    problem = data.open(HERE, lambda _: None)
    assert problem.source("train", tasks=1, seed=0).batch(0).support.y.shape == (1, 8, 8)
    assert problem.protocol["classes"] == {"train": 8, "val": 4, "test": 4}
    with pytest.raises(ValueError, match="8"):
        replace(data, train_on="train").open(HERE, lambda _: None).source("train", tasks=1, seed=0)


def test_other_features_at_the_same_place_are_told_apart(features: Path, tmp_path: Path) -> None:
    """What repetitions, ablations and searches go by when they go on."""
    config = tiny(features, "protonet-cifarfs-features-1shot")
    stated = config.data.open(HERE, lambda _: None).protocol["features"]
    repeat(config, seeds=(0,), out=tmp_path / "runs", workers=1, note=lambda _: None)
    held = dict(np.load(features))
    np.savez(features, **held | {"features": held["features"] * 2})
    assert config.data.open(HERE, lambda _: None).protocol["features"] != stated
    with pytest.raises(ValueError, match="have changed since it was begun: train"):
        repeat(config, seeds=(0, 1), out=tmp_path / "runs", workers=1, note=lambda _: None)


def test_a_run_on_features_is_loaded_without_them_and_normalises(features: Path, tmp_path: Path) -> None:
    run = Run.create(tiny(features), tmp_path / "run", lambda _: None)
    run.train()
    run.record(run.test())
    x = np.load(features)["features"][8:11].astype(np.float32)
    expected = Run.open(tmp_path / "run", lambda _: None)
    features.unlink()
    classifier = fewstep.load(tmp_path / "run")
    scaled = classifier.fit(x[:, 0] * 7, ["a", "b", "c"]).predict_proba(x[:, 1] * 0.1)
    same = classifier.fit(x[:, 0], ["a", "b", "c"]).predict_proba(x[:, 1])
    assert np.allclose(scaled, same, atol=1e-6)
    assert expected.problem.of_features


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Embeddings(), r"features of own are yours to give: --data.path FILE"),
        (Embeddings(dataset="tieredImageNet", views="multiview"), "no multiview embeddings of tieredImageNet"),
        (
            Embeddings(dataset="miniImageNet"),
            r"not in .*miniImageNet/center: fetch them by `fewstep data leo-embeddings`",
        ),
    ],
)
def test_features_that_are_not_there_are_asked_for(
    data: Embeddings, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        data.open(HERE, lambda _: None)


def test_rows_of_the_ablation_take_away_what_they_say(features: Path) -> None:
    base = tiny(features)
    rows = {row.slug: row for row in table_2(base)}
    assert list(rows) == [
        "meta-sgd",
        "generator-only",
        "generator-finetuning",
        "random-prior",
        "deterministic",
        "no-finetuning",
        "leo",
    ]
    assert rows["leo"].config == base
    problem = base.data.open(HERE, lambda _: None)
    for slug, row in rows.items():
        assert (row.config.data, row.config.training, row.config.testing) == (base.data, base.training, base.testing)
        method = row.config.method.build(problem)
        names = {name for name, _ in method.learner.named_parameters()}
        assert any("encoder" in name for name in names) == (slug not in ("random-prior", "meta-sgd")), slug
        drawn = method.learner.sites(problem.source("train", tasks=1, seed=0).batch(0))
        assert ("Normal" in str(drawn)) == (slug not in ("deterministic", "meta-sgd")), slug
        for one in row.space:  # every setting that is searched has an effect there
            assert with_settings(row.config, {one.setting: one.at(0.3)}) != row.config
    sgd = rows["meta-sgd"].config.method
    assert isinstance(sgd, MetaSgd)
    assert sgd.dropout == base.method.dropout  # type: ignore[union-attr]
    for other, kind in (("meta-sgd-cifarfs-features-1shot", "MetaSgd"), ("leo-joint-omniglot", "JointLeo")):
        with pytest.raises(ValueError, match=f"takes LEO apart; {other} is {kind}"):
            table_2(RECIPES[other]())


def test_what_a_row_does_not_search_has_no_effect_on_it(features: Path) -> None:
    """The settings left out of a row's space change neither its objective nor its meta-gradient."""
    base = tiny(features)
    problem = base.data.open(HERE, lambda _: None)
    tasks = problem.source("train", tasks=2, seed=0).batch(0)
    full = {one.setting for one in RECIPES["leo-cifarfs-1shot"].space} - {"training.rate"}
    for row in table_2(base)[1:]:
        left_out = full - {one.setting for one in row.space}
        results = []
        for config in (row.config, with_settings(row.config, dict.fromkeys(left_out, 0.77))):
            torch.manual_seed(0)
            method = config.method.build(problem)
            draws = method.learner.draws(tasks, torch.Generator().manual_seed(1))
            results.append(Differentiate(method, config.training.make_executor())(tasks, draws))
        for one, other in zip(*(result.gradients for result in results), strict=True):
            assert torch.equal(one, other), row.slug


def test_ranges_draw_and_settings_change() -> None:
    config = RECIPES["meta-sgd-cifarfs-features-1shot"]()
    assert Range("a", 1e-4, 1.0, log=True).at(0.5) == pytest.approx(1e-2)
    assert Range("a", 2.0, 4.0).at(0.25) == 2.5
    for range, expected in (
        (Range("a", 2.0, 4.0, whole=True), {2: 1 / 3, 3: 1 / 3, 4: 1 / 3}),
        (Range("a", 1.0, 3.0, log=True, whole=True), {k: np.log((k + 1) / k) / np.log(4) for k in (1, 2, 3)}),
    ):
        drawn = [range.at(float(share)) for share in np.linspace(0.0, 1.0, 601)]
        assert {k: drawn.count(k) / 601 for k in drawn} == pytest.approx(expected, abs=3e-3)
    new = with_settings(config, {"method.rate": 3.0, "training.rate": 0.5})
    assert asdict(new.method)["rate"] == (3.0, 3.0)
    assert new.training.rate == 0.5
    for bad, words in (
        ("method.latents", "has no setting 'latents'"),
        ("method.network", "is not a number"),
        ("method.per_step", "is not a number"),
    ):
        with pytest.raises(ValueError, match=words):
            with_settings(config, {bad: 1.0})
    for low, high, log in ((1.0, 1.0, False), (0.0, 1.0, True), (0.0, float("inf"), False)):
        with pytest.raises(ValueError, match="range needs"):
            Range("a", low, high, log)
    with pytest.raises(ValueError, match=r"whole numbers lie between such, got 1\.5 and 4\.0"):
        Range("a", 1.5, 4.0, whole=True)
