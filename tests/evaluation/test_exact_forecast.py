"""The exact forecast against closed forms, brute force, and the oscillators it is the forecast of."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fewstep.core import Batch
from fewstep.data.functions.oscillations import OscillatorPrior
from fewstep.evaluation.baselines import autoregression
from fewstep.evaluation.exact.oscillations import ExactForecast, bayes_forecast, exact_forecast

module = sys.modules[exact_forecast.__module__]  # its name is also the function's
Array = NDArray[np.float64]

SEEN, AHEAD, INTERVAL, NOISE = 5, 20, 0.5, 0.1
PRIOR = OscillatorPrior(damping=(0.0, 0.3), frequency=(0.5, 2.5))


def basis(damping: Array, frequency: Array) -> Array:
    """``[*, times, 2]``."""
    times = INTERVAL * np.arange(SEEN + AHEAD)
    phase = frequency[..., None] * times
    return np.exp(-damping[..., None] * times)[..., None] * np.stack([np.cos(phase), np.sin(phase)], -1)


def drawn(tasks: int, rows: int, seed: int, noise: float = NOISE) -> tuple[Array, Array, Array]:
    """The bases of some tasks ``[tasks, times, 2]``, and their trajectories with and without noise."""
    generator = np.random.default_rng(seed)
    curves = basis(generator.uniform(*PRIOR.damping, tasks), generator.uniform(*PRIOR.frequency, tasks))
    truth = generator.standard_normal((tasks, rows, 2)) @ curves.swapaxes(1, 2)
    return curves, truth + noise * generator.standard_normal(truth.shape), truth


def known(z: Array, shots: int, *, prior: OscillatorPrior = PRIOR, noise: float = NOISE) -> ExactForecast:
    """The forecast of all rows but the first ``shots``, which are the support."""
    support, query = z[:, :shots], z[:, shots:]
    return exact_forecast(
        support[..., :SEEN], support[..., SEEN:], query[..., :SEEN], prior=prior, noise=noise, interval=INTERVAL
    )


def log_terms(covariance: Array, z: Array) -> Array:
    """``zᵀ C⁻¹ z + ln |C|``, ``[nodes, rows]``."""
    solved = np.linalg.solve(covariance, np.broadcast_to(z.T, (*covariance.shape[:1], *z.T.shape)))
    return (z.T * solved).sum(1) + np.linalg.slogdet(covariance)[1][:, None]


def oracle(curves: Array, x: Array) -> tuple[Array, Array]:
    """Mean and variance of what follows ``x`` when the task's oscillator is known, by the dense covariance."""
    covariance = curves @ curves.T + NOISE**2 * np.eye(len(curves))
    gain = np.linalg.solve(covariance[:SEEN, :SEEN], covariance[:SEEN, SEEN:])
    return x @ gain, np.diag(covariance[SEEN:, SEEN:] - covariance[SEEN:, :SEEN] @ gain)


def batch(z: Array) -> Batch:
    values = torch.from_numpy(z)
    return Batch(values[..., :SEEN], values[..., SEEN:], torch.ones(z.shape[:2], dtype=values.dtype))


@pytest.fixture(scope="module")
def many() -> tuple[Array, Array, Array, ExactForecast]:
    curves, z, truth = drawn(100, 11, seed=7)
    return curves, z, truth, known(z, 5)


@pytest.mark.parametrize("shots", [0, 3])
def test_a_prior_of_no_width_gives_gaussian_conditioning(shots: int) -> None:
    _, z, _ = drawn(3, 8, seed=1)
    prior = OscillatorPrior(damping=(0.2, 0.2), frequency=(1.3, 1.3))
    found = known(z, shots, prior=prior)
    curves = basis(np.array(0.2), np.array(1.3))
    for i in range(3):
        mean, variance = oracle(curves, z[i, shots:, :SEEN])
        np.testing.assert_allclose(found.mean[i], mean, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.deviation[i] ** 2, np.broadcast_to(variance, mean.shape), rtol=1e-10)
    assert found.error.max() < 1e-12


@pytest.mark.parametrize(("shots", "noise", "window"), [(0, 0.1, 2.0), (1, 0.5, 2.0), (5, 0.1, 0.1), (30, 0.1, 0.05)])
def test_a_dense_grid_agrees(shots: int, noise: float, window: float) -> None:
    """The midpoint rule, with the whole covariance of a row at every node; around the truth where a grid may not hold
    the whole prior."""
    curves, z, _ = drawn(1, shots + 4, seed=shots, noise=noise)
    found = known(z, shots, noise=noise)
    damping, frequency = np.random.default_rng(shots).uniform(*np.transpose([PRIOR.damping, PRIOR.frequency]))
    assert np.array_equal(curves[0], basis(damping, frequency))
    gammas, omegas = (
        low + (high - low) * (np.arange(n) + 0.5) / n
        for value, bounds, n in ((damping, PRIOR.damping, 140), (frequency, PRIOR.frequency, 180))
        for low, high in [np.clip([value - window, value + window], *bounds)]
    )
    evidence, means, squares = [], [], []
    for gamma in gammas:
        nodes = basis(np.full_like(omegas, gamma), omegas)
        covariance = nodes @ nodes.swapaxes(1, 2) + noise**2 * np.eye(SEEN + AHEAD)
        seen, cross, x = covariance[:, :SEEN, :SEEN], covariance[:, SEEN:, :SEEN], z[0, shots:, :SEEN]
        gain = np.linalg.solve(seen, cross.swapaxes(1, 2))
        mean = x @ gain
        variance = np.diagonal(covariance[:, SEEN:, SEEN:] - cross @ gain, axis1=1, axis2=2)
        evidence.append(-0.5 * log_terms(seen, x) - 0.5 * log_terms(covariance, z[0, :shots]).sum(1, keepdims=True))
        means.append(mean)
        squares.append(mean**2 + variance[:, None])
    log_weights = np.concatenate(evidence)
    weights = np.exp(log_weights - log_weights.max(0))[..., None]
    weights /= weights.sum(0)
    mean = (weights * np.concatenate(means)).sum(0)
    deviation = np.sqrt((weights * np.concatenate(squares)).sum(0) - mean**2)
    np.testing.assert_allclose(found.mean[0], mean, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.deviation[0], deviation, rtol=0, atol=1e-4)


def test_the_forecast_is_calibrated(many: tuple[Array, Array, Array, ExactForecast]) -> None:
    _, z, _, found = many
    residual = z[:, 5:, SEEN:] - found.mean
    excess = (residual**2 - found.deviation**2).mean((1, 2))
    assert abs(excess.mean()) < 3 * excess.std() / np.sqrt(len(excess))
    standardised = ((residual / found.deviation) ** 2).mean((1, 2))
    assert abs(standardised.mean() - 1) < 3 * standardised.std() / np.sqrt(len(standardised)) < 0.1


def test_nothing_is_better_but_the_truth(many: tuple[Array, Array, Array, ExactForecast]) -> None:
    curves, z, truth, found = many
    x, future = z[:, 5:, :SEEN], truth[:, 5:, SEEN:]

    def error(forecast: Array) -> float:
        return float(((forecast - future) ** 2).mean())

    best = error(found.mean)
    assert error(np.stack([oracle(*pair)[0] for pair in zip(curves, x, strict=True)])) < best
    plain = autoregression(batch(z[:, :5]), batch(z[:, 5:])).numpy()
    fewer = known(np.delete(z, [3, 4], 1), 3).mean  # the same, knowing less
    for rival in (plain, fewer, 0.97 * found.mean, 1.03 * found.mean, np.zeros_like(future)):
        assert best < error(rival)
    assert best < 0.1 * error(plain)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_the_error_estimate_holds(shots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for supports that say little, with lobes, and for rows that contradict them."""
    _, z, _ = drawn(6, shots + 3, seed=10 + shots)
    z[4:, :shots] *= 0.05
    z[:2, -1, :SEEN] += np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    found = known(z, shots)
    assert found.error.max() < 1e-6
    monkeypatch.setattr(module, "_FINE", 12)
    monkeypatch.setattr(module, "_COARSE", 9)
    monkeypatch.setattr(module, "_EFFORTS", (module._Effort(1e-8, 0.6, 0.4),))
    monkeypatch.setattr(module, "_MARGIN", 90.0)
    finer = known(z, shots)
    change = np.maximum(np.abs(found.mean - finer.mean), np.abs(found.deviation - finer.deviation)).max(2)
    assert (change <= found.error + 1e-11).all()
    assert finer.error.max() < 1e-7


def test_an_absurd_row_is_told_and_harms_no_other() -> None:
    _, z, _ = drawn(2, 9, seed=3)
    expected = known(z, 5)
    z[0, -1, :SEEN] = [1e3, -1e3, 1e3, -1e3, 1e3]
    found = known(z, 5)
    assert found.error[0, -1] > 1
    assert np.isfinite(found.mean).all()
    found.error[0, -1] = expected.error[0, -1] = 0
    assert max(found.error.max(), expected.error.max()) < 1e-6
    np.testing.assert_allclose(found.mean[0, :-1], expected.mean[0, :-1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.mean[1], expected.mean[1])


def test_padding_counts_for_nothing() -> None:
    _, z, _ = drawn(3, 8, seed=4)
    support, query = batch(z[:, :5].copy()), batch(z[:, 5:].copy())
    support.weight[1, 3:] = 0
    query.weight[1, 2] = 0
    forecasts = {
        "exact": partial(bayes_forecast, prior=PRIOR, noise=NOISE, interval=INTERVAL),
        "autoregression": autoregression,
    }
    for forecast in forecasts.values():
        clean = forecast(support, query)
        alone = forecast(*(Batch(*(t[1:2, :rows] for t in side)) for side, rows in ((support, 3), (query, 2))))
        torch.testing.assert_close(clean[1:2, :2], alone, rtol=0, atol=1e-6)
        for padded in (support.x[1, 3:], support.y[1, 3:], query.x[1, 2]):
            padded.fill_(torch.nan)
        dirty = forecast(support, query)
        real = query.weight > 0
        torch.testing.assert_close(dirty[real], clean[real], rtol=0, atol=0)
        support, query = (
            Batch(*(t.nan_to_num(1e6) if i < 2 else t for i, t in enumerate(side))) for side in (support, query)
        )
    np.testing.assert_array_equal(forecasts["exact"](batch(z[:, :5]), batch(z[:, 5:])).numpy(), known(z, 5).mean)


def test_autoregression_continues_what_has_no_noise() -> None:
    _, _, truth = drawn(4, 6, seed=5)
    support, query = batch(truth[:, :2]), batch(truth[:, 2:])
    torch.testing.assert_close(autoregression(support, query), query.y, rtol=0, atol=1e-8)
    single = Batch(*(t.float() for t in query))
    assert autoregression(support, single).dtype == torch.float32
    with pytest.raises(ValueError, match="starts from two observations, and x has 1"):
        autoregression(support._replace(x=support.x[..., :1]), query)


@pytest.mark.parametrize("name", ["noise", "interval", "tolerance"])
def test_scales_must_be_positive(name: str) -> None:
    scales = {"noise": NOISE, "interval": INTERVAL, "tolerance": 1e-6} | {name: 0.0}
    x, y = np.zeros((1, 2, SEEN)), np.zeros((1, 2, AHEAD))
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
        exact_forecast(x, y, x, prior=PRIOR, **scales)


def test_unfit_arrays_are_refused() -> None:
    x, y = np.zeros((1, 2, SEEN)), np.zeros((1, 2, AHEAD))
    forecast = partial(exact_forecast, prior=PRIOR, noise=NOISE, interval=INTERVAL)
    with pytest.raises(ValueError, match="must be finite"):
        forecast(x, y, np.full_like(x, np.nan))
    with pytest.raises(ValueError, match=r"x_support, y_support and x must be .* got \(1, 2, 5\), \(1, 1, 20\)"):
        forecast.func.__wrapped__(x, y[:, :1], x, **forecast.keywords)
