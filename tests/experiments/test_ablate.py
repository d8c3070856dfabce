"""Table 2 of the LEO paper on other features: equal budgets, the same tasks, and what is done twice or fails."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.commands.ablate import ablate as command
from fewstep.experiments.ablate import procedure as module
from fewstep.experiments.ablate.paper import TABLE_2, order
from fewstep.experiments.ablate.procedure import AblationResult, ablate
from fewstep.experiments.ablate.rows import table_2
from fewstep.experiments.folder import stored_config
from fewstep.experiments.repeat.procedure import RepeatResult
from fewstep.experiments.repeat.tested import SeedScores as OneTest
from fewstep.experiments.run import Run
from fewstep.experiments.search import SearchResult, Trial
from fewstep.experiments.workers import Job
from fewstep.recipes import RECIPES, Config, Range, to_json, with_settings
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training.device import Place

pytestmark = pytest.mark.usefixtures("own_cache")

SLUGS = [row.slug for row in table_2(RECIPES["leo-cifarfs-1shot"]())]


def in_this_process(
    jobs: Sequence[Job], *, on_message: Callable[[int, Any], None] = lambda *_: None, **_: Any
) -> list[Any]:
    """Processes take seconds to start, and are tested elsewhere."""
    return [job.function(*job.arguments, lambda message, i=i: on_message(i, message)) for i, job in enumerate(jobs)]


def quick(patched: pytest.MonkeyPatch) -> None:
    """Without processes, and without the pictures of searches and repetitions."""
    patched.setattr("fewstep.experiments.engines.Local.run", staticmethod(in_this_process))
    patched.setattr("fewstep.experiments.search.report.draw", lambda *_: b"")
    patched.setattr(RepeatResult, "picture", lambda *_: b"")


def features(folder: Path, seed: int = 0) -> Path:
    """Four classes a split, each around a direction of its own."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(12, 1, 16)) + random.normal(size=(12, 20, 16))
    np.savez(folder / "features.npz", features=rows.astype(np.float32), split=np.repeat([0, 1, 2], 4).astype(np.uint8))
    return folder / "features.npz"


def tiny(path: Path) -> Config:
    config = RECIPES["leo-cifarfs-1shot"]()
    assert isinstance(config.data, Embeddings)
    training = replace(config.training, steps=10, tasks=2, validate_every=5, validation_tasks=4, compile="off")
    return replace(
        config,
        data=replace(config.data, path=str(path), ways=3, queries=5),
        training=training,
        testing=replace(config.testing, tasks=30),
    )


PROTOCOL = {
    "dataset": "features.npz",
    "features": "16-d, features.npz",
    "features normalised": True,
    "ways": 3,
    "shots": 1,
    "queries": "all remaining",
    "task seed": 0,
    "classes": {"test": 4},
}


HERE = Place(torch.device("cpu"), torch.float32)


class Stubs:
    """A search and a repetition that train nothing, and remember what they were asked for.

    The best setting of n trials is the n-th: more trials find another one.
    """

    def __init__(self, failing: str = "") -> None:
        self.failing, self.protocol = failing, dict[str, Any]()
        self.searches: list[tuple[Config, dict[str, Any]]] = []
        self.runs: list[tuple[Config, dict[str, Any]]] = []

    def search(self, config: Config, space: Sequence[Range], **asked: Any) -> SearchResult:
        self.searches.append((config, asked))
        if asked["out"].parent.name == self.failing:
            raise ValueError("none of 2 configurations reached the end of its training; trial 0: it diverged.")
        settings = {range.setting: range.at(1 / (1 + asked["trials"])) for range in space}
        row = Trial(0, "complete", 0.5, 10, 10, 1.0, settings, "")
        best, weighed = with_settings(config, settings), ({}, 1, None)
        return SearchResult(best, 0.5, 0, {"complete": 1}, "", *weighed, [row], space, {}, "accuracy", True)

    def repeat(self, config: Config, **asked: Any) -> RepeatResult:
        self.runs.append((config, asked))
        for seed in asked["seeds"]:
            (asked["out"] / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
            text = to_json(replace(config, seed=seed, threads=asked["threads"]))
            (asked["out"] / f"seed-{seed}" / "config.json").write_text(text)
        scores = np.random.default_rng(len(self.runs)).random((len(asked["seeds"]), config.testing.tasks))
        stated = PROTOCOL | {"features": config.data.open(HERE, lambda _: None).protocol["features"]} | self.protocol
        test = OneTest("test", {"adapted": scores}, {}, "accuracy", True, False, stated)
        return RepeatResult(config, tuple(asked["seeds"]), (), (), (test,))


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Stubs:
    made = Stubs()
    monkeypatch.setattr(module, "search", made.search)
    monkeypatch.setattr(module, "repeat", made.repeat)
    monkeypatch.setattr(AblationResult, "picture", lambda *_: b"")  # takes a second
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, AblationResult]:
    """Two rows, really."""
    folder = tmp_path_factory.mktemp("ablation")
    config = tiny(features(folder))
    with pytest.MonkeyPatch.context() as patched:
        quick(patched)
        return config, folder / "out", run(config, folder / "out")


def run(config: Config, out: Path, **changes: Any) -> AblationResult:
    return ablate(
        config,
        **{
            "out": out,
            "trials": 2,
            "seeds": (1, 2),
            "rows": ("meta-sgd", "leo"),
            "workers": 1,
            "note": lambda _: None,
            **changes,
        },
    )


def scores_in(folder: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores of the runs in a folder, as their own files have them, ``[seeds, tasks]``."""
    runs = []
    for file in sorted(folder.glob("seed-*/test_tasks.csv")):
        with file.open(newline="") as rows:
            runs.append([float(row["adapted"]) for row in csv.DictReader(rows)])
    return np.array(runs)


def test_numbers_are_those_of_the_runs(done: tuple[Config, Path, AblationResult]) -> None:
    config, out, table = done
    sgd, leo = (scores_in(out / "rows" / slug / "runs") for slug in ("meta-sgd", "leo"))
    assert sgd.shape == leo.shape == (2, 30)
    gap = leo.mean(0) - sgd.mean(0)
    found = table.difference("meta-sgd")
    assert found is not None
    assert found.mean == pytest.approx(gap.mean(), abs=1e-15)
    assert found.half_width == pytest.approx(1.96 * gap.std(ddof=1) / math.sqrt(30), rel=1e-12)
    with (out / "ablation.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert list(rows)[:2] == ["Meta-SGD (same features)", "LEO"]
    assert len(rows) == 6, "two rows, four baselines"
    cells = rows["Meta-SGD (same features)"]
    assert float(cells["accuracy"]) == pytest.approx(sgd.mean(), abs=1e-15)
    assert float(cells["sd_over_seeds"]) == pytest.approx(abs(np.subtract(*sgd.mean(1))) / math.sqrt(2), rel=1e-9)
    assert [float(cells[f"seed {seed}"]) for seed in (1, 2)] == pytest.approx(sgd.mean(1).tolist(), abs=1e-15)
    assert float(cells["leo_minus_row"]) == found.mean
    best = stored_config(out / "rows" / "meta-sgd" / "runs" / "seed-1")
    assert float(cells["training.rate"]) == best.training.rate
    centred = rows["nearest class mean, centred"]
    lead = leo.mean(0) - table.baselines["nearest class mean, centred"]
    assert float(centred["leo_minus_row"]) == pytest.approx(lead.mean(), abs=1e-15)
    assert config.testing.tasks == len(lead)


def test_all_were_tested_on_the_tasks_of_the_baselines(done: tuple[Config, Path, AblationResult]) -> None:
    _, out, table = done
    for slug in ("meta-sgd", "leo"):
        ridge = Run.open(out / "rows" / slug / "runs" / "seed-2").test().scores["ridge"]
        np.testing.assert_allclose(ridge, table.baselines["ridge"], atol=1e-12)


def test_it_is_written_for_readers(done: tuple[Config, Path, AblationResult]) -> None:
    _, out, _ = done
    lines = (out / "ablation.txt").read_text().splitlines()
    assert max(map(len, lines)) <= 120
    text = " ".join(" ".join(lines).split())
    assert "2 rows × (2 trials × 10 meta-steps + 2 seeds × 10 meta-steps) = 2 rows × 40 = 80 meta-steps" in text
    assert "conditional on these training seeds" in text
    assert "training and validation classes" in text
    assert "61.76" not in text, "the paper's numbers are not comparable"
    assert {file.name for file in out.glob("ablation.*")} >= {f"ablation.{form}" for form in ("md", "png", "svg")}
    with (out / "tasks.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:3] == ["task", "Meta-SGD (same features)", "LEO"]
    assert len(rows) == 30


def test_resuming_trains_and_tests_nothing_again(
    done: tuple[Config, Path, AblationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, _ = done
    before = {
        file: file.stat().st_mtime_ns
        for name in ("best.safetensors", "last.safetensors", "test.json", "*.npz")
        for file in out.rglob(name)
    }
    assert len(before) == 2 * 2 * (2 + 3) + 1
    text = (out / "ablation.csv").read_text()

    def train(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Run, "train", train)
    quick(monkeypatch)
    run(config, out)
    assert (out / "ablation.csv").read_text() == text
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_other_settings_and_fewer_trials_are_refused(done: tuple[Config, Path, AblationResult]) -> None:
    config, out, _ = done
    with pytest.raises(ValueError, match=r"training\.tasks: 2 there, 3 here"):
        run(replace(config, training=replace(config.training, tasks=3)), out)
    with pytest.raises(ValueError, match="--final-steps: 10 there, 20 here"):
        run(config, out, final_steps=20)
    with pytest.raises(ValueError, match="searches of 2 trials, 1 were asked for"):
        run(config, out, trials=1)
    with pytest.raises(ValueError, match="must not be trained on"):
        run(replace(config, data=replace(config.data, train_on="trainval")), out)
    with pytest.raises(ValueError, match="no row 'leopard'"):
        run(config, out, rows=("leopard",))
    with pytest.raises(ValueError, match="something else than an ablation"):
        run(config, out.parent)


def test_every_row_has_the_same_budget(tmp_path: Path, stubs: Stubs) -> None:
    config, told = tiny(features(tmp_path)), list[str]()
    table = run(config, tmp_path / "out", rows=(), final_steps=25, note=told.append)
    assert told[0] == (
        "budget: 7 rows × (2 trials × 10 meta-steps + 2 seeds × 25 meta-steps) = 7 rows × 70 = 490 meta-steps of 2 "
        "tasks, at most"
    )
    assert [asked["out"].parent.name for _, asked in stubs.searches] == SLUGS
    for asked in (stubs.searches, stubs.runs):
        assert len(asked) == 7
        for config_of_row, options in asked:
            first_config, first = asked[0]
            apart = {name for name in first if options[name] != first[name]}
            assert apart <= {"out", "progress", "note"}
            assert config_of_row.testing == first_config.testing
            assert config_of_row.data == first_config.data
            assert replace(config_of_row.training, rate=1.0) == replace(first_config.training, rate=1.0)
    (searched, search_options), (final, run_options) = stubs.searches[0], stubs.runs[0]
    assert (searched.training.steps, final.training.steps) == (10, 25)
    assert (searched.data.train_on, final.data.train_on) == ("train", "trainval")  # type: ignore[union-attr]
    assert (search_options["trials"], search_options["prune"], run_options["seeds"]) == (2, True, (1, 2))
    assert table.complete


def test_a_failing_row_is_missing_and_the_others_go_on(
    tmp_path: Path, stubs: Stubs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stubs.failing = "random-prior"
    config = tiny(features(tmp_path))
    monkeypatch.setitem(RECIPES, "leo-cifarfs-1shot", lambda: config)  # type: ignore[arg-type, return-value]
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as status:
        command(
            [
                "leo-cifarfs-1shot",
                "--trials",
                "2",
                "--seeds",
                "2",
                "--out",
                str(out),
                "--rows",
                "random-prior",
                "leo",
                "--threads",
                "1",
            ]
        )
    assert status.value.code == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.index("budget:") < printed.index("row 1 of 2")
    assert "LEO (random prior) is missing: none of 2 configurations" in printed
    with (out / "ablation.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert "diverged" in rows["LEO (random prior)"]["failure"]
    assert rows["LEO (random prior)"]["accuracy"] == ""
    assert float(rows["LEO"]["accuracy"]) > 0
    stubs.failing = ""
    command(
        [
            "leo-cifarfs-1shot",
            "--trials",
            "2",
            "--seeds",
            "2",
            "--out",
            str(out),
            "--rows",
            "random-prior",
            "leo",
            "--threads",
            "1",
        ]
    )
    assert "is missing" not in (out / "ablation.txt").read_text()


def test_runs_of_a_configuration_that_more_trials_better_are_set_aside(tmp_path: Path, stubs: Stubs) -> None:
    config, runs = tiny(features(tmp_path)), tmp_path / "out" / "rows" / "leo" / "runs"
    run(config, tmp_path / "out", rows=("leo",))
    run(config, tmp_path / "out", rows=("leo",), seeds=(1, 2, 3))
    assert [folder.name for folder in runs.parent.iterdir()] == ["runs"], "the same configuration: nothing to set aside"
    first = stored_config(runs / "seed-1").training.rate
    run(config, tmp_path / "out", rows=("leo",), trials=3)
    assert stored_config(runs / "seed-1").training.rate != first
    assert stored_config(runs.with_name("runs-before-1") / "seed-3").training.rate == first
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["trials"] == 3


def test_scores_on_other_tasks_are_not_put_into_the_table(tmp_path: Path, stubs: Stubs) -> None:
    config = tiny(features(tmp_path))
    stubs.protocol["task seed"] = 7
    table = run(config, tmp_path / "out", rows=("leo",))
    assert "not tested on the tasks of this table (task seed: 7, not 0)" in table.row("leo").failure
    features(tmp_path, seed=1)
    with pytest.raises(ValueError, match="have the features changed"):
        run(config, tmp_path / "out", rows=("leo",))


def test_orders_are_compared_by_rank() -> None:
    ranked, pairs = order({slug: values[0] for slug, values in TABLE_2.items()})
    assert ranked["leo"] == (1, 1, 1, 1, 2)
    assert ranked["meta-sgd"] == (7, 7, 7, 7, 6)
    assert [same for same, of in pairs if of == 21] == [21, 20, 19, 18]
    ranked, pairs = order({"leo": 0.1, "deterministic": 0.3, "meta-sgd": 0.2})
    assert ranked == {"leo": (3, 1, 1, 1, 2), "deterministic": (1, 2, 2, 2, 1), "meta-sgd": (2, 3, 3, 3, 3)}
    assert pairs == ((1, 3), (1, 3), (1, 3), (2, 3))  # by hand: only meta-sgd < deterministic; tiered 5-shot: and leo
