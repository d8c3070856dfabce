"""Drawings: what is taken for one, and the image that the learner sees."""

from typing import Any

import numpy as np
import pytest
from replayed import strokes, tasks

from fewstep.data.images.characters import omniglot, reduced
from fewstep.demo.drawing import INK, POINTS, SIDE, STROKES, as_omniglot, drawing

HOOK = np.array([[0.3, 0.2], [0.6, 0.2], [0.6, 0.7]])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "no drawing"),
        ({"strokes": []}, "no drawing"),
        ([], "empty"),
        ([[]], "no drawing"),
        ([[[0.1, 0.2, 0.3]]], "two numbers"),
        ([[[0.1, "0.2"]]], "two numbers"),
        ([[[0.1, True]]], "two numbers"),
        ([[[0.1, None]]], "two numbers"),
        ([[[0.1, 1.01]]], "leaves the canvas"),
        ([[[0.1, float("nan")]]], "leaves the canvas"),
        ([[[0.1, 10**400]]], "leaves the canvas"),
        ([[[0.1, 0.2]]] * (STROKES + 1), "more than"),
        ([[[0.1, 0.2]] * (POINTS + 1)], "more than"),
    ],
)
def test_what_is_no_drawing_is_refused(given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^example A .*{why}"):
        drawing(given, "example A")


def test_the_most_of_a_drawing_is_taken() -> None:
    many = drawing([[[0.0, 1]] * (POINTS // STROKES)] * STROKES)
    assert (len(many), as_omniglot(many).shape) == (STROKES, (1, 28, 28))


def test_place_and_size_are_not_seen() -> None:
    image = as_omniglot([HOOK])
    # As coordinates round, a pixel of the finest canvas may be another: one grey value in 28 × 28 then moves a little.
    for moved in (HOOK + 0.25, HOOK * 0.5, HOOK * 0.3 + 0.6):
        assert np.abs(as_omniglot([moved]).astype(int) - image).mean() < 1


def test_ink_is_white_and_as_long_and_wide_and_central_as_omniglots() -> None:
    line = as_omniglot([np.array([[0.1, 0.5], [0.9, 0.5]])])[0] / 255
    assert line[0].sum() == line[-1].sum() == 0
    assert line[:, 14].sum() == pytest.approx(4.75 * 28 / SIDE, abs=0.15)
    assert line[13].sum() + line[12].sum() + line[14].sum() == pytest.approx(line.sum(), rel=0.05)
    assert (line.sum(0) > 0.3).sum() == pytest.approx(INK * 28 / SIDE, abs=1)


def test_a_dot_stays_a_dot() -> None:
    assert 0 < as_omniglot([np.array([[0.1, 0.1]])]).sum() / 255 < 4
    assert 0 < as_omniglot([np.array([[0.1, 0.1], [0.104, 0.1]])]).sum() / 255 < 6


def test_omniglots_characters_drawn_anew_have_the_ink_that_they_had() -> None:
    (task,) = tasks(1, omniglot("test").class_names)
    ink = task.reshape(-1, SIDE, SIDE)
    again = np.stack([as_omniglot(drawing(strokes(one))) for one in ink])
    # Long ones become shorter, and short ones longer: per pixel of length, ink is as it was.
    longer = np.array([INK / max(np.ptp(np.nonzero(one), 1) + 1) for one in ink])
    before = reduced(ink[None]).sum((1, 2, 3)) / 255
    assert np.median(again.sum((1, 2, 3)) / 255 / (before * longer)) == pytest.approx(1, abs=0.1)
