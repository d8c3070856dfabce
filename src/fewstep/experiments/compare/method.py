"""What a comparison knows of one method."""

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation.statistics import Interval, finite_interval

Scores: TypeAlias = NDArray[np.float64]
"""One number a task, ``[tasks]``."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class MethodScores:
    """What one method scored, and what a reader of the scores must know.

    Attributes:
        label: the name of its row, distinct from the others.
        scores: one number a task, ``[tasks]``.
        unadapted: those of the same method with zero inner steps; None where there are no inner steps.
        algorithm: the kind of method.
        baseline: a classifier without meta-learning.
        inputs: what was classified, "images" or "features"; empty for regression.
        inner_steps: at test, of every descent in turn.
        statistics: what batch normalisation of a query took its statistics from; None where nothing is so normalised.
        transductive: whether these were statistics of all queries of the task.
        trained_on: ways and shots of its training tasks.
        steps: meta-steps trained; None for a baseline.
        planned: meta-steps that its configuration asks for.
        finished: training ended, by its length or by early stopping.
        best_step: the meta-step whose meta-parameters were tested.
        tasks_per_step: tasks in a meta-batch.
        training_seconds: spent on meta-training, pre-training not included.
        test_seconds: wall time of one test task, its data included; None where it was not measured.
        threads: CPU threads in training.
        machine: of training.
        notes: what else bears on the comparison.
        published: what others report for it, with what differs, each in a sentence.
    """

    label: str
    scores: Scores
    unadapted: Scores | None = None
    algorithm: str = ""
    baseline: bool = False
    inputs: str = ""
    inner_steps: tuple[int, ...] = ()
    statistics: str | None = None
    transductive: bool = False
    trained_on: str = ""
    steps: int | None = None
    planned: int | None = None
    finished: bool = True
    best_step: int | None = None
    tasks_per_step: int | None = None
    training_seconds: float | None = None
    test_seconds: float | None = None
    threads: int | None = None
    machine: str | None = None
    notes: tuple[str, ...] = ()
    published: tuple[str, ...] = ()

    @property
    def interval(self) -> Interval | None:
        """The mean with its 95% interval; None when not all scores are finite."""
        return finite_interval(self.scores)

    @property
    def start(self) -> Interval | None:
        """The same of the method with zero inner steps; None where there are none."""
        return None if self.unadapted is None else finite_interval(self.unadapted)
