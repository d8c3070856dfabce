"""The commands of ``fewstep data``: embeddings fetched, converted and inspected."""

from collections.abc import Callable
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(log_path=False)


def leo_embeddings(out: Path | None = None, path: Path | None = None) -> None:
    """Fetch DeepMind's embeddings of miniImageNet and tieredImageNet, lay them out and check them.

    A fetch that stops goes on when the command is given again.

    Args:
        out: folder to lay them out in; leo-embeddings in the cache folder when omitted.
        path: a copy of your own instead of a download: embeddings.zip, or the folder that it was unpacked to.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from fewstep.data.features.published import leo_embeddings as fetch

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("fetching", visible=False)

        def progress(here: int, total: int | None) -> None:
            bar.update(shown, completed=here, total=total, visible=here != total)

        folders = fetch(out, path=path, report=_say, progress=progress)
    for folder in folders:
        console.print(f"ready: [bold]{escape(str(folder))}[/]", soft_wrap=True, highlight=False)


def convert(source: tyro.conf.Positional[Path], target: tyro.conf.Positional[Path]) -> None:
    """Turn features of one format into another, bit for bit.

    Args:
        source: .npz, .npy, .safetensors or .pkl; a folder with one for each split; embeddings.zip/miniImageNet/center.
        target: .safetensors for the library's own memory-mapped format, .npz, .npy or .pkl; without a suffix, a folder
            of DeepMind's pickles.
    """
    from fewstep.data.features.datasets import convert as turn

    console.print(f"written: [bold]{escape(str(turn(source, target)))}[/]", soft_wrap=True, highlight=False)


def inspect(path: tyro.conf.Positional[Path]) -> None:
    """Show what a file of features holds and what is wrong with it.

    The status is 2 where it cannot be read, 1 where it is refused for its content (NaN or infinity, classes that splits
    share), else 0: copies, zero vectors and classes of one example are warnings.

    Args:
        path: as for convert.
    """
    from fewstep.data.features.report import inspect_embeddings

    report = inspect_embeddings(path)
    console.print(
        f"[bold]{escape(str(path))}[/]: {report.dtype}, {report.dimensions} dimensions", soft_wrap=True, highlight=False
    )
    table = Table()
    table.add_column("split")
    for name in ("classes", "rows", "per class", "norm min", "median", "max"):
        table.add_column(name, justify="right")
    for of in report.splits:
        sizes = f"{of.smallest:,}" if of.smallest == of.largest else f"{of.smallest:,} to {of.largest:,}"
        norms = (f"{norm:.4g}" for norm in of.norms)
        table.add_row(of.split or "(none)", f"{of.classes:,}", f"{of.rows:,}", sizes, *norms)
    console.print(table)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    for refusal in report.refusals:
        console.print(f"[red]refused:[/] {escape(refusal)}", highlight=False)
    if report.refusals:
        raise SystemExit(1)
    if not report.warnings:
        console.print("no problems found")


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)


COMMANDS: dict[str, Callable[..., None]] = {"leo-embeddings": leo_embeddings, "convert": convert, "inspect": inspect}
