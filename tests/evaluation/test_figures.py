"""What figures have in common: how they are made and saved, and rows of methods."""

from typing import Any

import pytest

from fewstep.evaluation.figures import FORMS, Rows, image, images, new_figure
from fewstep.evaluation.statistics import Interval, Score


def drawn() -> Any:
    figure = new_figure(2.0, 1.0)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], clip_on=True)
    return figure


def test_the_same_figure_gives_the_same_file_in_every_form() -> None:
    first, again = (images("name", lambda form: image(drawn(), form)) for _ in range(2))
    assert list(first) == [f"name.{form}" for form in FORMS]
    assert first == again
    assert first["name.png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert b"<svg" in first["name.svg"]
    assert b"<dc:date>" not in first["name.svg"]


def test_a_score_far_from_the_others_is_an_arrow_at_the_edge() -> None:
    scores = {"a": Interval(0.9, 0.01, 9), "b": Interval(0.92, 0.01, 9), "far": Interval(0.2, 0.01, 9)}
    rows = Rows(list(scores), Score("accuracy"), 30, (0.3, 0.1))
    rows.set_ranges(scores, {name: Interval(value.mean - 0.9, 0.01, 9) for name, value in scores.items()}, "a")
    on = [
        rows.dot(rows.left, place, value, "C0", 5.0) for place, value in zip(rows.places, scores.values(), strict=True)
    ]
    assert on == [True, True, False]
    assert [text.get_text() for text in rows.left.texts] == ["◂ 20.00"]
    low, high = rows.right.get_xlim()
    assert -5 < low < 0 < high < 5, "the right side is of what is near, too"


def test_no_axis_of_accuracies_goes_beyond_what_can_be() -> None:
    rows = Rows(["a"], Score("accuracy"), 30, (0.3, 0.1))
    rows.set_ranges({"a": Interval(0.99, 0.02, 9)}, {}, "a")
    assert rows.left.get_xlim()[1] == pytest.approx(100, abs=0.2)
