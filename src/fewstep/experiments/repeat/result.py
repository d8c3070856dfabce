"""Results of several seeds: the spread between the runs, and that between their test tasks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.table import Table
from rich.text import Text

from fewstep.evaluation import tables
from fewstep.evaluation.figures import images
from fewstep.evaluation.scoring import ADAPTED
from fewstep.experiments.repeat.plot import draw
from fewstep.experiments.repeat.tested import SeedScores, finite
from fewstep.recipes import Config, to_json

READING = (
    "Mean ± s.d. over runs: the mean score of each training seed, then the mean and the standard deviation (divisor "
    "n − 1) of these; it is the ± of LEO's paper. Mean ± 95% interval over tasks: 1.96·s/√n of the tasks' scores, each "
    "averaged over the seeds, so it is conditional on these training seeds: it says how far other test tasks would "
    "move the mean, and nothing of other seeds. Differences are paired by task and have the same kind of interval."
)


@final
@dataclass(frozen=True)
class TrainingSummary:
    """What the training of one run came to.

    Attributes:
        steps: meta-steps taken.
        best_step: the one whose meta-parameters were tested.
        validation: their score in validation.
        seconds: of training, validations included, data and pre-training not.
        nonfinite: meta-steps whose loss or gradient was not finite.
    """

    steps: int
    best_step: int
    validation: float | None
    seconds: float
    nonfinite: int


@final
@dataclass(frozen=True, eq=False)
class RepeatResult:
    """Runs of one configuration that differ in their seed, tested on the same tasks.

    Attributes:
        config: of the runs; its seed is that of the first.
        seeds: of the runs.
        folders: of the runs.
        trained: what the training of each came to.
        tests: one for each number of shots.
    """

    config: Config
    seeds: tuple[int, ...]
    folders: tuple[Path, ...]
    trained: tuple[TrainingSummary, ...]
    tests: tuple[SeedScores, ...]

    @property
    def first(self) -> SeedScores:
        """The test, or the first of several."""
        return self.tests[0]

    def table(self) -> Table:
        """The result for ``rich.print``: every score over runs and over tasks, and every run."""
        first = self.first
        about = f"{first.score.unit}: {first.score.better}" + (" · transductive" if first.transductive else "")
        table = tables.empty_table(f"{self._title()} · {first.tasks} test tasks\n{about}")
        for i, name in enumerate(("", "mean ± s.d. over runs", "mean ± 95% over tasks", "adapted − this, paired")):
            table.add_column(name, justify="right" if i else "left")
        for test in self.tests:
            if len(self.tests) > 1:
                table.add_row(Text(test.name, "bold"))
            for row in test.rows():
                table.add_row(*row)
            for i, seed in enumerate(self.seeds):
                table.add_row(f"  seed {seed}", "", test.score.text(test.interval_of_run(i)), "", style="dim")
            table.add_section()
        return table

    def markdown(self) -> str:
        """The whole result as a page."""
        lines = [f"# {self._title()}", ""]
        for test in self.tests:
            lines += [f"## {test.name}", ""] if len(self.tests) > 1 else []
            lines += tables.protocol_lines(test.protocol)
            unit = f"{test.score.unit} ({test.score.better})"
            head = [unit, "mean ± s.d. over runs", "mean ± 95% interval over tasks", f"{ADAPTED} − this"]
            rows = [[f"**{name}**" if name == ADAPTED else name, *rest] for name, *rest in test.rows()]
            lines += ["", *tables.markdown_lines([head, *rows]), ""]
            if test.transductive:
                lines += ["Transductive: queries were normalised by statistics of all query rows of their task.", ""]
        lines += [READING, "", "![Every run, and mean ± s.d. over runs](repeat.png)", "", "## Runs", ""]
        head = ["seed", *(t.name for t in self.tests), "validation", "best meta-step", "meta-steps", "training"]
        rows = [
            [
                str(seed),
                *(test.score.text(test.interval_of_run(i)) for test in self.tests),
                self.first.score.number(run.validation),
                f"{run.best_step:,}",
                f"{run.steps:,}" + (f" ({run.nonfinite:,} not finite)" if run.nonfinite else ""),
                f"{run.seconds:,.0f} s",
            ]
            for i, (seed, run) in enumerate(zip(self.seeds, self.trained, strict=True))
        ]
        lines += [*tables.markdown_lines([head, *rows]), ""]
        lines += ["A run's test has its own 95% interval over tasks. Everything else of it is in its folder, `seed-…`."]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The result as plain values for ``json.dump``; numbers that do not exist are null."""
        return {
            "config": json.loads(to_json(self.config)),
            "seeds": list(self.seeds),
            "folders": [folder.name for folder in self.folders],
            "training": [
                {
                    "meta_steps": run.steps,
                    "best_step": run.best_step,
                    "validation": None if run.validation is None else finite(run.validation),
                    "seconds": run.seconds,
                    "nonfinite": run.nonfinite,
                }
                for run in self.trained
            ],
            "tests": {test.name: test.to_json() for test in self.tests},
        }

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``repeat.{json,csv,png,svg,md}`` and ``tasks.csv``, each whole or not at all.

        Tests of several numbers of shots have a ``tasks`` file each, ``tasks-5-shot.csv``. Numbers read back to the
        same bits; accuracies are fractions in them, never percent.

        Raises:
            OSError: if a file cannot be written.
        """
        files: dict[str, Any] = {}
        for test in self.tests:
            runs = dict(zip((f"seed {seed}" for seed in self.seeds), test.scores[ADAPTED], strict=True))
            files[f"tasks{test.name.removeprefix('test')}.csv"] = tables.task_rows(runs | dict(test.baselines))
        files |= {
            "repeat.csv": tables.record_rows(map(self._record, range(len(self.seeds)))),
            "repeat.json": self.to_json(),
            **images("repeat", self.picture),
            "repeat.md": self.markdown(),  # last: it points to the picture
        }
        tables.write_files(folder, files)

    def picture(self, form: str = "png") -> bytes:
        """Each run's mean with its interval, the band of mean ± s.d., and the baselines."""
        return draw(self.tests, self.seeds, self._title(), form)

    def _title(self) -> str:
        count = len(self.seeds)
        return f"{self.config.recipe}, {count} training seed{'s' if count > 1 else ''}"

    def _record(self, place: int) -> dict[str, Any]:
        """The line of a run in ``repeat.csv``."""
        run = self.trained[place]
        cells: dict[str, float | None] = {}
        for test in self.tests:
            for name in test.scores:
                head = f"{test.name} {name}"
                cells |= tables.interval_cells(test.interval_of_run(place, name), f"{head} mean", f"{head} half_width")
        return {
            "seed": self.seeds[place],
            **cells,
            "validation": run.validation,
            "best_step": run.best_step,
            "meta_steps": run.steps,
            "seconds": run.seconds,
            "nonfinite": run.nonfinite,
            "folder": self.folders[place].name,
        }
