"""The uncertainty of several methods beside the exact posterior: means over tasks, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float
from rich.table import Column, Table
from rich.text import Text

from fewstep.evaluation.predictive import Measures
from fewstep.evaluation.statistics import Interval, finite_interval, interval, paired
from fewstep.evaluation.tables import markdown_lines, protocol_lines, write_files

Row: TypeAlias = Mapping[str, Interval | str]

EXACT = "exact posterior"
AMBIGUOUS = 0.2
"""A task is ambiguous where the exact posterior gives each kind more than this."""

_SHOWN = {
    "negative_log_likelihood": "NLL, nats",
    "squared_error": "MSE of the mean",
    "coverage_50": "in 50% interval, %",
    "coverage_90": "in 90% interval, %",
    "width_50": "its width (50%)",
    "width_90": "its width (90%)",
}


@final
@dataclass(frozen=True, eq=False)
class MethodMeasures:
    """One method's predictive distributions on the test tasks.

    Attributes:
        label: its name.
        noise: the deviation of targets about a function, fitted on validation tasks; the true one for the posterior;
            None for a method that predicts it itself, row by row.
        functions: how many make up a prediction; None for the exact posterior.
        measures: one number a task each.
        lines: fraction of its functions that are lines, for each of the ambiguous tasks, ``[ambiguous]``.
        failed: tasks whose functions are not finite, on which it is measured as if it knew nothing.
    """

    label: str
    noise: float | None
    functions: int | None
    measures: Measures
    lines: Float[np.ndarray, " ambiguous"]
    failed: int = 0


@final
@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Several methods and the exact posterior on the same test tasks.

    Attributes:
        methods: the exact posterior comes last.
        ambiguity: share of the pool's tasks that are ambiguous; ``MethodMeasures.lines`` are of the first of them.
        protocol: what a result must state.
    """

    methods: list[MethodMeasures]
    ambiguity: float
    protocol: dict[str, Any]

    @property
    def exact(self) -> MethodMeasures:
        """The yardstick."""
        return self.methods[-1]

    def mode_distance(self, one: MethodMeasures) -> Interval | None:
        """Mean over ambiguous tasks of ``|p(line) − its exact value|``: the total variation between the kinds.

        None where there are fewer than two: of the paper's tasks about one in a hundred is ambiguous.
        """
        return finite_interval(np.abs(one.lines - self.exact.lines))

    def rows(self) -> list[Row]:
        """A row for each method: means over tasks with their 95% intervals, and the paired gap to the posterior."""
        return [self._row(one) for one in self.methods]

    def _row(self, one: MethodMeasures) -> Row:
        own, exact = one.measures, self.exact.measures
        return {
            "": one.label,
            "functions": "all" if one.functions is None else str(one.functions),
            "noise": "its own" if one.noise is None else f"{one.noise:.3f}",
            **{t: interval(getattr(own, name) * (100 if "coverage" in name else 1)) for name, t in _SHOWN.items()},
            "NLL − exact": paired(own.negative_log_likelihood, exact.negative_log_likelihood),
            "mode mass − exact, ambiguous": self.mode_distance(one) or "–",
        }

    def table(self) -> Table:
        """For a terminal: a column for each method."""
        rows = self.rows()
        columns = (Column(Text(str(row[""])), justify="right", overflow="fold") for row in rows)
        table = Table("", *columns, title=self._title(), title_justify="left")
        for title in list(rows[0])[1:]:
            table.add_row(title, *(_text(row[title]) for row in rows))
        return table

    def _title(self) -> str:
        ambiguous = f"{len(self.exact.lines)} ambiguous ones ({self.ambiguity:.1%} of tasks are)"
        return f"{self.protocol['tasks']} tasks, and {ambiguous}; mean ± 95% interval"

    def write(self, folder: Path) -> None:
        """``uncertainty.md``, ``uncertainty.json``, ``uncertainty_tasks.csv`` and ``uncertainty_modes.csv``."""
        rows = self.rows()
        labelled = [(one.label, vars(one.measures)) for one in self.methods]
        measures = {f"{label}: {name}": values for label, of in labelled for name, values in of.items()}
        modes = {f"{one.label}: lines": one.lines for one in self.methods}
        plain = [
            {title: value if isinstance(value, str) else vars(value) for title, value in row.items()} for row in rows
        ]
        files = {
            "uncertainty.md": self._markdown(rows),
            "uncertainty.json": {"protocol": self.protocol, "rows": plain},
            "uncertainty_tasks.csv": [list(measures), *zip(*measures.values(), strict=True)],
            "uncertainty_modes.csv": [list(modes), *zip(*modes.values(), strict=True)],
        }
        write_files(folder, files)

    def _markdown(self, rows: list[Row]) -> str:
        """The whole result as a page."""
        failed = [
            f"{one.label}: {one.failed} tasks had functions that are not finite; they count as functions that are zero "
            "everywhere."
            for one in self.methods
            if one.failed
        ]
        blocks = [
            "# Predictive distributions",
            self._title() + ".",
            "\n".join(markdown_lines([list(rows[0]), *(list(map(_text, row.values())) for row in rows)])),
            "NLL: negative log-likelihood of a noisy held-out target under the predictive mixture; the noise of each "
            "method is fitted on validation tasks, unless its predictions say it. MSE holds the variance of the noise. "
            "Mode mass: fraction of lines among a method's functions, and its mean distance from the exact posterior's "
            f"on ambiguous tasks, in which that gives each kind more than {AMBIGUOUS:.0%}: the first of a larger pool. "
            "Differences are paired by task. Intervals are of the choice of test tasks; another training seed is not "
            "covered by them.",
            "\n".join(protocol_lines(self.protocol)),
            *failed,
        ]
        return "\n\n".join(blocks) + "\n"


def _text(value: Interval | str) -> str:
    return value if isinstance(value, str) else value.text(decimals=3)
