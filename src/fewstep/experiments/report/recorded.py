"""What a run has left in its folder, read once for all of its reports."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewstep.data.storage.files import read_json
from fewstep.data.storage.log import METRICS, read_log
from fewstep.data.storage.reading import reading
from fewstep.experiments.begun import unfinished
from fewstep.experiments.folder import CHOICES, CONFIG, ENVIRONMENT
from fewstep.experiments.results import TEST, own_result

DETAILS = "details.json"
"""The file with what :mod:`~fewstep.experiments.report.details` has measured."""


@dataclass(frozen=True)
class RecordedRun:
    """A run by its files; what is absent is empty.

    Attributes:
        folder: of the run.
        config: its configuration.
        environment: what it depended on besides.
        tests: its results by name, its own first.
        choices: what validation tasks chose after training.
        details: confusion and calibration, where they have been measured.
        left_out: sentences on results of other meta-parameters than its best, which are not among these.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    tests: Mapping[str, Mapping[str, Any]]
    choices: Mapping[str, Any]
    details: Mapping[str, Any]
    left_out: Sequence[str]

    @property
    def title(self) -> str:
        """The recipe, or else the folder's name."""
        return str(self.config.get("recipe") or self.folder.resolve().name)

    @property
    def unfinished(self) -> str:
        """What there is to say of a training that goes on, or was stopped; empty of one that has ended."""
        return unfinished(self.folder)

    @classmethod
    def read(cls, folder: Path) -> RecordedRun:
        """All JSON files of a folder.

        Raises:
            ValueError: when one is damaged.
        """
        first, left_out = f"{TEST}.json", list[str]()
        others = sorted(path.name for path in folder.glob("*.json") if path.name != first)
        loaded = {name: own_result(folder, name, left_out.append) for name in [first, *others]}
        return cls(
            folder,
            loaded.get(CONFIG, {}),
            loaded.get(ENVIRONMENT, {}),
            {Path(name).stem: value for name, value in loaded.items() if isinstance(value.get("scores"), dict)},
            loaded.get(CHOICES, {}),
            loaded[DETAILS] if "calibration" in loaded.get(DETAILS, {}) else {},
            left_out,
        )


def task_scores(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a file with a row a task, by their names; nothing where there is no such file.

    Raises:
        ValueError: when it is damaged.
    """
    if not path.exists():
        return {}
    with reading(path, "holds no scores"), path.open(newline="", encoding="utf-8") as file:
        (_, *names), *rows = csv.reader(file)
        columns = [[float(row[i]) for row in rows] for i in range(1, len(names) + 1)]
    return {name: np.array(column, np.float64) for name, column in zip(names, columns, strict=True)}


def curves_of(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """What a training has logged, by split and name; nothing where there is no log.

    Raises:
        ValueError: when it is damaged.
    """
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    if (folder / METRICS).exists():
        for step, split, name, value in read_log(folder / METRICS):
            series.setdefault((split, name), []).append((step, value))
    return series


def result_of(folder: Path, name: str, what: str) -> dict[str, Any]:
    """The file that holds the result of a procedure over many runs.

    Raises:
        ValueError: when it is not there, or damaged.
    """
    if not (found := read_json(folder / name)):
        raise ValueError(
            f"{folder} has no {name}: the {what} has not come to its end, or is of an earlier version. Give the "
            "command that began it once more; what is finished is kept."
        )
    return found
