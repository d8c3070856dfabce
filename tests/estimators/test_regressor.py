"""A trained method on points of one's own: its functions, what they say together, and what is refused."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from torch import nn

import fewstep
from fewstep import FewShotClassifier, FewShotRegressor, Prediction
from fewstep.algorithms import cavia, leo_network, maml, neural_process
from fewstep.core import (
    BOUNDED,
    Batch,
    Decode,
    Learner,
    Loss,
    Method,
    NetworkGenerator,
    Task,
    generator,
    regression,
    slots,
)
from fewstep.core.meta_gradient import Backprop
from fewstep.evaluation.functions import Functions
from fewstep.evaluation.inner_loop import descents, evaluating
from fewstep.experiments.run import Run
from fewstep.networks import Ensemble, mlp
from fewstep.networks.ensemble import squared_error_of_each
from fewstep.recipes import RECIPES
from fewstep.recipes.methods.leo import LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.training import Training

PAGE = pages.ROOT / "docs" / "uncertainty.md"


def leo(features: int = 1, outputs: int = 1) -> Method:
    network = mlp((features, 6, outputs))
    method = leo_network(network, features, outputs, latents=3, hidden=8, latent_steps=2, finetuning_steps=1)
    method.learner.double()
    return method


def one_network(features: int = 1, outputs: int = 1) -> Method:
    method = maml(mlp((features, 6, outputs)), rate=0.05, steps=3, loss=regression())
    method.learner.double()
    return method


def ensemble(outputs: int = 1) -> Method:
    network = Ensemble(lambda: mlp((1, 6, outputs)), 3)
    method = maml(network, rate=0.05, steps=3, loss=Loss(squared_error_of_each))
    method.learner.double()
    return method


def points(*features: int, rows: int = 5, outputs: tuple[int, ...] = ()) -> tuple[NDArray[Any], NDArray[Any]]:
    source = np.random.default_rng(len(features))
    return source.uniform(-3, 3, (rows, *(features or (1,)))), source.normal(size=(rows, *outputs))


def task(x: NDArray[Any], y: NDArray[Any], query: NDArray[Any]) -> Task:
    """One task, with a task axis."""
    batches = (
        Batch(torch.from_numpy(a)[None], torch.from_numpy(b)[None], torch.ones(1, len(a)).double())
        for a, b in ((x, y), (query, np.zeros((len(query), y.shape[1]))))
    )
    return Task(*batches)


# -- functions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "functions"), [(leo, 7), (ensemble, 3), (one_network, 1)])
def test_functions_are_those_of_a_judgement_with_the_same_seed(build: Any, functions: int) -> None:
    method, (x, y), query = build(), points(), np.linspace(-4, 4, 9)[:, None]
    found = FewShotRegressor(method, samples=7, random_state=3).fit(x, y).predict_distribution(query).samples
    assert found.shape == (functions, 9)
    one = task(x, y[:, None], query)
    (expected,) = Functions(method, 7, seed=3)(one, one.query.x[..., 0])
    np.testing.assert_allclose(found, expected[0], rtol=1e-12, atol=1e-14)
    assert len(np.unique(found[:, 0])) == functions


def test_samples_of_vectors_by_hand() -> None:
    method, (x, y) = leo(3, 2), points(3, outputs=(2,))
    query = points(3, rows=4)[0]
    found = FewShotRegressor(method, samples=4, random_state=5).fit(x, y).predict_distribution(query).samples
    one = task(x, y, query)
    many = Task(*(Batch(*(t.repeat_interleave(4, 0) for t in batch)) for batch in one))
    noise = method.learner.noise(many, generator(5, 0, "functions/test"))
    expected = method.predict(method.adapt(many.support, noise=noise), many.query)
    np.testing.assert_array_equal(found, expected.numpy())
    assert found.shape == (4, 4, 2)


def test_members_of_an_ensemble_of_vectors_are_networks_of_their_own() -> None:
    method, (x, y), query = ensemble(outputs=2), points(outputs=(2,)), np.linspace(-4, 4, 6)[:, None]
    found = FewShotRegressor(method).fit(x, y).predict_distribution(query).samples
    for m in range(3):
        alone = one_network(outputs=2)
        weights = {n.replace(":", "."): p[m] for n, p in method.learner.network.state_dict().items()}
        alone.learner.network.load_state_dict(weights)
        expected = FewShotRegressor(alone).fit(x, y).predict_distribution(query).samples
        np.testing.assert_allclose(found[m : m + 1], expected, rtol=1e-10, atol=1e-12)


def test_what_is_asked_in_pieces_is_asked_of_the_same_functions() -> None:
    (x, y), query = points(), np.linspace(-5, 5, 2100)[:, None]  # more rows than are evaluated at once
    model = FewShotRegressor(leo(), samples=3).fit(x, y)
    whole = model.predict_distribution(query).samples
    pieces = [model.predict_distribution(part).samples for part in (query[:700], query[700:])]
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, rtol=1e-12, atol=1e-14)
    other = FewShotRegressor(model.model, samples=3, random_state=1).fit(x, y).predict_distribution(query).samples
    assert np.abs(other - whole).max(1).min() > 1e-6


@pytest.mark.parametrize("build", [leo, ensemble, one_network])
def test_fitting_changes_nothing_and_begins_anew(build: Any) -> None:
    method, (x, y) = build(), points()
    before, random = {name: p.clone() for name, p in method.learner.named_parameters()}, torch.get_rng_state()
    steps = [stage.steps for stage in descents(method.learner)]
    model = FewShotRegressor(method, samples=3)
    first = model.fit(x, y).predict_distribution(x).samples
    assert np.abs(model.fit(x, y + 1).predict_distribution(x).samples - first).max() > 1e-6
    np.testing.assert_array_equal(
        model.fit(torch.from_numpy(x), torch.from_numpy(y)).predict_distribution(x).samples, first
    )
    assert all(torch.equal(p, before[name]) for name, p in method.learner.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert method.learner.training
    assert [stage.steps for stage in descents(method.learner)] == steps


def test_predictions_have_the_form_of_the_targets() -> None:
    x, y = points()
    model = FewShotRegressor(one_network())
    flat = model.fit(x, y).predict_distribution(x)
    assert (flat.samples.shape, flat.mean.shape, flat.interval(0.5)[0].shape) == ((1, 5), (5,), (5,))
    column = model.fit(x, y[:, None]).predict_distribution(x)
    assert (column.samples.shape, column.deviation.shape, column.interval(0.5)[1].shape) == ((1, 5, 1), (5, 1), (5, 1))
    np.testing.assert_array_equal(column.samples[..., 0], flat.samples)


def test_sampling_does_not_drop_inputs() -> None:
    """Dropout belongs to meta-training, where the noise that samples are drawn with comes from."""
    found = []
    for rate in (0.0, 0.5):
        torch.manual_seed(0)
        network = mlp((3, 6, 1))
        start = NetworkGenerator(slots(network), 3, 1, 3, formulation=BOUNDED)
        learner = Learner(network, start, [Decode()], loss=regression(), dropout=rate).double()
        found.append(
            FewShotRegressor(Method(learner, Backprop()), samples=4).fit(*points(3)).predict_distribution(points(3)[0])
        )
    np.testing.assert_array_equal(found[0].samples, found[1].samples)


@pytest.mark.filterwarnings("ignore:.*depend on the rows that are asked with it")
def test_queries_are_normalised_by_the_support_unless_asked_otherwise() -> None:
    method = maml(mlp((1, 6, 1), norm=True), rate=0.05, steps=2, loss=regression())
    method.learner.double()
    (x, y), query = points(), np.linspace(-4, 4, 6)[:, None]
    seen = []
    for option in ("support", "joined", "running", "query"):
        model = FewShotRegressor(method, statistics=option).fit(x, y)
        seen.append(model.predict_distribution(query).mean)
        alone = np.concatenate([model.predict_distribution(query[i : i + 1]).mean for i in range(6)])
        assert (np.abs(alone - seen[-1]).max() < 1e-12) == (option != "query"), option
    assert all(np.abs(one - other).max() > 1e-4 for i, one in enumerate(seen) for other in seen[:i])


class Halting(nn.Module):
    """A network that no map over tasks can run: what it does depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y if bool(y.sum() > 0) else 2 * y


def test_a_lone_function_needs_no_map_over_tasks() -> None:
    model = FewShotRegressor(maml(Halting(), rate=0.01, loss=regression()))
    assert model.fit(*points()).predict_distribution([[0.0], [1.0]]).mean.shape == (2,)


# -- predictions -------------------------------------------------------------------------------------------------------


def test_moments_and_intervals_of_the_functions() -> None:
    samples = np.arange(11.0)[::-1, None] * [1.0, -2.0]
    prediction = Prediction(samples)
    np.testing.assert_allclose(prediction.mean, [5, -10])
    np.testing.assert_allclose(prediction.deviation, math.sqrt(10) * np.array([1, 2]))
    for ends, expected in zip(prediction.interval(0.9), ([0.5, -19], [9.5, -1]), strict=True):
        np.testing.assert_allclose(ends, expected)


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_intervals_of_a_target_are_quantiles_of_the_mixture(outputs: tuple[int, ...]) -> None:
    """Against bisection with the standard library's error function, one target at a time."""
    samples, noise = 3 * np.random.default_rng(0).normal(size=(6, 4, *outputs)), 0.4
    prediction = Prediction(samples, noise)
    low, high = prediction.interval(0.8)
    assert low.shape == high.shape == prediction.mean.shape == (4, *outputs)
    np.testing.assert_allclose(prediction.deviation**2, samples.var(0) + noise**2)
    for place in np.ndindex(low.shape):
        for level, found in ((0.1, low[place]), (0.9, high[place])):
            below, above = -50.0, 50.0
            for _ in range(60):
                middle = (below + above) / 2
                mass = np.mean([0.5 * math.erfc((f - middle) / noise / math.sqrt(2)) for f in samples[:, *place]])
                below, above = (middle, above) if mass < level else (below, middle)
            assert found == pytest.approx(below, abs=1e-6)


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_a_method_that_predicts_deviations_needs_no_noise(outputs: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    width = outputs[0] if outputs else 1
    method = neural_process(1, width, latents=2, width=3, hidden=5)
    method.learner.double()
    (x, y), query = points(outputs=outputs), np.linspace(-4, 4, 6)[:, None]
    found = FewShotRegressor(method, samples=4).fit(x, y).predict_distribution(query)
    means, deviations = (
        Functions(method, 4).adapt(task(x, y.reshape(5, -1), query).support).read(torch.from_numpy(query)[None])
    )
    assert deviations is not None
    shape = (4, 6, *outputs)
    np.testing.assert_array_equal(found.samples, means.reshape(shape))
    np.testing.assert_array_equal(found.noise, deviations.reshape(shape))
    variance = means.var(1) + (deviations**2).mean(1)
    np.testing.assert_allclose(found.deviation, np.sqrt(variance).reshape(shape[1:]), rtol=1e-12)
    low, high = found.interval(0.9)
    for ends, level in ((low, 0.05), (high, 0.95)):
        z = torch.from_numpy((ends.reshape(6, -1) - means) / deviations)
        np.testing.assert_allclose(torch.special.ndtr(z).mean(1)[0], level, atol=1e-6)
    assert isinstance(FewShotRegressor(method, noise=0.5).fit(x, y).predict_distribution(query).noise, float)


def test_a_steered_network_is_asked_for_the_width_of_its_inputs() -> None:
    """Its first layer is wider than they are."""
    x, y = points(3)
    method = cavia(mlp((3, 5, 1), context=2).double(), loss=regression())
    assert FewShotRegressor(method).fit(x, y).predict(x).shape == (5,)


def test_a_single_function_knows_no_more_than_its_noise() -> None:
    model = FewShotRegressor(one_network(), noise=0.5).fit(*points())
    sure = FewShotRegressor(model.model).fit(*points())
    x = np.linspace(-2, 2, 3)[:, None]
    low, high = model.predict_distribution(x).interval(0.9)
    np.testing.assert_allclose(high - low, 2 * 1.6448536269514722 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(*sure.predict_distribution(x).interval(0.9))
    assert sure.predict_distribution(x).deviation.tolist() == [0, 0, 0]


# -- what is refused ---------------------------------------------------------------------------------------------------

FIVE = np.arange(5.0)
ROWS = FIVE[:, None]


@pytest.mark.parametrize(
    ("build", "x", "y", "message"),
    [
        (leo, ROWS, FIVE[:4], r"a target for each of the 5 rows of X, got the shape \(4,\)"),
        (leo, ROWS, np.ones((5, 1, 1)), r"got the shape \(5, 1, 1\)"),
        (leo, np.ones((5, 2)), FIVE, "X has 2 features, but the model takes 1: give the features that it was"),
        (leo, ROWS, np.ones((5, 2)), "does not take rows of 1 feature with 2 target"),
        (one_network, np.ones((5, 2)), FIVE, "X has 2 features, but the model takes 1"),
        (one_network, ROWS, np.ones((5, 2)), r"y has 2 target\(s\) a row, but the method's network gives 1"),
        (ensemble, ROWS, np.ones((5, 3)), r"y has 3 target\(s\) a row, but the method's network gives 1"),
        (leo, [[0], [1], [np.nan], [3], [np.inf]], FIVE, "2 of 5 rows of X hold NaN or infinity, the first is row 2"),
        (leo, ROWS, np.array([0, 1, 2, 3, np.nan]), "1 of 5 rows of y hold NaN or infinity, the first is row 4"),
        (leo, ROWS, list("abcde"), "y must be numbers, but holds text"),
        (leo, ROWS, [0.0, 1.0, None, 3.0, 4.0], "1 of 5 rows of y hold NaN"),
        (leo, ROWS * 1j, FIVE, "Complex data not supported"),
        (leo, FIVE, FIVE, "Expected 2D array, got 1D array"),
        (leo, np.zeros((0, 1)), [], "minimum of 1 is required"),
    ],
)
def test_points_that_do_not_fit(build: Any, x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotRegressor(build(), samples=2).fit(x, y)


def test_settings_and_methods_that_make_no_regressor() -> None:
    for noise in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="noise is a standard deviation, positive and finite"):
            FewShotRegressor(leo(), noise=noise).fit(ROWS, FIVE)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        FewShotRegressor(leo(), samples=0).fit(ROWS, FIVE)
    with pytest.raises(ValueError, match="a cross-entropy, of classes"):
        FewShotRegressor(maml(mlp((1, 4, 2)), rate=0.1)).fit(ROWS, FIVE)


def test_predicting_before_fitting_and_what_cannot_be_predicted() -> None:
    model = FewShotRegressor(leo(), samples=3)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict(ROWS)
    model.fit(ROWS, FIVE)
    with pytest.raises(ValueError, match="X has 2 features, but FewShotRegressor is expecting 1 features"):
        model.predict_distribution(np.ones((5, 2)))
    for probability in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match=f"a probability between 0 and 1 is needed, got {probability}"):
            model.predict_distribution(ROWS).interval(probability)
    diverging = FewShotRegressor(maml(nn.Linear(1, 1), rate=1.0, steps=100, loss=regression()))
    with pytest.raises(ValueError, match="1 of 1 functions have values that are not finite: adaptation diverged"):
        diverging.fit(100 * ROWS, FIVE).predict(ROWS)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    config = RECIPES["leo-sine-line"]()
    assert isinstance(config.method, LeoNetwork)
    training = Training(
        steps=4,
        tasks=4,
        rate=0.01,
        validate_every=4,
        validation_tasks=4,
        log_every=4,
        checkpoint_every=4,
        compile="off",
    )
    method = replace(config.method, network=Network("mlp", (6,)), latents=4, hidden=8)
    folder = tmp_path_factory.mktemp("runs") / "leo"
    Run.create(replace(config, method=method, training=training), folder).train()
    return folder


def test_a_loaded_run_is_its_method_as_it_is_tested(run: Path, tmp_path: Path) -> None:
    copied, opened = shutil.copytree(run, tmp_path / "elsewhere"), Run.open(run)
    loaded = fewstep.load(copied)
    assert isinstance(loaded, FewShotRegressor)
    source = opened.problem.source("test", tasks=1, seed=0, queries=6)
    one = source.batch(0)
    with opened.at_test(), evaluating(opened.method.learner):
        (expected,) = Functions(opened.method, 100)(one, one.query.x[..., 0])
    found = loaded.fit(one.support.x[0], one.support.y[0, :, 0]).predict_distribution(one.query.x[0])
    np.testing.assert_allclose(found.samples, expected[0], rtol=1e-5, atol=1e-6)
    assert found.samples.shape == (100, 6)
    assert found.noise is None


def test_the_page_on_uncertainty_predicts(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run, tmp_path / "leo")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8").replace("```py\n", "```python\n")
    (block,) = [block for block in pages.blocks(text) if "fewstep.load" in block.code]
    space: dict[str, Any] = {}
    exec(compile(block.code, PAGE.name, "exec"), space)
    assert space["prediction"].samples.shape == (100, 101)
    assert (space["low"] < space["high"]).all()
    assert not isinstance(space["functions"], FewShotClassifier)


def test_running_statistics_of_codes_are_those_of_the_decoded_network() -> None:
    """LEO for networks passes codes on its way, which a network cannot be run with."""
    torch.manual_seed(0)
    method = leo_network(mlp((1, 8, 1), norm=True), 1, 1, loss=regression())
    x, y = torch.linspace(-1, 1, 5)[:, None], torch.linspace(0, 1, 5)
    predictions = FewShotRegressor(method, statistics="running").fit(x, y).predict_distribution(x)
    assert np.isfinite(predictions.samples).all()
