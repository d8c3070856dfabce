"""Functions of trained runs, measured beside the exact posterior: measured, written, drawn."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from fewstep.commands.main import main
from fewstep.core import Batch, Method, Task, generator
from fewstep.data.functions.sine_or_line import SineOrLine
from fewstep.data.storage.tensors import read_tensors, write_tensors
from fewstep.evaluation.exact.sine_or_line import exact_posterior, mode_mass
from fewstep.evaluation.functions import Functions, resampled
from fewstep.evaluation.inner_loop import inner_steps
from fewstep.evaluation.predictive import Measures, Predictive, fit_noise, measure
from fewstep.evaluation.statistics import Interval, paired
from fewstep.experiments.begun import mark_of
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.functions_plot import clear_and_ambiguous, plot
from fewstep.experiments.uncertainty.procedure import (
    GRID,
    measure_runs,
    run_labels,
    wide_where_not_finite,
    zero_where_not_finite,
)
from fewstep.experiments.uncertainty.result import EXACT, MethodMeasures, Uncertainty
from fewstep.recipes import RECIPES, Config
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.leo import LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.recipes.problems.functions import SinusoidTasks
from fewstep.training import Training

TINY = Training(
    steps=8, tasks=4, rate=0.01, validate_every=8, validation_tasks=4, log_every=8, checkpoint_every=8, compile="off"
)
MLP = Network("mlp", (6,))
LEO, BOUND, MAML, ENSEMBLE = "leo-sine-line", "leo-bound-sine-line", "maml-sine-line", "maml-ensemble-sine-line"
TASKS, SAMPLES, QUERIES, VALIDATION, AMBIGUOUS = 300, 8, 20, 30, 8


def tiny(recipe: str, **settings: Any) -> Config:
    config = RECIPES[recipe]()
    small = {"latents": 4, "hidden": 8} if isinstance(config.method, LeoNetwork) else {"steps": 1, "test_steps": 3}
    return replace(config, method=replace(config.method, network=MLP, **(small | settings)), training=TINY)


def trained(config: Config, folder: Path) -> Path:
    Run.create(config, folder).train()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs by the names of their recipes."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for config in (tiny(LEO), tiny(BOUND, samples=2), tiny(MAML), tiny(ENSEMBLE, members=3)):
        trained(config, folder / config.recipe)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Uncertainty:
    return measure_runs(
        [runs / name for name in (LEO, MAML, ENSEMBLE)],
        tasks=TASKS,
        samples=SAMPLES,
        queries=QUERIES,
        validation_tasks=VALIDATION,
        ambiguous=AMBIGUOUS,
    )


def tasks_of(run: Path, split: str, tasks: int, queries: int = QUERIES, seed: int = 0) -> Task:
    return Run.open(run).problem.source(split, tasks=tasks, seed=seed, queries=queries).batch(0)


def numbers(tensor: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor[..., 0].double().numpy()
    return values


# -- functions ---------------------------------------------------------------------------------------------------------


def untrained(name: str, **settings: Any) -> Method:
    config = tiny(name, **settings)
    torch.manual_seed(1)
    method = config.method.build(config.data.open(config.prepare_device(), lambda _: None))
    method.learner.double()
    return method


def some_tasks(count: int = 30) -> Task:
    return SineOrLine(shots=5, queries=4, tasks=count, seed=3, dtype=torch.float64).batch(0)


def x_of(tasks: Task) -> torch.Tensor:
    return tasks.query.x[..., 0]


def test_sampled_functions_are_those_of_adapt_and_predict_with_the_same_noise() -> None:
    """Tasks go 25 at a time, and a chunk's noise is of its first task's place."""
    method, tasks, copies = untrained(LEO), some_tasks(), 3
    (values,) = Functions(method, copies, seed=7)(tasks, x_of(tasks))
    assert values.shape == (30, copies, 4)
    for start, stop in ((0, 25), (25, 30)):
        many = Task(*(Batch(*(t[start:stop].repeat_interleave(copies, 0) for t in batch)) for batch in tasks))
        noise = method.learner.noise(many, generator(7, start, "functions/test"))
        drawn = method.predict(method.adapt(many.support, noise=noise), many.query).unflatten(0, (-1, copies))
        np.testing.assert_array_equal(values[start:stop], drawn[..., 0].numpy())


def test_samples_differ_between_each_other_and_between_tasks_and_are_repeatable() -> None:
    method, tasks = untrained(LEO), some_tasks(26)
    alike = Task(*(Batch(*(t[:1].expand_as(t) for t in batch)) for batch in tasks))  # one task 26 times
    (values,) = Functions(method, 4)(alike, x_of(alike))
    each = values.reshape(-1, values.shape[-1])
    distances = np.abs(each[:, None] - each[None]).max(-1) + np.eye(len(each))
    assert distances.min() > 1e-6, "every draw is another, within a task, a chunk and across chunks"
    (again,) = Functions(method, 4)(alike, x_of(alike))
    np.testing.assert_array_equal(values, again)
    (other,) = Functions(method, 4, seed=1)(alike, x_of(alike))
    assert np.abs(values - other).max(-1).min() > 1e-6


def test_functions_of_whole_chunks_do_not_depend_on_what_follows() -> None:
    method, tasks = untrained(LEO), some_tasks(30)
    first = Task(*(Batch(*(t[:25] for t in batch)) for batch in tasks))
    (all_,), (some,) = (Functions(method, 3)(part, x_of(part)) for part in (tasks, first))
    np.testing.assert_array_equal(all_[:25], some)


@pytest.mark.parametrize("name", [LEO, ENSEMBLE])
def test_functions_are_the_same_on_all_sets_of_inputs_and_look_at_the_support_alone(name: str) -> None:
    method, tasks = untrained(name), some_tasks(4)
    a, b = x_of(tasks), x_of(tasks)[:, :3].flip(1) + 0.5
    functions = Functions(method, 3)
    on_a, on_b = functions(tasks, a, b)
    (joined,) = functions(tasks._replace(query=tasks.support), torch.cat([a, b], 1))
    np.testing.assert_allclose(np.concatenate([on_a, on_b], 2), joined, rtol=1e-12, atol=1e-12)


def test_an_ensemble_gives_its_members_in_order() -> None:
    method, tasks = untrained(ENSEMBLE, members=3), some_tasks(6)
    (values,) = Functions(method, 50)(tasks, x_of(tasks))
    assert values.shape == (6, 3, 4)
    for m in range(3):
        one = untrained(MAML)
        weights = {n.replace(":", "."): p[m] for n, p in method.learner.network.state_dict().items()}
        one.learner.network.load_state_dict(weights)
        (alone,) = Functions(one, 50)(tasks, x_of(tasks))
        assert alone.shape == (6, 1, 4)
        np.testing.assert_allclose(values[:, m : m + 1], alone, rtol=1e-10, atol=1e-12)


def test_maml_gives_one_function() -> None:
    method, tasks = untrained(MAML), some_tasks(6)
    (values,) = Functions(method, 50)(tasks, x_of(tasks))
    expected = method.predict(method.adapt(tasks.support), tasks.query)
    np.testing.assert_array_equal(values, expected[..., 0].numpy()[:, None])


def test_the_bound_is_of_another_objective_and_not_another_method() -> None:
    """With the same weights it has the same functions as LEO; how many were adapted in training has no part in it."""
    leo, bound, tasks = untrained(LEO), untrained(BOUND, samples=5, latent_rate=1e-3), some_tasks(4)
    bound.learner.load_state_dict(leo.learner.state_dict())
    (one,), (other,) = (Functions(method, 3)(tasks, x_of(tasks)) for method in (leo, bound))
    np.testing.assert_array_equal(one, other)
    noise = bound.noise(tasks, torch.Generator().manual_seed(0))
    assert noise["copies"]["begin"]["start"]["code"].shape == (4, 5, 4), "tasks, samples, latents"


def test_a_weighted_bound_has_each_function_as_often_as_its_likelihood_on_the_support_says() -> None:
    tasks, drawn = some_tasks(30), 40
    plain, weighted = (untrained(BOUND, samples=2, spread=1.0, weighted=weighted) for weighted in (False, True))
    on_query, on_support = Functions(plain, drawn)(tasks, x_of(tasks), tasks.support.x[..., 0])
    (found,) = Functions(weighted, drawn)(tasks, x_of(tasks))
    density = -0.5 * ((tasks.support.y[..., 0].numpy()[:, None] - on_support) / 0.3) ** 2
    share = np.exp(density.sum(-1) - density.sum(-1).max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    often = (np.abs(found[:, None] - on_query[:, :, None]).max(-1) < 1e-9).sum(2)
    assert (often.sum(1) == drawn).all(), "nothing but what was drawn"
    assert np.abs(often - drawn * share).max() < 1
    assert 2 < (often > 0).sum(1).max() < drawn


def test_what_has_no_weight_is_not_taken_and_where_nothing_has_one_all_are() -> None:
    logs = torch.tensor([[0.0, math.nan, math.log(3), -math.inf], [math.nan, math.inf, -math.inf, math.nan]])
    assert resampled(logs).tolist() == [[0, 2, 2, 2], [4, 5, 6, 7]]


def test_functions_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        Functions(untrained(LEO), 0)


# -- measures ----------------------------------------------------------------------------------------------------------


def test_the_exact_posterior_comes_last_and_nothing_is_better_on_average(found: Uncertainty) -> None:
    assert [one.label for one in found.methods] == [LEO, MAML, ENSEMBLE, EXACT]
    assert [one.functions for one in found.methods] == [SAMPLES, 1, 3, None]
    assert found.exact is found.methods[-1]
    exact = found.exact.measures
    for one in found.methods[:-1]:
        for name in ("negative_log_likelihood", "squared_error"):
            gap = paired(getattr(one.measures, name), getattr(exact, name))
            assert gap.mean >= -3 * gap.half_width / 1.96, (one.label, name)
        assert one.noise > 0.3, "these have hardly been trained"
    # The yardstick itself is calibrated.
    assert found.exact.noise == 0.3
    for name, level in (("coverage_50", 0.5), ("coverage_90", 0.9)):
        inside = getattr(exact, name)
        assert abs(inside.mean() - level) < 4 * inside.std() / math.sqrt(TASKS)


def test_measures_and_noise_by_hand(runs: Path, found: Uncertainty) -> None:
    """MAML, at the inner steps of a test; its noise is of validation tasks, in closed form for a single function."""
    maml, run = found.methods[1], Run.open(runs / MAML)
    values = {}
    with inner_steps(run.method.learner, 3):
        for split, count in (("val", VALIDATION), ("test", TASKS)):
            tasks = tasks_of(runs / MAML, split, count)
            prediction = run.method.predict(run.method.adapt(tasks.support), tasks.query)
            values[split] = numbers(prediction) - numbers(tasks.query.y)
    noise = {split: math.sqrt((errors**2).mean()) for split, errors in values.items()}
    assert maml.noise == pytest.approx(noise["val"], rel=1e-4)
    assert abs(noise["test"] / noise["val"] - 1) > 0.01, "so the test above tells them apart"
    squared = (values["test"] ** 2).mean(1)
    np.testing.assert_allclose(maml.measures.squared_error, squared, rtol=1e-4)
    nll = 0.5 * squared / maml.noise**2 + math.log(maml.noise) + 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(maml.measures.negative_log_likelihood, nll, rtol=1e-4)


def test_deviations_that_a_method_predicts_are_its_own(tmp_path: Path) -> None:
    config = RECIPES["cnp-sine-line"]()
    trained(replace(config, method=replace(config.method, width=3, hidden=4), training=TINY), tmp_path / "cnp")
    result = measure_runs([tmp_path / "cnp"], tasks=20, samples=3, queries=5, validation_tasks=5, ambiguous=2)
    one, run, tasks = result.methods[0], Run.open(tmp_path / "cnp"), tasks_of(tmp_path / "cnp", "test", 20, queries=5)
    assert (one.noise, one.functions, result.rows()[0]["noise"]) == (None, 1, "its own")
    loss, prediction = run.method.learner.loss, run.method.predict(run.method.adapt(tasks.support), tasks.query)
    rows = loss.rows(prediction.flatten(0, 1), tasks.query.y.flatten(0, 1)).view(20, 5)
    np.testing.assert_allclose(one.measures.negative_log_likelihood, rows.mean(1), rtol=1e-4)


def test_networks_that_leo_generates_predict_deviations(tmp_path: Path) -> None:
    config = RECIPES["leo-deviations-sine-line"]()
    trained(replace(config, training=TINY), tmp_path / "leo")
    result = measure_runs([tmp_path / "leo"], tasks=4, samples=3, queries=5, validation_tasks=5, ambiguous=2)
    one, run, tasks = result.methods[0], Run.open(tmp_path / "leo"), tasks_of(tmp_path / "leo", "test", 4, queries=5)
    assert (one.noise, one.functions) == (None, 3)
    ((mean, deviation),) = Functions(run.method, 3, 0, "test").read(tasks, x_of(tasks))
    assert deviation is not None
    assert deviation.min() > 0.1
    y = torch.from_numpy(numbers(tasks.query.y))[:, None]
    each = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(deviation)).log_prob(y)
    mixed = math.log(3) - each.logsumexp(1)
    np.testing.assert_allclose(one.measures.negative_log_likelihood, mixed.mean(1), rtol=1e-6)


def test_samples_and_modes_by_hand(runs: Path, found: Uncertainty) -> None:
    leo, run = found.methods[0], Run.open(runs / LEO)
    test, validation = tasks_of(runs / LEO, "test", TASKS), tasks_of(runs / LEO, "val", VALIDATION)
    of = {name: Functions(run.method, SAMPLES, 0, name) for name in ("validation", "test", "ambiguous")}
    (fitted,) = of["validation"](validation, x_of(validation))
    assert leo.noise == fit_noise(fitted, numbers(validation.query.y), bounds=(0.01, 100.0))
    (values,) = of["test"](test, x_of(test))
    expected = measure(Predictive(values, leo.noise), numbers(test.query.y))
    for field in fields(Measures):
        np.testing.assert_array_equal(getattr(leo.measures, field.name), getattr(expected, field.name))
    pool = tasks_of(runs / LEO, "test", 100 * AMBIGUOUS, queries=1)
    posterior = exact_posterior(numbers(pool.support.x), numbers(pool.support.y), noise=0.3)
    unclear = np.flatnonzero((posterior.line > 0.2) & (posterior.line < 0.8))
    assert found.ambiguity == len(unclear) / (100 * AMBIGUOUS)
    assert 0.005 < found.ambiguity < 0.03, "few of the paper's tasks are ambiguous"
    chosen = unclear[:AMBIGUOUS]
    np.testing.assert_array_equal(found.exact.lines, posterior.line[chosen])
    few = Task(*(Batch(*(tensor[chosen] for tensor in batch)) for batch in pool))
    (on_grid,) = of["ambiguous"](few, torch.from_numpy(GRID).float().expand(len(chosen), -1))
    np.testing.assert_array_equal(leo.lines, mode_mass(GRID, on_grid, noise=0.3))


def test_the_distance_between_modes_is_of_ambiguous_tasks_and_zero_for_the_posterior(found: Uncertainty) -> None:
    own = found.mode_distance(found.exact)
    assert own is not None
    assert (own.mean, own.half_width, own.tasks) == (0, 0, len(found.exact.lines))
    assert 2 <= own.tasks <= AMBIGUOUS
    for one in found.methods[:-1]:
        distance = found.mode_distance(one)
        assert distance is not None
        by_hand = [abs(mine - known) for mine, known in zip(one.lines, found.exact.lines, strict=True)]
        assert distance.mean == pytest.approx(np.mean(by_hand))
        assert 0 < distance.mean < 1
    few = replace(found, methods=[replace(one, lines=one.lines[:1]) for one in found.methods])
    assert few.mode_distance(few.exact) is None
    assert {row["mode mass − exact, ambiguous"] for row in few.rows()} == {"–"}
    assert "ambiguous" in shown(few)


def test_a_result_depends_on_its_seed_and_on_no_other_run(runs: Path, found: Uncertainty) -> None:
    options = {"samples": SAMPLES, "queries": QUERIES, "validation_tasks": VALIDATION, "ambiguous": AMBIGUOUS}
    (mine, exact), leo = measure_runs([runs / LEO], labels=["mine"], tasks=TASKS, **options).methods, found.methods[0]
    assert (mine.label, mine.noise, mine.failed) == ("mine", leo.noise, 0)
    for again, before in ((mine, leo), (exact, found.exact)):
        np.testing.assert_array_equal(again.lines, before.lines)
        for name in (field.name for field in fields(Measures)):
            np.testing.assert_array_equal(getattr(again.measures, name), getattr(before.measures, name))
    other = measure_runs([runs / LEO], seed=1, tasks=50, **options)
    assert other.methods[0].noise != leo.noise
    assert other.protocol["task seed"] == 1


# -- what cannot be measured -------------------------------------------------------------------------------------------


def failing(runs: Path, folder: Path) -> Path:
    """The ensemble, whose second member is lost."""
    shutil.copytree(runs / ENSEMBLE, folder)
    state, words = read_tensors(folder / "best.safetensors")
    (name,) = [name for name in state if name.endswith("network.0.weight")]
    state[name][1] = torch.finfo(state[name].dtype).max
    write_tensors(folder / "best.safetensors", state, {name: words[name] for name in ("fewstep", "run")})
    return folder


def test_functions_that_are_not_finite_are_zero_and_counted(runs: Path, tmp_path: Path) -> None:
    lost = failing(runs, tmp_path / "lost")
    result = measure_runs([lost], tasks=60, queries=QUERIES, validation_tasks=VALIDATION, ambiguous=4)
    one = result.methods[0]
    assert (one.functions, one.failed, result.exact.failed) == (3, 60, 0)

    run, tasks = Run.open(runs / ENSEMBLE), tasks_of(runs / ENSEMBLE, "test", 60)
    with run.at_test():
        (values,) = Functions(run.method, 1)(tasks, x_of(tasks))
    values[:, 1] = 0
    expected = measure(Predictive(values, one.noise), numbers(tasks.query.y))
    np.testing.assert_allclose(one.measures.negative_log_likelihood, expected.negative_log_likelihood, rtol=1e-9)
    result.write(tmp_path / "out")
    assert f"{ENSEMBLE}: 60 tasks had functions that are not finite" in (tmp_path / "out/uncertainty.md").read_text()


def test_one_bad_value_makes_its_function_zero_and_no_other() -> None:
    values = np.arange(1.0, 13).reshape(2, 3, 2)
    values[1, 2, 0] = math.inf
    kept, failed = zero_where_not_finite(values)
    assert failed == 1
    assert kept.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [0, 0]]]


def test_a_bad_deviation_makes_its_function_bad_and_wide() -> None:
    values, deviations = np.arange(1.0, 9).reshape(2, 2, 2), np.full((2, 2, 2), 0.5)
    deviations[0, 1, 1], values[1, 0, 0] = math.nan, math.inf
    values, deviations = wide_where_not_finite(values, deviations, unknown=3.0)
    kept, failed = zero_where_not_finite(values)
    assert failed == 2
    assert kept.tolist() == [[[1, 2], [0, 0]], [[0, 0], [7, 8]]]
    assert deviations.tolist() == [[[0.5, 0.5], [3, 3]], [[3, 3], [0.5, 0.5]]]


def changed(runs: Path, folder: Path, **data: Any) -> Path:
    """A run on other tasks: that of MAML, by another account."""
    shutil.copytree(runs / MAML, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"] |= data
    (folder / "config.json").write_text(json.dumps(config))
    for checkpoint in folder.glob("*.safetensors"):
        state, words = read_tensors(checkpoint)
        write_tensors(checkpoint, state, {"fewstep": words["fewstep"], "run": mark_of(folder)})
    return folder


def test_runs_on_other_tasks_are_refused(runs: Path, tmp_path: Path) -> None:
    curves = Config(recipe="curves", data=SinusoidTasks(), method=Maml(network=MLP, rate=0.01), training=TINY)
    sinusoid = trained(curves, tmp_path / "curves")
    noisy, more = changed(runs, tmp_path / "noisy", noise=0.5), changed(runs, tmp_path / "more", shots=10)
    queried = changed(runs, tmp_path / "queried", queries=7)  # in training: the tasks are the same
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: measure_runs([]), "nothing to measure: give folders"),
        (lambda: measure_runs([runs / MAML, sinusoid]), "is a run of curves: only for sines and lines"),
        (lambda: plot(sinusoid, tmp_path / "x"), "is a run of curves: give one on sines and lines"),
        (lambda: measure_runs([runs / MAML, noisy]), "are on tasks of other noise or shots"),
        (lambda: measure_runs([runs / MAML, more]), "are on tasks of other noise or shots"),
        (
            lambda: measure_runs([runs / MAML, queried], labels=["a"]),
            "every one of the 2 runs needs a label of its own",
        ),
        (
            lambda: measure_runs([runs / MAML, queried], labels=["a", "a"]),
            "every one of the 2 runs needs a label of its own",
        ),
        (lambda: measure_runs([runs / MAML], labels=[EXACT]), "'exact posterior' is taken"),
        (lambda: plot(runs / MAML, tmp_path / "x", columns=1), "columns must be at least 2"),
    ]
    for mistake, message in mistakes:
        with pytest.raises(ValueError, match=message):
            mistake()
    assert not list(tmp_path.glob("x*"))


def test_runs_of_one_recipe_are_told_apart(runs: Path, tmp_path: Path) -> None:
    def labels(*folders: Path) -> list[str]:
        return run_labels([Run.open(folder) for folder in folders])

    one, two = (Path(shutil.copytree(runs / MAML, tmp_path / name / "seed-0")) for name in "ab")
    three = Path(shutil.copytree(runs / MAML, tmp_path / "a" / "seed-1"))
    assert labels(one, runs / LEO) == [MAML, LEO]
    assert labels(one, three, runs / LEO) == [f"{MAML} (seed-0)", f"{MAML} (seed-1)", LEO]
    assert labels(one, two, three) == [f"{MAML} ({one})", f"{MAML} ({two})", f"{MAML} (seed-1)"]


# -- what is written ---------------------------------------------------------------------------------------------------


def shown(result: Uncertainty) -> str:
    text = io.StringIO()
    Console(file=text, width=300).print(result.table())
    return text.getvalue()


def test_table_markdown_json_and_csv_agree(found: Uncertainty, tmp_path: Path) -> None:
    found.write(tmp_path / "one")
    content = json.loads((tmp_path / "one/uncertainty.json").read_text())
    report = (tmp_path / "one/uncertainty.md").read_text().splitlines()
    with (tmp_path / "one/uncertainty_tasks.csv").open() as file:
        tasks = {name: list(column) for name, *column in zip(*csv.reader(file), strict=True)}
    with (tmp_path / "one/uncertainty_modes.csv").open() as file:
        modes = {name: np.array(column, float) for name, *column in zip(*csv.reader(file), strict=True)}
    assert {len(column) for column in tasks.values()} == {TASKS}
    assert content["protocol"] == found.protocol
    assert content["protocol"]["training steps"] == [8, 8, 8]

    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report if line.startswith("| ")]
    titles = lines[0]
    rows = {line[0]: dict(zip(titles, line, strict=True)) for line in lines[2:6]}
    table = [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in shown(found).splitlines()
        if line[:1] in "│┃"
    ]
    terminal = {
        label: dict(zip([line[0] for line in table], column, strict=True))
        for label, *column in [(col[0], *col) for col in zip(*table, strict=True)][1:]
    }
    assert list(rows) == list(terminal) == [one.label for one in found.methods]
    for stored in content["rows"]:
        label = stored[""]
        for title in titles:
            value = stored[title]
            text = value if isinstance(value, str) else Interval(**value).text(decimals=3)
            assert rows[label][title] == text, (label, title)
            assert terminal[label][title] == text, (label, title)
        column = {
            name.removeprefix(f"{label}: "): np.array(values, float)
            for name, values in tasks.items()
            if name.startswith(f"{label}: ")
        }
        shared = {
            "NLL, nats": ("negative_log_likelihood", 1),
            "MSE of the mean": ("squared_error", 1),
            "in 50% interval, %": ("coverage_50", 100),
            "its width (90%)": ("width_90", 1),
        }
        for title, (name, factor) in shared.items():
            assert stored[title]["mean"] == pytest.approx(factor * column[name].mean()), (label, title)
        exact = np.array(tasks[f"{EXACT}: negative_log_likelihood"], float)
        gap = column["negative_log_likelihood"] - exact
        assert stored["NLL − exact"]["mean"] == pytest.approx(gap.mean(), abs=1e-12)
        assert stored["NLL − exact"]["half_width"] == pytest.approx(
            1.96 * gap.std(ddof=1) / math.sqrt(TASKS), abs=1e-12
        )
        distance = np.abs(modes[f"{label}: lines"] - modes[f"{EXACT}: lines"])
        assert stored["mode mass − exact, ambiguous"]["mean"] == pytest.approx(distance.mean(), abs=1e-12)
        assert stored["mode mass − exact, ambiguous"]["tasks"] == len(distance)
    assert "not finite" not in "".join(report)

    found.write(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_labels_are_no_markup() -> None:
    measures = Measures(*(np.array([1.0, 2.0]) for _ in fields(Measures)))
    rows = [MethodMeasures(label, 0.3, 1, measures, np.array([0.5, 0.5])) for label in ("run [bold]", EXACT)]
    assert "run [bold]" in shown(Uncertainty(rows, 0.01, {"tasks": 2}))


# -- the picture -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three columns, without a suffix."""
    out = tmp_path_factory.mktemp("picture") / "three.columns"
    assert plot(runs / LEO, out, columns=3, samples=6) == [out.with_name(f"three.columns.{s}") for s in ("png", "svg")]
    return out


def test_the_picture_is_whole(picture: Path) -> None:
    with Image.open(f"{picture}.png") as image:
        assert image.size == (3 * 465, 900)
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    white, black = ((colours == colour).all(1).sum() for colour in ((255, 255, 255), (0, 0, 0)))
    assert white > 0.5 * len(colours), "mostly paper"
    assert black > 500, "true functions, among others"
    svg = Path(f"{picture}.svg").read_text()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    assert width / height == pytest.approx(3 * 3.1 / 6)
    for words in (
        "true function",
        "noisy points to learn from",
        f"6 functions of {LEO}",
        "6 functions from the exact posterior",
    ):
        assert words in svg


def test_half_of_the_columns_are_ambiguous(picture: Path) -> None:
    svg = Path(f"{picture}.svg").read_text()
    masses = {
        kind: [float(part.split(" ")[0]) for part in svg.split(f"<!-- {kind}: p(line | points) = ")[1:]]
        for kind in ("clear", "ambiguous")
    }
    assert masses["clear"] == [0.0, 1.0], "a sine and then a line"
    (mass,) = masses["ambiguous"]
    assert 0.2 <= mass <= 0.8


@pytest.mark.parametrize("columns", [2, 3, 4, 5, 8])
def test_columns_are_a_sine_a_line_in_turn_and_then_ambiguous_ones(columns: int) -> None:
    random = np.random.default_rng(0)
    line = random.choice([0.0005, 0.1, 0.4, 0.7, 0.9995], 200)
    is_line = random.random(200) < line
    chosen = clear_and_ambiguous(line, 1 - line, is_line, columns)
    half = columns - columns // 2
    assert len(set(chosen)) == columns
    assert np.isin(line[chosen[:half]], [0.0005, 0.9995]).all()
    assert is_line[chosen[:half]].tolist() == [False, True, False, True][:half]
    np.testing.assert_array_equal(chosen[half:], np.flatnonzero(np.isin(line, [0.4, 0.7]))[: columns // 2])


# -- commands ----------------------------------------------------------------------------------------------------------


def test_commands(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--tasks", "50", "--samples", "2", "--queries", "5"]
    main(["uncertainty", str(runs / MAML), str(runs / LEO), *few, "--out", "here"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "exact posterior" in printed
    assert str(Path("here/uncertainty.md")) in printed
    assert len(json.loads(Path("here/uncertainty.json").read_text())["rows"]) == 3
    with pytest.raises(SystemExit):
        main(["uncertainty", str(runs / MAML), *few, "--out", "here"])
    told = " ".join(capsys.readouterr().err.split())
    assert "here holds uncertainty.json already: give a measurement an empty or a new folder by --out" in told

    copied = Path(shutil.copytree(runs / LEO, tmp_path / "leo"))
    main(["plot", "sine-line", "leo", "--columns", "3", "--samples", "6"])
    printed = capsys.readouterr().out
    for form in ("png", "svg"):
        file = copied / f"sine-line.{form}"
        assert str(file.relative_to(tmp_path)) in printed
        assert file.read_bytes() == Path(f"{picture}.{form}").read_bytes(), "the same run gives the same picture"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["uncertainty"], "nothing to measure: give folders of runs on sines and lines"),
        (["uncertainty", "nowhere"], "nowhere is not a run of fewstep"),
        (["uncertainty", "RUN", "--samples", "0"], "samples must be at least 1, got 0"),
        (["uncertainty", "RUN", "--tasks", "0"], "tasks must be at least 1, got 0"),
        (["plot", "sine-line", "nowhere"], "nowhere is not a run of fewstep"),
        (["plot", "sine-line", "RUN", "--columns", "1"], "columns must be at least 2"),
        (["plot", "sine-line", "RUN", "--samples", "0"], "samples must be at least 1, got 0"),
        (["plot", "sinus", "RUN"], "sine-line"),
    ],
)
def test_mistakes_end_in_one_line(
    runs: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([str(runs / LEO) if word == "RUN" else word for word in arguments])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
