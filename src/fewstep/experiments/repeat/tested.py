"""Scores of several seeds in one test: their spread over runs, and over tasks."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation.scoring import ADAPTED, Evaluation
from fewstep.evaluation.statistics import Interval, Score, finite_interval, plain_interval

Scores: TypeAlias = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class SeedScores:
    """Scores of several runs of a configuration in one test, on the same tasks.

    Attributes:
        name: of its files in the folders of the runs: ``"test"`` or ``"test-5-shot"``.
        scores: ``[seeds, tasks]`` by name, in float64: ``"adapted"``, and as applies ``"unadapted"``,
            ``"after 5 steps"`` and ``"mean of 3 checkpoints"``.
        baselines: ``[tasks]`` by name: classifiers without meta-learning on the same inputs, which have no seed.
        score_name: ``"accuracy"``, a fraction in [0, 1] that is shown in percent, or an error.
        higher_is_better: the direction of the score.
        transductive: whether queries were normalised by statistics of all queries of their task.
        protocol: what the tasks were.
    """

    name: str
    scores: Mapping[str, Scores]
    baselines: Mapping[str, Scores]
    score_name: str
    higher_is_better: bool
    transductive: bool
    protocol: Mapping[str, Any]

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return int(self.scores[ADAPTED].shape[1])

    @property
    def score(self) -> Score:
        """What the scores are."""
        return Score(self.score_name, self.higher_is_better)

    def mean(self, name: str = ADAPTED) -> float:
        """The mean score over tasks and runs."""
        return float(self._runs(name).mean())

    def sd(self, name: str = ADAPTED) -> float:
        """The standard deviation over runs, with divisor n − 1; NaN for a single run."""
        means = self._runs(name)
        return float(means.std(ddof=1)) if len(means) > 1 else math.nan

    def interval(self, name: str = ADAPTED) -> Interval | None:
        """The 95% interval over tasks of a score averaged over these seeds; None when a score is not finite."""
        return finite_interval(self._tasks(name))

    def interval_of_run(self, run: int, name: str = ADAPTED) -> Interval | None:
        """The 95% interval over tasks of one run, counted from 0; None when a score is not finite."""
        return finite_interval(self.scores[name][run])

    def difference(self, name: str) -> Interval | None:
        """``adapted − name``, both averaged over the seeds, paired by task; None when a score is not finite."""
        return finite_interval(self._tasks(ADAPTED) - self._tasks(name))

    def _runs(self, name: str) -> Scores:
        """``[seeds]``."""
        if name not in self.scores:
            raise ValueError(f"{name!r} is no score of the runs; there are {', '.join(map(repr, self.scores))}.")
        means: Scores = self.scores[name].mean(1)
        return means

    def _tasks(self, name: str) -> Scores:
        """``[tasks]``, over seeds where a score has them."""
        if name in self.baselines:
            return self.baselines[name]
        if name not in self.scores:
            names = ", ".join(map(repr, [*self.scores, *self.baselines]))
            raise ValueError(f"{name!r} was not scored; there are {names}.")
        means: Scores = self.scores[name].mean(0)
        return means

    def spread(self, name: str = ADAPTED) -> str:
        """Mean ± s.d. over runs, for reading."""
        if name in self.baselines:
            return ""
        mean, sd = self.mean(name), self.sd(name)
        if not math.isfinite(mean):
            return "not finite"
        text = self.score.text(Interval(mean, 0.0 if math.isnan(sd) else sd, self.tasks))
        return text.partition(" ± ")[0] + " ± n/a" if math.isnan(sd) else text

    def rows(self) -> Iterator[list[str]]:
        """Of every score: its name, mean ± s.d. over runs, mean with interval over tasks, and difference."""
        for name in [*self.scores, *self.baselines]:
            gain = "" if name == ADAPTED else self.score.text(self.difference(name), sign=True)
            yield [name, self.spread(name), self.score.text(self.interval(name)), gain]

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values: that of the scores over the seeds, and the spread between these."""
        over_seeds = {name: self._tasks(name) for name in [*self.scores, *self.baselines]}
        facts = self.score_name, self.higher_is_better, self.transductive, self.protocol
        summary = Evaluation(over_seeds, *facts).to_json()
        over_tasks, differences = summary["scores"], summary.pop("differences")
        summary["scores"] = {
            name: {
                "mean": finite(self.mean(name)),
                "sd_over_runs": finite(self.sd(name)),
                "over_tasks": over_tasks[name],
                "runs": [plain_interval(self.interval_of_run(i, name)) for i in range(len(values))],
            }
            for name, values in self.scores.items()
        }
        return summary | {"baselines": {name: over_tasks[name] for name in self.baselines}, "differences": differences}


def finite(value: float) -> float | None:
    """The number, for JSON, which has none that are not finite."""
    return value if math.isfinite(value) else None
