"""``fewstep list`` and ``fewstep show``: the methods and recipes."""

from __future__ import annotations

import inspect
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import get_args

import tyro
from rich.table import Column, Table

from fewstep.commands.arguments import named
from fewstep.commands.console import console, say, styled
from fewstep.recipes import RECIPES, to_json
from fewstep.recipes.config import Algorithm


def list_recipes() -> None:
    """The methods, with their papers, and the recipes, with their first line."""
    first = Column("method", style="bold", no_wrap=True)
    methods = Table(first, "what it is", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for kind in get_args(Algorithm):
        methods.add_row(re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), _first_line(inspect.getdoc(kind)))
    first_of = {recipe.family: recipe for recipe in reversed(list(RECIPES.values()))}
    console.print(methods)
    styled(("\nrecipe", "bold"), ": what it is")
    for family in dict.fromkeys(recipe.family for recipe in RECIPES.values()):
        styled((family, "bold"), f": {_first_line(first_of[family].about)}")
    styled(("\ntrained model", "bold"), ", ready for `fewstep predict` and fewstep.load: what it is")
    for name, recipe in _shipped().items():
        styled((name, "bold"), f": {_first_line(RECIPES[recipe].about)}")


def _shipped() -> dict[str, str]:
    """Recipes of the models that ship with the package, by name; torch, which reads their numbers, is not needed."""
    found = {}
    for path in sorted(Path(str(files("fewstep.data") / "files")).glob("*.fewstep.safetensors")):
        with path.open("rb") as file:  # a safetensors file begins with the length of its header, which is JSON
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        told = json.loads(header["__metadata__"]["fewstep"])
        found[path.name.partition(".")[0]] = told["config"]["recipe"]
    return found


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def show(recipe: tyro.conf.Positional[str]) -> None:
    """A recipe's description, what it needs, what is published for it, and its complete configuration.

    Args:
        recipe: its name, as ``fewstep list`` prints it, or a file: what a search wrote, or a run's config.json.
    """
    config = named(recipe)
    known = RECIPES.get(recipe)
    if known is not None:
        say(f"{known.about}\n")
    styled(("data       ", "bold"), config.data.needs)
    if known is not None:
        published = "; ".join(map(str, known.published)) or "nothing that we know of"
        styled(("published  ", "bold"), published)
        if known.space:
            styled(("search     ", "bold"), "; ".join(map(str, known.space)))
    console.print()
    console.print_json(to_json(config))
