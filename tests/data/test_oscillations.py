import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.core import Task
from fewstep.data import Oscillations, OscillatorPrior, Oscillators


def source(**changes: object) -> Oscillations:
    defaults = {"shots": 5, "queries": 10, "tasks": 4, "seed": 0, "dtype": torch.float64}
    return Oscillations(**(defaults | changes))  # type: ignore[arg-type]


def observed(task: Task) -> np.ndarray:
    """All observations of support and query, ``[tasks, rows, times]``."""
    return torch.cat([torch.cat([batch.x, batch.y], -1) for batch in task], 1).numpy()


def same(one: Task, other: Task) -> bool:
    return all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def test_a_trajectory_obeys_its_differential_equation() -> None:
    oscillators = Oscillators(np.array([0.2, 0.0]), np.array([1.5, 0.7]))
    a, b = np.array([[1.0, -0.5], [2.0, 0.3]]), np.array([[0.4, 2.0], [0.0, -1.0]])
    h, times = 1e-4, np.linspace(0.0, 5.0, 11)
    before, s, after = (oscillators(a, b, times + shift) for shift in (-h, 0.0, h))
    damping, frequency = (parameter[:, None, None] for parameter in oscillators)
    velocity, acceleration = (after - before) / (2 * h), (after - 2 * s + before) / h**2
    # (d/dt + γ)² s = −ω² s, released from s(0) = a with s'(0) = ω b − γ a.
    assert np.allclose(acceleration + 2 * damping * velocity + (damping**2 + frequency**2) * s, 0, atol=1e-5)
    assert np.array_equal(s[..., 0], a)
    assert np.allclose(velocity[..., 0], frequency[..., 0] * b - damping[..., 0] * a, atol=1e-6)


def test_without_noise_all_rows_of_a_task_are_trajectories_of_its_oscillator() -> None:
    tasks = source(noise=0.0, seen=3, ahead=4, interval=0.7)
    found, task = observed(tasks.batch(3)), tasks.batch(3)
    assert np.allclose(tasks.times, [0, 0.7, 1.4, 2.1, 2.8, 3.5, 4.2])
    for batch, rows in zip(task, (5, 10), strict=True):
        assert (batch.x.shape, batch.y.shape) == ((4, rows, 3), (4, rows, 4))
        assert torch.equal(batch.weight, torch.ones(4, rows, dtype=torch.float64))
    basis = tasks.oscillators(3).basis(tasks.times)
    for own, trajectories in zip(basis.swapaxes(0, 1), found, strict=True):
        coefficients = np.linalg.lstsq(own.T, trajectories.T)[0]
        assert np.allclose(own.T @ coefficients, trajectories.T, rtol=0, atol=1e-12)


def test_oscillators_are_drawn_as_stated() -> None:
    tasks = source(tasks=4000, prior=OscillatorPrior(damping=(0.1, 0.3), frequency=(1.0, 2.0)))
    for values, low, high in zip(tasks.oscillators(0), (0.1, 1.0), (0.3, 2.0), strict=True):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert abs(np.corrcoef(*tasks.oscillators(0))[0, 1]) < 0.06


def test_states_and_noise_are_standard_normal_numbers_of_their_own() -> None:
    known = OscillatorPrior(damping=(0.0, 0.0), frequency=(1.0, 1.0))
    own = {"tasks": 1500, "shots": 2, "queries": 3, "seen": 2, "ahead": 2, "interval": np.pi / 2, "prior": known}
    exact, noisy = observed(source(noise=0.0, **own).batch(0)), observed(source(noise=0.1, **own).batch(0))
    states = exact[..., :2]  # s(0) = a and s(π/2) = b
    assert_standard_normal(np.concatenate([states, (noisy - exact) / 0.1], -1).reshape(1500, -1))


def assert_standard_normal(samples: np.ndarray) -> None:
    """Columns are independent and N(0, 1), by moments and correlations."""
    size = samples.size**0.5
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((samples**power).mean() - moment) < 4 * variance**0.5 / size, power
    correlations = np.corrcoef(samples.T)[np.triu_indices(samples.shape[1], 1)]
    assert abs(correlations).max() < 5 / len(samples) ** 0.5


def test_query_targets_without_noise() -> None:
    noisy, clean, exact = source().batch(1), source(noisy_queries=False).batch(1), source(noise=0.0).batch(1)
    assert same(Task(noisy.support, noisy.support), Task(clean.support, clean.support))
    assert torch.equal(noisy.query.x, clean.query.x)
    assert torch.equal(clean.query.y, exact.query.y)
    assert (noisy.query.y != clean.query.y).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**64 - 1),
    shots=st.integers(1, 4),
    queries=st.integers(2, 9),
    seen=st.integers(1, 4),
    ahead=st.integers(1, 9),
    first=st.integers(0, 7),
    stride=st.integers(1, 3),
)
def test_slices_and_queries_change_nothing(
    seed: int, step: int, shots: int, queries: int, seen: int, ahead: int, first: int, stride: int
) -> None:
    own = {"seed": seed, "shots": shots, "seen": seen, "ahead": ahead, "tasks": 7}
    whole, slice_ = source(queries=queries, **own).batch(step), slice(first, None, stride)
    sliced = Task(*(type(batch)(*(tensor[slice_] for tensor in batch)) for batch in whole))
    assert same(source(queries=queries, **own).batch(step, slice_), sliced)
    few = Task(whole.support, type(whole.query)(*(tensor[:, :1] for tensor in whole.query)))
    assert same(source(queries=1, **own).batch(step), few)
    oscillators = source(queries=queries, **own).oscillators(step, slice_)
    assert all(map(np.array_equal, oscillators, (p[slice_] for p in source(**own).oscillators(step))))


def test_noise_is_the_same_in_other_units() -> None:
    exact, one, three = (observed(source(noise=noise).batch(2)) for noise in (0.0, 0.1, 0.3))
    assert np.allclose(3 * (one - exact), three - exact, rtol=0, atol=1e-13)


def test_the_numbers_of_a_seed_do_not_change() -> None:
    task = source(tasks=2, shots=1, queries=1, seen=1, ahead=1).batch(7)
    found = [tensor.flatten().tolist() for tensor in (task.support.x, task.support.y, task.query.x, task.query.y)]
    assert np.allclose(found, PINNED, rtol=0, atol=1e-12)


PINNED = [
    [-2.3375058617815, 0.372378363128],
    [-0.7995567016848, -0.2469792665882],
    [0.1831153338482, -0.3066697057558],
    [-0.6816622828072, 0.3775929758608],
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seen": 0}, "seen must be at least 1, got 0"),
        ({"ahead": -1}, "ahead must be at least 1, got -1"),
        ({"noise": float("nan")}, "noise is a standard deviation"),
        ({"interval": 0.0}, r"interval is a time between observations, positive and finite, got 0\.0"),
    ],
)
def test_bad_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**changes)


def test_bad_priors() -> None:
    with pytest.raises(ValueError, match="frequency must be a finite range"):
        OscillatorPrior(frequency=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"damping must be a range that begins at 0 or above, got \(-0\.1, 0\.3\)"):
        OscillatorPrior(damping=(-0.1, 0.3))
