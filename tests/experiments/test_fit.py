"""From a table of features to the best classifier, on a tiny one."""

import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from photos import photograph

from fewstep.data import EpisodeSampler, embeddings
from fewstep.evaluation.simple import Simple
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.fit import FitResult, Limits, fit, procedure, report, worker
from fewstep.experiments.fit.prepare import prepare
from fewstep.experiments.fit.verdict import decided, gain_of_training, pays, recommended
from fewstep.experiments.folder import stored_config
from fewstep.experiments.run import Run
from fewstep.recipes.problems.problem import SPLITS

TINY = Limits(steps=2, validation_tasks=4, test_tasks=20, rounds=1)
METHODS = (
    "class means",
    "class means, centred",
    "ridge",
    "logistic regression",
    "residual prototypes",
    "ProtoNet",
    "LEO",
)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(report, "draw", lambda *_: b"")


def features(path: Path, sizes: Sequence[int], split: Any = None) -> Path:
    """Classes of some sizes, of normal rows about normal means."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = random.normal(size=(len(sizes), 6))[labels] + random.normal(size=(len(labels), 6))
    given = {} if split is None else {"split": np.repeat(split, sizes)}
    np.savez(path, features=rows.astype(np.float32), labels=labels, **given)
    return path


def tiny(data: Path, folder: Path, **options: Any) -> FitResult:
    return fit(data, folder, **{"shots": (3,), "minutes": 30.0, "workers": 1, "limits": TINY} | options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    folder = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(folder / "cache"))
        return tiny(features(folder / "data.npz", [9] * 20), folder / "out")


def test_everything_is_tested_on_the_same_tasks_and_written(done: FitResult) -> None:
    kept = json.loads((done.folder / "result.json").read_text())
    assert list(kept["shots"]) == ["3"]
    for shots, cell in done.cells.items():
        assert tuple(row.name for row in cell.rows) == METHODS
        assert all(row.test is not None and row.validation is not None and not row.error for row in cell.rows)
        assert cell.recommended in METHODS
        assert kept["shots"][str(shots)]["verdict"] == cell.verdict()
        # An independent witness: the tasks, drawn again, and distances by hand.
        rows = embeddings(done.folder / "features.safetensors", "test")
        source = EpisodeSampler(rows, ways=5, shots=shots, queries=5, tasks=20, seed=0, stream="episodes/test")
        scores = []
        support, query = source.batch(0)
        for x, y, xq, yq in zip(support.x, support.y.argmax(-1), query.x, query.y.argmax(-1), strict=True):
            distances = [((xq - x[y == c].mean(0)) ** 2).sum(1) for c in range(5)]
            scores.append((np.argmin(distances, 0) == yq.numpy()).mean())
        found = cell.row("class means").test
        assert found is not None
        assert found.mean == pytest.approx(np.mean(scores))
    page = (done.folder / "report.md").read_text()
    assert all(text in page for text in done.verdicts())
    assert "classes divided at random (seed 0): 10 train, 5 val, 5 test" in page


def test_many_tasks_a_meta_step_are_tried_before_any_draw(tmp_path: Path) -> None:
    found = tiny(features(tmp_path / "data.npz", [9] * 20), tmp_path / "out", limits=replace(TINY, rounds=2))
    trials = [one for one in found.trials if one["method"] == "residual prototypes"]
    tasks = [
        stored_config(tmp_path / f"out/trials/3shot/residual-prototypes-{i:02d}/run").training.tasks for i in (0, 1)
    ]
    assert trials[1]["settings"] == {"training.tasks": tasks[1]}
    assert tasks[1] > tasks[0]
    assert all("value" in one for one in trials)


def test_what_is_recommended_can_be_had(done: FitResult) -> None:
    for shots, cell in done.cells.items():
        winner = done.winner(shots)
        if isinstance(winner, Path):
            assert Run.open(winner, lambda _: None).config.data.shots == shots  # type: ignore[union-attr]
        else:
            assert isinstance(winner, Simple)
            assert str(winner).startswith(cell.recommended.partition(",")[0])


def test_a_full_disk_is_no_fault_of_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker, "simple", full)
    with pytest.raises(OSError, match="No space left"):
        tiny(features(tmp_path / "data.npz", [9] * 20), tmp_path / "out")
    assert not list(tmp_path.rglob(worker.TRIAL))


@pytest.mark.parametrize("name", ["test.csv", "validation.csv", "choice.json"])
def test_scores_that_were_changed_are_told(name: str, tmp_path: Path, done: FitResult) -> None:
    out = shutil.copytree(done.folder, tmp_path / "out")
    mark = json.loads((out / "fit.json").read_text())
    (file,) = out.rglob(name)
    text = file.read_text()
    file.write_text(
        text.replace("0.", "1.", 1)
        if name.endswith("csv")
        else text.replace('"recommended": "', '"recommended": "a', 1)
    )
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        tiny(Path(mark["data"]), out)


def test_features_that_were_changed_are_told_and_made_again(tmp_path: Path, done: FitResult) -> None:
    out = shutil.copytree(done.folder, tmp_path / "out")
    data, file = Path(json.loads((out / "fit.json").read_text())["data"]), out / "features.safetensors"
    whole = bytearray(file.read_bytes())
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ValueError, match=f"{file} is not what was written: restore it, or delete {out}/prepared.json"):
        tiny(data, out)
    (out / "prepared.json").unlink()
    assert tiny(data, out).cells[3].rows == done.cells[3].rows
    assert file.read_bytes() == whole


def test_a_stopped_fit_goes_on_and_comes_to_the_same(tmp_path: Path, done: FitResult) -> None:
    data, out = features(tmp_path / "data.npz", [9] * 20), tmp_path / "out"
    ended = 0

    def stop(status: procedure.Status) -> None:
        nonlocal ended
        ended += bool(status.line)
        if ended == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(data, out, progress=stop)
    out = out.rename(tmp_path / "moved")
    kept = {path: path.read_bytes() for path in out.rglob(worker.TRIAL)}
    assert len(kept) == 3
    again = tiny(data, out)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert again.cells[3].rows == done.cells[3].rows
    with pytest.raises(ValueError, match="another fit"):
        tiny(data, out, seed=1)


def test_a_method_that_fails_is_told_and_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Run.continued.__func__  # type: ignore[attr-defined]

    def continued(cls: type[Run], config: Any, *rest: Any) -> Run:
        if "leo" in config.recipe:
            raise FloatingPointError("it came to nothing")
        return begin(cls, config, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(Run, "continued", classmethod(continued))
    said: list[str] = []
    found = tiny(features(tmp_path / "data.npz", [9] * 20), tmp_path / "out", note=said.append)
    assert found.cells[3].row("LEO").test is None
    assert found.cells[3].row("ProtoNet").test is not None
    assert found.failures() == ["LEO: failed: it came to nothing (3-shot)"]
    assert "LEO, 3-shot, trial 0: failed: it came to nothing" in said
    assert "it came to nothing" in (tmp_path / "out" / "report.md").read_text()


def test_without_time_there_are_simple_classifiers_and_it_is_said(tmp_path: Path) -> None:
    found = tiny(features(tmp_path / "data.npz", [9] * 20), tmp_path / "out", shots=(1,), minutes=1e-3)
    cell = found.cells[1]
    assert cell.recommended in METHODS[:4]
    assert "was not found out" in cell.verdict()
    assert len(found.failures()) == 3
    assert all("not tried" in line for line in found.failures())


@pytest.mark.parametrize(
    ("sizes", "split", "remark"),
    [
        ([9] * 8, None, "classes divided at random (seed 0): 4 train, 2 val, 2 test"),
        ([9] * 8, ["train"] * 6 + ["test"] * 2, "no classes for val, which are taken from training's at random"),
        ([9] * 20 + [2] * 2, None, "2 classes with fewer than 7 examples left out"),
        ([9] * 10 + [500] * 10, None, "classes divided at random (seed 0): 10 train, 5 val, 5 test"),
        ([3] * 12, None, "tasks have 4 classes"),
    ],
)
def test_few_and_unequal_classes(tmp_path: Path, sizes: list[int], split: Any, remark: str) -> None:
    data = features(tmp_path / "data.npz", sizes, split)
    found = prepare(data, tmp_path / "out", ways=5, shots=(1, 2), seed=0, inspected=lambda _: None)
    assert any(remark in said for said in found.remarks), found.remarks
    smallest = min(min(embeddings(tmp_path / "out" / "features.safetensors", of).sizes) for of in SPLITS)
    assert smallest >= 2 + found.queries


@pytest.mark.parametrize(
    ("sizes", "split", "what"),
    [
        ([9] * 5, None, "has 5 classes with enough examples, and 6 are needed"),
        ([2] * 9, None, "no class has the 3 examples that its tasks need"),
        ([9] * 9, ["val"] * 5 + ["test"] * 4, "has no classes for training"),
        ([9] * 9, ["train"] * 5 + ["val"] * 3 + ["test"], "one class for test"),
    ],
)
def test_too_few_is_one_clear_error_and_leaves_nothing(tmp_path: Path, sizes: list[int], split: Any, what: str) -> None:
    with pytest.raises(ValueError, match=r"data\.npz") as error:
        tiny(features(tmp_path / "data.npz", sizes, split), tmp_path / "out", shots=(1, 2))
    assert what in str(error.value)
    assert not (tmp_path / "out").exists()


def scores(mean: float, noise: float = 0.1) -> NDArray[np.float64]:
    """Of 100 tasks that are hard and easy for all methods alike, and a little different for each."""
    common = np.random.default_rng(0).normal(0, 0.2, 100)
    own = np.random.default_rng(round(1e6 * mean)).normal(0, noise, 100)
    return mean + (common - common.mean()) + (own - own.mean())


def test_in_doubt_the_simpler_one_is_recommended() -> None:
    # The standard error of the difference of two is √2·0.1/10 = 0.014.
    assert recommended({"a": scores(0.500), "b": scores(0.540)}, ("a", "b")) == "b"
    assert recommended({"a": scores(0.500), "b": scores(0.505)}, ("a", "b")) == "a"
    assert recommended({"b": scores(0.505), "a": scores(0.500)}, ("b", "a")) == "b"
    # b is within a standard error of the best, and simpler; a is simpler still, but too far below.
    assert recommended({"a": scores(0.45), "b": scores(0.50), "c": scores(0.505)}, ("a", "b", "c")) == "b"
    assert recommended({"a": np.full(100, np.nan), "b": scores(0.5)}, ("a", "b")) == "b"


def test_the_test_overrules_what_validation_has_chosen_where_it_is_clear() -> None:
    test = {"means": scores(0.50), "ridge": scores(0.58), "leo": scores(0.54), "protonet": scores(0.59)}
    assert decided(test, "leo", ["ridge", "leo"]) == "ridge"
    assert decided(test, "means", ["ridge", "leo"]) == "ridge"
    assert decided(test, "ridge", ["ridge", "leo"]) == "ridge"
    assert decided(test, "ridge", ["ridge", "protonet"]) == "ridge"  # 0.01 is no clear difference
    assert decided(test, "leo", ["leo"]) == "leo"  # where nothing simple was scored


def test_training_pays_where_the_whole_interval_is_above_the_best_simple_one() -> None:
    test = {"means": scores(0.50), "ridge": scores(0.52), "leo": scores(0.53)}
    rival, gain = gain_of_training(test, "leo", ("means", "ridge"))
    assert rival == "ridge"
    assert gain.mean == pytest.approx(0.01)
    assert not pays(gain)
    assert pays(Interval(0.01, 0.009, 100))
    assert not pays(Interval(-0.01, 0.009, 100))


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path, done: FitResult) -> None:
    found = tiny(features(tmp_path / "data.npz", [9] * 20), tmp_path / "out", workers=2)
    assert found.cells[3].rows == done.cells[3].rows


def test_photographs_without_a_split_are_divided_before_a_network_sees_them(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for c in range(6):
        for i in range(4):
            photograph(photos / f"kind {c}" / f"{i}.jpg", c, i)
    found = tiny(photos, tmp_path / "out", shots=(1,), minutes=1e-3)
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    for name in ("train", "val", "test"):
        assert list(embeddings(tmp_path / "out" / "features.safetensors", name).class_names) == split[name]  # type: ignore[arg-type]
    network = json.loads((tmp_path / "out" / "pretrained" / "network.json").read_text())
    assert network["class_names"] == split["train"]
    assert (tmp_path / "out" / "features.extractor.safetensors").is_file()
    assert found.cells[1].recommended in METHODS
