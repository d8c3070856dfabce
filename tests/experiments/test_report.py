import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewstep.evaluation import Evaluation
from fewstep.evaluation.curves import curves_in_words, learning_curves
from fewstep.experiments.report import report

PNG = b"\x89PNG\r\n\x1a\n"


def metrics(path: Path) -> Path:
    rows = ["step,split,name,value"]
    for step in range(50, 2001, 50):
        rows.append(f"{step},train,loss,{2 * math.exp(-step / 400) + 0.1 + 0.03 * math.sin(step)}")
        rows.append(f"{step},train,accuracy,{0.95 - 0.7 * math.exp(-step / 400)}")
        if step % 500 == 0:
            rows.append(f"{step},validation,accuracy,{0.93 - 0.7 * math.exp(-step / 400)}")
    path.write_text("\n".join(rows) + "\n")
    return path


def evaluation() -> Evaluation:
    scores = {"adapted": np.array([0.9, 0.8, 1.0]), "unadapted": np.array([0.5, 0.5, 0.8])}
    return Evaluation(scores, "accuracy", True, True, {"dataset": "a|b", "ways": 5, "task seed": 0})


def test_report_of_a_whole_run(tmp_path: Path) -> None:
    metrics(tmp_path / "metrics.csv")
    (tmp_path / "config.json").write_text(
        json.dumps({"recipe": "leo-omniglot", "method": {"kind": "Leo", "steps": [1]}})
    )
    (tmp_path / "environment.json").write_text(json.dumps({"versions": {"torch": "2.13"}, "commit": None}))
    (tmp_path / "test.json").write_text(json.dumps(evaluation().to_json()))
    (tmp_path / "a-5-shot.json").write_text(json.dumps(evaluation().to_json()))
    text = report(tmp_path).read_text(encoding="utf-8")
    assert text.startswith("# leo-omniglot\n")
    # by hand: s = 0.1, and differences 0.4, 0.3, 0.2 likewise; 1.96 · 0.1/√3 = 0.11316
    assert "| **adapted** | 90.00 ± 11.32 |  |" in text
    assert "| unadapted | 60.00 ± 19.60 | +30.00 ± 11.32 |" in text
    for part in (
        r"| dataset | a\|b |",
        "| tasks | 3 |",
        "**transductive**",
        "| method.steps | [1] |",
        "| versions.torch | 2.13 |",
        "| commit | – |",
        "](learning_curves.png)",
    ):
        assert part in text
    assert text.index("### test\n") < text.index("### a-5-shot\n")
    assert (tmp_path / "learning_curves.png").read_bytes().startswith(PNG)


def test_report_of_an_empty_folder(tmp_path: Path) -> None:
    text = report(tmp_path).read_text(encoding="utf-8")
    assert text.startswith(f"# {tmp_path.name}\n")
    for part in ("has not been tested", "no metrics.csv", "no config.json", "no environment.json"):
        assert part in text


def test_report_says_what_is_not_finite(tmp_path: Path) -> None:
    scores = {"adapted": np.array([0.1, math.nan]), "unadapted": np.array([0.5, 0.6])}
    result = Evaluation(scores, "mse", False, False)
    (tmp_path / "test.json").write_text(json.dumps(result.to_json(), allow_nan=False))
    text = report(tmp_path).read_text(encoding="utf-8")
    assert "| unadapted | 0.5500 ± 0.0980 | n/a |" in text
    assert "n/a: adapted had scores that are not finite" in text
    assert "lower is better" in text


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"recipe"')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        report(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        report(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["step,split,name,value\n", "step,split,name,value\n1,train,kl,0.1\n"])
def test_nothing_to_draw(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match="neither a training loss nor a validation score"):
        learning_curves(tmp_path / "metrics.csv", tmp_path / "out.png")
    assert "Nothing to draw" in report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("step,loss\n1,0.5\n", "its columns are step, loss, not step, split, name, value"),
        ("", "its columns are none"),
        ("step,split,name,value\n1,train,loss,0.5\n2,train,lo", "line 3 is '2,train,lo'"),
    ],
)
def test_what_is_no_log_is_named(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=f"metrics.csv is damaged .*{told}"):
        learning_curves(tmp_path / "metrics.csv", tmp_path / "out.png")
    assert told in report(tmp_path).read_text(encoding="utf-8")


def test_importing_does_not_import_matplotlib() -> None:
    command = (
        "import sys, fewstep.experiments.report, fewstep.estimators.classifier; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def words(path: Path, name: str, loss: list[float], train: list[float], validation: list[float]) -> str:
    rows = ["step,split,name,value"]
    rows += [f"{i},train,loss,{value}" for i, value in enumerate(loss, 1)]
    rows += [f"{i},train,{name},{value}" for i, value in enumerate(train, 1)]
    rows += [f"{i},validation,{name},{value}" for i, value in enumerate(validation, 1)]
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    return " ".join(curves_in_words(path / "metrics.csv"))


@pytest.mark.parametrize(
    ("name", "loss", "train", "validation", "told"),
    [
        ("accuracy", [2, 1], [0.9, 0.98], [0.8, 0.88, 0.87], "training 98.0%, validation 88.0% .* 2 of 3: overfitting"),
        ("accuracy", [2, 1], [0.9, 0.92], [0.8, 0.88, 0.88], r"validation 88.0% at its best, step 2 of 3\.$"),
        ("accuracy", [2, 1], [0.9], [0.5, 0.6, 0.7, 0.8, 0.86], "still improving at the end"),
        ("accuracy", [2, 1], [0.9], [0.5, 0.89, 0.86], "Validation fell to 86.0% after that"),
        ("accuracy", [2, 3], [0.3], [0.3], r"diverged: its loss was 2 at first and is 3 at the end"),
        ("accuracy", [2, math.nan], [0.3], [0.3], "diverged: its loss is no finite number"),
        ("mean squared error", [2, 1], [0.2], [0.5, 0.4, 0.4], "training 0.2, validation 0.4 .*: overfitting"),
        ("mean squared error", [2, 1], [0.2], [0.5, 0.2, 0.3], "Validation fell to 0.3"),
    ],
)
def test_curves_say_what_they_show(
    name: str, loss: list[float], train: list[float], validation: list[float], told: str, tmp_path: Path
) -> None:
    found = words(tmp_path, name, loss, train, validation)
    assert re.search(told, found), found
