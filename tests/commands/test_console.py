"""What is printed is what it says: a name is never read as markup."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fewstep.commands import console, progress
from fewstep.commands.main import main
from fewstep.evaluation.tables import terminal_table

HOSTILE = "[bold]a[/x] [n, d] :bug: [red]"
"""Of markup that names no style, that names one, and that names a picture."""


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What the commands' console has printed, without its colours."""
    file = io.StringIO()
    for name, value in {"_file": file, "_width": 200, "_force_terminal": request.param, "record": True}.items():
        monkeypatch.setattr(console.console, name, value)
    return lambda: console.console.export_text(clear=False)


@pytest.mark.parametrize(
    "printed",
    [
        console.say,
        console.note,
        lambda text: console.point_to("place", text),
        lambda text: console.point_to(text, "place"),
        lambda text: console.warn("warning", text),
        lambda text: console.warn(text, "warning"),
        lambda text: console.styled(text, (text, "bold")),
        lambda text: console.console.print(terminal_table(text, [[text, text], [text, text]], "fl")),
    ],
)
def test_names_are_printed_as_they_are(printed: Callable[[str], None], shown: Callable[[], str]) -> None:
    printed(HOSTILE)
    assert HOSTILE in shown()


def test_bars_show_names_as_they_are(shown: Callable[[], str]) -> None:
    with progress.bars(transient=False) as bars:
        bars.update(bars.add_task(HOSTILE, total=1, text="[b]"), completed=1)
        bars.log(HOSTILE)
    lines = shown().splitlines()
    assert sum(HOSTILE in line for line in lines) >= 2
    assert any("[b]" in line for line in lines)


@pytest.mark.parametrize("words", ["{}", "train {}", "report {}", "predict {} --support a --query b", "export {} b"])
def test_an_error_is_one_line_whatever_a_name_holds(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word.format("a\nb\x1b[31m\x08c") for word in words.split(" ")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert r"a\nb\x1b[31m\x08c" in line


def test_tables_keep_their_names_on_any_console() -> None:
    own = Console(file=io.StringIO(), width=200, record=True, emoji=False)
    own.print(terminal_table(HOSTILE, [[HOSTILE], [HOSTILE]], "f"))
    assert own.export_text().count(HOSTILE) == 3


def test_a_file_and_its_split_are_shown_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a[bold] [/x]"
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.savez(folder / "f[n, d].npz", features=rows, labels=["[/a]", "[/a]", ":bug:", ":bug:"])
    main(["data", "inspect", str(folder / "f[n, d].npz")])
    assert str(folder / "f[n, d].npz") in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit):
        main(["train", "maml[/x]"])
    assert "maml[/x]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["[/x]"])
    assert "[/x]" in capsys.readouterr().err
