"""The page of a repetition: the spread over its seeds, and every run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.data.storage.files import read_json
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.statistics import Score
from fewstep.evaluation.tables import counted
from fewstep.experiments.folder import ENVIRONMENT
from fewstep.experiments.repeat.result import READING
from fewstep.experiments.report.content import (
    Block,
    Cell,
    Charts,
    Column,
    Facts,
    Page,
    Section,
    Settings,
    Table,
    Text,
    number,
    ranged,
    scored,
    spread,
    word,
)
from fewstep.experiments.report.recorded import curves_of, result_of, task_scores
from fewstep.experiments.report.render import PAGE
from fewstep.experiments.report.runs import (
    curve_charts,
    difference_charts,
    difference_in_words,
    facts_of,
    interval_of,
    protocol_of,
)

RESULT = "repeat.json"


def page_of_repeat(folder: Path) -> Page:
    """The page of the runs of several seeds, from the files that a repetition writes.

    Raises:
        ValueError: when one is missing or damaged.
    """
    found = result_of(folder, RESULT, "repetition")
    seeds, tests = found["seeds"], found["tests"]
    first = next(iter(tests.values()))
    score = Score(first["score"], first["higher_is_better"])
    title = found["config"].get("recipe") or folder.name
    sections = [
        Section("Test" if len(tests) == 1 else f"Test: {name}", _test(folder, name, test, seeds))
        for name, test in tests.items()
    ]
    sections.append(Section("Runs", _runs(folder, found, score)))
    told = f"Of {counted(len(seeds), 'run')}; each is a curve of its own."
    curves = {name: curves_of(folder / name) for name in found["folders"]}
    if charts := curve_charts(curves, told):
        sections.append(Section("Learning curves", [Charts(charts), Text(told, quiet=True)]))
    settings = [Settings.of("Every setting, with the first seed", found["config"])]
    if environment := read_json(folder / found["folders"][0] / ENVIRONMENT):
        settings.append(Settings.of("Machine and versions of the first run", environment))
    sections.append(Section("Configuration", settings))
    own = first["scores"][ADAPTED]
    protocol = protocol_of(first)
    facts = Facts([*facts_of(protocol), ("training seeds", ", ".join(map(str, seeds)))])
    verdicts = [_verdict(name if len(tests) > 1 else "", test, len(seeds)) for name, test in tests.items()]
    result = interval_of(own["over_tasks"], first["tasks"])
    return Page("Repetition", title, str(folder), verdicts, facts, sections, score, result, protocol)


def _verdict(name: str, test: Mapping[str, Any], seeds: int) -> str:
    score = Score(test["score"], test["higher_is_better"])
    own = test["scores"][ADAPTED]
    if own["mean"] is None:
        return "The adapted method has scores that are not finite."
    cell, unit = spread(score, own["mean"], own["sd_over_runs"]), "%" if score.percent else ""
    text = f"{f'{name}: ' if name else ''}{cell.text} ± {cell.half}{unit} {score.name}, mean ± s.d. over {seeds} seeds"
    rivals = {label: one["mean"] for label, one in test["baselines"].items() if one is not None}
    if not rivals:
        return f"{text}."
    best = max(rivals, key=lambda label: rivals[label] if score.higher_is_better else -rivals[label])
    which = "the best baseline" if len(rivals) > 1 else "the baseline"
    return f"{text}; {difference_in_words(score, test['differences'].get(best))} {which}, {best}."


def _test(folder: Path, name: str, test: Mapping[str, Any], seeds: list[int]) -> list[Block]:
    score = Score(test["score"], test["higher_is_better"])
    columns = [
        Column(f"{score.unit} ({score.better})"),
        Column("mean ± s.d. over runs", "interval"),
        Column("mean ± 95% over tasks", "interval", "score"),
        Column(f"{ADAPTED} − this, paired", "interval", "difference"),
    ]
    rows = []
    for label in [*test["scores"], *test["baselines"]]:
        one, strong = test["scores"].get(label), label == ADAPTED
        over_runs = Cell("") if one is None else spread(score, one["mean"], one["sd_over_runs"], strong=strong)
        over_tasks = ranged(score, test["baselines"][label] if one is None else one["over_tasks"], strong=strong)
        gain = Cell("") if strong else ranged(score, test["differences"].get(label), sign=True)
        rows.append([word(label, strong=strong), over_runs, over_tasks, gain])
    blocks: list[Block] = [Table(f"Scores of {name}", columns, rows), Text(READING, quiet=True)]
    tasks = task_scores(folder / f"tasks{name.removeprefix('test')}.csv")
    runs = [tasks.pop(f"seed {seed}") for seed in seeds if f"seed {seed}" in tasks]
    if runs:
        blocks += difference_charts({ADAPTED: sum(runs) / len(runs), **tasks}, ADAPTED, score)
    return [*blocks, Settings.protocol(protocol_of(test), "Protocol")]


def _runs(folder: Path, found: Mapping[str, Any], score: Score) -> list[Block]:
    tests = found["tests"]
    columns = [
        Column("seed"),
        *(Column(f"{name}, {score.unit}", "interval", "score") for name in tests),
        Column("validation", "number"),
        Column("best meta-step", "number"),
        Column("meta-steps", "number"),
        Column("not finite", "number"),
        Column("training, s", "number"),
    ]
    rows = []
    for i, (seed, name, run) in enumerate(zip(found["seeds"], found["folders"], found["training"], strict=True)):
        link = f"{name}/{PAGE}" if (folder / name / PAGE).exists() else ""
        rows.append(
            [
                word(seed, link=link),
                *(ranged(score, test["scores"][ADAPTED]["runs"][i]) for test in tests.values()),
                scored(score, run["validation"]),
                number(run["best_step"]),
                number(run["meta_steps"]),
                number(run["nonfinite"]),
                number(run["seconds"]),
            ]
        )
    return [Table("Runs by their seeds", columns, rows)]
