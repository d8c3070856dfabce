"""The commands of ``fewstep data``: embeddings fetched, converted and inspected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Column, Table

from fewstep.commands.arguments import checked
from fewstep.commands.console import console, point_to, say, styled, warn
from fewstep.core.ranges import CountOrZero, Seed

if TYPE_CHECKING:
    from fewstep.data.features.report import EmbeddingReport


def leo_embeddings(out: Path | None = None, path: Path | None = None) -> None:
    """Fetch DeepMind's embeddings of miniImageNet and tieredImageNet, lay them out and check them.

    A fetch that stops goes on when the command is given again.

    Args:
        out: folder to lay them out in; leo-embeddings in the cache folder when omitted.
        path: a copy of your own instead of a download: embeddings.zip, or the folder that it was unpacked to.
    """
    from fewstep.commands.progress import download_bar
    from fewstep.data.features.published import leo_embeddings as fetch

    with download_bar() as progress:
        folders = fetch(out, path=path, report=say, progress=progress)
    for folder in folders:
        point_to("ready", folder)


@checked
def convert(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    divide: tuple[CountOrZero, CountOrZero, CountOrZero] | None = None,
    seed: Seed = 0,
) -> None:
    """Turn features of one format into another, bit for bit.

    Args:
        source: .npz, .npy, .safetensors, .pkl, .h5 or .mat; a folder with one for each split;
            embeddings.zip/miniImageNet/center.
        target: .safetensors for the library's own memory-mapped format, .npz, .npy or .pkl; without a suffix, a folder
            of DeepMind's pickles.
        divide: numbers of classes for train, val and test, drawn at random from a source that does not say which class
            is for what.
        seed: of that draw.
    """
    from fewstep.data.features.datasets import convert as turn

    point_to("written", turn(source, target, divide=divide, seed=seed, report=say))


def inspect(path: tyro.conf.Positional[Path]) -> None:
    """Show what a file of features holds and what is wrong with it.

    The status is 2 where it cannot be read, 1 where it is refused for its content (NaN or infinity, rows without a
    length in float32, classes that splits share), else 0: copies, zero vectors and classes of one example are warnings.

    Args:
        path: as for convert.
    """
    from fewstep.data.features.report import inspect_embeddings

    report = inspect_embeddings(path)
    show(report)
    if report.refusals:
        raise SystemExit(1)
    if not report.warnings:
        console.print("no problems found")


def show(report: EmbeddingReport) -> None:
    """Print what a file of features holds, and what is wrong with it."""
    styled((str(report.path), "bold"), f": {report.dtype}, {report.dimensions} dimensions")
    numbers = ("classes", "rows", "per class", "norm min", "median", "max")
    table = Table("split", *(Column(name, justify="right") for name in numbers))
    for of in report.splits:
        sizes = f"{of.smallest:,}" if of.smallest == of.largest else f"{of.smallest:,} to {of.largest:,}"
        norms = (f"{norm:.4g}" for norm in of.norms)
        table.add_row(of.split or "(none)", f"{of.classes:,}", f"{of.rows:,}", sizes, *norms)
    console.print(table)
    for warning in report.warnings:
        warn("warning", warning)
    for refusal in report.refusals:
        warn("refused", refusal, "red")
