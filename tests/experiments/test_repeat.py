"""A configuration with several seeds: the runs are ordinary ones, and their spread is what it says."""

import csv
import json
import multiprocessing
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_process import at_work
from rich.console import Console
from safetensors.torch import load_file

import fewstep.experiments.repeat.procedure
from fewstep.commands.repeat import repeat as command
from fewstep.data.storage.files import sealed
from fewstep.data.storage.lock import alone_in
from fewstep.evaluation.baselines import NEAREST_MEAN, RIDGE
from fewstep.evaluation.scoring import ADAPTED, UNADAPTED
from fewstep.experiments.repeat.procedure import RepeatResult, RunProgress, repeat
from fewstep.experiments.run import Run
from fewstep.experiments.workers import Job
from fewstep.recipes import Config
from fewstep.recipes import Testing as AtTest
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Protonet
from fewstep.recipes.problems.functions import SinusoidTasks
from fewstep.recipes.problems.images import OmniglotImages
from fewstep.training import Training
from fewstep.training.checkpoint import read_state

TINY = Training(steps=20, tasks=2, validate_every=5, validation_tasks=4, log_every=5, checkpoint_every=5, compile="off")
CURVES = Config(
    recipe="tiny",
    data=SinusoidTasks(shots=5),
    method=Maml(network=Network("mlp", (8,)), rate=0.01, test_steps=2),
    training=TINY,
    testing=AtTest(tasks=30, shots=(5, 10)),
)
CHARACTERS = Config(
    recipe="characters",
    data=OmniglotImages(ways=5, queries=2, rotations=False),
    method=Protonet(network=Network("protonet", (4, 4))),
    training=replace(TINY, steps=1),
    testing=AtTest(tasks=6, queries=3),
)


def in_process(jobs: Sequence[Job], **_: Any) -> list[Any]:
    """What the processes do, without them."""
    return [job.function(*job.arguments, lambda _: None) for job in jobs]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the jobs that have run, in this process."""
    done: list[str] = []

    def record(jobs: Sequence[Job], **options: Any) -> list[Any]:
        done.extend(job.name for job in jobs)
        return in_process(jobs, **options)

    monkeypatch.setattr("fewstep.experiments.engines.Local.run", staticmethod(record))
    return done


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> RepeatResult:
    """Two seeds in two processes; do not change its folder."""
    return repeat(CURVES, seeds=(3, 0), out=tmp_path_factory.mktemp("repeat"), workers=2)


def same_weights(one: Path, two: Path) -> bool:
    first, second = load_file(one / "last.safetensors"), load_file(two / "last.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_in_a_process_is_an_ordinary_run(repeated: RepeatResult, tmp_path: Path) -> None:
    assert [folder.name for folder in repeated.folders] == ["seed-3", "seed-0"]
    for i, seed in enumerate(repeated.seeds):
        alone = Run.create(replace(CURVES, seed=seed, threads=1), tmp_path / str(seed))
        state = alone.train().state
        assert same_weights(alone.folder, repeated.folders[i])
        for test, shots in zip(repeated.tests, (5, 10), strict=True):
            scores = alone.test(shots=shots).scores
            for name in (ADAPTED, UNADAPTED):
                np.testing.assert_array_equal(test.scores[name][i], scores[name])
        run = repeated.trained[i]
        assert (run.steps, run.best_step, run.validation) == (20, state.best_step, state.best)
    assert not same_weights(*repeated.folders)


def test_spread_and_differences_by_hand(repeated: RepeatResult) -> None:
    assert [test.name for test in repeated.tests] == ["test-5-shot", "test-10-shot"]
    tables = {}
    for seed, folder in zip(repeated.seeds, repeated.folders, strict=True):
        with (folder / "test-5-shot_tasks.csv").open() as file:
            tables[seed] = [(float(row[ADAPTED]), float(row[UNADAPTED])) for row in csv.DictReader(file)]
    means = [statistics.fmean(adapted for adapted, _ in table) for table in tables.values()]
    assert repeated.first.mean() == pytest.approx(statistics.fmean(means), rel=1e-12)
    assert repeated.first.sd() == pytest.approx(statistics.stdev(means), rel=1e-9)
    own = [statistics.fmean(pair) for pair in zip(*([a for a, _ in t] for t in tables.values()), strict=True)]
    start = [statistics.fmean(pair) for pair in zip(*([u for _, u in t] for t in tables.values()), strict=True)]
    for found, values in (
        (repeated.first.interval(), own),
        (repeated.first.difference(UNADAPTED), [a - b for a, b in zip(own, start, strict=True)]),
    ):
        assert found is not None
        assert found.tasks == 30
        assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-9)
        assert found.half_width == pytest.approx(1.96 * statistics.stdev(values) / 30**0.5, rel=1e-9)


def test_files_say_the_same(repeated: RepeatResult) -> None:
    out = repeated.folders[0].parent
    summary = json.loads((out / "repeat.json").read_text())
    test = summary["tests"]["test-5-shot"]
    assert test["scores"][ADAPTED]["sd_over_runs"] == repeated.first.sd()
    assert summary["seeds"] == [3, 0]
    with (out / "tasks-10-shot.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["task", "seed 3", "seed 0"]
    np.testing.assert_array_equal(np.array(rows, np.float64)[:, 1:].T, repeated.tests[1].scores[ADAPTED])
    with (out / "repeat.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [int(run["seed"]) for run in runs] == [3, 0]
    assert float(runs[1]["test-5-shot adapted mean"]) == repeated.first.scores[ADAPTED][1].mean()
    page = (out / "repeat.md").read_text()
    assert (
        f"| **adapted** | {repeated.first.mean():.4f} ± {repeated.first.sd():.4f} | {repeated.first.interval()} |"
        in page
    )
    assert "conditional on these training seeds" in page
    console = Console(width=200)
    with console.capture() as text:
        console.print(repeated.table())
    assert f"{repeated.first.mean():.4f} ± {repeated.first.sd():.4f}" in text.get()
    assert (out / "repeat.png").stat().st_size > 10_000


def test_what_has_been_done_is_kept_and_seeds_can_be_added(jobs: list[str], tmp_path: Path) -> None:
    config = replace(CURVES, testing=AtTest(tasks=5))
    first = repeat(config, seeds=(0, 1), out=tmp_path)
    assert jobs == ["seed 0", "seed 1"]
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("seed-*/*")}
    jobs.clear()
    second = repeat(config, seeds=(1, 2), out=tmp_path)
    assert jobs == ["seed 2"]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    np.testing.assert_array_equal(second.first.scores[ADAPTED][0], first.first.scores[ADAPTED][1])
    # A test that others have written over is not of this protocol, whatever it says.
    run = Run.open(tmp_path / "seed-1")
    run.record(run.test(seed=1))
    jobs.clear()
    third = repeat(config, seeds=(0, 1), out=tmp_path)
    assert jobs == ["seed 1"]
    np.testing.assert_array_equal(third.first.scores[ADAPTED], first.first.scores[ADAPTED])


def test_a_killed_run_resumes_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = replace(CURVES, training=replace(TINY, steps=60, checkpoint_every=1), testing=AtTest(tasks=5))

    def interrupt(at: RunProgress) -> None:
        assert (at.seed, at.doing) == (1, "training")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeat(longer, seeds=[1], out=tmp_path / "killed", progress=interrupt)
    assert not multiprocessing.active_children()
    assert 0 < read_state(tmp_path / "killed" / "seed-1" / "last.safetensors").step < 60
    assert not (tmp_path / "killed" / "repeat.json").exists()
    monkeypatch.setattr("fewstep.experiments.engines.Local.run", staticmethod(in_process))
    result = repeat(longer, seeds=[1], out=tmp_path / "killed")
    alone = Run.create(replace(longer, seed=1, threads=1), tmp_path / "alone")
    alone.train()
    assert same_weights(alone.folder, result.folders[0])
    np.testing.assert_array_equal(result.first.scores[ADAPTED][0], alone.test().scores[ADAPTED])
    assert np.isnan(result.first.sd()), "one run has no spread"
    assert "± n/a" in result.markdown()


def test_baselines_have_no_seed(jobs: list[str], tmp_path: Path) -> None:
    result = repeat(CHARACTERS, seeds=(0, 1), out=tmp_path)
    assert list(result.first.scores) == [ADAPTED], "a prototypical network takes no inner steps"
    assert list(result.first.baselines) == [NEAREST_MEAN, RIDGE]
    assert result.first.scores[ADAPTED].shape == (2, 6)
    expected = Run.open(tmp_path / "seed-1").test().scores
    np.testing.assert_array_equal(result.first.baselines[RIDGE], expected[RIDGE])
    difference = result.first.difference(RIDGE)
    assert difference is not None
    assert difference.mean == pytest.approx(result.first.mean() - expected[RIDGE].mean())
    assert result.first.transductive
    assert "training seed" not in result.first.protocol
    with (tmp_path / "tasks.csv").open() as file:
        assert next(csv.reader(file)) == ["task", "seed 0", "seed 1", NEAREST_MEAN, RIDGE]
    # They are scored in one run's test, and again where that run is left out.
    assert "ridge" not in (tmp_path / "seed-1" / "test_tasks.csv").read_text()
    assert repeat(CHARACTERS, seeds=(0, 1), out=tmp_path).first.baselines.keys() == result.first.baselines.keys()
    assert jobs == ["seed 0", "seed 1"]
    other = repeat(CHARACTERS, seeds=(1,), out=tmp_path)
    np.testing.assert_array_equal(other.first.baselines[RIDGE], result.first.baselines[RIDGE])
    assert jobs == ["seed 0", "seed 1", "seed 1"]
    # Runs that were tested on other tasks do not go together.
    for name, old, new, what in (
        ("test_tasks.csv", r",[\d.]+$", ",0.5", "ridge"),
        ("test.json", r'"task seed": 0', '"task seed": 1', "protocol"),
    ):
        file = tmp_path / "seed-1" / name
        as_it_was = file.read_text()
        changed = re.sub(old, new, as_it_was, flags=re.M)
        if name == "test.json":
            values = json.loads(changed)
            changed = json.dumps(sealed({key: value for key, value in values.items() if key != "digest"}))
        file.write_text(changed)
        with pytest.raises(ValueError, match=rf"seed-1 and .*seed-0 were not tested on the same tasks \({what}\)"):
            fewstep.experiments.repeat.procedure.collect(CHARACTERS, (0, 1), result.folders)
        file.write_text(as_it_was)


def test_a_mean_of_checkpoints_is_of_its_run(jobs: list[str], tmp_path: Path) -> None:
    """Seeds differ in it, as in every score of the runs; it is no baseline, which would tell of other tasks."""
    config, name = replace(CURVES, training=replace(TINY, keep=2)), "mean of 2 checkpoints"
    result = repeat(config, seeds=(0, 1), out=tmp_path)
    assert result.first.scores[name].shape == (2, 30)
    assert not np.array_equal(*result.first.scores[name])
    assert not result.first.baselines
    file = tmp_path / "seed-1" / "test-5-shot_tasks.csv"
    file.write_text(file.read_text().replace(name, "mean of 3 checkpoints"))
    fewer = fewstep.experiments.repeat.procedure.collect(config, (0, 1), result.folders).first
    assert name not in {**fewer.scores, **fewer.baselines}, "only one seed has it"


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with at_work(tmp_path), pytest.raises(ValueError, match=r"another process is at work in .*: wait for it"):
        repeat(CHARACTERS, seeds=(0,), out=tmp_path)
    with alone_in(tmp_path):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "there are no seeds"),
        ({"seeds": (1, 1)}, "distinct and not negative, got 1, 1"),
        ({"seeds": (-1, 0)}, "distinct and not negative, got -1, 0"),
        ({"seeds": (0,), "workers": 0}, "workers must be at least 1, got 0"),
        ({"seeds": (0,), "threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_refusals(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        repeat(CURVES, out=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_settings_is_refused_by_their_names(repeated: RepeatResult) -> None:
    other = replace(CURVES, training=replace(TINY, rate=0.5))
    with pytest.raises(ValueError, match=r"seed-0 holds a run .*\(training.rate: 0.001 there, 0.5 here\)"):
        repeat(other, seeds=(7,), out=repeated.folders[0].parent)


def test_command(jobs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--training.steps", "2", "--testing.tasks", "5", "--training.validation-tasks", "2"]
    given = ["maml-sinusoid", "--seeds", "2", "--first-seed", "4", "--out", str(tmp_path / "out"), *options]
    command(given)
    assert jobs == ["seed 4", "seed 5"]
    assert "maml-sinusoid, 2 training seeds · 5 test tasks" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "repeat.json").read_text())["config"]["threads"] == 1
    with pytest.raises(ValueError, match="give --seeds and --first-seed, not --seed"):
        command([*given, "--seed", "0"])
