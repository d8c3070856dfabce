"""The console that all commands print on, and how they print a line."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

console = Console(log_path=False)


def say(text: object) -> None:
    """Print a line as it is: without markup and colours, and unbroken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def point_to(what: str, place: object) -> None:
    """Print where something is, with the place in bold."""
    console.print(f"{what}: [bold]{escape(str(place))}[/]", highlight=False, soft_wrap=True)


def warn(what: str, text: str, colour: str = "yellow") -> None:
    """Print a remark with a coloured beginning."""
    console.print(f"[{colour}]{what}:[/] {escape(text)}", highlight=False, soft_wrap=True)


def note(line: str) -> None:
    """Print a line of a log, with the time."""
    console.log(line, markup=False, highlight=False)
