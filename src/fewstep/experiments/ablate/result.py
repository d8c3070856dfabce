"""The rows of an ablation beside each other, on the same test tasks."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from rich.console import Console
from rich.table import Table

from fewstep.evaluation import tables
from fewstep.evaluation.figures import images
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.statistics import Interval, Score, interval, plain_interval
from fewstep.experiments.ablate.budget import Budget
from fewstep.experiments.ablate.paper import COLUMNS, order
from fewstep.experiments.ablate.plot import Mark, draw
from fewstep.experiments.repeat.tested import Scores, SeedScores, finite

REFERENCE = "leo"
"""The slug of the row that differences are taken from."""

WIDTH = 120
"""Columns of the table as text."""

FOUND = "What the searches found"
ORDER = "Order of the rows, here and in the paper"


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class AblatedRow:
    """One row: what its search found, and what its final runs scored.

    Attributes:
        name: as the paper's table has it.
        slug: the same for file names.
        seeds: of the final runs.
        tested: their test; None where there is none (yet).
        validation: the best score of the search; None where there is none (yet).
        found: settings that were searched for, by name.
        best_step: the meta-step of the best score of the search.
        trials: how many trials there are of each state: complete, pruned, failed.
        steps: meta-steps that the search has taken.
        nonfinite: meta-steps of the final runs whose loss or gradient was not finite.
        failure: why there is no test; empty where it is to come.
    """

    name: str
    slug: str
    seeds: tuple[int, ...]
    tested: SeedScores | None = None
    validation: float | None = None
    found: Mapping[str, float] = field(default_factory=dict)
    best_step: int | None = None
    trials: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    nonfinite: int = 0
    failure: str = ""

    @property
    def scores(self) -> Scores | None:
        """``[tasks]``, each averaged over the seeds; None without a test, or where a score is not finite."""
        if self.tested is None:
            return None
        scores: Scores = self.tested.scores[ADAPTED].mean(0)
        return scores if np.isfinite(scores).all() else None


@final
@dataclass(frozen=True, eq=False)
class AblationResult:
    """The table.

    Attributes:
        rows: in the order of the paper's Table 2.
        baselines: ``[tasks]`` by name: classifiers without meta-learning on the same tasks.
        budget: of every row.
        protocol: what the test tasks were, and how the final runs were trained.
        score_name: what the scores are; an accuracy is a fraction in [0, 1] that is shown in percent.
        pruned: whether trials could be stopped early.
        trainval: whether final runs were trained on the validation classes too.
    """

    rows: Sequence[AblatedRow]
    baselines: Mapping[str, Scores]
    budget: Budget
    protocol: Mapping[str, Any]
    score_name: str
    pruned: bool
    trainval: bool

    @property
    def complete(self) -> bool:
        """Whether every row has been tested."""
        return all(row.tested is not None for row in self.rows)

    def row(self, slug: str) -> AblatedRow:
        """A row by its slug.

        Raises:
            ValueError: when there is none.
        """
        by_slug = {row.slug: row for row in self.rows}
        if slug not in by_slug:
            raise ValueError(f"there is no row {slug!r}; there are {', '.join(by_slug)}.")
        return by_slug[slug]

    def interval(self, slug: str) -> Interval | None:
        """Over tasks, of a row's scores averaged over its seeds: conditional on these seeds."""
        scores = self.row(slug).scores
        return None if scores is None else interval(scores)

    def difference(self, name: str) -> Interval | None:
        """``LEO − name``, a row's slug or the name of a baseline, paired by task, each averaged over its seeds.

        Its 95% interval is over tasks: conditional on these training seeds. None where one of them is missing.
        """
        leo = next((row.scores for row in self.rows if row.slug == REFERENCE), None)
        scores = self.baselines[name] if name in self.baselines else self.row(name).scores
        return None if leo is None or scores is None else interval(leo - scores)

    def tables(self) -> list[Table]:
        """For ``rich.print``: the result, what the searches found, and the order of the rows."""
        return [
            tables.terminal_table(f"{self.title()}\n{self.score.unit}: {self.score.better}", self._results(), "fr"),
            tables.terminal_table(FOUND, self._found(), "frrf"),
            tables.terminal_table(ORDER, self._order(), "fr"),
        ]

    @property
    def score(self) -> Score:
        """What the scores are."""
        return Score(self.score_name)

    def title(self) -> str:
        """The test in a line."""
        return tables.protocol_title(self.protocol)

    def notes(self) -> list[str]:
        """What the numbers do not say by themselves, in sentences."""
        return list(self._notes())

    def text(self) -> str:
        """The whole result as plain text."""
        file = io.StringIO()
        Console(file=file, width=WIDTH, color_system=None, markup=False, emoji=False).print(*self.tables())
        lines = [
            textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
            for note in self.notes()
        ]
        text = file.getvalue() + "\n".join(lines)
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"

    def markdown(self) -> str:
        """The whole result as a page."""
        lines = ["# Table 2 of the LEO paper, on these features", ""]
        lines += tables.protocol_lines(self.protocol)
        lines += ["", *tables.markdown_lines(self._results()), "", f"{self.score.unit}: {self.score.better}.", ""]
        lines += ["![Test scores, and paired differences](ablation.png)", "", "## To be read with it", ""]
        lines += [f"- {note}" for note in self.notes()]
        lines += ["", f"## {FOUND}", "", *tables.markdown_lines(self._found())]
        lines += ["", f"## {ORDER}", "", *tables.markdown_lines(self._order())]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``ablation.{csv,png,svg,txt,md}``, ``result.json`` and ``tasks.csv``, each whole or not at all.

        Numbers in the CSV files read back to the same bits; accuracies are fractions there, never percent.

        Raises:
            OSError: if a file cannot be written.
        """
        tasks = {row.name: row.tested.scores[ADAPTED].mean(0) for row in self.rows if row.tested is not None}
        files = {
            "tasks.csv": tables.task_rows(tasks | dict(self.baselines)),
            "ablation.csv": tables.record_rows(self._records()),
            "result.json": self.to_json(),
            **images("ablation", self.picture),
            "ablation.txt": self.text(),
            "ablation.md": self.markdown(),  # last: it points to the picture
        }
        tables.write_files(folder, files)

    def to_json(self) -> dict[str, Any]:
        """The table as plain values for ``json.dump``; numbers that do not exist are null."""
        rows: list[dict[str, Any]] = [
            {
                "name": row.name,
                "slug": row.slug,
                "state": "" if row.tested is not None else "missing" if row.failure else "not yet",
                "mean": None if row.tested is None else finite(row.tested.mean()),
                "sd_over_seeds": None if row.tested is None else finite(row.tested.sd()),
                "over_tasks": plain_interval(self.interval(row.slug)),
                "reference_minus_row": None if row.slug == REFERENCE else plain_interval(self.difference(row.slug)),
                "validation": row.validation,
            }
            for row in self.rows
        ]
        rows += [
            {"name": name, "over_tasks": plain_interval(interval(scores))}
            | {"reference_minus_row": plain_interval(self.difference(name))}
            for name, scores in self.baselines.items()
        ]
        return {
            "protocol": dict(self.protocol),
            "score": self.score_name,
            "reference": REFERENCE,
            "rows": rows,
            "found": self._found(),
            "order": self._order(),
            "notes": self.notes(),
        }

    def picture(self, form: str = "png") -> bytes:
        """Scores with their seeds, and LEO's lead over each row and each baseline, in the order of the table."""
        marks = []
        for row in self.rows:
            own, leo = self.interval(row.slug), row.slug == REFERENCE
            gain, absence = None if leo else self.difference(row.slug), "missing"
            seeds, sd = [], 0.0
            if row.tested is not None:
                seeds, sd = row.tested.scores[ADAPTED].mean(1).tolist(), finite(row.tested.sd()) or 0.0
            elif not row.failure:
                absence = "not yet"
            marks.append(Mark(row.name, own, seeds, sd, gain, absence, leo))
        marks += [
            Mark(name, interval(scores), difference=self.difference(name), baseline=True)
            for name, scores in self.baselines.items()
        ]
        named = ", ".join(map(str, self.rows[0].seeds))
        note = f"each row: {self.budget.trials} trials, then training seeds {named}; intervals are given these seeds"
        return draw(marks, self.score, self.title(), note, form)

    def _half(self, value: Interval | None) -> str:
        return "n/a" if value is None else "± " + self.score.text(value).partition(" ± ")[2]

    def _results(self) -> list[list[str]]:
        """Cells of the first table, its head included."""
        cells = [["row", "test\n± s.d. over seeds", "95%\nover tasks", "LEO − row\npaired", "validation"]]
        for row in self.rows:
            validation = "n/a" if row.validation is None else self.score.number(row.validation)
            if row.tested is None:
                cells.append([row.name, "missing" if row.failure else "not yet", "", "", validation])
                continue
            gain = "" if row.slug == REFERENCE else self.score.text(self.difference(row.slug), sign=True)
            cells.append([row.name, row.tested.spread(), self._half(self.interval(row.slug)), gain, validation])
        for name, scores in self.baselines.items():
            own, gain = interval(scores), self.score.text(self.difference(name), sign=True)
            cells.append([name, self.score.number(own.mean), self._half(own), gain, ""])
        return cells

    def _found(self) -> list[list[str]]:
        cells = [["row", "trials", "meta-steps", "settings of the best trial"]]
        for row in self.rows:
            trials = ", ".join(f"{count} {state}" for state, count in row.trials.items())
            settings = ", ".join(f"{name} {value:.3g}" for name, value in row.found.items())
            settings += f"; best at its meta-step {row.best_step:,}" if row.best_step else ""
            cells.append([row.name, trials or "–", f"{row.steps:,}", settings or row.failure or "not yet"])
        return cells

    def _order(self) -> list[list[str]]:
        """Ranks here and in the paper; only rows that have been tested count in either."""
        ranked, pairs = order(self._means())
        cells = [["row", "here", *(f"paper:\n{name}\n{shots}" for name, shots in map(str.split, COLUMNS))]]
        cells += [[row.name, *map(str, ranked[row.slug])] for row in self.rows if row.slug in ranked]
        if len(ranked) > 1:
            cells.append(["pairs in the same order as here", "", *(f"{same} of {of}" for same, of in pairs)])
        return cells

    def _notes(self) -> Iterator[str]:
        yield f"Budget, the same for every row: {self.budget}."
        searched = ", ".join(f"{row.name} {len(row.found)}" for row in self.rows if row.found)
        yield (
            "Every row has had a random search of its own, all with one seed: rows whose spaces begin alike draw "
            "alike. As many trials, of as many meta-steps"
            + (" at most (most trials are stopped early, by successive halving)" if self.pruned else "")
            + (f". Spaces differ in their dimensions: {searched}." if searched else ".")
        )
        yield (
            "Final runs were trained on "
            + (
                "training and validation classes, as in the last stage of the LEO paper (B.7); the validation that "
                "chose their best meta-step was then of classes that they were trained on, so it hardly stops early. "
                "A row whose best trial was at its best long before its end may be trained too long."
                if self.trainval
                else "training classes alone (the last stage of the LEO paper adds those of validation)."
            )
            + ' The column "validation" is of the best trial of the search, on training classes alone, and is '
            "optimistic, being the best of many."
        )
        seeds = ", ".join(map(str, self.rows[0].seeds))
        yield (
            f"± s.d. over seeds: the mean score of each of the training seeds {seeds}, then their mean and standard "
            "deviation (divisor n − 1): the ± of the LEO paper."
        )
        yield (
            "95% over tasks: 1.96·s/√n of the tasks' scores, each averaged over the seeds. Differences are paired by "
            "task and have the same kind of interval. Both are conditional on these training seeds and on the settings "
            "found: they say how far other test tasks would move the numbers, not how far other seeds or another "
            "search would. Where a difference is not well above the s.d. over seeds, it is not established."
        )
        names = [*(row.slug for row in self.rows if row.slug != REFERENCE), *self.baselines]
        if (count := sum(self.difference(name) is not None for name in names)) > 1:
            yield (
                f"Each of the {count} differences has a 95% interval of its own: of twenty that are truly zero about "
                "one appears not to be."
            )
        yield f"{'; '.join(self.baselines)}: without meta-learning, on the same features of the same test tasks."
        yield (
            f"{ORDER}: ranks only, 1 for the best, among the rows that are tested here. The paper's numbers are of "
            "other data, other features and larger searches and must not be put beside these."
        )
        for row in self.rows:
            if row.failure:
                yield f"{row.name} is missing: {row.failure}"
            elif row.tested is None:
                yield f"{row.name} has not been run yet."
            if row.nonfinite:
                yield (
                    f"{row.name}: {row.nonfinite:,} of {len(row.seeds) * self.budget.final_steps:,} meta-steps of its "
                    "final runs had a loss or a gradient that was not finite, and taught it nothing."
                )

    def _records(self) -> Iterator[dict[str, Any]]:
        """The lines of ``ablation.csv``."""
        seeds, names = self.rows[0].seeds, dict.fromkeys(name for row in self.rows for name in row.found)
        ranked, _ = order(self._means())
        for row in self.rows:
            test = row.tested
            runs = [None] * len(seeds) if test is None else test.scores[ADAPTED].mean(1)
            own = tables.interval_cells(self.interval(row.slug), self.score_name, "half_width_over_tasks")
            gap = None if row.slug == REFERENCE else self.difference(row.slug)
            yield {
                "row": row.name,
                "slug": row.slug,
                "baseline": False,
                self.score_name: None if test is None else test.mean(),
                "sd_over_seeds": None if test is None else finite(test.sd()),
                "half_width_over_tasks": own["half_width_over_tasks"],
                **tables.interval_cells(gap, "leo_minus_row"),
                "tasks": None if test is None else test.tasks,
                **{f"seed {seed}": value for seed, value in zip(seeds, runs, strict=True)},
                "validation": row.validation,
                **{name: row.found.get(name) for name in names},
                "trials": self.budget.trials,
                "meta_steps_a_trial": self.budget.trial_steps,
                "search_meta_steps": row.steps,
                "final_meta_steps": self.budget.final_steps,
                "rank": ranked.get(row.slug, (None,))[0],
                "failure": row.failure,
            }
        for name, scores in self.baselines.items():
            yield {
                "row": name,
                "baseline": True,
                **tables.interval_cells(interval(scores), self.score_name, "half_width_over_tasks"),
                **tables.interval_cells(self.difference(name), "leo_minus_row"),
                "tasks": len(scores),
            }

    def _means(self) -> dict[str, float]:
        """The mean scores of the rows that have been tested, by slug."""
        return {row.slug: float(row.scores.mean()) for row in self.rows if row.scores is not None}
