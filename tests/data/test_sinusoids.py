import numpy as np
import pytest
import torch

from fewstep.data import Sinusoids


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": (1.0, -1.0)}, "x must be a finite range"),
        ({"amplitude": (0.0, float("inf"))}, "amplitude must be a finite range"),
    ],
)
def test_bad_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**changes)
