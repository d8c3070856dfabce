"""The console that all commands print on, and how they print a line.

Nothing that is printed is read as markup: brackets and colons in paths, names and messages are what they are. What is
bold or coloured says so by its style.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from fewstep.training.launched import spoken_for

PLAIN = {"markup": False, "emoji": False}
"""Of a console: a text is what it says, and ``[n, d]`` no style, ``:x:`` no picture."""

console = Console(log_path=False, **PLAIN)  # type: ignore[arg-type]


def say(text: object) -> None:
    """Print a line as it is: without colours, and unbroken."""
    console.print(text, highlight=False, soft_wrap=True)


def styled(*parts: str | tuple[str, str]) -> None:
    """Print a line of texts, each as it is, or with its style."""
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def point_to(what: str, place: object) -> None:
    """Print where something is, with the place in bold."""
    styled(f"{what}: ", (str(place), "bold"))


def warn(what: str, text: str, colour: str = "yellow") -> None:
    """Print a remark with a coloured beginning."""
    styled((f"{what}:", colour), f" {text}")


def note(line: str) -> None:
    """Print a line of a log, with the time."""
    console.log(line, highlight=False)


def aside() -> Console:
    """A console apart from what is printed to be read by programs: standard error, as it is now."""
    return Console(stderr=True, soft_wrap=True, highlight=False, **PLAIN)  # type: ignore[arg-type]


def told(name: str) -> None:
    """Say that a signal has come. Inside its handler nothing may be printed: it may have come in another print."""
    if name == "SIGHUP":
        _leave_terminals()
    if spoken_for():
        return
    with suppress(OSError):
        os.write(2, f"\n{name}: ending in order; a second signal ends at once\n".encode())


def _leave_terminals() -> None:
    """Write to nowhere what is for a terminal that is gone: the next print would fail, and with it what prints."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(nowhere, number)
    os.close(nowhere)
