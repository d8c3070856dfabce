"""How good features are for classes that they were not trained on: nearest class mean, which learns nothing itself."""

from collections.abc import Sequence

import numpy as np

from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation.baselines import nearest_mean
from fewstep.evaluation.statistics import Interval, interval

TOGETHER = 100
"""Tasks at a time."""


def nearest_mean_scores(
    features: Dataset,
    *,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 15,
    tasks: int = 1000,
    seed: int = 0,
) -> dict[int, Interval]:
    """Accuracy of nearest class mean on N-way tasks, by number of shots, in [0, 1] with its 95% interval.

    Inductive: every query is classified by itself. A dataset with fewer classes, or with classes of fewer images, gets
    tasks as large as it can fill; shots that leave no query are left out.

    Args:
        features: ``[n, d]``.
        ways: N.
        shots: support examples of each class.
        queries: query examples of each class.
        tasks: how many.
        seed: of the tasks.
    """
    smallest = int(features.sizes.min())
    scores = {}
    for k in shots:
        if features.classes < 2 or smallest < k + 1:
            continue
        sampler = EpisodeSampler(
            features,
            ways=min(ways, features.classes),
            shots=k,
            queries=min(queries, smallest - k),
            tasks=TOGETHER,
            seed=seed,
            stream="validation of pretraining",
        )
        right = []
        for step in range(-(-tasks // sampler.tasks)):
            support, query = sampler.batch(step)
            right.append((nearest_mean(support, query).argmax(-1) == query.y.argmax(-1)).double().mean(1).numpy())
        scores[k] = interval(np.concatenate(right)[:tasks])
    return scores
