"""The report of a run, for a human reader: what was done, on which tasks, with what result."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.log import METRICS
from fewstep.evaluation.curves import curves_in_words, learning_curves
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.statistics import Interval, Score
from fewstep.evaluation.tables import markdown_lines, protocol_lines, settings_lines
from fewstep.experiments.report.recorded import RecordedRun
from fewstep.experiments.report.render import PAGE, write_page
from fewstep.experiments.report.runs import page_of_run

logger = logging.getLogger("fewstep")

CURVES, REPORT = "learning_curves.png", "report.md"


def report(run_dir: str | os.PathLike[str]) -> Path:
    """Write ``report.md``, ``learning_curves.png`` and ``report.html`` from what a run left in its folder.

    Read, where they are there: ``config.json``, ``environment.json``, ``metrics.csv``, and every JSON file that holds
    an :class:`~fewstep.evaluation.Evaluation`: ``test.json`` first, then the others by name. What is absent is said to
    be absent, and a result of other meta-parameters than the run's best is named and left out.

    Returns:
        The path of ``report.md``.

    Raises:
        ValueError: when a file is damaged.
        OSError: when the folder cannot be read or written.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise ValueError(f"report: {folder} is not a folder; give the folder of a run")
    run = RecordedRun.read(folder)
    for line in run.left_out:
        logger.warning(line)
    write_atomically(folder / REPORT, _markdown(run))
    write_page(folder / PAGE, [page_of_run(run)])
    return folder / REPORT


def _markdown(run: RecordedRun) -> str:
    lines = [f"# {run.title}", ""]
    for name, test in run.tests.items():  # in its first lines, for who reads no further
        lines += [f"**{name}: {test['below']}.**", ""] if test.get("below") else []
    lines += ["## Results", ""] if run.tests else ["## Results", "", "The run has not been tested yet.", ""]
    for name, test in run.tests.items():
        lines += _result(name, test)
    lines += [line for told in run.left_out for line in (f"{told}.", "")]
    lines += [f"The run {run.unfinished}.", ""] if run.unfinished else []
    lines += _decisions(run.choices)
    lines += ["## Learning curves", "", *_curves(run.folder), ""]
    lines += ["## Configuration", "", *settings_lines(run.config, "There is no config.json."), ""]
    lines += ["## Environment", "", *settings_lines(run.environment, "There is no environment.json.")]
    return "\n".join(lines).rstrip() + "\n"


def _result(name: str, test: Mapping[str, Any]) -> list[str]:
    """One evaluation: its protocol, its scores and what they mean."""
    shown, tasks = Score(test["score"], test["higher_is_better"]), int(test["tasks"])
    statistics = (
        "**transductive**: queries were normalised by statistics of all query rows of their task"
        if test["transductive"]
        else "inductive: the prediction for a query does not depend on other queries"
    )
    protocol = {**test.get("protocol", {}), "tasks": tasks, "statistics": statistics}

    def cell(summary: Mapping[str, float] | None, sign: bool = False) -> str:
        return shown.text(None if summary is None else Interval(**summary, tasks=tasks), sign=sign)

    rows = [("", f"{shown.unit} ({shown.better})", f"{ADAPTED} − this")]
    for score, summary in test["scores"].items():
        gain = "" if score == ADAPTED else cell(test["differences"].get(score), sign=True)
        rows.append((f"**{ADAPTED}**" if score == ADAPTED else score, cell(summary), gain))
    absent = [score for score, summary in test["scores"].items() if summary is None]
    return [
        f"### {name}",
        "",
        *protocol_lines(protocol),
        "",
        *markdown_lines(rows),
        "",
        f"Mean ± half of the 95% interval over the {tasks} tasks, 1.96·s/√n. Differences are paired by task. Intervals "
        "are of the choice of test tasks; another training seed is not covered by them.",
        *([f"n/a: {', '.join(absent)} had scores that are not finite, or a single task."] if absent else []),
        "",
    ]


def _decisions(choices: Mapping[str, Any]) -> list[str]:
    """What validation tasks chose after training."""
    if not choices:
        return []
    lines = ["## Chosen on validation tasks, after training", ""]
    for decision in choices["decisions"]:
        shown = Score(decision["score"], decision["higher_is_better"])

        def cell(summary: Mapping[str, float] | None, shown: Score = shown, decision: Any = decision) -> str:
            return shown.text(None if summary is None else Interval(**summary, tasks=decision["tasks"]), sign=True)

        kept, *others = decision["options"]
        gains = ", ".join(f"{label} {cell(decision['gains'][label])}" for label in others)
        told = f". Over {kept}: {gains}." if others else ", as given."
        lines += [f"- {decision['name']}: **{decision['chosen']}**{told}"]
    return [*lines, "", "The first of the options is kept unless another is better by more than a standard error.", ""]


def _curves(folder: Path) -> list[str]:
    if not (folder / METRICS).exists():
        return ["There is no metrics.csv."]
    try:
        learning_curves(folder / METRICS, folder / CURVES)
    except ValueError as error:
        return [f"Nothing to draw: {error}."]
    return [*curves_in_words(folder / METRICS), "", f"![Training loss and score over meta-steps]({CURVES})"]
