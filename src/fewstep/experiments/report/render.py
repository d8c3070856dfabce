"""Pages as one HTML file that needs nothing else: no network, no file beside it, no script from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.data.storage.files import write_atomically
from fewstep.evaluation.tables import plain_text
from fewstep.experiments.report.content import Cell, Column, Page, Table, ranged, word

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE = "report.html"
"""The name of a page in the folder that it is of."""

HERE = Path(__file__).parent


def write_page(path: Path, pages: Sequence[Page]) -> Path:
    """Write one page, or several with a table over them, whole or not at all; the same pages give the same bytes.

    Returns:
        The path.

    Raises:
        OSError: if the file cannot be written.
    """
    write_atomically(path, html(pages))
    return path


def html(pages: Sequence[Page]) -> str:
    """The file as text. Whatever a page says is text in it: nothing in a name can become a tag or a script."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (HERE / "page.css").read_text(encoding="utf-8")
    title = pages[0].title if len(pages) == 1 else f"{len(pages)} reports"
    overview = None if len(pages) == 1 else _overview(pages)
    template = _environment().get_template("page.html")
    return template.render(pages=pages, overview=overview, title=title, style=style, script=script, digest=digest)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here, for reports are not all that is imported

    loader = FileSystemLoader(HERE)
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _overview(pages: Sequence[Page]) -> Table:
    """All pages in a table. Scores are beside each other, and not compared: that is for the same tasks."""
    scores = {page.score for page in pages if page.score is not None}
    one = next(iter(scores)) if len(scores) == 1 else None
    name = "result" if one is None else f"{one.unit} ({one.better})"
    columns = [Column("report"), Column("of"), Column(name, "interval", "score" if one else ""), Column("on")]
    rows = []
    for i, page in enumerate(pages):
        told = Cell("") if page.score is None else ranged(page.score, page.result)
        tasks = ", ".join(
            f"{key} {plain_text(page.protocol[key])}"
            for key in ("dataset", "ways", "shots", "tasks", "task seed")
            if page.protocol.get(key) is not None
        )
        label = f"{page.title} ({Path(page.folder).name})"
        rows.append([word(label, link=f"#page-{i + 1}"), word(page.kind), told, word(tasks)])
    return Table("All reports on this page", columns, rows)
