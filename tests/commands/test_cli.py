"""The program as its user meets it: every command on a short but complete run."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep
from fewstep import algorithms
from fewstep.commands.main import main
from fewstep.core import regression
from fewstep.data.images.characters import omniglot
from fewstep.evaluation.inner_loop import descents
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, from_json, to_json

TINY = [
    "--data.pretraining.epochs",
    "1",
    "--data.pretraining.network.widths",
    "4",
    "8",
    "--data.pretraining.network.pools",
    "2",
    "--data.pretraining.batch",
    "1024",
    "--data.no-rotations",
    "--data.ways",
    "5",
    "--training.steps",
    "12",
    "--training.validate-every",
    "6",
    "--training.log-every",
    "4",
    "--training.validation-tasks",
    "10",
    "--testing.tasks",
    "20",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "leo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        main(["train", "leo-omniglot", *TINY, "--out", str(folder)])
    return folder


def test_a_run_folder_is_complete(run: Path) -> None:
    for name in (
        "config.json",
        "environment.json",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "extractor.safetensors",
        "test.json",
        "test_tasks.csv",
        "report.md",
        "report.html",
        "learning_curves.png",
    ):
        assert (run / name).stat().st_size > 0, name
    config, environment = from_json(run / "config.json"), json.loads((run / "environment.json").read_text())
    assert config.training.steps == 12
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["threads"] >= 1
    with (run / "test_tasks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    test = json.loads((run / "test.json").read_text())
    mean = np.mean([float(row["adapted"]) for row in rows])
    assert test["scores"]["adapted"]["mean"] == pytest.approx(mean)
    assert set(test["differences"]) == {"unadapted", "nearest class mean", "ridge", "nearest class mean, centred"}
    assert test["protocol"]["queries"] == "all remaining"
    assert test["protocol"]["query rows"] == 5 * 19
    report = (run / "report.md").read_text()
    assert "learning_curves.png" in report
    assert "leo-omniglot" in report


def test_report_measures_what_a_test_does_not_keep(run: Path, tmp_path: Path) -> None:
    main(["report", str(run), "--tasks", "20", "--out", str(tmp_path / "page.html")])
    details = json.loads((run / "details.json").read_text())
    test = json.loads((run / "test.json").read_text())
    assert details["about"].startswith("Of the first 20 test tasks, with 15 of each class")
    assert details["calibration"]["accuracy"] == pytest.approx(test["scores"]["adapted"]["mean"], abs=0.03), (
        "same tasks"
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 6 * len(details["classes"]) > 0
    kept = (run / "details.json").stat().st_mtime_ns
    main(["report", str(run), "--tasks", "20"])
    assert (run / "details.json").stat().st_mtime_ns == kept, "nothing is measured twice"


def test_evaluate_takes_any_ways_and_shots(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(run), "--ways", "3", "--shots", "4", "--tasks", "10", "--out", "three"])
    test = json.loads((run / "three.json").read_text())
    assert (test["protocol"]["ways"], test["protocol"]["support rows"], test["protocol"]["query rows"]) == (3, 12, 48)
    assert "nearest class mean" in capsys.readouterr().out


def test_predict_labels_images_and_features(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = omniglot("test").gather(np.arange(40))[:, 0].numpy()  # two characters of twenty drawings
    for name, rows in (("alpha", range(5)), ("beta", range(20, 23))):
        (tmp_path / "support" / name).mkdir(parents=True)
        for i in rows:
            Image.fromarray(np.uint8(255 - 255 * images[i])).save(tmp_path / "support" / name / f"{i}.png")
    (tmp_path / "query").mkdir()
    for i in (6, 30):
        Image.fromarray(np.uint8(255 - 255 * images[i])).save(tmp_path / "query" / f"{i}.png")
    out = tmp_path / "predictions.csv"
    main(
        [
            "predict",
            str(run),
            "--support",
            str(tmp_path / "support"),
            "--query",
            str(tmp_path / "query"),
            "--out",
            str(out),
        ]
    )
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["query"] for row in rows] == ["30.png", "6.png"]
    assert all(row["label"] in ("alpha", "beta") for row in rows)
    assert all(float(r["p(alpha)"]) + float(r["p(beta)"]) == pytest.approx(1, abs=1e-5) for r in rows)

    # The same through features and the library gives the same probabilities.
    x = images[[*range(5), *range(20, 23)], None]
    classifier = fewstep.load(run).fit(x, ["alpha"] * 5 + ["beta"] * 3)
    p = classifier.predict_proba(images[[30, 6], None])
    assert p[:, 0] == pytest.approx([float(row["p(alpha)"]) for row in rows], abs=2e-3)  # PNG has 8 bits

    with pytest.raises(SystemExit):
        main(["predict", str(run), "--support", str(tmp_path / "query"), "--query", str(tmp_path / "query")])
    assert "no labels" in capsys.readouterr().err


def test_a_finished_run_resumes_to_nothing_and_keeps_its_configuration(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "best.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        main(["train", "leo-omniglot", "--resume", str(run), "--seed", "3"])
    assert "keeps its configuration" in capsys.readouterr().err
    assert (run / "best.safetensors").read_bytes() == before


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves") / "run"
    main(
        [
            "train",
            "maml-sinusoid",
            "--training.steps",
            "6",
            "--training.validate-every",
            "3",
            "--training.validation-tasks",
            "10",
            "--testing.tasks",
            "10",
            "--out",
            str(folder),
        ]
    )
    return folder


def test_regression_runs_are_tested_at_several_shots(curves: Path) -> None:
    for shots in (5, 10):
        test = json.loads((curves / f"test-{shots}-shot.json").read_text())
        assert test["protocol"]["support rows"] == shots
        assert {"after 1 step", "after 5 steps"} <= set(test["scores"])


def points_of(folder: Path) -> tuple[Path, Path]:
    (folder / "few.csv").write_text("y,x1\n1.5,-2\n\n-0.5,1\n2,3.5\n", encoding="utf-8-sig")
    np.savez(folder / "new.npz", x=np.array([-1.0, 0.0, 2.0]))
    return folder / "few.csv", folder / "new.npz"


def test_predict_gives_numbers_with_intervals(curves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, new = points_of(tmp_path)
    asked = ["predict", str(curves), "--support", str(few), "--query", str(new)]
    main([*asked, "--noise", "0.3", "--interval", "0.5", "--samples", "3", "--out", str(tmp_path / "out.csv")])
    assert "note" not in capsys.readouterr().err
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    loaded = fewstep.load(curves)
    assert isinstance(loaded, fewstep.FewShotRegressor)
    mean = loaded.fit([[-2.0], [1.0], [3.5]], [1.5, -0.5, 2.0]).predict([[-1.0], [0.0], [2.0]])
    assert [row["query"] for row in rows] == ["0", "1", "2"]
    for name, offset in (("mean", 0), ("lower", -0.6744898 * 0.3), ("upper", 0.6744898 * 0.3)):
        np.testing.assert_allclose([float(row[name]) for row in rows], mean + offset, rtol=1e-4, atol=1e-5)

    main(asked)  # to be read by another program: remarks go elsewhere
    printed = capsys.readouterr()
    lines = [line.split(",") for line in printed.out.splitlines()]
    assert lines[0] == ["query", "mean", "lower", "upper"]
    assert [line[1:] for line in lines[1:]] == [[row["mean"]] * 3 for row in rows]
    assert "without --noise its interval has no width" in printed.err


def test_several_targets_are_predicted_by_name(tmp_path: Path) -> None:
    from fewstep.estimators.files import regress

    (tmp_path / "few.csv").write_text("x1,y height,x2,y\n0,1,2,3\n4,5,6,7\n")
    (tmp_path / "new.csv").write_text("x1,x2\n0,2\n")
    network = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(network.weight)
    with torch.no_grad():
        network.bias.copy_(torch.tensor([2.0, -3.0]))
    method = algorithms.maml(network, rate=1e-30, loss=regression())
    model = fewstep.FewShotRegressor(method, noise=1.0)
    header, rows = regress(model, tmp_path / "few.csv", tmp_path / "new.csv")
    assert header == ["query", *(f"{of}({name})" for name in ("y height", "y") for of in ("mean", "lower", "upper"))]
    expected = [[0, 2, 2 - 1.644854, 2 + 1.644854, -3, -3 - 1.644854, -3 + 1.644854]]
    np.testing.assert_allclose(np.array(rows, float), expected, rtol=1e-4)
    np.savez(tmp_path / "few.npz", x=np.zeros((2, 2)), y=np.zeros((2, 2)))
    assert regress(model, tmp_path / "few.npz", tmp_path / "new.csv")[0][1] == "mean(y0)"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.csv", "x,y\n1,two\n", "a.csv: point 0 has 'two' for y, which is no number"),
        ("a.csv", "x,y\n1,2\n1\n", "a.csv: point 1 has 1 numbers, but there are 2 columns"),
        ("a.csv", "x,z\n1,2\n", "must begin with a line of names, x… for inputs and y… for targets"),
        ("a.csv", "0.5,1.5\n", "got '0.5', '1.5'"),
        ("a.csv", "", "got an empty file"),
        ("a.csv", "y\n1\n", "must begin with a line of names"),
        ("a.csv", "x\n1\n", "has no targets"),
        ("a.csv", "x,y\n", "0 sample(s)"),
        ("a.csv", "x,y\n1,nan\n", "1 of 1 rows of y hold NaN"),
        ("a.csv", "x1,x2,y\n1,2,3\n", "X has 2 features, but the model takes 1"),
        ("a.csv", None, "a.csv: No such file or directory"),
        ("a.npz", "no archive", "a.npz is damaged or holds no plain arrays"),
        ("a.txt", "x,y\n1,2\n", "neither an .npz nor a .csv file"),
    ],
)
def test_points_that_cannot_be_learned_from(
    curves: Path, tmp_path: Path, file: str, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    _, new = points_of(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(curves), "--support", str(tmp_path / file), "--query", str(new)])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("curves", ["--baseline", "ridge"], "no baseline 'ridge' of a model: a regression has none"),
        ("run", ["--noise", "0.3"], "holds a classification, whose predictions are probabilities: --noise is for"),
        ("run", ["--samples", "5", "--interval", "0.5"], "--samples, --interval are for regressions only"),
        ("curves", ["--noise", "-1"], "--noise must be positive and finite, got -1.0"),
        ("curves", ["--samples", "0"], "samples must be at least 1, got 0"),
        ("curves", ["--interval", "90"], "--interval must be in (0, 1), got 90.0"),
    ],
)
def test_options_of_regressions_that_make_no_sense(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few, new = points_of(tmp_path)
    folder = request.getfixturevalue(kind)
    with pytest.raises(SystemExit):
        main(["predict", str(folder), "--support", str(few), "--query", str(new), *options])
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_is_tested_and_used_with_the_inner_steps_and_statistics_of_a_test(tmp_path: Path) -> None:
    main(
        [
            "train",
            "anil-omniglot-5way-1shot",
            "--data.no-rotations",
            "--data.no-test-rotations",
            "--method.rate",
            "0.1",
            "--method.network.hidden",
            "4",
            "4",
            "--method.test-steps",
            "3",
            "--training.steps",
            "1",
            "--training.tasks",
            "1",
            "--training.compile",
            "off",
            "--training.validation-tasks",
            "2",
            "--testing.tasks",
            "5",
            "--testing.queries",
            "2",
            "--testing.steps",
            "1",
            "3",
            "--testing.statistics",
            "joined",
            "--out",
            str(tmp_path / "run"),
        ]
    )
    with (tmp_path / "run" / "test_tasks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["adapted"] == row["after 3 steps"] for row in rows)
    used = fewstep.load(tmp_path / "run")
    assert used.model.statistics == "joined"
    (descend,) = descents(used.model.method.learner)
    assert descend.steps == 3
    assert descents(Run.open(tmp_path / "run").method.learner)[0].steps == 1, "training goes on with its own"


def test_every_algorithm_and_every_family_of_recipes_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    shown = capsys.readouterr().out
    for recipe in RECIPES.values():
        start, *_ = recipe.family.partition("{")
        assert recipe.name.startswith(start)
        assert recipe.family in shown
    for name in algorithms.__all__:
        listed = {"fomaml": "maml", "t_net": "mt_net", "cnp": "neural_process"}.get(name, name)
        assert re.search(rf"^{listed} ", shown, re.MULTILINE), name


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_listed_shown_and_survive_json(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["show", name])
    shown = capsys.readouterr().out
    assert '"steps"' in shown
    for published in RECIPES[name].published:
        assert published.score in shown
    (tmp_path / "config.json").write_text(to_json(RECIPES[name]()))
    assert from_json(tmp_path / "config.json") == RECIPES[name]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'"),
        (["train", "leo-omnglot"], "no recipe 'leo-omnglot'; did you mean leo-omniglot"),
        (["show", "maml-omniglot"], "did you mean maml-omniglot-5way-1shot, maml-omniglot-5way-5shot, maml-omnigl"),
        (["train", "maml-miniimagenet-5way-1shot"], "give the folder of its images by --data.path"),
        (["evaluate", "nowhere"], "not a run"),
        (["train", "maml-sinusoid", "--device", "cuda:77"], "cuda:77"),
        (["train", "maml-sinusoid", "--training.steps", "0"], "at least 1"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_usage_is_whole_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert "fewstep train RECIPE [options]" in shown
    assert "--resume RUN goes on\n" in shown, "in one line"


def test_importing_is_light() -> None:
    import subprocess
    import sys

    heavy = "('matplotlib', 'sklearn', 'pandas')"
    code = f"import fewstep, fewstep.commands.main, sys; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
