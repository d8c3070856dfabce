"""Whatever lies in a folder, as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fewstep.experiments.folder import CONFIG
from fewstep.experiments.report import ablations, comparisons, fits, repeats, searches
from fewstep.experiments.report.content import Page
from fewstep.experiments.report.recorded import RecordedRun
from fewstep.experiments.report.render import PAGE, write_page
from fewstep.experiments.report.runs import page_of_run

KINDS: Mapping[str, Callable[[Path], Page]] = {
    CONFIG: lambda folder: page_of_run(RecordedRun.read(folder)),
    repeats.RESULT: repeats.page_of_repeat,
    comparisons.RESULT: comparisons.page_of_comparison,
    "fit.json": fits.page_of_fit,
    "search.json": searches.page_of_search,
    "ablation.json": ablations.page_of_ablation,
}
"""The pages of folders, by the file that tells them."""


def page_of(folder: Path) -> Page:
    """The page of a run, a repetition, a search, an ablation, a comparison or a fit, from its files alone.

    Raises:
        ValueError: when the folder holds none of them, or a file of it is damaged.
    """
    for name, page in KINDS.items():
        if (folder / name).exists():
            return page(folder)
    what = "is not there" if not folder.exists() else "holds no run, repetition, search, ablation, comparison or fit"
    raise ValueError(f"{folder} {what}: give the folder that the command printed.")


def write_own_page(folder: Path) -> Path:
    """Write ``report.html`` into the folder that it is of.

    Raises:
        ValueError: as :func:`page_of`.
        OSError: if the file cannot be written.
    """
    return write_page(folder / PAGE, [page_of(folder)])
