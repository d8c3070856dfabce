"""The picture of forecasts: the numbers in it, what is written, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fewstep.commands.main import main
from fewstep.core import Task
from fewstep.data import Oscillations
from fewstep.evaluation.exact.oscillations import EXACT_FORECAST
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.forecasts_plot import BAND, Forecasts, draw, forecasts, plot, spread_out
from fewstep.recipes import RECIPES, Config
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.leo import LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.recipes.problems.functions import OscillationTasks, SinusoidTasks
from fewstep.training import Training

TINY = Training(
    steps=2, tasks=2, rate=0.01, validate_every=2, validation_tasks=2, log_every=2, checkpoint_every=2, compile="off"
)
LEO, MAML, ENSEMBLE = "leo-oscillations", "maml-oscillations", "several"
QUERIES = 6


def tiny(recipe: str) -> Config:
    config = RECIPES[recipe]()
    small = {"latents": 4, "hidden": 8} if isinstance(config.method, LeoNetwork) else {"steps": 1}
    return replace(
        config,
        method=replace(config.method, **small),
        training=TINY,
        testing=replace(config.testing, queries=QUERIES, tasks=100),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs by their names."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    ensemble = replace(tiny(MAML), recipe=ENSEMBLE)
    ensemble = replace(ensemble, method=replace(ensemble.method, members=2))
    for config in (tiny(LEO), tiny(MAML), ensemble):
        Run.create(config, folder / config.recipe).train()
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Forecasts:
    return forecasts([runs / name for name in (LEO, MAML, ENSEMBLE)])


def changed(run: Path, folder: Path, **data: Any) -> Path:
    """A run that says that its tasks are others."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"] |= data
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# -- the numbers -------------------------------------------------------------------------------------------------------


def first_tasks(run: Path, seed: int = 0) -> tuple[Oscillations, Task]:
    source = Run.open(run).problem.source("test", tasks=100, seed=seed, queries=QUERIES)
    assert isinstance(source, Oscillations)
    return source, source.batch(0)


def chosen(found: Forecasts, source: Oscillations) -> NDArray[np.intp]:
    """Which of the first tasks are shown."""
    return np.array([np.flatnonzero(source.oscillators(0).damping == one)[0] for one in found.oscillators.damping])


def test_tasks_are_those_of_the_test(runs: Path, found: Forecasts) -> None:
    source, tasks = first_tasks(runs / LEO)
    which = chosen(found, source)
    assert np.array_equal(found.oscillators.frequency, source.oscillators(0).frequency[which])
    assert np.array_equal(found.support, torch.cat([tasks.support.x, tasks.support.y], -1)[which].double())
    assert np.array_equal(found.seen, tasks.query.x[which, :2].double())
    assert np.array_equal(found.targets, tasks.query.y[which, :2].double())
    assert found.times.tolist() == source.times.tolist()


def test_errors_are_the_scores_of_a_test(runs: Path, found: Forecasts) -> None:
    which = chosen(found, first_tasks(runs / LEO)[0])
    assert found.labels == [LEO, MAML, ENSEMBLE]
    for label, errors in zip(found.labels, found.errors, strict=True):
        scores = Run.open(runs / label).test(baselines="all" if label == MAML else "none").scores
        np.testing.assert_allclose(errors, scores["adapted"][which], rtol=1e-5)
        if label == MAML:
            np.testing.assert_allclose(found.exact_error, scores[EXACT_FORECAST][which], rtol=1e-5)
    assert found.queries == QUERIES


def test_forecasts_shown_are_those_whose_errors_are_stated(runs: Path) -> None:
    every = forecasts([runs / LEO, runs / MAML], tasks=3, rows=QUERIES)
    np.testing.assert_allclose(every.errors, ((every.found - every.targets) ** 2).mean((2, 3)), rtol=1e-12)
    np.testing.assert_allclose(every.exact_error, ((every.exact - every.targets) ** 2).mean((1, 2)), rtol=1e-12)


def test_curves_are_the_trajectories_behind_the_observations(found: Forecasts) -> None:
    for curves, observed in (
        (found.support_curves, found.support),
        (found.curves, np.concatenate([found.seen, found.targets], -1)),
    ):
        at_times = [[np.interp(found.times, found.curve_times, row) for row in task] for task in curves]
        noise = observed - np.array(at_times)
        assert noise.std() == pytest.approx(0.1, rel=0.1)
        assert np.abs(noise).max() < 0.5
    # (d/dt + γ)² s = −ω² s, in differences.
    h = found.curve_times[1]
    before, s, after = found.curves[..., :-2], found.curves[..., 1:-1], found.curves[..., 2:]
    damping, frequency = (values[:, None, None] for values in found.oscillators)
    left = (after - 2 * s + before) / h**2 + 2 * damping * (after - before) / (2 * h) + (damping**2 + frequency**2) * s
    assert np.abs(left).max() < 0.02


def test_the_band_holds_about_nine_targets_of_ten(runs: Path) -> None:
    many = forecasts([runs / MAML], tasks=100, rows=QUERIES)
    inside = np.abs(many.targets - many.exact) < BAND * many.deviation
    assert inside.mean() == pytest.approx(0.9, abs=0.015)
    assert len(np.unique(many.oscillators.damping)) == 100, "once each"


def test_columns_are_weak_then_strong_and_slow_then_fast(found: Forecasts) -> None:
    damping, frequency = found.oscillators
    np.testing.assert_allclose(damping / 0.3, [0.25, 0.25, 0.75, 0.75], atol=0.1)
    np.testing.assert_allclose((frequency - 0.5) / 2, [0.25, 0.75, 0.25, 0.75], atol=0.1)
    alike = np.full((2, 3), 0.5)
    assert sorted(spread_out(alike, 3)) == [0, 1, 2]


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_lines_are_the_numbers(found: Forecasts) -> None:
    axes = np.array(draw(found).axes).reshape(4, 4)
    for column in range(4):
        for row in range(2):
            drawn = {
                (len(line.get_xdata()), line.get_color(), line.get_linestyle()): line.get_ydata()
                for line in axes[1 + row, column].lines
            }
            at = column, row
            assert np.array_equal(drawn[400, "black", "-"], found.curves[at])
            assert np.array_equal(drawn[5, "black", "None"], found.seen[at])
            assert np.array_equal(drawn[20, "0.55", "None"], found.targets[at])
            assert np.array_equal(drawn[20, "#009E73", "--"], found.exact[at])
            for run, colour in enumerate(("#0072B2", "#D55E00", "#CC79A7")):
                assert np.array_equal(drawn[20, colour, "-"], found.found[run][at])
        words = [text.get_text() for text in axes[3, column].texts]
        assert words[:3] == [
            "mean squared error, 6 queries",
            "exact Bayesian forecast",
            f"{found.exact_error[column]:.4f}",
        ]
        assert words[3:] == [
            text
            for name, errors in zip(found.labels, found.errors, strict=True)
            for text in (name, f"{errors[column]:.4f}")
        ]


def test_the_command_writes_a_picture_in_two_forms(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["plot", "oscillations", str(runs / LEO), str(runs / MAML), "--out", "here", "--tasks", "2", "--seed", "3"])
    printed = capsys.readouterr().out
    assert all(str(Path(f"here/oscillations.{form}")) in printed for form in ("png", "svg"))
    with Image.open("here/oscillations.png") as image:
        assert image.width == 930
    svg = Path("here/oscillations.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for words in (LEO, MAML, "noisy targets", "exact Bayesian forecast"):
        assert words in svg
    again = plot([runs / LEO, runs / MAML], tmp_path / "again", tasks=2, seed=3)[1].read_text()
    # Names of clip paths are hashes of a layout whose last bits depend on what the process has drawn before.
    pictures = [re.sub(r"\bp[0-9a-f]{10}\b", "", picture) for picture in (svg, again)]
    assert pictures[0] == pictures[1], "the same runs give the same picture"

    copied = Path(shutil.copytree(runs / MAML, tmp_path / "copy"))
    main(["plot", "oscillations", "copy", "--tasks", "1"])
    assert (copied / "oscillations.png").exists()


def test_runs_of_one_recipe_are_told_apart(runs: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs / MAML, tmp_path / "seed-1"))
    assert forecasts([runs / MAML, other], tasks=1).labels == [f"{MAML} ({MAML})", f"{MAML} (seed-1)"]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"noise": 0.2}, "noise 0.2 instead of 0.1"),
        ({"ahead": 10}, "ahead 10 instead of 20"),
        ({"seen": 4, "noise": 0.2}, "seen 4 instead of 5, noise 0.2 instead of 0.1"),
    ],
)
def test_runs_on_tasks_that_differ_are_refused(runs: Path, tmp_path: Path, data: dict[str, Any], told: str) -> None:
    other = changed(runs / MAML, tmp_path / "other", **data)
    with pytest.raises(ValueError, match=f"other is not on the tasks of .*: {told}. Give runs on the same tasks"):
        plot([runs / LEO, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_mistakes_say_what_to_do(runs: Path, tmp_path: Path) -> None:
    curves = Config(
        recipe="curves", data=SinusoidTasks(), method=Maml(network=Network("mlp", (4,)), rate=0.01), training=TINY
    )
    Run.create(curves, tmp_path / "curves")  # not trained: tasks are looked at first
    Run.create(replace(tiny(MAML), data=OscillationTasks()), tmp_path / "early")
    still = changed(runs / MAML, tmp_path / "still", noise=0.0)
    mistakes: list[tuple[list[Path], dict[str, int], str]] = [
        ([], {}, "nothing to draw: give folders of runs on oscillations"),
        ([runs / LEO, tmp_path / "curves"], {}, "is a run of curves: give runs on oscillations, as of leo-osc"),
        ([tmp_path / "early"], {}, "has no best.safetensors"),
        ([tmp_path / "nowhere"], {}, "is not a run of fewstep"),
        ([still], {}, "on data without noise"),
        ([runs / LEO], {"tasks": 0}, "tasks must be from 1 to 100, got 0"),
        ([runs / LEO], {"tasks": 101}, "tasks must be from 1 to 100, got 101"),
        ([runs / LEO], {"rows": 7}, "rows must be from 1 to 6, got 7"),
    ]
    for given, options, message in mistakes:
        with pytest.raises(ValueError, match=message):
            plot(given, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_mistake_of_the_command_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plot", "oscillations"])
    assert stop.value.code == 2
    assert "nothing to draw: give folders" in " ".join(capsys.readouterr().err.split())
