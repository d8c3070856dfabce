"""``fewstep list`` and ``fewstep show``: the methods and recipes."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import tyro
from rich.markup import escape
from rich.table import Column, Table

from fewstep.commands.arguments import named
from fewstep.commands.console import console, say
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
    console.print("\n[bold]recipe[/]: what it is")
    for family in dict.fromkeys(recipe.family for recipe in RECIPES.values()):
        console.print(f"[bold]{escape(family)}[/]: {escape(_first_line(first_of[family].about))}", highlight=False)


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
    console.print(f"[bold]data[/]       {config.data.needs}", highlight=False)
    if known is not None:
        published = "; ".join(map(str, known.published)) or "nothing that we know of"
        console.print(f"[bold]published[/]  {published}", highlight=False)
        if known.space:
            console.print(f"[bold]search[/]     {'; '.join(map(str, known.space))}", highlight=False)
    console.print()
    console.print_json(to_json(config))
