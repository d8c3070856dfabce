import numpy as np
import pytest
import torch

from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation.statistics import interval
from fewstep.training.pretraining import nearest_mean_scores


def features(*sizes: int) -> Dataset:
    """Classes that overlap."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(len(sizes), 5)), sizes, 0)
    rows = (centres + random.normal(size=centres.shape)).astype(np.float32)
    return Dataset.from_sorted(rows, np.cumsum([0, *sizes]))


def by_hand(data: Dataset, ways: int, shots: int, queries: int, tasks: int, seed: int) -> list[float]:
    """Accuracy of each task, one query at a time."""
    together = 100
    sampler = EpisodeSampler(
        data, ways=ways, shots=shots, queries=queries, tasks=together, seed=seed, stream="validation of pretraining"
    )
    accuracies: list[float] = []
    while len(accuracies) < tasks:
        support, query = sampler.batch(len(accuracies) // together)
        for t in range(together):
            means = [support.x[t][support.y[t][:, n] == 1].double().mean(0) for n in range(ways)]
            right = [
                min(range(ways), key=lambda n: float((x - means[n]).square().sum())) == int(y.argmax())
                for x, y in zip(query.x[t].double(), query.y[t], strict=True)
            ]
            assert len(right) == ways * queries
            accuracies.append(sum(right) / len(right))
    return accuracies[:tasks]


def test_scores_are_those_of_a_loop_by_hand() -> None:
    data = features(9, 8, 12, 7)
    found = nearest_mean_scores(data, ways=3, shots=(1, 4), queries=2, tasks=130, seed=5)
    assert list(found) == [1, 4]
    for shots, score in found.items():
        expected = interval(by_hand(data, 3, shots, 2, 130, 5))
        assert score.tasks == 130
        assert score.mean == pytest.approx(expected.mean, abs=1e-9)
        assert score.half_width == pytest.approx(expected.half_width, rel=1e-6)
    assert 0.4 < found[1].mean < found[4].mean < 1
    assert nearest_mean_scores(data, ways=3, shots=(1, 4), queries=2, tasks=130, seed=5) == found
    assert nearest_mean_scores(data, ways=3, shots=(1, 4), queries=2, tasks=130, seed=6) != found
    torch.manual_seed(9)
    assert nearest_mean_scores(data, ways=3, shots=(4,), queries=2, tasks=130, seed=5)[4] == found[4]


def test_small_data_get_tasks_that_they_can_fill() -> None:
    data = features(6, 4, 7)
    found = nearest_mean_scores(data, tasks=30)  # 5 ways, 1 and 5 shots, 15 queries
    assert list(found) == [1]
    assert found[1] == interval(np.array(by_hand(data, 3, 1, 3, 30, 0)))
    assert list(nearest_mean_scores(data, shots=(3, 4), tasks=30)) == [3]
    assert nearest_mean_scores(features(9), tasks=30) == {}
    assert nearest_mean_scores(features(1, 1), tasks=30) == {}
