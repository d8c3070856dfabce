"""Runs and recipes beside each other: the same tasks, or a refusal that says why not."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.commands.main import main
from fewstep.core import Batch, Task
from fewstep.data import EpisodeSampler, Sinusoids
from fewstep.evaluation.baselines import NEAREST_MEAN, RIDGE
from fewstep.evaluation.scoring import ADAPTED, UNADAPTED
from fewstep.experiments.compare.procedure import Entry, compare, row_labels
from fewstep.experiments.compare.result import Comparison
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config, Published, Recipe
from fewstep.recipes import Testing as AtTest
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Protonet, Reptile
from fewstep.recipes.problems.functions import SinusoidTasks
from fewstep.recipes.problems.images import OmniglotImages
from fewstep.training import Training
from fewstep.training.checkpoint import read_state

TINY = Training(steps=6, tasks=2, validate_every=3, validation_tasks=4, log_every=2, checkpoint_every=1, compile="off")
MLP = Network("mlp", (8,))
CURVES = Config(
    recipe="tiny",
    data=SinusoidTasks(shots=5),
    method=Maml(network=MLP, rate=0.01, test_steps=2),
    training=TINY,
    testing=AtTest(tasks=150, shots=(5, 10)),
)
OTHER = replace(
    CURVES, recipe="other", data=SinusoidTasks(shots=20), method=Reptile(network=MLP, rate=0.02, steps=3, rule="sgd")
)
CHARACTERS = Config(
    recipe="characters",
    data=OmniglotImages(ways=5, queries=2, rotations=False),
    method=Protonet(network=Network("protonet", (4, 4))),
    training=replace(TINY, steps=1),
    testing=AtTest(tasks=6, queries=3),
)
FITTED = replace(CHARACTERS, recipe="fitted", method=Maml(network=Network("protonet", (4, 4)), rate=0.1))


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for config in (CURVES, OTHER, CHARACTERS, FITTED):
        recipe = Recipe(config.recipe, lambda config=config: config, published=(Published("98.7", "somebody"),))
        monkeypatch.setitem(RECIPES, config.recipe, recipe)


def trained(config: Config, folder: Path) -> Path:
    Run.create(config, folder).train()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for config in (CURVES, OTHER, CHARACTERS, FITTED):
        trained(config, folder / config.recipe)
    return folder


def test_rows_are_what_each_run_scores_by_itself(runs: Path, tmp_path: Path) -> None:
    result = compare([runs / "tiny", runs / "other"], out=tmp_path)
    assert result.protocol["shots"] == 5, "the first of the first method's testing.shots, though another trained on 20"
    assert (result.protocol["tasks"], result.protocol["task seed"], result.tasks) == (150, 0, 150)
    assert result.score_name == "mse"
    assert result.labels == ["tiny", "other"], "no baselines for a regression"
    for row, steps in zip(result.rows, ((2,), (3,)), strict=True):
        alone = Run.open(runs / row.label).test(shots=5)
        np.testing.assert_array_equal(row.scores, alone.scores[ADAPTED])
        assert row.unadapted is not None
        np.testing.assert_array_equal(row.unadapted, alone.scores[UNADAPTED])
        assert row.inner_steps == steps
        assert row.finished
        assert (row.steps, row.planned, row.tasks_per_step) == (6, 6, 2)
        assert row.training_seconds == read_state(runs / row.label / "last.safetensors").seconds
        assert row.test_seconds is not None
        assert row.test_seconds > 0
    facts = json.loads((runs / "tiny" / "environment.json").read_text())
    assert (result.rows[0].machine, result.rows[0].threads) == (facts["machine"], facts["threads"])


def test_the_order_of_methods_changes_no_number(runs: Path, tmp_path: Path) -> None:
    one = compare([runs / "tiny", runs / "other"], out=tmp_path, tasks=20, shots=10, queries=7, reference="tiny")
    two = compare([runs / "other", runs / "tiny"], out=tmp_path, tasks=20, shots=10, queries=7, reference="tiny")
    assert two.labels == one.labels[::-1]
    for label in one.labels:
        np.testing.assert_array_equal(one.row(label).scores, two.row(label).scores)
    assert one.difference("other") == two.difference("other")


def test_classifications_have_baselines_once_for_their_inputs(runs: Path, tmp_path: Path) -> None:
    result = compare([runs / "characters", runs / "fitted"], out=tmp_path)
    assert result.labels == ["characters", "fitted", f"{NEAREST_MEAN} (images)", f"{RIDGE} (images)"]
    alone = Run.open(runs / "fitted").test()
    for label, name in (("fitted", ADAPTED), (f"{NEAREST_MEAN} (images)", NEAREST_MEAN), (f"{RIDGE} (images)", RIDGE)):
        np.testing.assert_array_equal(result.row(label).scores, alone.scores[name])
    assert [row.transductive for row in result.rows] == [True, True, False, False]
    assert result.row("characters").unadapted is None, "a prototypical network takes no inner steps"
    assert result.row("fitted").unadapted is not None
    assert (result.protocol["ways"], result.protocol["queries"], result.protocol["classes"]) == (5, 3, 423)
    assert "training" not in result.protocol, "that is each method's own"


def test_queries_left_open_by_the_first_are_open_for_all(runs: Path, tmp_path: Path) -> None:
    every = trained(replace(CHARACTERS, testing=AtTest(tasks=2)), tmp_path / "every")
    result = compare([every, runs / "fitted"], out=tmp_path / "out", reference=f"{RIDGE} (images)")
    assert result.protocol["queries"] == "all remaining"
    assert result.reference == f"{RIDGE} (images)"
    source = Run.open(runs / "fitted").problem.source("test", tasks=2, seed=0, ways=5, shots=1, queries=None)
    rows = source.batch(0).query.weight.shape[1]
    scores = result.row("fitted").scores * rows
    np.testing.assert_allclose(scores, scores.round(), atol=1e-9, err_msg="fractions of 95 queries")
    assert rows == 95


def test_shots_left_open_are_the_first_methods_own(runs: Path, tmp_path: Path) -> None:
    first = trained(replace(CURVES, testing=AtTest(tasks=5)), tmp_path / "first")
    assert compare([first, runs / "other"], out=tmp_path / "out").protocol["shots"] == 5, "other trained on 20"


def test_a_recipe_is_trained_and_a_killed_comparison_goes_on(recipes: None, tmp_path: Path) -> None:
    whole = compare(["tiny", "other"], out=tmp_path / "whole", tasks=10)

    @contextmanager
    def killed(steps: int) -> Iterator[object]:
        def progress(state: object, metrics: object) -> None:
            if started == ["training tiny", "training other"] and state.step == 4:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        yield progress

    started: list[str] = []

    def note(line: str) -> None:
        if line.startswith("training"):
            started.append(line.partition(" in ")[0])

    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        compare(["tiny", "other"], out=out, tasks=10, note=note, training_bar=killed)
    assert not (out / "comparison.md").exists()
    first = (out / "runs" / "tiny" / "last.safetensors").read_bytes()
    assert read_state(out / "runs" / "other" / "last.safetensors").step == 4
    started.clear()
    steps: list[int] = []

    @contextmanager
    def seen(total: int) -> Iterator[object]:
        yield lambda state, metrics: steps.append(state.step)

    resumed = compare(["tiny", "other"], out=out, tasks=10, note=note, training_bar=seen)
    assert steps == [5, 6], "from where it was killed"
    assert started == ["training other"], "what was finished is not trained again"
    assert (out / "runs" / "tiny" / "last.safetensors").read_bytes() == first
    for label in ("tiny", "other"):
        np.testing.assert_array_equal(resumed.row(label).scores, whole.row(label).scores)
    page = (out / "comparison.md").read_text()
    assert "- other: 98.7 % by somebody (read in the source)" in page


def test_scores_are_kept(runs: Path, tmp_path: Path) -> None:
    tested: list[str] = []

    def note(line: str) -> None:
        tested.append(line)

    def compared(*methods: str, **changes: int) -> Comparison:
        tested.clear()
        return compare([runs / name for name in methods], out=tmp_path, note=note, **{"tasks": 6} | changes)

    alone = compared("fitted")
    both = compared("characters", "fitted")
    assert "testing characters" in tested
    assert compared("characters", "fitted").markdown() == both.markdown()
    assert not [line for line in tested if line.startswith("testing")]
    np.testing.assert_array_equal(both.row("fitted").scores, alone.row("fitted").scores)
    compared("characters", "fitted", tasks=7)
    assert [line for line in tested if line.startswith("testing")] == ["testing characters", "testing fitted"]
    compared("characters", "fitted", seed=1)
    assert "testing fitted" in tested
    one, other, *_ = sorted((tmp_path / "scores").iterdir(), key=lambda kept: kept.stat().st_mtime_ns)[-2:]
    one.write_text(other.read_text())
    compared("characters", "fitted", seed=1)
    assert [line for line in tested if line.startswith("testing")] == ["testing characters"], "it was another's"
    for kept in (tmp_path / "scores").iterdir():
        kept.write_text(kept.read_text().replace('"best_step": ', '"best_step": 1', 1))
    with pytest.raises(
        ValueError, match=r"scores.*json is damaged \(its contents do not match its digest\): delete it"
    ):
        compared("fitted")


def test_a_beginning_without_a_configuration_begins_again(recipes: None, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    for name in ("environment.json", ".problem.json.0a1b.part", ".lock"):
        (folder / name).write_text("{}")
    compare(["tiny"], out=tmp_path, tasks=3)
    assert read_state(folder / "last.safetensors").finished
    assert not list(folder.glob(".*.part"))


def test_a_folder_of_other_settings_is_not_taken_for_the_recipe(recipes: None, tmp_path: Path) -> None:
    trained(replace(CURVES, method=replace(CURVES.method, rate=0.5)), tmp_path / "runs" / "tiny")
    with pytest.raises(ValueError, match=r"other settings \(method\.rate: "):
        compare(["tiny"], out=tmp_path)


def test_an_unfinished_run_is_compared_and_says_so(runs: Path, tmp_path: Path) -> None:
    run = Run.create(CURVES, tmp_path / "run")

    def stop(state: object, metrics: object) -> None:
        if state.step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(stop)
    result = compare([tmp_path / "run", runs / "other"], out=tmp_path / "out", tasks=5)
    row = result.row("tiny")
    assert (row.finished, row.steps, row.planned, row.best_step) == (False, 4, 6, 3)
    assert "tiny has not finished training: 4 of 6 meta-steps." in result.caveats()
    (tmp_path / "run" / "best.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no best\.safetensors"):
        compare([tmp_path / "run", runs / "other"], out=tmp_path / "out", tasks=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_rotations": True}, "test classes: 423 in characters, 1692 in turned"),
        ({"scheme": "random"}, "test classes: number 0 is 'Gurmukhi/character42' in characters"),
    ],
)
def test_other_test_classes_are_refused_before_anything_is_trained(
    change: dict, message: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CHARACTERS, recipe="turned", data=replace(CHARACTERS.data, **change))
    monkeypatch.setitem(RECIPES, "turned", Recipe("turned", lambda: config))
    with pytest.raises(ValueError, match=message) as refused:
        compare([runs / "characters", "turned"], out=tmp_path)
    (name,) = change
    assert "characters and turned do not have the same tasks" in str(refused.value)
    assert f"data.{name}=" in str(refused.value), "and what to do about it"
    assert not (tmp_path / "runs" / "turned" / "last.safetensors").exists()


def test_other_curves_are_refused(runs: Path, tmp_path: Path) -> None:
    config = replace(CURVES, recipe="faster", data=SinusoidTasks(shots=5, frequency=(0.5, 2.0)))
    trained(config, tmp_path / "faster")
    with pytest.raises(ValueError, match=r"frequency: \(1\.0, 1\.0\) in tiny, \(0\.5, 2\.0\) in faster"):
        compare([runs / "tiny", tmp_path / "faster"], out=tmp_path)


def test_draws_that_differ_are_refused(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the settings say: what is drawn is looked at, at the first step and at the last."""
    indices, batch, asked = EpisodeSampler.indices, Sinusoids.batch, []

    def others(sampler: EpisodeSampler, step: int) -> object:
        asked.append(sampler.dataset)
        drawn = indices(sampler, step)
        return replace(drawn, support=drawn.support[::-1]) if asked[0] is not sampler.dataset else drawn

    def noisy(source: Sinusoids, step: int, slice_: slice | None = None) -> Task:
        asked.append(source)
        support, query = batch(source, step, slice_)
        shift = 0.0 if source is asked[0] or step == 0 else 1e-3
        return Task(Batch(support.x + shift, support.y, support.weight), query)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeSampler, "indices", others)
        with pytest.raises(ValueError, match="drawn at step 0"):
            compare([runs / "characters", runs / "fitted"], out=tmp_path)
    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Sinusoids, "batch", noisy)
        with pytest.raises(ValueError, match="drawn at step 1"):
            compare([runs / "tiny", runs / "other"], out=tmp_path)


def test_regression_and_classification_are_not_mixed(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny is a regression and characters a classification"):
        compare([runs / "tiny", runs / "characters"], out=tmp_path)
    with pytest.raises(ValueError, match="no ways"):
        compare([runs / "tiny", runs / "other"], out=tmp_path, ways=5)


def test_who_cannot_solve_the_tasks_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fitted has a network with 5 outputs and cannot solve 7-way tasks"):
        compare([runs / "characters", runs / "fitted"], out=tmp_path, ways=7)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{}, {"seed": 1}], ["tiny seed=0", "tiny seed=1"]),
        ([{}, {"method": replace(CURVES.method, rate=0.5)}], ["tiny method.rate=0.01", "tiny method.rate=0.5"]),
        ([{}, {"threads": 3}], ["tiny (run0)", "tiny (run1)"]),
        ([{}, {"seed": 1, "threads": 3}, {"recipe": "leo"}], ["tiny seed=0", "tiny seed=1", "leo"]),
        ([{}, {"seed": 1, "training": replace(TINY, rate=0.5, steps=9)}], ["tiny (run0)", "tiny (run1)"]),
        ([{}, {}, {"seed": 1}], ["tiny (runs/run0)", "tiny (runs/run1)", "tiny seed=1"]),
    ],
)
def test_labels_say_what_differs(changes: list[dict], labels: list[str]) -> None:
    entries = [Entry(f"run{i}", replace(CURVES, **change), Path(f"runs/run{i}")) for i, change in enumerate(changes)]
    assert row_labels(entries) == labels


def test_threads_are_those_of_the_caller_again(runs: Path, tmp_path: Path) -> None:
    config = replace(CURVES, recipe="threaded", threads=2)
    trained(config, tmp_path / "threaded")
    torch.set_num_threads(1)
    used = []

    @contextmanager
    def bar(tasks: int) -> Iterator[None]:
        used.append(torch.get_num_threads())
        yield

    result = compare([tmp_path / "threaded", runs / "tiny"], out=tmp_path, tasks=4, test_bar=bar)
    assert set(used) == {1}, "a run's own number is for its training"
    with pytest.raises(ValueError, match="no ways"):
        compare([tmp_path / "threaded"], out=tmp_path, ways=5)
    assert result.threads == torch.get_num_threads() == 1
    assert result.row("threaded").threads == 2


def test_the_command_writes_and_shows(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "compare",
            str(runs / "tiny"),
            str(runs / "other"),
            "--tasks",
            "6",
            "--shots",
            "4",
            "--seed",
            "3",
            "--reference",
            "other",
            "--out",
            str(tmp_path),
        ]
    )
    shown = capsys.readouterr().out
    assert "differences to other" in shown
    assert "shots: 4" in shown
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {
        "comparison.csv",
        "comparison.json",
        "comparison.md",
        "comparison.png",
        "comparison.svg",
        "tasks.csv",
        "differences.csv",
        "report.html",
        "scores",
    }
    with (tmp_path / "tasks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    alone = Run.open(runs / "tiny").test(tasks=6, shots=4, seed=3).scores[ADAPTED]
    np.testing.assert_array_equal([float(row["tiny"]) for row in rows], alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is neither the folder of a run"),
        (["tiny", "tiny"], "are one run: give each method once"),
        (["tiny", "--tasks", "1"], "tasks must be at least 2"),
        (["tiny", "other", "--reference", "leo"], "no method 'leo' to refer to; there are tiny, other"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, recipes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("runs/*/last.safetensors")), "nothing was trained for it"
