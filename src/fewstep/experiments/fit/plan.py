"""What every process of a fit knows: the data, the time, and where everything is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.experiments.fit.methods import TRAINED, Cost, Trial
from fewstep.experiments.fit.prepare import FEATURES, Prepared
from fewstep.recipes import Config
from fewstep.recipes.problems.problem import Problem
from fewstep.recipes.problems.stored_features import Embeddings

VALIDATIONS = 8
"""In a training, of which the best is kept."""


@dataclass(frozen=True)
class Limits:
    """The most that a fit does, however much time it has.

    Attributes:
        steps: meta-steps of a trial; the recipe's when None.
        validation_tasks: on which trials are scored, and again as many on which methods are chosen.
        test_tasks: on which all are tested.
        rounds: trials of each method.
    """

    steps: int | None = None
    validation_tasks: int = 1000
    test_tasks: int = 5000
    rounds: int = 20

    def __post_init__(self) -> None:
        for name in ("validation_tasks", "test_tasks"):
            if getattr(self, name) < 2:
                raise ValueError(f"limits.{name} must be at least 2, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Plan:
    """What every process of a fit knows.

    Attributes:
        folder: of the fit.
        prepared: what tasks are made of.
        shots: that are asked for.
        seed: of training, tasks and draws.
        minutes: that were given.
        began: the time at which the fit would have begun if it had never been stopped, by the clock of this machine
            that all its processes share and nobody sets.
        searching: seconds from the beginning of the fit to that of the search.
        workers: processes at once.
        limits: of everything.
        launched: the time at which the process was started that has this plan; None where it is the fit's own.
        starting: seconds that it took until it could work: how fast the machine is now.
    """

    folder: Path
    prepared: Prepared
    shots: tuple[int, ...]
    seed: int
    minutes: float
    began: float
    searching: float
    workers: int
    limits: Limits
    launched: float | None = None
    starting: float = 0.0

    def started(self) -> Plan:
        """The plan of a process that has just begun to work."""
        return self if self.launched is None else replace(self, starting=time.monotonic() - self.launched)

    @property
    def seconds(self) -> float:
        """That were given."""
        return 60 * self.minutes

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.began + self.seconds - time.monotonic()

    @property
    def reporting(self) -> float:
        """Seconds that are kept for the report."""
        return min(0.15 * self.seconds, max(6.0, 1.5 * self.starting))

    @property
    def testing(self) -> float:
        """Seconds that are kept for the choice and the test."""
        return min(0.2 * self.seconds, 180.0) + min(0.1 * self.seconds, self.starting)

    @property
    def search_left(self) -> float:
        """Seconds until the search must end."""
        return self.left - self.reporting - self.testing

    @property
    def simple_left(self) -> float:
        """Seconds in which simple classifiers may be tried; the first of each is in any case."""
        return self.search_left - 0.7 * self._search

    @property
    def _search(self) -> float:
        return max(0.0, self.seconds - self.reporting - self.testing - self.searching)

    def first_share(self, method: str) -> float:
        """Seconds for the first training of a method at some shots."""
        whole = len(self.shots) * sum(one.share for one in TRAINED.values())
        return 0.85 * self.workers * self._search * TRAINED[method].share / whole

    @property
    def validation_tasks(self) -> int:
        """Tasks on which a trial is scored."""
        by_time = next((n for minutes, n in ((1, 100), (5, 200), (20, 500)) if self.minutes < minutes), 1000)
        return min(by_time, self.limits.validation_tasks)

    @property
    def features(self) -> Path:
        """The features with their splits."""
        return self.folder / FEATURES

    def place(self, trial: Trial) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / trial.name

    def settings(self, trial: Trial) -> dict[str, float]:
        """What a trial has in place of the recipe's."""
        return TRAINED[trial.method].draw(self.seed, trial.index)

    def cost(self, trial: Trial) -> Cost:
        """What a trial's time depends on."""
        return trial.method, trial.shots, self.settings(trial).get("training.tasks", 0.0)

    def problem(self, method: str, shots: int) -> Problem:
        """The tasks of a method: of the features as they lie in this folder now, which may have been moved."""
        config = self.config(method, shots, {}, self.validation_tasks)
        return config.data.open(config.prepare_device(), lambda _: None, None)

    def config(self, method: str, shots: int, settings: Mapping[str, float], validation_tasks: int) -> Config:
        """What a trial trains, with all the steps of its recipe."""
        config, prepared = TRAINED[method].config(shots, settings), self.prepared
        assert isinstance(config.data, Embeddings)
        data = replace(config.data, path=str(self.features), ways=prepared.ways, shots=shots, queries=prepared.queries)
        training = replace(config.training, validation_tasks=validation_tasks, compile="off")
        testing = replace(config.testing, queries=prepared.queries, tasks=self.limits.test_tasks, seed=self.seed)
        return replace(config, data=data, training=training, testing=testing, seed=self.seed, threads=1)


def shots_text(shots: Sequence[int]) -> str:
    """ "1 and 5 shots"."""
    *most, last = map(str, shots)
    return f"{', '.join(most)}{' and ' if most else ''}{last} {'shot' if last == '1' else 'shots'}"
