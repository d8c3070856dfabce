"""``fewstep report``: whatever lies in folders, as one HTML page."""

from __future__ import annotations

from pathlib import Path

import tyro

from fewstep.commands.arguments import checked
from fewstep.commands.console import note, point_to
from fewstep.core.ranges import CountOrZero


@checked
def report(
    folders: tyro.conf.Positional[tuple[Path, ...]],
    out: Path | None = None,
    tasks: CountOrZero = 600,
    device: str = "auto",
) -> None:
    """Write runs, repetitions, searches, ablations, comparisons and fits as one HTML page that needs no network.

    Of runs that classify, the hard classes and the calibration are measured first, unless they have been.

    Args:
        folders: of what is to be on the page; of several it begins with a table over them.
        out: the file; report.html in the folder when omitted, and of several in the working directory.
        tasks: test tasks that these measurements are of; 0 for none.
        device: to compute them on; auto is where a run was trained, or what this machine has.
    """
    from fewstep.experiments.report.folders import page_of
    from fewstep.experiments.report.render import PAGE, write_page

    if not folders:
        raise ValueError("no folder was given: fewstep report RUN, or several of them.")
    for folder in folders:
        page_of(folder)  # what cannot be shown is refused before time is spent
        if tasks:
            _measure(folder, tasks, device)
    place = out or (folders[0] if len(folders) == 1 else Path()) / PAGE
    point_to("page", write_page(place, [page_of(folder) for folder in folders]))


def _measure(folder: Path, tasks: int, device: str) -> None:
    """Measure what the tests of a run do not keep; what is in the way of it is told, and the page is written."""
    from fewstep.experiments.folder import is_run
    from fewstep.experiments.report.recorded import RecordedRun

    if not is_run(folder) or RecordedRun.read(folder).details:
        return
    from fewstep.commands.progress import counting_bar
    from fewstep.experiments.report.details import measure, sampler_of
    from fewstep.experiments.run import Run

    try:
        run = Run.open(folder, note, device)
        if sampler_of(run) is not None:
            with counting_bar("measuring", tasks, "tasks") as advance:
                measure(run, tasks, advance)
    except (ValueError, OSError) as error:
        note(f"hard classes and calibration are left out: {error}")
