"""The page of an ablation: the rows of a table that takes a method apart."""

from __future__ import annotations

from pathlib import Path

from fewstep.evaluation.statistics import Score
from fewstep.experiments.report.comparisons import texts
from fewstep.experiments.report.content import (
    Cell,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Settings,
    Table,
    ranged,
    scored,
    spread,
    word,
)
from fewstep.experiments.report.recorded import result_of, task_scores
from fewstep.experiments.report.runs import difference_charts, facts_of, interval_of

RESULT = "result.json"


def page_of_ablation(folder: Path) -> Page:
    """The page of an ablation, from the files that it writes after every row.

    Raises:
        ValueError: when one is missing or damaged.
    """
    found = result_of(folder, RESULT, "ablation")
    score, rows, protocol = Score(found["score"]), found["rows"], found["protocol"]
    named = {row.get("slug", ""): row for row in rows}
    reference = named.get(found["reference"], {})
    whole = reference.get("name", "")
    columns = [
        Column("row"),
        Column("test ± s.d. over seeds", "interval"),
        Column(f"95% over tasks, {score.unit}", "interval", "score"),
        Column("LEO − row, paired", "interval", "difference"),
        Column("validation", "number"),
    ]
    cells = []
    for row in rows:
        strong, baseline = row is reference, "slug" not in row
        if not baseline and row["state"]:
            over_seeds, over_tasks, gain = Cell(row["state"]), Cell(""), Cell("")
        else:
            over_seeds = Cell("") if baseline else spread(score, row["mean"], row["sd_over_seeds"], strong=strong)
            over_tasks = ranged(score, row["over_tasks"])
            gain = Cell("") if strong else ranged(score, row["reference_minus_row"], sign=True)
        validation = Cell("") if baseline else scored(score, row["validation"])
        cells.append([word(row["name"], strong=strong), over_seeds, over_tasks, gain, validation])
    tasks = task_scores(folder / "tasks.csv")
    spreads = difference_charts(tasks, whole, score)
    sections = [
        Section("Rows", [Table("Rows of the ablation", columns, cells)]),
        Section("To be read with it", [Items(found["notes"])]),
        *([Section("Task by task", spreads)] if spreads else []),
        Section("What the searches found", [texts("What the searches found", found["found"])]),
        Section("Order, here and in the paper", [texts("Ranks, 1 for the best", found["order"])]),
        Section("Protocol", [Settings.protocol(protocol)]),
    ]
    count = sum("slug" in row for row in rows)
    missing = sum(bool(row.get("state")) for row in rows)
    result = interval_of(reference.get("over_tasks"), protocol.get("tasks", 0))
    verdicts = [_verdict(found, whole, score)]
    if missing:
        verdicts.append(f"{missing} of {count} rows are not there.")
    title = "LEO taken apart"
    return Page("Ablation", title, str(folder), verdicts, Facts(facts_of(protocol)), sections, score, result, protocol)


def _verdict(found: dict[str, object], whole: str, score: Score) -> str:
    rows = [row for row in found["rows"] if row.get("slug") != found["reference"]]  # type: ignore[attr-defined]
    gains = [(row["name"], row["reference_minus_row"]) for row in rows if row.get("reference_minus_row") is not None]
    if not gains:
        return "LEO itself has not been tested yet, or nothing beside it."
    above = [name for name, gain in gains if gain["mean"] > gain["half_width"]]
    below = [name for name, gain in gains if -gain["mean"] > gain["half_width"]]
    text = f"{whole} is clearly above {len(above) or 'none'} of the {len(gains)} others"
    text += f", and clearly below {'; '.join(below)}." if below else ", and clearly below none."
    return f"{text} Clear is what the interval over tasks says, given these training seeds."
