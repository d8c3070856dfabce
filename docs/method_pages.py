"""A page for each method, written when the site is built: nothing of it is said twice.

The methods and their three choices are the table of the README, equations are docstrings, recipes and published numbers
are ``fewstep.recipes``, and our own numbers are rows of the tables in ``results.md``.
"""

import importlib
import inspect
import re
from pathlib import Path
from typing import NamedTuple

from fewstep.recipes import RECIPES, Recipe

DOCS = Path(__file__).parent
ROW = re.compile(
    r"^\| (?P<names>`\w+`.*?) \| (?P<start>.*?) \| (?P<rule>.*?) \| (?P<gradient>.*?) \| (?P<paper>.*?) \|$", re.M
)

MEASURED = (
    "Every method on Omniglot images, under a budget of minutes",
    "CIFAR-FS, under a budget of minutes",
    "The systems that LEO is compared with",
    "Every method",
)
"""Sections of ``results.md`` whose tables have rows of methods."""

ELSEWHERE = "No row of its own in those tables: see [results](../results.md) and [which method](../practice.md)."


class Row(NamedTuple):
    """A row of the README's table: functions that one paper has, and where it sits on the three axes."""

    names: list[str]
    start: str
    rule: str
    gradient: str
    paper: str


def rows() -> list[Row]:
    """The README's table of methods.

    Raises:
        ValueError: when a method that the package exports is not in it.
    """
    _, _, text = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("\n## Methods\n")
    found = [Row(re.findall(r"`(\w+)`", row[0]), *row[1:]) for row in ROW.findall(text)]
    named = [name for row in found for name in row.names]
    if missing := {*importlib.import_module("fewstep.algorithms").__all__} ^ {*named}:
        raise ValueError(f"the README's table and fewstep.algorithms differ in {', '.join(sorted(missing))}")
    return found


def title(row: Row) -> str:
    """What its paper, or its file, calls it."""
    return re.split(r" \(|: |\.$", source(row))[0]


def source(row: Row) -> str:
    """The sentence of its file that names the paper."""
    return inspect.getdoc(importlib.import_module(f"fewstep.algorithms.{row.names[0]}")) or ""


def recipes(row: Row) -> list[Recipe]:
    """Those that train one of its functions."""
    found = []
    for recipe in RECIPES.values():
        method = recipe().method
        first_order = "fomaml" if getattr(method, "first_order", False) else method.algorithm
        if {method.algorithm, first_order} & {*row.names}:
            found.append(recipe)
    return found


def measured(row: Row) -> str:
    """Rows of the results' tables that are about it, each below its header and a link to its protocol."""
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    parts = []
    for heading in MEASURED:
        below = re.split(r"^##+ ", re.split(rf"^##+ {re.escape(heading)}\n", text, flags=re.M)[1], flags=re.M)[0]
        for table in re.findall(r"(?:^\|.*\n)+", below, re.M):
            header, rule, *body = table.splitlines()
            own = [line for line in body if _about(line, row.names)]
            if own:
                parts.append(f"[{heading}](../results.md#{_anchor(heading)}):\n\n" + "\n".join((header, rule, *own)))
                break
    return "\n\n".join(parts)


def _about(line: str, names: list[str]) -> bool:
    first = line.split("|")[1].strip().strip("*`")
    label = re.split(r",| \(|-sinusoid", first)[0]
    return re.sub(r"\W", "", label).lower() in {name.replace("_", "") for name in names}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def page(row: Row) -> str:
    """The page of a row, in Markdown."""
    functions = "\n".join(f".. autofunction:: {name}\n" for name in row.names)
    known = recipes(row)
    lines = "\n".join(_recipe(recipe) for recipe in known)
    table = (
        "| recipe | published, % | by | how we know it | what a run does otherwise |\n|---|---|---|---|---|\n" + lines
        if known
        else "None: it is a function of the library."
    )
    own = measured(row)
    return f"""# {title(row)}

{source(row)}

| start | rule | meta-gradient |
|---|---|---|
| {row.start} | {row.rule} | {row.gradient} |

```{{eval-rst}}
.. currentmodule:: fewstep

{functions}
```

## Recipes and what is published

`fewstep train RECIPE` trains one, and `fewstep show RECIPE` prints all of its settings.

{table}

## What we measured

{own or ELSEWHERE}
"""


def _recipe(recipe: Recipe) -> str:
    """A line of the table."""
    if not recipe.published:
        return f"| `{recipe.name}` | | | | |"
    (number,) = recipe.published
    return f"| `{recipe.name}` | {number.score} | {number.source} | {number.seen} | {number.differs} |"


def index(known: list[Row]) -> str:
    """The page over them: the README's table, with links."""
    lines = "\n".join(
        f"| [{', '.join(f'`{name}`' for name in row.names)}]({row.names[0]}.md) "
        f"| {row.start} | {row.rule} | {row.gradient} | {row.paper} |"
        for row in known
    )
    pages = "\n".join(row.names[0] for row in known)
    return f"""# Methods

A paper is where a task **starts**, how a step moves (its **rule**), and how the outer loop learns from it (its
**meta-gradient**). [CONTRIBUTING](../contributing.md#how-to-add-an-algorithm) shows how to make another choice.

| `fewstep.` | start | rule | meta-gradient | paper |
|---|---|---|---|---|
{lines}

Published numbers stand beside a recipe with their source, with how we know them, and with what a run of the recipe does
otherwise. They are quoted, not reproduced, unless the page says so.

```{{toctree}}
:hidden:

{pages}
```
"""


def write(folder: Path) -> None:
    """All pages; a file is touched only where its text has changed."""
    folder.mkdir(exist_ok=True)
    known = rows()
    texts = {"index": index(known)} | {row.names[0]: page(row) for row in known}
    for path in folder.glob("*.md"):
        if path.stem not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def documented() -> list[str]:
    """Names that have a page here, which the reference only links."""
    return [name for row in rows() for name in row.names]
