import csv
import io
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from cases import LEO, classification_tasks, conv, images, regression_tasks
from rich.console import Console

from fewstep.algorithms import leo, maml
from fewstep.core import Batch, Descend, Loop, Method, Task, regression
from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation import all_baselines, evaluate, evaluating, inner_steps, nearest_mean, paired, ridge
from fewstep.networks import mlp


@dataclass
class Source:
    """One batch of tasks cut into steps."""

    whole: Task
    tasks: int = 4
    ways: int | None = 3
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        self.asked.append(step)
        rows = slice(step * self.tasks, (step + 1) * self.tasks)
        if rows.start >= len(self.whole.query.x):
            raise IndexError("no more")
        return Task(*(Batch(*(t[rows] for t in side)) for side in self.whole))


def vectors(tasks: int = 10) -> Task:
    return classification_tasks(6, queries=5, tasks=tasks)


def trained() -> Method:
    torch.manual_seed(0)
    method = leo(6, **LEO)
    method.learner.double()
    return method


def sines() -> Method:
    method = maml(mlp((1, 6, 1)), rate=0.1, loss=regression())
    method.learner.double()
    return method


def test_scores_are_those_of_each_task_alone() -> None:
    method, tasks = trained(), vectors()
    tasks.query.weight[3, :7] = 0  # fewer queries in one task
    result = evaluate(method, Source(tasks), 10)
    assert list(result.scores) == ["adapted", "unadapted", "nearest class mean", "ridge"]
    for i in range(10):
        one = Task(*(Batch(*(t[i : i + 1] for t in side)) for side in tasks))
        point, real = method.adapt(one.support), one.query.weight[0] > 0
        truth = one.query.y[0].argmax(-1)
        predictions = {
            "adapted": method.predict(point, one.query),
            "nearest class mean": nearest_mean(*one),
            "ridge": ridge(*one),
        }
        for name, prediction in predictions.items():
            right = (prediction[0].argmax(-1) == truth)[real]
            assert result.scores[name][i] == pytest.approx(right.double().mean().item(), abs=1e-15)
    assert result.protocol == {"ways": 3, "support rows": "5 to 6", "query rows": "8 to 15"}


def test_truncates_to_exactly_the_tasks_asked_for() -> None:
    method, source, seen = trained(), Source(vectors()), []
    whole = evaluate(method, source, 10).scores
    source.asked.clear()
    part = evaluate(method, source, 6, batch=3, progress=lambda *given: seen.append(given), executor=Loop())
    assert source.asked == [0, 1]
    assert seen == [(3, 6), (4, 6), (6, 6)]
    for name, values in part.scores.items():
        np.testing.assert_array_equal(values, whole[name][:6])


@pytest.mark.parametrize("statistics", ["query", "support"])
def test_few_queries_at_a_time_change_nothing(
    statistics: Literal["query", "support"], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dataset = Dataset.from_sorted(rows, [0, 9, 17, 29, 40])  # unequal classes: padding too
    source = EpisodeSampler(dataset, ways=3, shots=2, queries=None, tasks=4, seed=0, dtype=torch.float64)
    whole = evaluate(trained(), source, 10, statistics=statistics)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "QUERY_BYTES", 3 * 3 * 10 * 6 * 8)
    few = evaluate(trained(), source, 10, statistics=statistics)
    plain = SimpleNamespace(ways=3, tasks=4, batch=source.batch)
    undeferred = evaluate(trained(), plain, 10, statistics=statistics, batch=3)
    for name, values in whole.scores.items():
        np.testing.assert_array_equal(few.scores[name], values)
        np.testing.assert_array_equal(undeferred.scores[name], values)
    assert few.protocol == undeferred.protocol == whole.protocol


def remaining(shots: int) -> EpisodeSampler:
    """Tasks whose queries are all that is left of classes of unequal sizes, in no order: padding too."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 7 % 5
    rows = torch.nn.functional.one_hot(labels, 6) + torch.randn(80, 6, dtype=torch.float64, generator=source)
    dataset = Dataset.from_labels(rows, labels.numpy())
    return EpisodeSampler(dataset, ways=3, shots=shots, queries=None, tasks=4, seed=0, dtype=torch.float64)


def head() -> Method:
    torch.manual_seed(0)
    method = leo(6, normalise=False, latents=4)
    method.learner.double()
    return method


CENTRE = torch.full((6,), 0.2, dtype=torch.float64)


@pytest.mark.parametrize("shots", [1, 3])
def test_what_is_linear_on_all_remaining_rows_is_judged_class_by_class(
    shots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes, method, baselines = remaining(shots), head(), all_baselines(CENTRE)
    expected = evaluate(method, SimpleNamespace(ways=3, tasks=4, batch=episodes.batch), 10, baselines=baselines)
    fetched: list[int] = []
    gather = Dataset.gather
    monkeypatch.setattr(Dataset, "gather", lambda self, p, **how: (fetched.append(p.size), gather(self, p, **how))[1])
    for batch, rows_at_most in ((None, 3 * (12 * shots + 80)), (1, None)):
        fetched.clear()
        found = evaluate(method, episodes, 10, baselines=baselines, batch=batch)
        assert list(found.scores) == list(expected.scores)
        for name, values in expected.scores.items():
            np.testing.assert_allclose(found.scores[name], values, rtol=0, atol=1e-15)
            assert len(set(values)) > 3, "scores of tasks differ"
        assert found.protocol == expected.protocol
        assert rows_at_most is None or sum(fetched) <= rows_at_most


def test_what_is_not_linear_is_scored_beside_heads_that_are() -> None:
    found = evaluate(head(), remaining(1), 10, beside={"a function": lambda *task: nearest_mean(*task)})
    np.testing.assert_allclose(found.scores["a function"], found.scores["nearest class mean"], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("weight", "score"), [(0.0, "that of the first class"), (math.nan, "none")])
def test_equal_logits_and_none_are_judged_alike_by_class_and_by_task(weight: float, score: str) -> None:
    episodes, method = remaining(1), head()
    method.learner.start.get_parameter("decoder.weight").data.fill_(weight)
    plain = SimpleNamespace(ways=3, tasks=4, batch=episodes.batch)
    expected, found = (evaluate(method, source, 4, baselines=False).scores["adapted"] for source in (plain, episodes))
    np.testing.assert_array_equal(found, expected)
    assert (found > 0).all() == (score != "none")


def test_what_is_not_linear_is_given_its_queries() -> None:
    """A network, and a baseline of one's own, beside baselines that are linear."""
    episodes, method = remaining(2), maml(mlp((6, 5, 3)), rate=0.1)
    method.learner.double()
    baselines = {"own": lambda support, query: nearest_mean(support, query).square(), **all_baselines(CENTRE)}
    plain = SimpleNamespace(ways=3, tasks=4, batch=episodes.batch)
    expected, found = (evaluate(method, source, 6, baselines=baselines) for source in (plain, episodes))
    assert list(found.scores) == list(expected.scores) == ["adapted", "unadapted", *baselines]
    for name, values in expected.scores.items():
        np.testing.assert_allclose(found.scores[name], values, rtol=0, atol=1e-15)
    assert found.protocol == expected.protocol


def test_predictions_that_are_views_of_the_queries_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries come a few at a time into the same memory, so the first must have been copied."""

    class Inputs(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3]

    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_labels(x, np.repeat(np.arange(6), 10))
    source = EpisodeSampler(data, ways=3, shots=1, queries=None, tasks=8, seed=0)
    expected = (source.batch(0).query.x[..., :3].argmax(-1) == source.batch(0).query.y.argmax(-1)).double().mean(1)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "QUERY_BYTES", 1)
    method = maml(Inputs(6, 3), rate=0.1, steps=0)
    found = evaluate(method, source, 8, unadapted=False, baselines=False).scores["adapted"]
    np.testing.assert_allclose(found, expected.numpy())


def test_only_what_is_asked_for_is_scored() -> None:
    result = evaluate(trained(), Source(vectors()), 10, unadapted=False, baselines=False)
    assert list(result.scores) == ["adapted"]
    np.testing.assert_array_equal(
        result.scores["adapted"], evaluate(trained(), Source(vectors()), 10).scores["adapted"]
    )


def test_baselines_by_name_are_given_each_task_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit for every task is not repeated when the queries come a few tasks at a time."""
    seen: list[torch.Tensor] = []

    def first(support: Batch, query: Batch) -> torch.Tensor:
        seen.extend(support.x[:, 0])
        right = torch.arange(query.y.shape[1]) == 0  # the first row alone
        return torch.where(right[:, None], query.y, query.y.roll(1, -1))

    monkeypatch.setattr(sys.modules[evaluate.__module__], "QUERY_BYTES", 2 * 15 * 6 * 8)
    tasks = vectors()
    result = evaluate(trained(), Source(tasks), 10, baselines={"first row": first})
    assert list(result.scores) == ["adapted", "unadapted", "first row"]
    np.testing.assert_allclose(result.scores["first row"], 1 / 15)
    torch.testing.assert_close(torch.stack(seen), tasks.support.x[:, 0], rtol=0, atol=0)
    with pytest.raises(ValueError, match="'adapted' is the name of a score"):
        evaluate(trained(), Source(tasks), 10, baselines={"adapted": first})


def test_a_source_that_ends_early() -> None:
    with pytest.raises(ValueError, match="11 tasks were asked for, but the source ended after 10"):
        evaluate(trained(), Source(vectors()), 11)


def test_unadapted_is_the_start() -> None:
    method, tasks = trained(), vectors(4)
    result = evaluate(method, Source(tasks), 4)
    for stage in method.learner.stages:
        if isinstance(stage, Descend):
            stage.steps = 0
    np.testing.assert_array_equal(result.scores["unadapted"], evaluate(method, Source(tasks), 4).scores["adapted"])
    assert not np.array_equal(result.scores["unadapted"], result.scores["adapted"])


def test_inner_steps_come_back_even_after_an_error() -> None:
    learner = trained().learner
    descents = [stage for stage in learner.stages if isinstance(stage, Descend)]
    descents[1].steps = 7

    def fail() -> None:
        with inner_steps(learner, 0):
            assert [stage.steps for stage in descents] == [0, 0]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [stage.steps for stage in descents] == [2, 7]


def test_modes_come_back_even_after_an_error() -> None:
    method, tasks = trained(), vectors(4)
    method.learner.train()
    method.learner.network.eval()  # a part that the user froze

    def fail() -> None:
        with evaluating(method.learner):
            assert not method.learner.training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    evaluate(method, Source(tasks), 4)
    assert method.learner.training
    assert method.learner.start.training
    assert not method.learner.network.training


def test_regression_after_steps() -> None:
    method, tasks = sines(), regression_tasks(6)
    result = evaluate(method, Source(tasks, ways=None), 6, steps=(1, 5))
    assert list(result.scores) == ["adapted", "unadapted", "after 1 step", "after 5 steps"]
    assert (result.score_name, result.higher_is_better) == ("mse", False)
    np.testing.assert_array_equal(result.scores["after 1 step"], result.scores["adapted"])
    with inner_steps(method.learner, 5):
        prediction = method.predict(method.adapt(tasks.support), tasks.query)
    expected = (prediction - tasks.query.y).square().mean((1, 2))
    np.testing.assert_allclose(result.scores["after 5 steps"], expected, rtol=1e-12)
    assert result.difference("after 5 steps").mean > 0  # more steps, less error


def test_baselines_of_regressions_are_those_of_a_mapping() -> None:
    """And none are meant by True: the usual ones classify."""

    def mean(support: Batch, query: Batch) -> torch.Tensor:
        return support.y.mean(1, keepdim=True).expand_as(query.y)

    tasks = regression_tasks(6)
    tasks.query.weight[2, 3:] = 0
    result = evaluate(sines(), Source(tasks, ways=None), 6, unadapted=False, baselines={"support mean": mean})
    error = (tasks.query.y - tasks.support.y.mean(1, keepdim=True)).square()[..., 0]
    expected = (error * tasks.query.weight).sum(1) / tasks.query.weight.sum(1)
    np.testing.assert_allclose(result.scores["support mean"], expected, rtol=1e-12)
    assert list(result.scores) == ["adapted", "support mean"]
    assert list(evaluate(sines(), Source(tasks, ways=None), 6, unadapted=False).scores) == ["adapted"]
    with pytest.raises(ValueError, match="'adapted' is the name of a score"):
        evaluate(sines(), Source(tasks, ways=None), 6, baselines={"adapted": mean})


def test_steps_need_one_descend() -> None:
    with pytest.raises(ValueError, match="exactly one Descend, this one has 2"):
        evaluate(trained(), Source(vectors()), 4, steps=(1,))


def test_transductive_when_query_statistics_are_used() -> None:
    method, tasks = maml(conv(), rate=0.2), images()
    method.learner.double()
    tasks.support.weight.fill_(1)  # the padded row was its class's only one, and nearest mean needs one
    source = Source(tasks)
    query = evaluate(method, source, 3)
    support = evaluate(method, source, 3, statistics="support")
    assert query.transductive
    assert not support.transductive
    assert not np.array_equal(query.scores["adapted"], support.scores["adapted"])
    assert not evaluate(trained(), Source(vectors()), 4).transductive


def test_predictions_that_are_not_numbers_are_wrong() -> None:
    method = trained()
    torch.nn.init.constant_(method.learner.start.encoder.weight, math.nan)
    assert (evaluate(method, Source(vectors()), 4).scores["adapted"] == 0).all()


def test_csv_round_trip(tmp_path: Path) -> None:
    result = evaluate(trained(), Source(vectors()), 10)
    result.write_csv(tmp_path / "test.csv")
    with (tmp_path / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["task"]) for row in rows] == list(range(10))
    for name, values in result.scores.items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], values)


def test_json_and_table() -> None:
    result = evaluate(trained(), Source(vectors()), 10, protocol={"dataset": "clusters"})
    summary = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert summary["scores"]["adapted"]["mean"] == result.interval().mean
    expected = paired(result.scores["adapted"], result.scores["ridge"])
    assert summary["differences"]["ridge"] == {"mean": expected.mean, "half_width": expected.half_width}
    assert summary["protocol"]["dataset"] == "clusters"
    text = io.StringIO()
    Console(file=text, width=120).print(result.table())
    for part in (result.interval().text(percent=True), expected.text(percent=True, sign=True), "10 tasks", "inductive"):
        assert part in text.getvalue()


def test_a_diverging_task_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    tasks = regression_tasks(6)
    tasks.support.x[2] = math.nan
    result = evaluate(sines(), Source(tasks, ways=None), 6)
    with pytest.raises(ValueError, match="1 of 6 values are not finite, the first is nan at task 2"):
        result.interval()
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["scores"]["adapted"] is None
    text = io.StringIO()
    Console(file=text, width=120).print(result.table())
    assert "not finite in 1 tasks" in text.getvalue()


@pytest.mark.parametrize("name", ["tasks", "batch"])
def test_numbers_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        evaluate(trained(), Source(vectors()), **{"tasks": 1, name: 0})


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="'svm' was not scored; there are 'adapted'"):
        evaluate(trained(), Source(vectors()), 4).difference("svm")
