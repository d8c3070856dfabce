"""The demo in a browser: held-out characters are drawn with the mouse, and named as the library names their images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import services
from replayed import draw, strokes, tasks

from fewstep import FewShotClassifier
from fewstep.data.images.characters import omniglot, reduced
from fewstep.demo.server import Server

WAYS = 5


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with services.chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Any]:
    """Makes pages, each in a session of its own; nothing may go wrong in them, or be asked of another place."""
    contexts, told = [], list[str]()

    def opened(path: str = "", **settings: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1100, "height": 1600}, **settings))
        contexts[-1].set_default_timeout(120_000)
        contexts[-1].on("request", lambda request: told.append(request.url))
        contexts[-1].on("console", lambda message: told.append(message.text))
        contexts[-1].on("weberror", lambda error: told.append(str(error.error)))
        page = contexts[-1].new_page()
        page.goto(server.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [one for one in told if not one.startswith((server.url, "data:"))] == []
    assert any(one.endswith(".js") for one in told), "requests are heard"


def pads(page: Any) -> list[Any]:
    return page.locator("#examples canvas").all()


def answered(page: Any) -> str:
    """The letter that the page says."""
    page.wait_for_selector('#asked[aria-busy="false"]')
    return str(page.locator("#said b").inner_text())


def play(page: Any, task: np.ndarray) -> str:
    """Draw the examples of a task, and each query after another; the letters that are said."""
    while len(pads(page)) < len(task):
        page.click("#more")
    page.click("#clear")
    for pad, (example, _) in zip(pads(page), task, strict=True):
        draw(page, pad, strokes(example))
    said = ""
    for _, query in task:
        page.locator("#query button").click()
        draw(page, page.locator("#query canvas"), strokes(query))
        said += answered(page)
    return said


def by_library(task: np.ndarray) -> str:
    small = np.stack([reduced(pair[None]) for pair in task]).astype(np.float32) / 255
    classifier = FewShotClassifier("omniglot-leo").fit(small[:, 0], list("ABCDE"))
    return "".join(classifier.predict(small[:, 1]))


def right(said: str) -> float:
    return float(np.mean([a == b for a, b in zip(said, "ABCDE", strict=True)]))


def test_held_out_characters_drawn_with_the_mouse_are_named(visit: Any) -> None:
    page, (task,) = visit(), tasks(1, omniglot("test").class_names)
    assert right(play(page, task)) >= right(by_library(task)) - 0.2
    assert page.locator("#stages section").count() == 3
    assert page.locator("#stages .best").count() == 3
    assert page.locator("#codes g").count() == WAYS
    assert "5 latent steps" in page.locator("#movement figcaption").inner_text()
    page.locator(".pad button").first.click()
    assert page.locator("#said").inner_text() == "Draw the examples first: 1 of 5 are empty."
    assert page.locator("#stages").is_hidden()


@pytest.mark.slow
def test_fifty_tasks_are_named_as_well_as_by_the_library(visit: Any) -> None:
    page, those = visit(), tasks(50, omniglot("test").class_names)
    demo, library = (
        np.array([right(names(task)) for task in those]) for names in (lambda t: play(page, t), by_library)
    )
    gain = demo - library
    print(
        f"{WAYS}-way 1-shot, {len(those)} tasks: drawn in the demo {demo.mean():.1%}, images in the library "
        f"{library.mean():.1%}, difference {gain.mean():+.1%} ± {1.96 * gain.std(ddof=1) / len(those) ** 0.5:.1%}"
    )
    assert gain.mean() >= -0.05


def test_two_sessions_side_by_side_share_nothing(visit: Any) -> None:
    hook, bar = [[[0.3, 0.2], [0.7, 0.2], [0.7, 0.8]]], [[[0.2, 0.5], [0.8, 0.5]]]
    one, other = visit(), visit()
    for page in (one, other):
        page.click("#fewer")
    # In turns: for one A is a hook, for the other a bar.
    for pad, drawings in enumerate([(hook, bar), (bar, hook)]):
        for page, drawing in zip((one, other), drawings, strict=True):
            draw(page, pads(page)[pad], drawing)
    for page in (one, other):
        draw(page, page.locator("#query canvas"), hook)
    assert [answered(one), answered(other)] == ["A", "B"]
    third = visit()
    third.reload()
    assert third.locator("#said").inner_text() == "Draw the examples first: 3 of 3 are empty."


def test_clicked_points_are_explained(visit: Any) -> None:
    page = visit("functions")
    plot = page.locator("#learned svg")
    for x, y in ((0.2, 0.3), (0.4, 0.42), (0.8, 0.66)):
        box = plot.bounding_box()
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    for name, value in (("x", "4.5"), ("y", "-4")):
        page.locator(f"input[name={name}]").fill(value)
    page.locator("input[name=y]").press("Enter")
    page.wait_for_selector("text=After 4 points")
    assert page.locator("#learned .point").count() == page.locator("#exact .point").count() == 4
    assert page.locator("#exact .one").count() == 25
    assert page.locator("#exact figcaption").inner_text() == "100% lines, 0% sines"
    page.click("#undo")
    page.wait_for_selector("text=After 3 points")
    page.click("#clear")
    assert page.locator(".point").count() == 0


@pytest.mark.parametrize("path", ["", "functions"])
def test_pages_fit_into_narrow_and_wide_windows(visit: Any, path: str) -> None:
    page = visit(path)
    page.click("#fill")
    page.wait_for_selector('[aria-busy="false"]')
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
