"""The page of a comparison: methods on the same tasks, and every pair of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.evaluation.statistics import Score
from fewstep.experiments.report.content import (
    Block,
    Cell,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Settings,
    Table,
    Text,
    ranged,
    word,
)
from fewstep.experiments.report.recorded import result_of, task_scores
from fewstep.experiments.report.runs import difference_charts, difference_in_words, facts_of, interval_of

RESULT = "comparison.json"

UNADAPTED = "Unadapted is the same method with zero inner steps."


def page_of_comparison(folder: Path) -> Page:
    """The page of methods beside each other, from the files that a comparison writes.

    Raises:
        ValueError: when one is missing or damaged.
    """
    found = result_of(folder, RESULT, "comparison")
    score, methods = Score(found["score"], found["higher_is_better"]), found["methods"]
    reference, protocol = found["reference"], found["protocol"]
    tasks = task_scores(folder / "tasks.csv")
    spreads = difference_charts(tasks, reference, score)
    sections = [
        Section("Scores", _scores(found, score)),
        Section("Every pair", _pairs(methods, score)),
        *([Section("Task by task", spreads)] if spreads else []),
        Section("What adapts", [texts("What adapts", found["adaptation"]), Text(UNADAPTED, quiet=True)]),
        Section("What they took", [texts("What they took", found["costs"])]),
        Section("To be read with it", [Items(found["caveats"])]),
    ]
    published = [f"{one['label']}: {line}" for one in methods for line in one["published"]]
    if published:
        told = "On other tasks, and mostly after longer training: not to be compared without saying what differs."
        sections.append(Section("Published", [Text(told), Items(published)]))
    sections.append(Section("Protocol", [Settings.protocol(protocol)]))
    best = ranking(methods, score)
    verdicts = [_verdict(methods, best, score)] if best else ["No method has scores that are finite in every task."]
    result = interval_of(best[0]["score"], found["tasks"]) if best else None
    title = f"{len(methods)} methods on the same {found['tasks']:,} tasks"
    facts = Facts([*facts_of(protocol), ("reference", reference)])
    return Page("Comparison", title, str(folder), verdicts, facts, sections, score, result, protocol)


def ranking(methods: Sequence[Mapping[str, Any]], score: Score) -> list[Mapping[str, Any]]:
    """Those with a score, the best first."""
    sign = -1 if score.higher_is_better else 1
    return sorted((one for one in methods if one["score"] is not None), key=lambda one: sign * one["score"]["mean"])


def _verdict(methods: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]], score: Score) -> str:
    first, *rest = best
    mean = ranged(score, first["score"])
    text = f"{first['label']} is best: {mean.text} ± {mean.half}{'%' if score.percent else ''} {score.name}"
    if not rest:
        return f"{text}."
    second = rest[0]["label"]
    return f"{text}, {difference_in_words(score, first['differences'][second])} the next, {second}."


def _scores(found: Mapping[str, Any], score: Score) -> list[Block]:
    columns = [
        Column("method"),
        Column(f"{score.unit} ({score.better})", "interval", "score"),
        Column(f"difference to {found['reference']}", "interval", "difference"),
        Column("queries"),
    ]
    rows = []
    for one in found["methods"]:
        own, bad = one["label"] == found["reference"], one["nonfinite_tasks"]
        mean = Cell(f"not finite in {bad} tasks") if bad else ranged(score, one["score"], strong=own)
        gain = Cell("reference") if own else ranged(score, one["differences"][found["reference"]], sign=True)
        rows.append([word(one["label"], strong=own), mean, gain, word(one["statistics"])])
    note = "Mean ± half of the 95% interval over tasks, 1.96·s/√n; differences are paired by task."
    return [Table("Methods and their scores", columns, rows), Text(note, quiet=True)]


def _pairs(methods: Sequence[Mapping[str, Any]], score: Score) -> list[Block]:
    labels = [one["label"] for one in methods]
    columns = [Column("method"), *(Column(f"− {label}", "interval") for label in labels)]
    rows = [
        [
            word(one["label"]),
            *(Cell("") if one["label"] == o else ranged(score, one["differences"][o], sign=True) for o in labels),
        ]
        for one in methods
    ]
    note = f"{score.title}, the row's method minus the column's, paired by task."
    return [Table("Differences of every pair", columns, rows), Text(note, quiet=True)]


def texts(about: str, cells: Sequence[Sequence[str]]) -> Table:
    """Cells of text as a table, the head first."""
    head, *rows = cells
    return Table(
        about, [Column(" ".join(name.split())) for name in head], [[word(cell) for cell in row] for row in rows]
    )
