import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fewstep.evaluation.figures import near_scores, span
from fewstep.evaluation.statistics import Interval
from fewstep.experiments.compare.result import Comparison, MethodScores

A, B, C = np.array([0.9, 0.8, 1.0, 0.7]), np.array([0.5, 0.6, 0.6, 0.5]), np.array([1 / 3, 0.1 + 0.2, 1e-17, 0.7])
PNG = b"\x89PNG\r\n\x1a\n"


def comparison(**changes: object) -> Comparison:
    rows = [
        MethodScores(
            label="a",
            scores=A,
            unadapted=B,
            algorithm="Maml",
            inner_steps=(5, 3),
            statistics="query",
            transductive=True,
            steps=500,
            planned=600,
            finished=False,
            tasks_per_step=4,
            training_seconds=3700.0,
            threads=2,
            machine="there",
            test_seconds=0.0125,
            inputs="images",
        ),
        MethodScores(
            label="b, with a comma",
            scores=B,
            algorithm="Protonet",
            steps=600,
            planned=600,
            tasks_per_step=4,
            training_seconds=12.0,
            threads=1,
            machine="here",
            inputs="features",
        ),
        MethodScores(label="ridge (images)", scores=C, baseline=True, inputs="images"),
    ]
    given: dict = {"rows": rows, "score_name": "accuracy", "higher_is_better": True, "machine": "here", "threads": 2}
    return Comparison(**given | {"protocol": {"ways": 5, "task seed": 0}} | changes)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_differences_are_paired_by_task() -> None:
    """By hand: b − a is −0.4, −0.2, −0.4, −0.2; its mean −0.3, s² = 4 · 0.01 / 3."""
    found = comparison().difference("b, with a comma")
    assert found is not None
    assert found.mean == pytest.approx(-0.3)
    assert found.half_width == pytest.approx(1.96 * math.sqrt(0.04 / 3) / 2)
    back = comparison(reference="b, with a comma").difference("a")
    assert back is not None
    assert (back.mean, back.half_width) == (-found.mean, found.half_width)
    own = comparison().interval("a")  # 0.85; squared deviations .0025, .0025, .0225, .0225
    assert own is not None
    assert (own.mean, own.half_width) == (pytest.approx(0.85), pytest.approx(1.96 * math.sqrt(0.05 / 3) / 2))


def test_files_read_back_to_the_same_bits(tmp_path: Path) -> None:
    result = comparison()
    result.write(tmp_path)
    tasks = read(tmp_path / "tasks.csv")
    for row in result.rows:
        assert np.array([float(line[row.label]) for line in tasks]).tobytes() == row.scores.tobytes()
    assert [line["task"] for line in tasks] == ["0", "1", "2", "3"]
    lines = {line["method"]: line for line in read(tmp_path / "comparison.csv")}
    assert list(lines) == result.labels
    for label, line in lines.items():
        own, apart = result.interval(label), result.difference(label)
        assert own is not None
        assert apart is not None
        assert (float(line["accuracy"]), float(line["half_width"])) == (own.mean, own.half_width)
        assert (float(line["difference"]), float(line["difference_half_width"])) == (apart.mean, apart.half_width)
    assert float(lines["a"]["unadapted"]) == B.mean()
    assert (lines["a"]["inner_steps"], lines["a"]["transductive"], lines["a"]["finished"]) == ("5+3", "True", "False")
    assert (lines["a"]["training_machine"], lines["a"]["test_machine"]) == ("there", "here")
    assert lines["ridge (images)"]["meta_steps"] == ""
    pairs = {(line["method"], line["other"]): line for line in read(tmp_path / "differences.csv")}
    assert set(pairs) == {("a", "b, with a comma"), ("a", "ridge (images)"), ("b, with a comma", "ridge (images)")}
    assert float(pairs["a", "ridge (images)"]["mean"]) == (A - C).mean()
    assert (tmp_path / "comparison.png").read_bytes().startswith(PNG)
    assert b"<svg" in (tmp_path / "comparison.svg").read_bytes()
    assert not list(tmp_path.glob(".*.part"))


def test_the_page_says_what_the_numbers_do_not() -> None:
    page = comparison().markdown()
    assert "| **a** | 85.00 ± 12.65 | reference | transductive | Maml | 5 + 3 | 55.00 ± 5.66 |" in page
    assert "| b, with a comma | 55.00 ± 5.66 | -30.00 ± 11.32 | inductive | Protonet | none | – |" in page
    assert "| a | – | 500 of 600 × 4 | 1 h 02 min, 2 threads | 12.5 ms |" in page
    assert "| b, with a comma | -30.00 ± 11.32 |  |" in page  # the matrix: row minus column, nothing on the diagonal
    for part in (
        "| ways | 5 |",
        "Transductive: a.",
        "a has not finished training: 500 of 600",
        "another machine than tested (there): a.",
        "ridge (images): without meta-learning, on the images",
        "do not see the same inputs (images, features)",
        "different numbers of threads (1, 2)",
        "with 2 threads",
    ):
        assert part in page, part
    same = [MethodScores(label=name, scores=scores) for name, scores in (("a", A), ("b", B))]
    plain = comparison(rows=same, machine="here").markdown()
    for part in (
        "Transductive",
        "Published",
        "not finished",
        "another machine",
        "without meta-learning",
        "same inputs",
        "n/a",
    ):
        assert part not in plain, part


def test_an_early_stop_is_not_an_unfinished_training() -> None:
    row = MethodScores(label="a", scores=A, steps=500, planned=600, finished=True, tasks_per_step=4)
    page = comparison(rows=[row]).markdown()
    assert "500 of 600, stopped early × 4" in page
    assert "not finished" not in page


def test_scores_that_are_not_finite_leave_the_others_alone(tmp_path: Path) -> None:
    broken = A.copy()
    broken[[1, 2]] = math.nan, math.inf
    rows = [
        MethodScores(label="a", scores=A),
        MethodScores(label="broken", scores=broken),
        MethodScores(label="b", scores=B),
    ]
    result = comparison(rows=rows, score_name="mse", higher_is_better=False)
    result.write(tmp_path)
    lines = {line["method"]: line for line in read(tmp_path / "comparison.csv")}
    assert (lines["broken"]["mse"], lines["broken"]["difference"], lines["broken"]["nonfinite_tasks"]) == ("", "", "2")
    assert float(lines["b"]["difference"]) == pytest.approx(-0.3)
    back = np.array([float(line["broken"]) for line in read(tmp_path / "tasks.csv")])
    np.testing.assert_array_equal(back, broken)
    page = result.markdown()
    assert "| broken | not finite in 2 tasks | n/a |" in page
    assert "n/a: broken had scores that are not finite" in page
    assert comparison(rows=rows, reference="broken").difference("a") is None


def test_numbers_fit_a_terminal_of_eighty_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in comparison().tables():
        console.print(table)
    shown = console.export_text()
    for cell in ("85.00 ± 12.65", "-30.00 ± 11.32", "transductive", "500 of 600 × 4", "1 h 02 min, 2 threads"):
        assert cell in shown, cell
    assert "ways: 5" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "at least one method"),
        ({"rows": [MethodScores(label="a", scores=A)] * 2}, "distinct labels"),
        (
            {"rows": [MethodScores(label="a", scores=A), MethodScores(label="b", scores=B[:3])]},
            r"a has scores of 4 tasks, b",
        ),
        ({"rows": [MethodScores(label="a", scores=A[:1])]}, "at least 2 tasks"),
        ({"reference": "leo"}, "no method 'leo'"),
    ],
)
def test_what_is_no_comparison(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison(**changes)


def test_far_methods_do_not_squeeze_the_others() -> None:
    def around(**means: float) -> dict[str, Interval]:
        return {name: Interval(mean, 0.003, 600) for name, mean in means.items()}

    assert near_scores(around(a=0.97, b=0.98, c=0.2)) == ["a", "b"]
    assert sorted(near_scores(around(a=0.97, b=0.98, c=0.93))) == ["a", "b", "c"], "not far"
    assert sorted(near_scores(around(a=0.97, b=0.2))) == ["a", "b"], "two have no majority"
    assert sorted(near_scores(around(a=0.97, b=0.98, c=0.2, d=0.1))) == ["a", "b", "c", "d"], "nor have halves"
    assert sorted(near_scores(around(a=0.3, b=0.4, c=0.35, d=900.0, e=0.31))) == ["a", "b", "c", "e"]
    low, high = span([Interval(0.97, 0.01, 9), Interval(0.99, 0.005, 9)], False, 100.0)
    assert 95 < low < 96
    assert 99.5 < high < 100
    low, high = span([Interval(-0.03, 0.01, 9), Interval(0.0, 0.0, 9)], False, 100.0, reach=0.08)
    assert low < -4
    assert high > 0.08 * 4, "room for the word at zero"
