"""The page of a search: its configurations, what matters to the score, and the score against every setting."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from fewstep.data.storage.files import read_json
from fewstep.evaluation.statistics import Score
from fewstep.evaluation.tables import plain_text
from fewstep.experiments.report.charts import Axis, Chart, Dots, Line, Tone, axis_of
from fewstep.experiments.report.content import (
    Block,
    Cell,
    Charts,
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
    scored,
    word,
)
from fewstep.experiments.report.recorded import result_of

RESULT = "result.json"

FAR = 3.0
"""Scores are off the scale that are worse than the worse quartile by more than this many times its distance to the
best; they stand at the edge."""

TONES: Mapping[str, Tone] = {"complete": "first", "pruned": "quiet", "running": "quiet", "failed": "bad"}


def page_of_search(folder: Path) -> Page:
    """The page of a search, from the files that it writes.

    Raises:
        ValueError: when one is missing or damaged.
    """
    found = result_of(folder, RESULT, "search")
    score, rows = Score(found["score"], found["higher_is_better"]), found["rows"]
    best = next(row for row in rows if row["index"] == found["best"])
    complete = [row for row in rows if row["state"] == "complete"]
    value = f"{score.number(best['value'])}{'%' if score.percent else ''} {score.name}"
    verdicts = [
        f"Configuration {best['index']} validates best, at {value}: the best of {len(complete)} that were trained to "
        "their end, and so optimistic."
    ]
    states = ", ".join(f"{count} {state}" for state, count in found["trials"].items())
    failed = [f"Configuration {row['index']}: {row['reason']}" for row in rows if row["state"] == "failed"]
    config = read_json(folder / "best.json")
    sections = [
        Section(
            "The best", [Facts([(name, f"{value:.4g}") for name, value in best["settings"].items()]), *_use(folder)]
        ),
        Section("Scores", [Charts(_charts(found, score))]),
        Section("What matters", _importances(found)),
        Section("Every configuration", [_table(found, score)]),
        *([Section("Failed", [Items(failed)])] if failed else []),
        Section("Protocol", [Settings.protocol(found["protocol"])]),
        *([Section("Configuration", [Settings.of("Every setting of the best", config)])] if config else []),
    ]
    shown = [
        (name, plain_text(found["protocol"][name])) for name in ("dataset", "meta-steps") if name in found["protocol"]
    ]
    facts = Facts([*shown, ("configurations", states), ("pruning", plain_text(found["protocol"].get("pruning")))])
    return Page("Search", found["recipe"], str(folder), verdicts, facts, sections)


def _use(folder: Path) -> list[Block]:
    told = (
        "Part of what sets it apart is the chance of its validation tasks. Test it on other tasks before it is "
        "compared with anything:"
    )
    return [Text(told), Command(f"fewstep train {shlex.quote(str(folder / 'best.json'))}")]


def _charts(found: Mapping[str, Any], score: Score) -> list[Chart]:
    rows = [row for row in found["rows"] if row["value"] is not None]
    y, unit = _range([score.scale * row["value"] for row in rows], score), f"validation {score.unit}"

    def dots(place: Any, named: bool = False) -> list[Dots]:
        made = []
        for state in ("failed", "running", "pruned", "complete"):
            some = [row for row in rows if row["state"] == state and row["index"] != found["best"]]
            points = [(place(row), score.scale * row["value"]) for row in some]
            made += (
                [Dots(points, TONES[state], state if named else "", [_told(row, score) for row in some])]
                if some
                else []
            )
        best = [row for row in rows if row["index"] == found["best"]]
        points = [(place(row), score.scale * row["value"]) for row in best]
        return [*made, Dots(points, "second", "the best" if named else "", [_told(row, score) for row in best])]

    complete = [(row["index"], score.scale * row["value"]) for row in rows if row["state"] == "complete"]
    better = max if score.higher_is_better else min
    values = list(accumulate((value for _, value in complete), better))
    steps: list[tuple[float, float]] = []
    for (index, _), value in zip(complete, values, strict=True):
        steps += [(float(index), steps[-1][1])] if steps else []
        steps.append((float(index), value))
    last = float(max(len(found["rows"]) - 1, 1))
    steps += [(last, steps[-1][1])] if steps else []
    charts = [
        Chart(
            "In order, and the best so far",
            Axis(-0.5, last + 0.5, "configuration"),
            y,
            f"{unit.capitalize()} of {len(rows)} configurations in order, and the best so far.",
            lines=[Line(steps, "second")] if steps else [],
            dots=dots(lambda row: float(row["index"]), named=True),
        )
    ]
    for space in found["space"]:
        name, beyond = space["setting"], 0.5 * space.get("whole", False)
        label = f"{name}{', log scale' if space['log'] else ''}"
        charts.append(
            Chart(
                name,
                Axis(space["low"] - beyond, space["high"] + beyond, label, space["log"]),
                y,
                f"{unit.capitalize()} of {len(rows)} configurations against {name}.",
                dots=dots(lambda row, name=name: row["settings"][name]),
            )
        )
    return charts


def _told(row: Mapping[str, Any], score: Score) -> str:
    settings = ", ".join(f"{name} {value:.3g}" for name, value in row["settings"].items())
    return f"{row['index']}, {row['state']}: {score.number(row['value'])}; {settings}"


def _range(values: Sequence[float], score: Score) -> Axis:
    """From the best to the worst score that is not far off."""
    label = f"validation {score.unit}"
    if not values:
        return Axis(0.0, 1.0, label)
    worse = float(np.quantile(values, 0.25 if score.higher_is_better else 0.75))
    best = max(values) if score.higher_is_better else min(values)
    reach = worse - FAR * (best - worse)
    kept = [value for value in values if (value >= reach if score.higher_is_better else value <= reach)]
    return axis_of(kept, label)


def _importances(found: Mapping[str, Any]) -> list[Block]:
    shares = found["importances"]
    if not shares:
        return [Text(found["importances in words"])]
    rows = [[word(name), number(share, ".2f")] for name, share in shares.items()]
    columns = [Column("setting"), Column("share of the score's variance", "number")]
    return [Table("Importances", columns, rows), Text("By fANOVA, among complete configurations.", quiet=True)]


def _table(found: Mapping[str, Any], score: Score) -> Table:
    names = [space["setting"] for space in found["space"]]
    columns = [
        Column("configuration", "number"),
        Column("state"),
        Column(f"validation {score.unit}", "number"),
        Column("at meta-step", "number"),
        Column("meta-steps", "number"),
        Column("seconds", "number"),
        *(Column(name, "number") for name in names),
    ]
    rows = []
    for row in found["rows"]:
        strong = row["index"] == found["best"]
        index = Cell(str(row["index"]), value=float(row["index"]), strong=strong)
        settings = (number(row["settings"][name], ".4g") for name in names)
        counts = number(row["best_step"]), number(row["steps"]), number(row["seconds"], ",.1f")
        rows.append([index, word(row["state"]), scored(score, row["value"]), *counts, *settings])
    return Table("Every configuration", columns, rows)
