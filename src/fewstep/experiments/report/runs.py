"""The page of a run: what it scored, how it was trained, and how it is repeated."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.data.storage.log import METRICS
from fewstep.evaluation.curves import curves_in_words
from fewstep.evaluation.scoring import ADAPTED, is_own
from fewstep.evaluation.statistics import Interval, Score
from fewstep.evaluation.tables import plain_text
from fewstep.experiments.folder import CONFIG
from fewstep.experiments.report.charts import Axis, Chart, Columns, Line, Tone, axis_of, difference_chart
from fewstep.experiments.report.content import (
    Block,
    Cell,
    Charts,
    Class,
    Classes,
    Column,
    Command,
    Facts,
    Items,
    Page,
    Picture,
    Pictures,
    Section,
    Settings,
    Table,
    Text,
    ranged,
    word,
)
from fewstep.experiments.report.recorded import RecordedRun, curves_of, task_scores
from fewstep.training.checkpoint import last_state

FIRST = ("dataset", "split", "ways", "shots", "queries", "evaluated on", "task seed")
"""Of a protocol, what stands at the head of a page."""

ABOUT_INTERVALS = (
    "Mean ± half of the 95% interval over tasks, 1.96·s/√n. Differences are paired by task, and so is their interval. "
    "Intervals are of the choice of test tasks; another training seed is not covered by them."
)

PICTURES = ("codes", "curvature", "sine-line", "oscillations")
"""Figures of ``fewstep analyse`` and ``fewstep plot`` that are shown when they lie in a run's folder, or in
``analysis`` in there."""

LARGEST = 600_000
"""Bytes of a picture that is taken into a page; a larger one is left out."""


def page_of_run(run: RecordedRun) -> Page:
    """The page of a run, from its files alone: nothing is computed that is not in them."""
    sections = [Section("Test" if len(run.tests) == 1 else f"Test: {name}", _test(run, name)) for name in run.tests]
    series = curves_of_run(run)
    sections.append(Section("Learning curves", series))
    sections += _details(run)
    if figures := list(_pictures(run.folder)):
        sections.append(Section("Analyses", [Pictures(figures)]))
    if run.choices:
        sections.append(Section("Chosen after training", _choices(run.choices)))
    sections.append(Section("Time and memory", [Facts(_costs(run))]))
    sections.append(Section("To repeat it", _repeating(run.folder, run.environment)))
    settings: list[Block] = [Settings.of("Every setting", run.config)] if run.config else []
    settings += [Settings.of("Machine and versions", run.environment)] if run.environment else []
    sections.append(Section("Configuration", settings))
    first = next(iter(run.tests.values()), None)
    score = None if first is None else Score(first["score"], first["higher_is_better"])
    result = None if first is None else interval_of(first["scores"].get(ADAPTED), first["tasks"])
    told = [
        text if len(run.tests) == 1 else f"{name}: {text}"
        for name, test in run.tests.items()
        for text in [verdict(test)]
    ]
    protocol = {} if first is None else protocol_of(first)
    facts = Facts(facts_of(protocol))
    verdicts = told or ["The run has not been tested yet."]
    verdicts += [f"The run {run.unfinished}."] if run.unfinished else []
    verdicts += [f"{line}." for line in run.left_out]
    return Page("Run", run.title, str(run.folder), verdicts, facts, sections, score, result, protocol)


def verdict(test: Mapping[str, Any]) -> str:
    """What a test came to, in a sentence: the score, and how it stands to the best baseline."""
    score = Score(test["score"], test["higher_is_better"])
    own = interval_of(test["scores"].get(ADAPTED), test["tasks"])
    if own is None:
        return "The adapted method has no score that is finite in every task, or a single task."
    text = f"{score.text(own)}{'%' if score.percent else ''} {score.name} on {test['tasks']:,} tasks"
    text += "" if score.higher_is_better else " (lower is better)"
    rivals = {name: one["mean"] for name, one in test["scores"].items() if one is not None and not is_own(name)}
    if not rivals:
        return f"{text}."
    best = max(rivals, key=lambda name: rivals[name] if score.higher_is_better else -rivals[name])
    which = "the best baseline" if len(rivals) > 1 else "the baseline"
    return f"{text}, {difference_in_words(score, test['differences'].get(best))} {which}, {best}."


def difference_in_words(score: Score, plain: Mapping[str, float] | None) -> str:
    """How something stands to another: "1.39 ± 0.11 points above"."""
    gain = None if plain is None else Interval(plain["mean"], plain["half_width"], 0)
    if gain is None:
        return "not to be compared with"
    if abs(gain.mean) <= gain.half_width:
        return f"with no clear difference ({score.text(gain, sign=True).replace('-', '−')}) to"
    size = score.text(Interval(abs(gain.mean), gain.half_width, 0))
    return f"{size}{' points' if score.percent else ''} {'above' if gain.mean > 0 else 'below'}"


def interval_of(plain: Mapping[str, float] | None, tasks: int) -> Interval | None:
    """An interval as JSON has it."""
    return None if plain is None else Interval(plain["mean"], plain["half_width"], tasks)


def protocol_of(test: Mapping[str, Any]) -> dict[str, Any]:
    """What a test states of its tasks, their number and setting included."""
    queries = "transductive: by statistics of all query rows of their task" if test["transductive"] else "inductive"
    return {**test.get("protocol", {}), "tasks": test["tasks"], "queries are normalised": queries}


def facts_of(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader looks for at once."""
    found = [(name, plain_text(protocol[name])) for name in FIRST if protocol.get(name) is not None]
    if "tasks" in protocol:
        transductive = str(protocol.get("queries are normalised", "")).startswith("transductive")
        found += [("tasks", f"{protocol['tasks']:,}"), ("setting", "transductive" if transductive else "inductive")]
    return found


def _test(run: RecordedRun, name: str) -> list[Block]:
    test = run.tests[name]
    score = Score(test["score"], test["higher_is_better"])
    columns = [
        Column("method"),
        Column(f"{score.unit} ({score.better})", "interval", "score"),
        Column(f"{ADAPTED} − this", "interval", "difference"),
    ]
    rows = []
    for label, plain in test["scores"].items():
        own = label == ADAPTED
        gain = Cell("") if own else ranged(score, test["differences"].get(label), sign=True)
        rows.append([word(label, strong=own), ranged(score, plain, strong=own), gain])
    blocks: list[Block] = [Table(f"Scores of {name}", columns, rows)]
    absent = [label for label, plain in test["scores"].items() if plain is None]
    if absent:
        blocks.append(Text(f"n/a: {', '.join(absent)} had scores that are not finite, or a single task."))
    blocks.append(Text(ABOUT_INTERVALS, quiet=True))
    blocks += difference_charts(task_scores(run.folder / f"{name}_tasks.csv"), ADAPTED, score)
    blocks.append(Settings.protocol(protocol_of(test), "Protocol"))
    return blocks


def difference_charts(tasks: Mapping[str, Any], of: str, score: Score) -> list[Block]:
    """Histograms of what a method scored above each of the others, task by task."""
    if of not in tasks:
        return []
    made = [difference_chart(f"{of} − {other}", tasks[of] - tasks[other], score) for other in tasks if other != of]
    charts = [chart for chart in made if chart is not None]
    return [Charts(charts)] if charts else []


def curves_of_run(run: RecordedRun) -> list[Block]:
    """Loss and scores over meta-steps, and what they show in words."""
    if not (run.folder / METRICS).exists():
        return [Text("There is no metrics.csv.")]
    try:
        told = curves_in_words(run.folder / METRICS)
        charts = curve_charts({"": curves_of(run.folder)}, " ".join(told))
    except ValueError as error:
        return [Text(f"Nothing to draw: {error}.")]
    return [*([Items(told)] if told else []), Charts(charts)] if charts else [Text("Nothing has been logged yet.")]


def curve_charts(runs: Mapping[str, Mapping[tuple[str, str], Sequence[tuple[int, float]]]], told: str) -> list[Chart]:
    """The curves of a run, or of several beside each other: the training loss, and every score of validation."""
    charts = []
    names = dict.fromkeys(name for series in runs.values() for split, name in series if split == "validation")
    for name in ("loss", *names):
        score, loss = Score(name), name == "loss"
        scale = 1.0 if loss else score.scale
        lines = []
        for series in runs.values():
            kinds: list[tuple[str, Tone]] = (
                [("train", "first")] if loss else [("train", "quiet"), ("validation", "first")]
            )
            for split, tone in kinds:
                points = [(float(step), scale * value) for step, value in series.get((split, name), ())]
                if not points or (len(runs) > 1 and not loss and split == "train"):
                    continue
                label = "" if loss else "validation" if split == "validation" else "training tasks"
                lines.append(Line(points, tone, label, dots=split == "validation" and len(points) < 40))
        values = [y for line in lines for _, y in line.points if math.isfinite(y)]
        if not values:
            continue
        log = not score.percent and min(values) > 0 and max(values) > 30 * min(values)
        unit = "loss on queries" if loss else f"validation {score.unit}"
        steps = max(x for line in lines for x, _ in line.points)
        charts.append(
            Chart(
                f"{'Training loss' if loss else score.title}{', log scale' if log else ''}",
                Axis(0.0, steps or 1.0, "meta-step"),
                axis_of(values, unit, log=log, zero=not score.percent),
                f"{unit.capitalize()} over {steps:,.0f} meta-steps, ending at {values[-1]:.3g}. {told}".strip(),
                lines=lines,
            )
        )
    return charts


def _details(run: RecordedRun) -> Iterator[Section]:
    """Confusion and calibration, where they have been measured."""
    details, test = run.details, next(iter(run.tests.values()), {})
    if not details:
        if test.get("score") == "accuracy":
            how = f"fewstep report {shlex.quote(str(run.folder))}"
            told = "A test does not keep single predictions. This makes them again, and measures both:"
            yield Section("Hard classes and calibration", [Text(told), Command(how)])
        return
    found, about = details["classes"], details["about"]
    shown = [
        Class(
            one["name"],
            one["pictures"],
            f"right in {one['right']:.1%} of {one['queries']:,} queries",
            one["other"],
            one["other_pictures"],
            f"taken for it in {one['mistaken']:.1%} of {one['met']:,} queries that met it",
        )
        for one in found
    ]
    if shown:
        yield Section(
            "Hard classes",
            [
                Classes(shown),
                Text(
                    f"{about} Of the classes that enough tasks have met, those with the fewest right answers.",
                    quiet=True,
                ),
            ],
        )
    calibration = details["calibration"]
    yield Section("Calibration", _calibration(calibration, about))


def _calibration(found: Mapping[str, Any], about: str) -> list[Block]:
    bins = [one for one in found["bins"] if one["rows"]]
    width = 1 / len(found["bins"])
    error, confidence, right = (found[name] for name in ("error", "confidence", "accuracy"))
    lean = "over-confident" if confidence > right else "under-confident"
    told = f"Expected calibration error {error:.2%}: right in {right:.1%} where it says {confidence:.1%}, {lean}."
    accuracy = [(one["from"], one["from"] + width, one["accuracy"]) for one in bins]
    line = [(one["confidence"], one["accuracy"]) for one in bins]
    total = sum(one["rows"] for one in bins)
    shares = [(one["from"], one["from"] + width, one["rows"] / total) for one in bins]
    charts = [
        Chart(
            "Right, by how sure it is",
            Axis(0.0, 1.0, "probability of the answer"),
            Axis(0.0, 1.0, "share that is right"),
            f"Reliability diagram. {told}",
            columns=[Columns(accuracy, "quiet", "share that is right")],
            lines=[Line(line, "first", dots=True)],
            diagonal=True,
            shape="square",
        ),
        Chart(
            "How sure it is",
            Axis(0.0, 1.0, "probability of the answer"),
            axis_of([0.0, *(share for *_, share in shares)], "share of queries", zero=True),
            f"Histogram of the probability of the answer, on average {confidence:.1%}.",
            columns=[Columns(shares, "first")],
            shape="square",
        ),
    ]
    bins_of = f"{len(found['bins'])} bins of equal width"
    note = f"{about} {bins_of}; probabilities are those of the run, without a fitted temperature."
    return [Text(told), Charts(charts), Text(note, quiet=True)]


def _pictures(folder: Path) -> Iterator[Picture]:
    """Figures of other commands: as an SVG, or as a PNG where that is smaller than a page should become."""
    for name in PICTURES:
        files = [place / f"{name}.{form}" for place in (folder, folder / "analysis") for form in ("svg", "png")]
        for path in (path for path in files if path.is_file() and path.stat().st_size <= LARGEST):
            kind = "svg+xml" if path.suffix == ".svg" else "png"
            source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            yield Picture(source, f"Figure: {name}", f"{name}, from {path.relative_to(folder)}")
            break


def _choices(choices: Mapping[str, Any]) -> list[Block]:
    rows, column = [], "score"
    for decision in choices["decisions"]:
        score = Score(decision["score"], decision["higher_is_better"])
        column = score.unit
        kept, *_ = decision["options"]
        for option in decision["options"]:
            own = option == decision["chosen"]
            gain = (
                Cell("kept unless another is better")
                if option == kept
                else ranged(score, decision["gains"][option], sign=True)
            )
            rows.append([word(decision["name"]), word(option, strong=own), word("chosen" if own else ""), gain])
    columns = [
        Column("setting"),
        Column("option"),
        Column(""),
        Column(f"{column}, over the first", "interval", "difference"),
    ]
    table = Table("Options on validation tasks", columns, rows, sortable=False)
    note = "By validation tasks. The first option is kept unless another is better by more than a standard error."
    return [table, Text(note, quiet=True)]


def _costs(run: RecordedRun) -> list[tuple[str, str]]:
    state, facts = last_state(run.folder), run.environment
    found = []
    if state is not None:
        each = f", {1000 * state.seconds / state.step:.3g} ms each" if state.step else ""
        best = "" if state.best is None else f"; best in validation at {state.best_step:,}"
        stopped = "" if state.finished else ", not finished"
        found += [
            ("training", f"{duration(state.seconds)}, validations included"),
            ("meta-steps", f"{state.step:,}{each}{best}{stopped}"),
        ]
        found += [("not finite", f"{state.nonfinite:,} meta-steps")] if state.nonfinite else []
    if isinstance(peak := facts.get("peak_memory"), Mapping):
        found += [(f"peak memory, {name}", f"{size / 2**20:,.0f} MiB") for name, size in peak.items()]
    for name in ("machine", "device", "threads", "processes"):
        if facts.get(name) is not None:
            found.append((name, plain_text(facts[name])))
    return found or [("training", "nothing is recorded")]


def duration(seconds: float) -> str:
    """For reading: seconds, minutes, or hours and minutes."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def _repeating(folder: Path, facts: Mapping[str, Any]) -> list[Block]:
    versions = facts.get("versions")
    known = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else "–"
    pairs = [
        ("began", str(facts.get("started", "–"))),
        ("commit", str(facts.get("commit") or "–")),
        ("versions", known),
    ]
    given = facts.get("command")
    begun: list[Block] = [Text("It was begun by"), Command(str(given))] if given else []
    again = f"fewstep train {shlex.quote(str(folder / CONFIG))} --out again"
    note = "config.json has all settings and the seed. This trains and tests the same once more:"
    repeated: list[Block] = [Text(note), Command(again)] if (folder / CONFIG).exists() else []
    return [*begun, *repeated, Facts(pairs)]
