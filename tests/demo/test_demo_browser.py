"""The demo in a browser: held-out characters are drawn with the mouse, and named as the library names their images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import services
from replayed import draw, strokes, tasks

from fewstep import FewShotClassifier
from fewstep.data.images.characters import omniglot, reduced
from fewstep.demo.pages.pictures import FRAME
from fewstep.demo.server import Server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*")

WAYS = 5

Drawing = list[list[list[float]]]


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
        page.locator("#said").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [one for one in told if not one.startswith((server.url, "data:"))] == []
    assert any(one.endswith(".js") for one in told), "requests are heard"


def choose(page: Any, ways: int) -> None:
    page.locator("#ways label", has_text=str(ways)).click()
    page.locator("#examples .pad").nth(ways - 1).wait_for()


def pad(page: Any, letter: str) -> Any:
    return page.locator(f"#example-{letter} .pad")


def asked(page: Any, query: Drawing) -> str:
    """Draw the query, and the letter that the page says of all of its strokes."""
    draw(page, page.locator("#query .pad"), query)
    page.locator(f'#query img[alt^="{len(query)} stroke"]').wait_for()
    return str(page.locator("#said b").inner_text())


def play(page: Any, task: np.ndarray) -> str:
    """Draw the examples of a task, and each query after another; the letters that are said."""
    page.click("#clear")
    page.wait_for_selector(f"text={WAYS} of {WAYS} are empty")
    for letter, (example, _) in zip("ABCDE", task, strict=True):
        draw(page, pad(page, letter), strokes(example))
    said = ""
    for _, query in task:
        page.locator("#query button").click()
        page.wait_for_selector("text=Now draw one of them again.")
        said += asked(page, strokes(query))
    return said


def by_library(task: np.ndarray) -> str:
    small = np.stack([reduced(pair[None]) for pair in task]).astype(np.float32) / 255
    classifier = FewShotClassifier("omniglot-leo").fit(small[:, 0], list("ABCDE"))
    return "".join(classifier.predict(small[:, 1]))


def right(said: str) -> float:
    return float(np.mean([a == b for a, b in zip(said, "ABCDE", strict=True)]))


def test_held_out_characters_drawn_with_the_mouse_are_named(visit: Any) -> None:
    page, (task,) = visit(), tasks(1, omniglot("test").class_names)
    choose(page, WAYS)
    assert right(play(page, task)) >= right(by_library(task)) - 0.2
    for title in ("Before adaptation", "After latent steps", "After fine-tuning"):
        assert page.locator("#stages .block", has_text=title).locator("dt").count() == WAYS
    assert page.locator("#movement text").all_text_contents() == list("ABCDE")
    assert "5 latent steps" in page.locator("#movement figcaption").inner_text()
    page.locator("#example-A button").click()
    page.wait_for_selector("text=Draw the examples first: 1 of 5 are empty.")
    assert page.locator("#stages").is_hidden()
    assert page.locator("#movement").is_hidden()


@pytest.mark.slow
def test_fifty_tasks_are_named_as_well_as_by_the_library(visit: Any) -> None:
    page, those = visit(), tasks(50, omniglot("test").class_names)
    choose(page, WAYS)
    demo, library = (
        np.array([right(names(task)) for task in those]) for names in (lambda t: play(page, t), by_library)
    )
    gain = demo - library
    print(f"{WAYS}-way 1-shot, {len(those)} tasks")
    for name, share in (("images in the library", library), ("drawn in the demo", demo), ("difference, paired", gain)):
        print(f"{name}: {share.mean():.1%} ± {1.96 * share.std(ddof=1) / len(those) ** 0.5:.1%}")
    assert gain.mean() >= -0.05


def test_two_sessions_side_by_side_share_nothing(visit: Any) -> None:
    hook, bar = [[[0.3, 0.2], [0.7, 0.2], [0.7, 0.8]]], [[[0.2, 0.5], [0.8, 0.5]]]
    one, other = visit(), visit()
    for page in (one, other):
        page.locator("#ways label", has_text="2").click()
    # In turns: for one A is a hook, for the other a bar.
    for letter, drawings in zip("AB", [(hook, bar), (bar, hook)], strict=True):
        for page, drawing in zip((one, other), drawings, strict=True):
            draw(page, pad(page, letter), drawing)
    assert [asked(page, hook) for page in (one, other)] == ["A", "B"]
    third = visit()
    third.reload()
    assert third.locator("#said").inner_text() == "Draw the examples first."
    assert third.locator("polyline").count() == 0


def test_a_stroke_goes_on_while_an_answer_comes(visit: Any) -> None:
    page = visit()
    page.click("#fill")
    page.locator("#query img").wait_for()
    box = page.locator("#query .pad").bounding_box()
    page.mouse.click(box["x"] + 20, box["y"] + 20)  # a dot is a stroke
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 30)
    page.locator('#query img[alt^="3 stroke"]').wait_for()
    page.mouse.move(box["x"] + 60, box["y"] + 90)
    page.mouse.up()
    page.locator('#query img[alt^="4 stroke"]').wait_for()
    assert page.locator("#query polyline").count() == 4
    points = page.locator("#query polyline").last.get_attribute("points").split()
    expected = np.array([[30, 30], [60, 30], [60, 90], [60, 90]]) / [box["width"], box["height"]]
    np.testing.assert_allclose([[float(at) for at in point.split(",")] for point in points], expected, atol=0.01)


def test_clicked_points_are_explained(visit: Any) -> None:
    page = visit("functions")
    plot = page.locator("#plots svg").first
    at = [(-3.0, 2.0), (-1.0, 1.0), (3.0, -3.0)]
    for x, y in at:
        box, (left, right, top, bottom) = plot.bounding_box(), FRAME.values()
        right_, down = left + (right - left) * (x / 5 + 1) / 2, top + (bottom - top) * (1 - y / 8) / 2
        page.mouse.click(box["x"] + right_ * box["width"], box["y"] + down * box["height"])
    page.wait_for_selector("text=After 3 points")
    for name, value in (("x", "4.5"), ("y", "-4")):
        page.locator(f"#{name} input").fill(value)
    page.locator("#y input").press("Enter")
    page.wait_for_selector("text=After 4 points")
    assert page.locator("#plots figcaption").last.inner_text() == "100% lines, 0% sines"
    page.locator("#y input").fill("-9")
    page.click("#add")
    page.wait_for_selector("text=less than minimum")
    page.click("#undo")
    page.wait_for_selector("text=After 3 points")
    page.click("#clear")
    page.wait_for_selector("text=Click a point.")


@pytest.mark.parametrize("path", ["", "functions"])
def test_pages_fit_into_narrow_and_wide_windows(visit: Any, path: str) -> None:
    page = visit(path)
    page.click("#fill")
    page.wait_for_selector("text=/It is|After 5 points/")
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
