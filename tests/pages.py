"""Documents whose Python is run, and whose printed output is compared with what they show.

``python tests/pages.py docs/meta-gradients.md`` runs a page and writes its output blocks anew.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
"""Of the project."""

NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FENCED = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A Python block, and what a ``text`` block right after it says it prints."""

    code: str
    shown: str


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    return [Block(found["code"], found["shown"] or "") for found in FENCED.finditer(text)]


def run(code: str, space: dict[str, Any], name: str) -> str:
    """What a block prints when it runs in ``space``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), space)
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def agree(printed: str, shown: str, tolerance: float = 5e-3) -> bool:
    """Whether two outputs have the same words, and numbers that agree relatively or to one unit of the last place."""
    words = [NUMBER.sub("#", text).split() for text in (printed, shown)]
    numbers = [NUMBER.findall(text.replace("−", "-")) for text in (printed, shown)]
    return words[0] == words[1] and all(map(lambda a, b: _close(a, b, tolerance), *numbers))


def _close(printed: str, shown: str, tolerance: float) -> bool:
    mantissa, _, exponent = shown.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    exact = float(shown).is_integer() and "." not in shown and not exponent
    allowed = 0.0 if exact else max(1.01 * unit, tolerance * abs(float(shown)))
    return abs(float(printed) - float(shown)) <= allowed


def rewritten(text: str, name: str) -> str:
    """A page with the output that its code prints now."""
    space: dict[str, Any] = {"__name__": name}

    def again(found: re.Match[str]) -> str:
        code = found["code"]
        printed = run(code, space, name)
        return f"```python\n{code}```\n" + (f"\n```text\n{printed}```\n" if printed else "")

    return FENCED.sub(again, text)


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(rewritten(page.read_text(encoding="utf-8"), page.name), encoding="utf-8")
