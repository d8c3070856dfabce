from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # comes with scikit-learn

from fewstep.core.types import Task
from fewstep.data import AnyQueries, Dataset, Deferring, EpisodeSampler, FewerShots, Sinusoids, TaskList, TaskSource
from fewstep.data.source import deferred_tasks


def dataset(sizes: list[int]) -> Dataset:
    """Row i of class c is (c, i): a gathered row says where it came from."""
    values = [(c, i) for c, size in enumerate(sizes) for i in range(size)]
    return Dataset.from_sorted(torch.tensor(values, dtype=torch.float32), np.cumsum([0, *sizes]), name="toy")


def sampler(sizes: list[int] | None = None, **changes: object) -> EpisodeSampler:
    settings = {"ways": 3, "shots": 2, "queries": 4, "tasks": 5, "seed": 0} | changes
    return EpisodeSampler(dataset=dataset(sizes or [6, 7, 9, 6, 12]), **settings)  # type: ignore[arg-type]


def equal(a: Task, b: Task) -> bool:
    return all(torch.equal(x, y) for x, y in zip((*a.support, *a.query), (*b.support, *b.query), strict=True))


def part(task: Task, slice_: slice) -> Task:
    return Task(*(type(batch)(*(values[slice_] for values in batch)) for batch in task))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(3, 9), min_size=2, max_size=6),
    st.integers(1, 2),
    st.sampled_from([1, None]),
    st.integers(0, 99),
    st.data(),
)
def test_a_task_is_a_task(sizes: list[int], shots: int, queries: int | None, step: int, data: st.DataObject) -> None:
    """The laws of one episode, read off the gathered rows."""
    ways = data.draw(st.integers(1, len(sizes)))
    source = sampler(sizes, ways=ways, shots=shots, queries=queries, tasks=3)
    task = source.batch(step)
    most = max(sizes) - shots if queries is None else queries
    assert task.support.x.shape == (3, ways * shots, 2)
    assert task.query.x.shape == (3, ways * most, 2)
    for rows, batch in ((shots, task.support), (most, task.query)):
        expected = torch.eye(ways).repeat_interleave(rows, 0)
        assert torch.equal(batch.y, expected.expand(3, -1, -1))
        classes = batch.x[..., 0].reshape(3, ways, rows)
        assert (classes == classes[..., :1]).all(), "rows are class-major"
    for t in range(3):
        classes = task.support.x[t, ::shots, 0].long().tolist()
        assert len(set(classes)) == ways
        for n, c in enumerate(classes):
            support = task.support.x[t, n * shots : (n + 1) * shots, 1].tolist()
            real = task.query.weight[t, n * most : (n + 1) * most].bool()
            query = task.query.x[t, n * most : (n + 1) * most]
            assert (query[:, 0] == c).all(), "padding too"
            query = query[real, 1].tolist()
            assert len({*support, *query}) == shots + len(query), "no example twice"
            if queries is None:
                assert sorted(support + query) == list(range(sizes[c])), "exactly the complement"
            else:
                assert real.all()
    assert (task.support.weight == 1).all()


def test_every_ordered_choice_of_classes_is_equally_likely() -> None:
    classes = sampler([2] * 5, ways=2, shots=1, queries=1, tasks=20_000).indices(0).classes
    counts = np.bincount(classes @ [5, 1], minlength=25)
    valid = [5 * a + b for a, b in permutations(range(5), 2)]
    assert counts[valid].sum() == 20_000
    assert stats.chisquare(counts[valid]).pvalue > 1e-4


@pytest.mark.parametrize("queries", [1, None])
def test_every_choice_of_support_and_query_is_equally_likely(queries: int | None) -> None:
    """The 5 * 4 * 3 ordered triples of (support, support, query): which rows become support, and which meet."""
    indices = sampler([5], ways=1, shots=2, queries=queries, tasks=40_000).indices(0)
    support, query = indices.support[:, 0], indices.query[:, 0]
    if queries is None:  # the complement is in order; only the pairs of support are random
        counts = np.bincount(support @ [5, 1], minlength=25)
        valid = [5 * a + b for a, b in permutations(range(5), 2)]
    else:
        counts = np.bincount(support @ [25, 5] + query[:, 0], minlength=125)
        valid = [25 * a + 5 * b + c for a, b, c in permutations(range(5), 3)]
    assert counts[valid].sum() == 40_000
    assert stats.chisquare(counts[valid]).pvalue > 1e-4


def test_classes_and_tasks_and_steps_draw_independently() -> None:
    """The support of one class, task or step tells nothing of another's."""
    drawn = [sampler([6, 6], ways=2, shots=1, queries=1, tasks=9000).indices(step) for step in (0, 1)]
    first = drawn[0].support[..., 0] % 6
    for a, b in (
        (first[:, 0], first[:, 1]),
        (first[:-1, 0], first[1:, 0]),
        (first[:, 0], drawn[1].support[:, 0, 0] % 6),
        (drawn[0].classes[:, 0], drawn[1].classes[:, 0]),
        (drawn[0].classes[:, 0], first[:, 0]),
    ):
        table = np.zeros((6, 6))
        np.add.at(table, (a, b), 1)
        table = table[table.any(1)][:, table.any(0)]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_rows_of_unequal_classes_are_equally_likely_within_each() -> None:
    indices = sampler([3, 40], ways=2, shots=1, queries=2, tasks=20_000).indices(0)
    counts = np.bincount(indices.support.ravel(), minlength=43)
    assert stats.chisquare(counts[:3]).pvalue > 1e-4
    assert stats.chisquare(counts[3:]).pvalue > 1e-4


def test_a_batch_is_a_function_of_seed_stream_and_step() -> None:
    source = sampler()
    later = source.batch(1000)
    assert equal(source.batch(0), sampler().batch(0))
    assert equal(later, sampler().batch(1000)), "no batch before it is needed"
    for other in (source.batch(999), sampler(seed=1).batch(1000), sampler(stream="other").batch(1000)):
        assert not equal(later, other)


def test_batches_are_pinned() -> None:
    """A change here would give every seed other tasks than it has had."""
    indices = sampler(tasks=1).indices(3)
    assert indices.classes.tolist() == [[2, 0, 3]]
    assert indices.support.tolist() == [[[19, 18], [2, 0], [25, 23]]]


@pytest.mark.parametrize("queries", [4, None])
@pytest.mark.parametrize("slice_", [slice(0, 2), slice(2, 5), slice(1, None, 2), slice(4, 4), slice(None)])
def test_a_slice_is_the_slice_of_the_whole(queries: int | None, slice_: slice) -> None:
    source = sampler(queries=queries)
    assert equal(source.batch(7, slice_), part(source.batch(7), slice_))


def test_only_the_slice_is_gathered() -> None:
    gathered = []
    source = sampler()
    source = replace(source, dataset=source.dataset.transformed(lambda x: (gathered.append(len(x)), x)[1]))
    source.batch(0, slice(1, 3))
    assert gathered == [2 * 3 * 2, 2 * 3 * 4]


@pytest.mark.parametrize("queries", [4, None])
def test_deferred_queries_are_those_of_the_batch(queries: int | None) -> None:
    """From a sampler, from a list, and from a source that knows only ``batch``."""
    source = sampler(queries=queries)
    written = TaskList.draw(source, 2)
    plain = SimpleNamespace(ways=3, tasks=5, batch=source.batch)
    assert isinstance(source, Deferring)
    assert isinstance(written, Deferring)
    assert not isinstance(plain, Deferring)
    whole = source.batch(1)
    for later in (source.deferred(1), written.deferred(1), deferred_tasks(plain, 1)):
        assert later.rows == whole.query.weight.shape[1]
        for slice_ in (slice(1, 3), slice(0, 1), slice(0, 5), slice(3, 5)):  # smaller, larger and again smaller
            assert equal(Task(later.support, later.query(slice_)), Task(whole.support, part(whole, slice_).query))


@pytest.mark.parametrize("queries", [4, None])
def test_a_batch_is_the_callers_own(queries: int | None) -> None:
    """What is written into it reaches neither the data nor later batches."""
    source = sampler(queries=queries, tasks=1)
    for tasks in (source, TaskList.draw(source, 1)):
        before = tasks.batch(0)
        for tensor in (tensor for side in tasks.batch(0) for tensor in side):
            tensor.fill_(7)
        assert equal(tasks.batch(0), before)


def test_more_queries_leave_classes_and_support_alone() -> None:
    few, many, rest = (sampler(queries=q).indices(2) for q in (1, 4, None))
    for other in (many, rest):
        assert np.array_equal(few.classes, other.classes)
        assert np.array_equal(few.support, other.support)
    assert np.array_equal(few.query, many.query[..., :1])


def test_dtype_and_device() -> None:
    task = sampler().to(dtype=torch.float64, device="meta").batch(0)
    assert {t.dtype for batch in task for t in batch} == {torch.float64}
    assert {t.device.type for batch in task for t in batch} == {"meta"}
    assert equal(sampler().to().batch(0), sampler().batch(0))


def test_the_whole_of_a_class_can_be_used() -> None:
    indices = sampler([6, 6, 6], shots=2, queries=4).indices(0)
    for within in np.concatenate([indices.support, indices.query], -1).reshape(-1, 6) % 6:
        assert sorted(within) == [0, 1, 2, 3, 4, 5]


def test_the_sampler_is_a_task_source() -> None:
    source: TaskSource = sampler()
    assert isinstance(source, TaskSource)
    assert (source.ways, source.tasks) == (3, 5)


@pytest.mark.parametrize("name", ["ways", "shots", "queries", "tasks"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_must_be_positive(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        sampler(**{name: value})


def test_too_few_classes() -> None:
    with pytest.raises(ValueError, match="toy has 5 classes, too few for 6-way"):
        sampler(ways=6)


def test_too_few_examples() -> None:
    with pytest.raises(ValueError, match="toy: class '1' has 5 examples, but 6 are needed for 2 shots and 4 queries:"):
        sampler([6, 5, 9])
    with pytest.raises(ValueError, match=r"class '0' has 2 examples, but 3 .* at least 1 query \(and 1 other"):
        sampler([2, 5, 1], queries=None)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**64}])
def test_bad_seed(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        sampler(**changes)


def test_negative_step() -> None:
    with pytest.raises(ValueError, match="step must be an integer from 0"):
        sampler().batch(-1)


def test_tasks_of_fewer_shots_are_those_of_the_sampler_with_later_examples_as_padding() -> None:
    """Numbers of shots are uniform from the fewest to all, and the same for any part of a step."""
    whole = sampler(ways=2, shots=3, queries=1, tasks=9000)
    mixed = FewerShots(whole, 3, seed=1)
    assert isinstance(mixed, TaskSource)
    task, expected = mixed.batch(2), whole.batch(2)
    weight = task.support.weight.view(-1, 2, 3)
    assert equal(task._replace(support=task.support._replace(weight=expected.support.weight)), expected)
    assert torch.equal(weight, (torch.arange(3) < weight.sum(2, keepdim=True)).float()), "the first ones are kept"
    assert torch.equal(weight[:, 0], weight[:, 1]), "as many of each class"
    counts = np.bincount(weight[:, 0].sum(1).long().numpy(), minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    some = slice(10, 14)
    assert equal(mixed.batch(2, some), part(task, some))
    assert not equal(mixed.batch(3), task)
    assert FewerShots(whole, 3, 2, seed=1).batch(0).support.weight.view(-1, 2, 3).sum(2).unique().tolist() == [2, 3]
    with pytest.raises(ValueError, match="from 4 of 3 shots"):
        FewerShots(whole, 3, 4, seed=0)
    of_curves = FewerShots(Sinusoids(shots=3, queries=5, tasks=9000, seed=0), 3, 2, seed=1).batch(2).support.weight
    assert torch.equal(of_curves, (torch.arange(3) < of_curves.sum(1, keepdim=True)).float())
    assert of_curves.sum(1).unique().tolist() == [2, 3]


def test_queries_of_any_class_are_drawn_from_all_that_is_left() -> None:
    """How many are of the first class is hypergeometric, and which of them uniform."""
    whole = sampler([5, 9], ways=2, shots=1, queries=4, tasks=20_000)
    mixed = AnyQueries(whole)
    assert isinstance(mixed, TaskSource)
    task, expected = mixed.batch(1), whole.batch(1)
    assert equal(Task(task.support, task.support), Task(expected.support, expected.support))
    assert task.query.x.shape == (20_000, 4, 2)
    assert (task.query.weight == 1).all()
    classes = task.support.x[..., 0]
    assert torch.equal(task.query.x[..., 0], classes.gather(1, task.query.y.argmax(2))), "labels are of their rows"
    small = task.query.x[..., 0] == 0  # of the class that has four left, beside eight
    counts = np.bincount(small.sum(1).numpy(), minlength=5)
    chances = stats.hypergeom(12, 4, 4).pmf(np.arange(5))
    assert stats.chisquare(counts, 20_000 * chances).pvalue > 1e-3
    x = torch.cat([task.support.x, task.query.x], 1).long()
    whole_rows = (x[..., 0] * 100 + x[..., 1]).sort(1).values
    assert (whole_rows.diff(dim=1) > 0).all(), "no example twice"
    (first,) = np.nonzero((small.sum(1) == 1).numpy())
    kept = task.query.x[first][..., 1][small[first]].long()
    left = kept - (kept > task.support.x[first][:, :, 1][classes[first] == 0].long()).long()
    assert stats.chisquare(np.bincount(left.numpy(), minlength=4)).pvalue > 1e-3
    some = slice(10, 14)
    assert equal(mixed.batch(1, some), part(task, some))
    with pytest.raises(ValueError, match="TaskList has no number of queries"):
        AnyQueries(TaskList.draw(sampler(), 1))
