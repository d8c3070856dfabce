"""The page of a fit: what to use, what every method came to, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.statistics import Score
from fewstep.evaluation.tables import plain_text
from fewstep.experiments.report.content import (
    Block,
    Cell,
    Column,
    Command,
    Facts,
    Items,
    Page,
    Section,
    Settings,
    Table,
    Text,
    number,
    ranged,
    word,
)
from fewstep.experiments.report.recorded import result_of, task_scores
from fewstep.experiments.report.runs import difference_charts, interval_of

RESULT = "result.json"
ACCURACY = Score("accuracy")


def page_of_fit(folder: Path) -> Page:
    """The page of a fit, from the files that it writes.

    Raises:
        ValueError: when one is missing or damaged.
    """
    found = result_of(folder, RESULT, "fit")
    cells, protocol = found["shots"], found["protocol"]
    sections = [Section(f"{shots}-shot", _cell(folder, shots, cell)) for shots, cell in cells.items()]
    if found["remarks"]:
        sections.append(Section("On the data", [Items(found["remarks"])]))
    if found["trials"]:
        sections.append(Section("What was trained", [_trials(found["trials"])]))
    sections.append(Section("How to use it", _use([*cells])))
    sections.append(Section("Protocol", [Settings.protocol(protocol)]))
    first = next(iter(cells.values()))
    shown = [
        (name, plain_text(protocol[name]))
        for name in ("data", "classes", "tasks", "test tasks", "time", "seed")
        if name in protocol
    ]
    result = interval_of(first["methods"][first["recommended"]]["test"], first["test tasks"])
    verdicts = [cell["verdict"] for cell in cells.values()]
    title = f"{protocol['data']}: what to use with few examples"
    return Page(
        "Fit", title, str(folder), verdicts, Facts(shown), sections, ACCURACY, result, {"dataset": protocol["data"]}
    )


def _cell(folder: Path, shots: str, cell: Mapping[str, Any]) -> list[Block]:
    rival, trained = cell["best simple in the test"], cell["best trained"]
    columns = [
        Column("method"),
        Column("test accuracy, %", "interval", "score"),
        Column("over the best simple one", "interval", "difference"),
        Column("validation, %", "interval"),
        Column("tried", "number"),
        Column("settings"),
    ]
    rows = []
    for name, one in cell["methods"].items():
        strong, tested = name == cell["recommended"], one["test"] is not None
        absent = Cell("failed" if one["error"].startswith("failed") else "not tried")
        gain = (
            Cell("the best simple one")
            if name == rival
            else ranged(ACCURACY, one["over the best simple one"], sign=True)
        )
        test = ranged(ACCURACY, one["test"], strong=strong) if tested else absent
        validation = Cell("–") if one["validation"] is None else ranged(ACCURACY, one["validation"])
        rows.append(
            [
                word(name, strong=strong),
                test,
                gain if tested else Cell(""),
                validation,
                number(one["trials"]),
                word(one["settings"]),
            ]
        )
    errors = [f"{name}: {one['error']}" for name, one in cell["methods"].items() if one["error"]]
    note = (
        f"{cell['ways']}-way, {cell['test tasks']:,} test tasks. Bold: recommended. {cell['validation tasks']:,} "
        "validation tasks choose, where a method has to be more than a standard error better than a simpler one; the "
        "test overrules them where it is clear. Mean ± half "
        "of the 95% interval over tasks, differences paired by task: of the choice of tasks from these test classes, "
        "and not of other classes or another training seed."
    )
    blocks: list[Block] = [Table(f"Methods at {shots} shots", columns, rows), Text(note, quiet=True)]
    blocks += [Items(errors)] if errors else []
    tasks = task_scores(folder / "result" / f"{shots}shot" / "test.csv")
    if trained in tasks and rival in tasks:
        blocks += difference_charts({trained: tasks[trained], rival: tasks[rival]}, trained, ACCURACY)
    return blocks


def _trials(trials: list[Mapping[str, Any]]) -> Table:
    columns = [
        Column("method"),
        Column("shots", "number"),
        Column("trial", "number"),
        Column("validation, %", "number"),
        Column("meta-steps", "number"),
        Column("seconds", "number"),
        Column("settings"),
    ]
    rows = []
    for one in trials:
        value, settings = one.get("value"), one.get("settings")
        told = one.get("error") or one.get("skipped") or ""
        if isinstance(settings, Mapping):
            told = ", ".join(f"{name} {plain_text(value)}" for name, value in settings.items())
        rows.append(
            [
                word(one["method"]),
                number(one["shots"]),
                number(one["trial"]),
                Cell("–") if value is None else number(100 * value, ".2f"),
                number(one.get("steps")),
                number(one.get("seconds")),
                word(told),
            ]
        )
    return Table("Every training", columns, rows)


def _use(shots: Sequence[str]) -> list[Block]:
    names = [f"model{f'-{k}shot' if len(shots) > 1 else ''}.fewstep.safetensors" for k in shots]
    lines = "\n".join(f"fewstep predict {name} --support labelled.npz --query new.npz" for name in names)
    code = f'from fewstep import FewShotClassifier\n\nFewShotClassifier("{names[0]}").fit(x, y).predict(x_query)'
    note = "Rows are features of the same kind as those that it was fitted on, as they are."
    return [Command(lines), Command(code), Text(note)]
