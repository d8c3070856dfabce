"""``fewstep analyse``: its files, its numbers beside each other, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.commands.main import main
from fewstep.evaluation.analysis import Spectrum, StepLengths
from fewstep.evaluation.analysis.hessian import Place, Space
from fewstep.experiments.analyse.procedure import analyse
from fewstep.experiments.analyse.result import Analysed, Analysis

SHORT = [
    *("--data.path", "features.npz", "--training.steps", "3", "--training.tasks", "2", "--data.queries", "2"),
    *("--training.validation-tasks", "2", "--testing.tasks", "2", "--training.compile", "off"),
]
TASKS = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LEO and Meta-SGD on the same features, and LEO on sines and lines."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEWSTEP_CACHE", str(folder / "cache"))
        rows = np.random.default_rng(0).normal(size=(18, 10, 8)).astype(np.float32)
        np.savez("features.npz", features=rows, split=np.repeat([0, 1, 2], 6).astype(np.uint8))
        main(["train", "leo-features-1shot", *SHORT, "--method.latents", "4", "--out", "leo"])
        main(["train", "meta-sgd-features-1shot", *SHORT, "--out", "meta-sgd"])
        main(["train", "meta-sgd-features-5shot", *SHORT, "--out", "five"])
    return folder


@pytest.fixture(scope="module")
def written(runs: Path) -> Path:
    given = ["--against", str(runs / "meta-sgd"), "--training-steps", "0", "3", "--tasks", str(TASKS)]
    main(["analyse", str(runs / "leo"), *given, "--out", str(runs / "found")])
    return runs / "found"


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_it_writes_pictures_numbers_and_what_they_are_of(written: Path) -> None:
    for name in ("codes", "curvature"):
        assert min(Image.open(written / f"{name}.png").size) > 300
        assert (written / f"{name}.svg").read_text().startswith("<?xml")
    result = json.loads((written / "analysis.json").read_text())
    assert result["protocol"]["loss"] == "support, sum over rows"
    assert "perplexity 30, seed 0" in result["protocol"]["t-SNE"]
    assert result["protocol"]["runs"] == ["leo-features-1shot", "meta-sgd-features-1shot"]
    codes = rows_of(written / "codes.csv")
    assert len(codes) == TASKS * 5
    assert len({code["class"] for code in codes}) == 6


def test_a_context_that_is_adapted_has_a_map_on_which_all_begin_at_one_point(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    main(["train", "cavia-features-1shot", *SHORT, "--method.context", "3", "--out", "cavia"])
    found = analyse(runs / "cavia", tasks=TASKS, note=lambda _: None)
    assert found.codes is not None
    assert found.codes.before.shape == (TASKS, 1, 3)
    assert not found.codes.before.any()
    assert found.codes.after.any(2).all()
    assert (found.codes.classes, found.codes.separation) == (None, None)


def test_its_numbers_agree_with_each_other(written: Path) -> None:
    tasks = rows_of(written / "curvature_tasks.csv")
    boxes = {(b["quantity"], b["run"], b["space"], b["place"]): b for b in rows_of(written / "curvature.csv")}
    numbers = json.loads((written / "analysis.json").read_text())["numbers"]
    columns = {name: np.array([float(row[name]) for row in tasks]) for name in tasks[0]}
    leo, other = "leo-features-1shot", "meta-sgd-features-1shot"
    largest = {space: columns[f"{leo}: largest, {space}, adapted"] for space in ("codes", "weights")}
    middle = boxes["largest eigenvalue", leo, "codes", "adapted"]["50%"]
    np.testing.assert_allclose(float(middle), np.median(largest["codes"]))
    told = numbers[f"orders of magnitude, z over θ, {leo}, adapted: largest |λ|"]["mean"]
    np.testing.assert_allclose(told, np.log10(largest["codes"] / largest["weights"]).mean())
    steps = [columns[f"{leo}: step, induced"], columns[f"{other}: step, weights"]]
    told = numbers[f"orders of magnitude, step in θ, induced of {leo} over {other}"]["mean"]
    np.testing.assert_allclose(told, np.log10(steps[0] / steps[1]).mean())
    gain = columns["silhouette after (validation task)"] - columns["silhouette before (validation task)"]
    np.testing.assert_allclose(numbers["silhouette, z' − z, paired"]["mean"], gain.mean())


def test_as_many_eigenvalues_of_both_spaces_are_compared() -> None:
    """A loss of many rows has more by weights than by codes; the smallest would decide the ratio."""
    by_codes = [Spectrum(np.array([8.0, -2.0]), 2, True)] * 2
    by_weights = [Spectrum(np.array([4.0, 0.25, 1e-9]), 9, False)] * 2
    spectra: dict[tuple[Space, Place], list[Spectrum]] = {
        ("codes", "start"): by_codes,
        ("weights", "start"): by_weights,
    }
    numbers = Analysis(None, [Analysed("run", spectra, None, StepLengths({}, {}))], {}, {}).numbers()
    assert {name.split(", ")[-1]: round(10**found.mean, 9) for name, found in numbers.items()} == {
        "start: largest |λ|": 2.0,
        "start: typical |λ|": 4.0,
    }


def test_the_training_done_again_ends_where_the_run_has(written: Path, runs: Path) -> None:
    along = {(row["meta-step"], row["place"]): row for row in rows_of(written / "training.csv")}
    assert {step for step, _ in along} == {"0", "3"}
    tasks = rows_of(written / "curvature_tasks.csv")
    for place in ("start", "adapted"):
        of_run = np.median([float(row[f"leo-features-1shot: largest, codes, {place}"]) for row in tasks])
        assert float(along["3", place]["largest, z"]) == of_run
        assert float(along["0", place]["largest, z"]) != of_run
    assert not list(runs.glob("**/*.part"))


def test_a_run_without_codes_has_no_map(runs: Path) -> None:
    found = analyse(runs / "meta-sgd", tasks=2, rows="query", reduction="mean")
    assert found.codes is None
    assert {*found.runs[0].spectra} == {("weights", "start"), ("weights", "adapted")}
    assert found.protocol["loss"] == "query, mean over rows"
    assert not found.training


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--against", "five"], "on other tasks than leo (shots: 5 instead of 1)"),
        (["--training-steps", "4"], "meta-steps from 0 to 3, not 4 to 4"),
        (["--out", "five"], "five holds best.safetensors already: give an analysis an empty or a new folder"),
    ],
)
def test_it_refuses_in_a_line_and_leaves_nothing(
    options: list[str], told: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(SystemExit):
        main(["analyse", "leo", "--out", "refused", *options])
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (runs / "refused").exists()
