"""Run the code of ``coming_from.md``, ours and theirs, and write what theirs prints below it.

``python docs/coming_from.py learn2learn higher torchopt`` in the environment of ``benchmarks/install_peers.sh``;
``easyfsl`` in one of its own, as ``benchmarks/PEERS.md`` says. Sections of other libraries are left as they are.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("coming_from.md")
BLOCK = re.compile(
    r"^```(?:\{code-cell\} ipython3|python (?P<library>\w+))\n(?P<code>.*?)^```\n(?:\n```text\n.*?^```\n)?",
    re.DOTALL | re.MULTILINE,
)


def main(libraries: set[str]) -> None:
    """Run the page from its top, without the blocks of other libraries."""
    space: dict[str, object] = {}

    def run(found: re.Match[str]) -> str:
        if found["library"] not in (None, *libraries):
            return found[0]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(re.sub(r"^:.*\n", "", found["code"]), PAGE.name, "exec"), space)
        if found["library"] is None:
            return found[0]
        return f"```python {found['library']}\n{found['code']}```\n\n```text\n{printed.getvalue()}```\n"

    PAGE.write_text(BLOCK.sub(run, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main({*sys.argv[1:]})
