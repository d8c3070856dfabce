"""Several methods on the same tasks: means, paired differences, and the files that say so."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, final

import numpy as np
from rich.table import Table

from fewstep.evaluation import tables
from fewstep.evaluation.figures import images
from fewstep.evaluation.statistics import Interval, Score, finite_interval, plain_interval
from fewstep.experiments.compare.method import MethodScores, Scores
from fewstep.experiments.compare.plot import draw

COSTS = "What they took"


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods beside each other on one list of tasks.

    Attributes:
        rows: one a method, in the order in which they are shown.
        score_name: ``"accuracy"``, a fraction in [0, 1] that is shown in percent, or an error.
        higher_is_better: the direction of the score.
        reference: the label that differences are taken to; the first one when empty.
        protocol: what the tasks were, the same for all.
        machine: where the methods were tested.
        threads: CPU threads of the tests.

    Raises:
        ValueError: for no rows, labels that repeat, scores of different numbers of tasks or of fewer than two, or a
            reference that is not there.
    """

    rows: Sequence[MethodScores]
    score_name: str
    higher_is_better: bool
    reference: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a comparison needs at least one method, got none.")
        labels, first = self.labels, self.rows[0]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"a comparison needs distinct labels, {label!r} occurs {labels.count(label)} times.")
        for row in self.rows:
            if row.scores.shape != first.scores.shape:
                raise ValueError(
                    f"methods are compared on the same tasks: {first.label} has scores of {len(first.scores)} tasks, "
                    f"{row.label} of {len(row.scores)}. Evaluate both on one source and one number of tasks."
                )
        if self.tasks < 2:
            raise ValueError(f"a comparison needs at least 2 tasks for its intervals, got {self.tasks}.")
        if not self.reference:
            object.__setattr__(self, "reference", first.label)
        self.row(self.reference)

    @property
    def labels(self) -> list[str]:
        """Of the rows, in their order."""
        return [row.label for row in self.rows]

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self.rows[0].scores)

    @property
    def score(self) -> Score:
        """What the scores are."""
        return Score(self.score_name, self.higher_is_better)

    def row(self, label: str) -> MethodScores:
        """The row with a label.

        Raises:
            ValueError: when there is none.
        """
        if label not in self.labels:
            raise ValueError(f"there is no method {label!r} in the comparison; there are {', '.join(self.labels)}.")
        return self.rows[self.labels.index(label)]

    def interval(self, label: str) -> Interval | None:
        """The mean of a method with its 95% interval; None when not all of its scores are finite."""
        return self.row(label).interval

    def difference(self, label: str, other: str | None = None) -> Interval | None:
        """``label − other``, paired by task, ``other`` being the reference when omitted; None as for :meth:`interval`.

        Whichever way the score counts, a positive difference says that ``label`` has the larger number.
        """
        return _difference(self.row(label).scores, self.row(self.reference if other is None else other).scores)

    def tables(self) -> list[Table]:
        """For ``rich.print``: what the methods scored, what their adaptation adds, and what they cost."""
        direction = f"{self.score.unit}: {self.score.better}; differences to {self.reference}, paired"
        return [
            tables.terminal_table(f"{self.title}\n{direction}", self._results(), "frrl"),
            tables.terminal_table("What adapts", self._adaptation(baselines=False), "fllr"),
            tables.terminal_table(COSTS, self._costs(), "fl"),
        ]

    @property
    def title(self) -> str:
        """The protocol in a line."""
        return tables.protocol_title(self.protocol)

    def caveats(self) -> list[str]:
        """What the numbers do not say by themselves, in sentences."""
        return list(self._caveats())

    def markdown(self) -> str:
        """The whole comparison as a page: protocol, tables, every pair, and caveats."""
        pairs = [
            [a, *("" if a == b else self.score.text(self.difference(a, b), sign=True) for b in self.labels)]
            for a in self.labels
        ]
        methods = [[*a, *b[1:]] for a, b in zip(self._results(bold=True), self._adaptation(), strict=True)]
        blocks = [
            f"# {len(self.rows)} methods on the same {self.tasks} tasks",
            "\n".join(tables.protocol_lines(self.protocol)),
            "\n".join(tables.markdown_lines(methods)),
            f"{self.score.unit}: {self.score.better}. Differences are to {self.reference}. "
            "Mean ± half of the 95% interval over tasks, 1.96·s/√n; differences are paired by task. "
            "Unadapted is the same method with zero inner steps.",
            "![Scores, and paired differences](comparison.png)",
            f"## {COSTS}",
            "\n".join(tables.markdown_lines(self._costs())),
            "## Every pair",
            f"{self.score.unit}, the row's method minus the column's, paired by task.",
            "\n".join(tables.markdown_lines([["", *self.labels], *pairs])),
        ]
        if given := [f"- {row.label}: {number}" for row in self.rows for number in row.published]:
            told = "not to be compared without saying what differs."
            blocks += ["## Published", f"On other tasks than these, and mostly after longer training: {told}"]
            blocks.append("\n".join(given))
        blocks += ["## To be read with it", "\n".join(f"- {caveat}" for caveat in self.caveats())]
        return "\n\n".join(blocks) + "\n"

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``comparison.{csv,json,md,png,svg}``, ``tasks.csv`` and ``differences.csv``, each whole or not at all.

        Numbers in the CSV files read back to the same bits; scores are fractions there, never percent.

        Raises:
            OSError: if a file cannot be written.
        """
        pairs = [
            [a, b, *tables.interval_cells(self.difference(a, b), "mean").values(), self.tasks]
            for a, b in combinations(self.labels, 2)
        ]
        files = {
            "tasks.csv": tables.task_rows({row.label: row.scores for row in self.rows}),
            "differences.csv": [["method", "other", "mean", "half_width", "tasks"], *pairs],
            "comparison.csv": tables.record_rows(map(self._record, self.rows)),
            "comparison.json": self.to_json(),
            **images("comparison", self.picture),
            "comparison.md": self.markdown(),  # last: it points to the picture
        }
        tables.write_files(folder, files)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values for ``json.dump``; numbers that do not exist are null."""
        return {
            "protocol": dict(self.protocol),
            "score": self.score_name,
            "higher_is_better": self.higher_is_better,
            "reference": self.reference,
            "tasks": self.tasks,
            "methods": [
                {
                    "label": row.label,
                    "baseline": row.baseline,
                    "nonfinite_tasks": int((~np.isfinite(row.scores)).sum()),
                    "score": plain_interval(row.interval),
                    "unadapted": plain_interval(row.start),
                    "statistics": _statistics(row),
                    "differences": {other: plain_interval(self.difference(row.label, other)) for other in self.labels},
                    "published": list(row.published),
                }
                for row in self.rows
            ],
            "adaptation": self._adaptation(),
            "costs": self._costs(),
            "caveats": self.caveats(),
        }

    def picture(self, form: str = "png") -> bytes:
        """Scores with their intervals, and paired differences to the reference, best method first."""
        differences = {row.label: self.difference(row.label) for row in self.rows}
        return draw(self.rows, differences, self.reference, self.score, form)

    def _results(self, bold: bool = False) -> list[list[str]]:
        """Cells of the first table, its head included."""
        cells = [["method", self.score.unit, "difference", "queries"]]
        for row in self.rows:
            own = row.label == self.reference
            bad = int((~np.isfinite(row.scores)).sum())
            score = f"not finite in {bad} tasks" if bad else self.score.text(row.interval)
            gain = "reference" if own else self.score.text(self.difference(row.label), sign=True)
            cells.append([f"**{row.label}**" if bold and own else row.label, score, gain, _statistics(row)])
        return cells

    def _adaptation(self, baselines: bool = True) -> list[list[str]]:
        """Cells of the second table, its head included."""
        cells = [["method", "algorithm", "inner steps", "unadapted"]]
        for row in self.rows:
            if baselines or not row.baseline:
                start = "–" if row.unadapted is None else self.score.text(row.start)
                cells.append([row.label, row.algorithm, " + ".join(map(str, row.inner_steps)) or "none", start])
        return cells

    def _costs(self) -> list[list[str]]:
        """Cells of the third table, its head included."""
        cells = [["method", "trained on", "meta-steps × tasks", "training", "test, a task"]]
        for row in (row for row in self.rows if not row.baseline):
            place = "" if row.threads is None else f", {tables.counted(row.threads, 'thread')}"
            steps = "–" if row.steps is None else _progress(row)
            if row.steps is not None and row.tasks_per_step is not None:
                steps += f" × {row.tasks_per_step}"
            training = "–" if row.training_seconds is None else f"{_duration(row.training_seconds)}{place}"
            test = "–" if row.test_seconds is None else f"{1000 * row.test_seconds:.3g} ms"
            cells.append([row.label, row.trained_on or "–", steps, training, test])
        return cells

    def _caveats(self) -> Iterator[str]:
        yield (
            "Intervals are over the choice of test tasks. Another seed of training is not covered by them, and may "
            "move a method by more."
        )
        if (pairs := len(self.rows) * (len(self.rows) - 1) // 2) > 1:
            yield (
                f"Each of the {pairs} differences has a 95% interval of its own: of twenty methods that are truly "
                "equal to the reference about one appears not to be."
            )
        yield (
            "Each method was trained with its own settings (networks, training tasks, length, tuning): it is these "
            "configurations that are compared, not algorithms all else being equal."
        )
        if seen := [row.label for row in self.rows if row.transductive]:
            yield (
                f"Transductive: {', '.join(seen)}. Queries were normalised by statistics of all queries of their task, "
                "which a method that answers one query at a time does not have."
            )
        for row in self.rows:
            if not row.finished:
                yield f"{row.label} has not finished training: {_progress(row)} meta-steps."
            if row.notes:
                yield f"{row.label}: {'; '.join(row.notes)}."
        for kind in dict.fromkeys(row.inputs for row in self.rows if row.baseline):
            names = [row.label for row in self.rows if row.baseline and row.inputs == kind]
            yield f"{' and '.join(names)}: without meta-learning, on the {kind} that the methods are given."
        used = dict.fromkeys(row.inputs for row in self.rows if not row.baseline and row.inputs)
        if len(used) > 1:
            yield (
                f"The methods do not see the same inputs ({', '.join(used)}), though of the same examples. Features "
                "come from a network that was trained before, whose training time is not counted."
            )
        yield (
            f"Tested on {self.machine or 'an unknown machine'}"
            + ("" if self.threads is None else f" with {tables.counted(self.threads, 'thread')}")
            + ". The time of a test task is wall time, fetching the task and predicting all of its queries included; "
            "training time is what the run has counted itself, validations included."
        )
        for machine in dict.fromkeys(row.machine for row in self.rows if row.machine not in (None, self.machine)):
            trained = [row.label for row in self.rows if row.machine == machine]
            yield f"Trained on another machine than tested ({machine}): {', '.join(trained)}."
        threads = {row.threads for row in self.rows if row.threads is not None}
        if len(threads) > 1:
            yield f"Training used different numbers of threads ({', '.join(map(str, sorted(threads)))})."
        if absent := [row.label for row in self.rows if not np.isfinite(row.scores).all()]:
            yield f"n/a: {', '.join(absent)} had scores that are not finite; the inner loop diverged on some task."

    def _record(self, row: MethodScores) -> dict[str, Any]:
        """A line of ``comparison.csv``."""
        gain = None if row.unadapted is None else _difference(row.scores, row.unadapted)
        return {
            "method": row.label,
            "algorithm": row.algorithm,
            **tables.interval_cells(row.interval, self.score_name, "half_width"),
            "tasks": self.tasks,
            "nonfinite_tasks": int((~np.isfinite(row.scores)).sum()),
            "reference": self.reference,
            **tables.interval_cells(self.difference(row.label), "difference"),
            **tables.interval_cells(row.start, "unadapted"),
            **tables.interval_cells(gain, "gain"),
            "inner_steps": "+".join(map(str, row.inner_steps)) or 0,
            "statistics": row.statistics,
            "transductive": row.transductive,
            "baseline": row.baseline,
            "inputs": row.inputs,
            "trained_on": row.trained_on,
            "meta_steps": row.steps,
            "planned_meta_steps": row.planned,
            "finished": None if row.steps is None else row.finished,
            "tested_meta_step": row.best_step,
            "tasks_per_meta_step": row.tasks_per_step,
            "training_seconds": row.training_seconds,
            "training_threads": row.threads,
            "training_machine": row.machine,
            "test_seconds_per_task": row.test_seconds,
            "test_threads": self.threads,
            "test_machine": self.machine,
            "notes": "; ".join(row.notes),
        }


def _difference(a: Scores, b: Scores) -> Interval | None:
    return finite_interval(a - b) if np.isfinite(a).all() and np.isfinite(b).all() else None


def _statistics(row: MethodScores) -> str:
    """How a query is normalised."""
    if row.transductive:
        return "transductive"
    return "inductive" if row.statistics is None else f"inductive ({row.statistics})"


def _progress(row: MethodScores) -> str:
    done = f"{row.steps:,}"
    if row.planned is None or row.steps == row.planned:
        return done
    return f"{done} of {row.planned:,}" + (", stopped early" if row.finished else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
