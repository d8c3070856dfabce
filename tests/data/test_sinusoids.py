import numpy as np
import pytest
import torch

from fewstep.data import Sinusoids, TaskSource


def source(**changes: object) -> Sinusoids:
    return Sinusoids(**({"shots": 5, "queries": 10, "tasks": 4, "seed": 0} | changes))  # type: ignore[arg-type]


def flat(task: object) -> list[torch.Tensor]:
    return [*task.support, *task.query]  # type: ignore[attr-defined]


def test_rows_lie_on_their_curves() -> None:
    sines = source(frequency=(0.5, 2.0), dtype=torch.float64)
    amplitude, phase, frequency = (torch.from_numpy(p)[:, None, None] for p in sines.curves(3))
    for batch, rows in zip(sines.batch(3), (5, 10), strict=True):
        assert batch.x.shape == batch.y.shape == (4, rows, 1)
        assert torch.equal(batch.weight, torch.ones(4, rows, dtype=torch.float64))
        assert torch.allclose(batch.y, amplitude * torch.sin(frequency * batch.x - phase), rtol=0, atol=1e-14)


def test_the_ranges_are_the_papers() -> None:
    sines = source(tasks=4000)
    amplitude, phase, frequency = sines.curves(0)
    for values, low, high in (
        (amplitude, 0.1, 5.0),
        (phase, 0.0, np.pi),
        (sines.batch(0).support.x.numpy(), -5.0, 5.0),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert (frequency == 1).all()
    assert abs(np.corrcoef(amplitude, phase)[0, 1]) < 0.06


def test_a_batch_is_a_function_of_seed_stream_and_step() -> None:
    later = flat(source().batch(500))
    assert all(map(torch.equal, later, flat(source().batch(500))))
    for other in (source().batch(501), source(seed=1).batch(500), source(stream="other").batch(500)):
        assert not torch.equal(later[0], other.support.x)
        assert not torch.equal(later[1], other.support.y)


@pytest.mark.parametrize("slice_", [slice(0, 2), slice(1, None, 2), slice(4, 4)])
def test_a_slice_is_the_slice_of_the_whole(slice_: slice) -> None:
    sliced, whole = flat(source().batch(2, slice_)), flat(source().batch(2))
    assert all(torch.equal(a, b[slice_]) for a, b in zip(sliced, whole, strict=True))


def test_more_queries_leave_the_support_alone() -> None:
    few, many = source(queries=1).batch(0), source(queries=50).batch(0)
    assert torch.equal(few.support.y, many.support.y)
    assert torch.equal(few.query.y, many.query.y[:, :1])


def test_it_is_a_regression_source() -> None:
    assert isinstance(source(), TaskSource)
    assert source().ways is None
    assert source().to(dtype=torch.float64).batch(0).query.y.dtype == torch.float64
    assert source().batch(0).query.y.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"tasks": -1}, "tasks must be at least 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"x": (1.0, -1.0)}, "x must be a finite range"),
        ({"amplitude": (0.0, float("inf"))}, "amplitude must be a finite range"),
    ],
)
def test_bad_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**changes)
