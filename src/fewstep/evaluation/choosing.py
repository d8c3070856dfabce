"""Choosing on validation tasks, after training, what no gradient finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from fewstep.core import Method
from fewstep.data.source import TaskSource
from fewstep.evaluation.embedded import once_embedded
from fewstep.evaluation.scoring import ADAPTED, evaluate
from fewstep.evaluation.statistics import Score, finite_interval, plain_interval


@final
@dataclass(frozen=True, eq=False)
class Decision:
    """How a setting was chosen.

    Attributes:
        name: of the setting.
        labels: of its options; the first is kept in doubt.
        scores: ``[options, tasks]``, of the same tasks.
        chosen: the label of the one that is in place.
        score_name: what the numbers are.
        higher_is_better: their direction.
    """

    name: str
    labels: tuple[str, ...]
    scores: Float[np.ndarray, "options tasks"]
    chosen: str
    score_name: str
    higher_is_better: bool

    def to_dict(self) -> dict[str, Any]:
        """Means and gains over the first, with their intervals, in JSON's types."""
        columns = dict(zip(self.labels, self.scores, strict=True))
        return {
            "name": self.name,
            "chosen": self.chosen,
            "tasks": self.scores.shape[1],
            "score": self.score_name,
            "higher_is_better": self.higher_is_better,
            "options": {label: plain_interval(finite_interval(scores)) for label, scores in columns.items()},
            "gains": {label: plain_interval(finite_interval(s - self.scores[0])) for label, s in columns.items()},
        }

    def __str__(self) -> str:
        if self.chosen == self.labels[0]:
            return f"{self.name}: {self.chosen}"
        gain = finite_interval(self.scores[self.labels.index(self.chosen)] - self.scores[0])
        score = Score(self.score_name, self.higher_is_better)
        return f"{self.name}: {self.chosen} ({score.text(gain, sign=True)} over {self.labels[0]})"


def choose(
    method: Method,
    source: TaskSource,
    tasks: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[Decision]:
    """Choose a method's alternatives on validation tasks, one setting after another, and leave them chosen.

    Of each setting the option with the best mean score is taken, where it is better than the first by more than one
    standard error of their paired difference; else the first. What was chosen before is in place for the next.

    Args:
        method: with ``alternatives``; its learner is changed in place.
        source: of the tasks, which are the same for all options. Never those that a result is to be reported on.
        tasks: how many.
        progress: called with the number of options scored and of all.
        options: of :func:`~fewstep.evaluation.evaluate`.

    Example:
        >>> method = residual_prototypes(clusters.support.x.mean((0, 1)), hidden=16)
        >>> source = EpisodeSampler(classes, ways=3, shots=2, queries=5, tasks=4, seed=0)
        >>> [decision.chosen for decision in choose(method, source, 8)]  # untrained, the residual is zero
        ['0', 'class means', '0']
    """
    for setting in method.alternatives:  # so that what is found does not depend on what was in place
        setting.take(method.learner, next(iter(setting.options)))
    decisions: list[Decision] = []
    total, done = sum(len(setting.options) for setting in method.alternatives), 0
    for setting in method.alternatives:
        columns: list[Any] = []
        moves_rows = any(name.startswith("embedding.") for values in setting.options.values() for name in values)
        scored, rows = (method, source) if moves_rows else once_embedded(method, source, tasks * len(setting.options))
        for label in setting.options:
            setting.take(method.learner, label)
            found = evaluate(scored, rows, tasks, unadapted=False, baselines=False, **options)
            columns.append(found.scores[ADAPTED])
            done += 1
            if progress is not None:
                progress(done, total)
        scores, labels = np.stack(columns), tuple(setting.options)
        chosen = labels[_best(scores if found.higher_is_better else -scores)]
        setting.take(method.learner, chosen)
        decisions.append(Decision(setting.name, labels, scores, chosen, found.score_name, found.higher_is_better))
    return decisions


def _best(scores: Float[np.ndarray, "options tasks"]) -> int:
    """The row with the best mean, or the first where that is no better by a standard error."""
    means = np.nan_to_num(scores.mean(1), nan=-np.inf)
    best = int(means.argmax())
    gains = scores[best] - scores[0]
    if not np.isfinite(means[0]):
        return best
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return best if gains.mean() > error else 0
