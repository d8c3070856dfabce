"""What all sources of drawn functions have in common."""

from collections.abc import Iterator

import pytest
import torch

from fewstep.core import Task
from fewstep.data import Oscillations, SineOrLine, Sinusoids, TaskSource
from fewstep.data.functions.base import FunctionTasks

pytestmark = pytest.mark.parametrize("kind", [Sinusoids, SineOrLine, Oscillations])


def source(kind: type[FunctionTasks], **changes: object) -> FunctionTasks:
    return kind(**({"shots": 5, "queries": 10, "tasks": 4, "seed": 0} | changes))  # type: ignore[arg-type]


def flat(task: Task) -> Iterator[torch.Tensor]:
    return (tensor for batch in task for tensor in batch)


def test_it_is_a_regression_source(kind: type[FunctionTasks]) -> None:
    assert isinstance(source(kind), TaskSource)
    assert source(kind).ways is None
    assert source(kind).to(dtype=torch.float64).batch(0).query.y.dtype == torch.float64
    assert source(kind).batch(0).query.y.dtype == torch.float32


def test_a_batch_is_a_function_of_seed_stream_and_step(kind: type[FunctionTasks]) -> None:
    later = source(kind).batch(500)
    assert all(map(torch.equal, flat(later), flat(source(kind).batch(500))))
    others = (source(kind).batch(501), source(kind, seed=1).batch(500), source(kind, stream="other").batch(500))
    for other in others:
        assert not torch.equal(later.support.x, other.support.x)
        assert not torch.equal(later.support.y, other.support.y)


@pytest.mark.parametrize("slice_", [slice(0, 2), slice(1, None, 2), slice(4, 4)])
def test_a_slice_is_the_slice_of_the_whole(slice_: slice, kind: type[FunctionTasks]) -> None:
    sliced, whole = source(kind).batch(2, slice_), source(kind).batch(2)
    assert all(torch.equal(a, b[slice_]) for a, b in zip(flat(sliced), flat(whole), strict=True))


def test_more_queries_leave_the_support_alone(kind: type[FunctionTasks]) -> None:
    few, many = source(kind, queries=1).batch(0), source(kind, queries=50).batch(0)
    assert all(map(torch.equal, few.support, many.support))
    assert torch.equal(few.query.y, many.query.y[:, :1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"tasks": -1}, "tasks must be at least 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
    ],
)
def test_counts_and_seeds_are_checked(changes: dict[str, object], message: str, kind: type[FunctionTasks]) -> None:
    with pytest.raises(ValueError, match=message):
        source(kind, **changes)
