"""One HTML page of whatever a folder holds, by its text and in a browser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import services
from reported import HOSTILE, KINDS, every_kind

from fewstep.commands.main import main
from fewstep.data import Dataset
from fewstep.evaluation.calibration import calibration_error
from fewstep.evaluation.statistics import Score, interval
from fewstep.experiments.report import report
from fewstep.experiments.report.charts import Axis, difference_chart
from fewstep.experiments.report.content import Column, Table, ranged
from fewstep.experiments.report.details import calibration, hardest
from fewstep.experiments.report.folders import page_of
from fewstep.experiments.report.render import html
from fewstep.experiments.report.runs import verdict


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_kind(tmp_path_factory.mktemp("reports"))


class Seen(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_text(kind: str, folders: dict[str, Path]) -> None:
    page = html([page_of(folders[kind])])
    seen = Seen(page)
    assert HOSTILE in seen.text
    assert seen.tags.count("script") == 1, "the page's own"
    assert "b" not in set(re.findall(r"<(b)>\[", page))
    assert html([page_of(folders[kind])]) == page, "the same folder gives the same page"


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_else(kind: str, folders: dict[str, Path]) -> None:
    page = html([page_of(folders[kind])])
    assert all(address.startswith(("data:", "#", "seed-")) for address in Seen(page).addresses)
    assert "url(" not in page
    assert len(page) < 200_000


def test_the_page_of_a_run(folders: dict[str, Path]) -> None:
    report(folders["run"])
    text = " ".join(Seen((folders["run"] / "report.html").read_text(encoding="utf-8")).text.split())
    with (folders["run"] / "test_tasks.csv").open() as file:
        next(file)
        columns = np.array([line.split(",")[1:] for line in file], float).T
    score = Score("accuracy")
    gain = score.text(interval(columns[0] - columns[2])).lstrip("+")
    assert (
        f"{score.text(interval(columns[0]))}% accuracy on 60 tasks, {gain} points above the best baseline, ridge."
        in text
    )
    for part in ("validation 92.5% at its best", "taken for it in 25.0% of 20", "calibration error", "1,024 MiB"):
        assert part in text
    assert " --out again" in text


def test_a_mean_of_checkpoints_is_no_baseline() -> None:
    scores = {
        name: {"mean": mean, "half_width": 0.01} for name, mean in (("adapted", 0.5), ("mean of 3 checkpoints", 0.6))
    }
    test = {"score": "accuracy", "higher_is_better": True, "tasks": 9, "scores": scores, "differences": {}}
    assert verdict(test) == "50.00 ± 1.00% accuracy on 9 tasks."


def test_several_folders_are_one_page_with_a_table_over_them(folders: dict[str, Path], tmp_path: Path) -> None:
    main(["report", *map(str, folders.values()), "--out", str(tmp_path / "all.html"), "--tasks", "0"])
    seen = Seen((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert seen.tags.count("article") == len(KINDS)
    assert seen.tags.count("h1") == 1
    assert [address for address in seen.addresses if address.startswith("#page-")] == [
        f"#page-{i}" for i in range(1, 7)
    ]


def test_a_folder_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search.json").write_text("{}")
    for folder, told in ((tmp_path / "nowhere", "is not there"), (tmp_path, "has no result.json: the search has not")):
        with pytest.raises(SystemExit, match="2"):
            main(["report", str(folder)])
        assert told in " ".join(capsys.readouterr().err.split())


def test_hard_classes_by_hand() -> None:
    """Class c has both queries of each task taken for class b: in two of the three tasks that it meets it in."""
    dataset = Dataset.from_sorted(np.zeros((4, 3, 2, 2)), np.arange(5), ("a", "b", "c", "d"))
    classes = np.array([[2, 1], [2, 1], [1, 2], [0, 3], [0, 3], [3, 0]])
    labels = np.array([[0, 0, 1, 1]] * 6)
    said = labels.copy()
    said[:2, :2] = 1
    found = hardest(dataset, classes, np.eye(2)[said], labels, dataset)
    assert [(one["name"], one["other"]) for one in found] == [("c", "b")]
    assert (found[0]["right"], found[0]["queries"]) == (pytest.approx(2 / 6), 6)
    assert (found[0]["mistaken"], found[0]["met"]) == (pytest.approx(4 / 6), 6)
    assert len(found[0]["pictures"]) == 1
    assert found[0]["pictures"][0].startswith("data:image/png;base64,")


def test_calibration_is_that_of_flat_rows() -> None:
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet([0.5] * 5, (6, 25)), random.integers(0, 5, (6, 25))
    found = calibration(probabilities, labels)
    assert found["error"] == pytest.approx(calibration_error(probabilities.reshape(-1, 5), labels.ravel()))
    assert sum(one["rows"] for one in found["bins"]) == 150


def test_a_row_without_a_difference_does_not_crowd_out_the_others() -> None:
    gains = [(-0.0078, 0.0019), (0.0, 0.0), (0.0281, 0.0072), (0.0572, 0.0154)]
    cells = [[ranged(Score("mse", False), {"mean": m, "half_width": h}, sign=True)] for m, h in gains]
    bars, zero = Table("", [Column("gain", "interval", "difference")], cells).bars(0)
    assert [bar.beyond for bar in bars if bar] == [""] * 4
    assert zero is not None


def test_a_histogram_holds_every_task() -> None:
    differences = np.array([-0.2, 0.0, 0.0, 0.1, 0.3, 0.3])
    for higher in (True, False):
        chart = difference_chart("a − b", differences, Score("accuracy", higher))
        assert chart is not None
        counts = {columns.tone: sum(count for *_, count in columns.bars) for columns in chart.columns}
        assert counts == {"quiet": 2, "first": 3 if higher else 1, "second": 1 if higher else 3}
    for nothing in ([0.1, np.nan], [0.0, 0.0], [0.1]):
        assert difference_chart("a − b", np.array(nothing), Score("accuracy")) is None


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(0.0, 3000.0), ["0", "1,000", "2,000", "3,000"]),
        (Axis(-0.11, 0.32), ["−0.1", "0.0", "0.1", "0.2", "0.3"]),
        (Axis(1e-4, 1e-1, log=True), ["1e−4", "0.001", "0.01", "0.1"]),
        (Axis(2.0, 30.0, log=True), ["2", "30"]),
    ],
)
def test_ticks_are_round(axis: Axis, labels: list[str]) -> None:
    assert [label for _, label in axis.ticks] == labels


@pytest.fixture(scope="module")
def pages(folders: dict[str, Path]) -> dict[str, str]:
    """Every page as a file, and one of all of them, by their addresses."""
    made = {kind: [page_of(folder)] for kind, folder in folders.items()}
    made["all of them"] = [page for pages in made.values() for page in pages]
    top = folders["run"].parent
    for name, contents in made.items():
        (top / f"{name}.html").write_text(html(contents), encoding="utf-8")
    return {name: (top / f"{name}.html").as_uri() for name in made}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with services.chromium() as opened:
        yield opened


def test_pages_in_a_browser(browser: Any, pages: dict[str, str]) -> None:
    """Nothing is said on the console, nothing is asked for, and nothing is wider than the window."""
    told: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    for name, address in pages.items():
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto(address)
        assert [one for one in told if one != address and not one.startswith("data:")] == [], name
        told.clear()
        for width in (400, 1400):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width} px"
    page.close()


def test_tables_are_sorted_by_keyboard(browser: Any, pages: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(pages["search"])
    table = page.locator("table", has_text="at meta-step")
    head = table.locator("th", has_text="validation accuracy")
    head.locator("button").focus()

    def values() -> list[str]:
        return table.locator("tbody tr > :nth-child(3)").all_inner_texts()

    for key, direction in (("Enter", "descending"), (" ", "ascending")):
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == direction
        shown = [float(value) for value in values() if value != "–"]
        assert shown == sorted(shown, reverse=direction == "descending")
        assert values()[-2:] == ["–", "–"], "what has no value comes last"
    page.close()


def test_colours_can_be_read(browser: Any, pages: dict[str, str]) -> None:
    """Every text has a contrast of 4.5 to the paper, in the light and in the dark."""
    contrasts = """() => {
      const light = (text) => {
        const linear = (x) => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
        const [r, g, b] = text.match(/[\\d.]+/g).map((x) => linear(x / 255));
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const found = {};
      for (const one of document.querySelectorAll("main *")) {
        const written = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!written || one.closest("svg")) continue;
        const ink = light(getComputedStyle(one).color);
        found[getComputedStyle(one).color] = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
      }
      return found;
    }"""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(pages["all of them"])
        found = page.evaluate(contrasts)
        assert len(found) >= 3
        assert min(found.values()) >= 4.5, found
        page.close()


def test_without_scripts_a_page_is_whole(browser: Any, pages: dict[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["comparison"])
    assert page.locator("tbody tr").count() > 8
    assert page.locator("thead button").count() == 0
    assert page.locator("img:not([alt]), svg:not([aria-hidden]), [role=img]:not([aria-label])").count() == 0
    context.close()
