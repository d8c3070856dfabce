import numpy as np
import pytest
import torch

from fewstep.data.functions.sine_or_line import SineOrLine, SineOrLinePrior, SinesOrLines


def source(**changes: object) -> SineOrLine:
    defaults = {"shots": 5, "queries": 10, "tasks": 4, "seed": 0, "dtype": torch.float64}
    return SineOrLine(**(defaults | changes))  # type: ignore[arg-type]


def flat(task: object) -> list[torch.Tensor]:
    return [*task.support, *task.query]  # type: ignore[attr-defined]


def test_without_noise_rows_lie_on_their_functions() -> None:
    tasks = source(noise=0.0, tasks=40)
    line, amplitude, phase, slope, intercept = (torch.from_numpy(p)[:, None, None] for p in tasks.functions(3))
    assert 10 < line.sum() < 30
    for batch, rows in zip(tasks.batch(3), (5, 10), strict=True):
        assert batch.x.shape == batch.y.shape == (40, rows, 1)
        assert torch.equal(batch.weight, torch.ones(40, rows, dtype=torch.float64))
        expected = torch.where(line, slope * batch.x + intercept, amplitude * torch.sin(batch.x - phase))
        assert torch.allclose(batch.y, expected, rtol=0, atol=1e-14)


def test_the_distribution_is_the_papers() -> None:
    tasks = source(tasks=8000)
    line, *parameters = tasks.functions(0)
    assert abs(line.mean() - 0.5) < 0.02
    for values, kind, low, high in zip(
        parameters, (~line, ~line, line, line), (0.1, 0.0, -3.0, -3.0), (5.0, np.pi, 3.0, 3.0), strict=True
    ):
        assert np.isnan(values[~kind]).all()
        values = values[kind]
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    x = tasks.batch(0).support.x.numpy()
    assert -5 <= x.min() < -4.99
    assert 4.99 < x.max() <= 5
    assert abs(x.mean()) < 0.05


def test_noise_is_normal_and_independent() -> None:
    tasks = source(tasks=4000, noise=0.3)
    functions = tasks.functions(0)
    parts = [batch.y.numpy()[..., 0] - functions(batch.x.numpy()[..., 0]) for batch in tasks.batch(0)]
    noise = np.concatenate(parts, 1) / 0.3
    size = noise.size**0.5
    assert abs(noise.mean()) < 4 / size
    assert abs((noise**2).mean() - 1) < 4 * 2**0.5 / size
    assert abs((noise**3).mean()) < 4 * 15**0.5 / size
    assert abs((noise**4).mean() - 3) < 4 * 96**0.5 / size
    for level in (0.6745, 1.6449):
        assert abs((abs(noise) < level).mean() - (0.5 if level < 1 else 0.9)) < 4 * 0.5 / size
    correlations = np.corrcoef(noise.T)[np.triu_indices(15, 1)]
    assert abs(correlations).max() < 5 / 4000**0.5


def test_query_targets_without_noise() -> None:
    noisy, clean = source().batch(1), source(noisy_queries=False).batch(1)
    assert torch.equal(noisy.support.y, clean.support.y)
    assert torch.equal(noisy.query.x, clean.query.x)
    expected = source().functions(1)(clean.query.x[..., 0].numpy())
    assert np.array_equal(clean.query.y[..., 0].numpy(), expected)
    assert (noisy.query.y != clean.query.y).all()


def test_the_prior_decides() -> None:
    assert source(tasks=50, prior=SineOrLinePrior(lines=1.0)).functions(0).line.all()
    assert not source(tasks=50, prior=SineOrLinePrior(lines=0.0)).functions(0).line.any()
    fixed = source(tasks=50, prior=SineOrLinePrior(slope=(2.0, 2.0), lines=1.0)).functions(0)
    assert (fixed.slope == 2).all()


def test_samples_of_functions_share_their_tasks_inputs() -> None:
    line = np.array([[True, False], [False, True]])
    functions = SinesOrLines.where(line, *(np.full((2, 2), value) for value in (2.0, 0.5, 3.0, 1.0)))
    x = np.array([[0.0, 1.0, 2.0], [-1.0, 0.0, 4.0]])
    values = functions(x)
    assert values.shape == (2, 2, 3)
    assert np.allclose(values[0, 0], 3 * x[0] + 1)
    assert np.allclose(values[0, 1], 2 * np.sin(x[0] - 0.5))
    assert np.allclose(values[1, 0], 2 * np.sin(x[1] - 0.5))


def test_the_numbers_of_a_seed_do_not_change() -> None:
    task = source(tasks=2, shots=1, queries=1).batch(7)
    found = [tensor.flatten().tolist() for tensor in (task.support.x, task.support.y, task.query.x, task.query.y)]
    assert np.allclose(found, PINNED, rtol=0, atol=1e-12)


PINNED = [
    [0.731682324775, -1.0702141358877],
    [-0.0638250410129, 3.733594909718],
    [-1.6132745718575, 2.434824935887],
    [-5.1136740979315, -5.8855445045433],
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"noise": -0.1}, "noise is a standard deviation"), ({"x": (1.0, -1.0)}, "x must be a finite range")],
)
def test_bad_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**changes)


def test_bad_priors() -> None:
    with pytest.raises(ValueError, match="amplitude must be a finite range"):
        SineOrLinePrior(amplitude=(0.0, float("inf")))
    with pytest.raises(ValueError, match=r"lines is a probability, from 0 to 1, got 1\.5"):
        SineOrLinePrior(lines=1.5)
