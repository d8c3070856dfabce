"""Measures of sampled predictive distributions against closed forms and the exact posterior."""

import numpy as np
import pytest
import torch
from scipy import stats

from fewstep.data.functions.sine_or_line import SineOrLine
from fewstep.evaluation import interval, paired
from fewstep.evaluation.exact.sine_or_line import exact_posterior, mode_mass
from fewstep.evaluation.predictive import (
    Distribution,
    Measures,
    Predictive,
    coverage,
    fit_noise,
    measure,
    negative_log_likelihood,
    sharpness,
    squared_error,
)

RANDOM = np.random.default_rng(0)


def test_one_sample_is_a_normal_distribution() -> None:
    mean, y = RANDOM.standard_normal((3, 1, 4)), RANDOM.standard_normal((3, 4))
    one = Predictive(mean, 0.5)
    expected = -0.5 * ((y - mean[:, 0]) / 0.5) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
    assert np.allclose(one.log_density(y), expected, rtol=0, atol=1e-12)
    assert np.array_equal(one.mean(), mean[:, 0])
    assert np.allclose(one.quantile(0.9), mean[:, 0] + 0.5 * 1.2815515655446004, rtol=0, atol=1e-7)
    low, high = one.interval(0.5)
    assert np.allclose(high - low, 2 * 0.5 * 0.6744897501960817, rtol=0, atol=1e-7)
    assert np.allclose(negative_log_likelihood(one, y), -expected.mean(1))
    assert np.allclose(squared_error(one, y), ((y - mean[:, 0]) ** 2).mean(1))
    assert np.allclose(sharpness(one, 0.5), 0.6744897501960817)
    inside = np.abs(y - mean[:, 0]) < 0.5 * 1.6448536269514722
    assert np.array_equal(coverage(one, y, 0.9), inside.mean(1))


def test_a_mixture_weighs_its_samples_equally() -> None:
    samples = np.array([[[-1.0, 0.0], [3.0, 0.0]]])
    two = Predictive(samples, 1.0)
    y = np.array([[0.5, 1.0]])
    normal = np.exp(-0.5 * (y[:, None] - samples) ** 2) / np.sqrt(2 * np.pi)
    assert np.allclose(two.log_density(y), np.log(normal.mean(1)), rtol=0, atol=1e-14)
    assert two.quantile(0.5)[0] == pytest.approx([1.0, 0.0], abs=1e-7)
    assert two.mean()[0] == pytest.approx([1.0, 0.0])
    assert np.isfinite(two.log_density(np.full((1, 2), 1e6))).all()


@pytest.mark.parametrize("samples", [7, 900])
@pytest.mark.parametrize("noise", [0.01, 0.3, 4.0])
def test_quantiles_invert_the_cdf(samples: int, noise: float) -> None:
    values = RANDOM.standard_normal((3, samples, 5)) + 6 * (RANDOM.random((3, samples, 1)) < 0.4)
    mixture = Predictive(values, noise)
    for level in (0.01, 0.05, 0.25, 0.7, 0.95):
        assert np.allclose(mixture.cdf(mixture.quantile(level)), level, rtol=0, atol=2e-5)


def test_each_function_may_have_a_deviation_of_its_own() -> None:
    """Where all are alike it is the mixture of one deviation; where they differ, by scipy's normal distributions."""
    values = RANDOM.standard_normal((3, 7, 5))
    alike = Predictive(values, np.full(values.shape, 0.4))
    for level in (0.05, 0.7):
        assert np.allclose(alike.quantile(level), Predictive(values, 0.4).quantile(level), rtol=0, atol=1e-6)
    own = np.exp(RANDOM.standard_normal(values.shape))
    mixture, y = Predictive(values, own), RANDOM.standard_normal((3, 5))
    each = stats.norm(values, own)
    assert np.allclose(mixture.log_density(y), np.log(each.pdf(y[:, None]).mean(1)), rtol=0, atol=1e-12)
    assert np.allclose(mixture.cdf(y), each.cdf(y[:, None]).mean(1), rtol=0, atol=1e-12)
    for level in (0.01, 0.25, 0.95):
        assert np.allclose(mixture.cdf(mixture.quantile(level)), level, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="noise is a standard deviation, positive and finite, got -1"):
        Predictive(values, np.full(values.shape, -1.0))


def test_quantiles_far_apart() -> None:
    far = Predictive(np.array([[[-1e4], [1e4], [1e4]]]), 0.1)
    assert far.quantile(1 / 6)[0, 0] == pytest.approx(-1e4, abs=1e-5)
    assert far.quantile(2 / 3)[0, 0] == pytest.approx(1e4, abs=1e-5)
    assert far.cdf(np.zeros((1, 1)))[0, 0] == pytest.approx(1 / 3)


def test_targets_of_the_mixture_are_covered() -> None:
    values = RANDOM.standard_normal((400, 20, 10)) * 2
    chosen = np.take_along_axis(values, RANDOM.integers(0, 20, (400, 1, 10)), 1)[:, 0]
    y = chosen + 0.3 * RANDOM.standard_normal((400, 10))
    found = measure(Predictive(values, 0.3), y)
    for fraction, probability in ((found.coverage_50, 0.5), (found.coverage_90, 0.9)):
        assert abs(fraction.mean() - probability) < 3 * np.sqrt(probability * (1 - probability) / 4000)
    assert found.coverage_50.shape == (400,)
    assert (found.width_50 < found.width_90).all()
    assert interval(found.negative_log_likelihood).tasks == 400
    assert paired(found.width_90, found.width_50).mean > 0


def test_the_noise_is_found_again() -> None:
    values = RANDOM.standard_normal((300, 8, 10))
    chosen = np.take_along_axis(values, RANDOM.integers(0, 8, (300, 1, 10)), 1)[:, 0]
    y = chosen + 0.2 * RANDOM.standard_normal((300, 10))
    noise = fit_noise(values, y)
    assert noise == pytest.approx(0.2, rel=0.1)
    best = Predictive(values, noise).log_density(y).mean()
    assert all(Predictive(values, noise * factor).log_density(y).mean() < best for factor in (0.97, 1.03))


def test_fitted_noise_of_one_function_is_the_root_mean_square() -> None:
    values, y = RANDOM.standard_normal((20, 1, 10)), 3 * RANDOM.standard_normal((20, 10))
    expected = np.sqrt(((y - values[:, 0]) ** 2).mean())
    assert fit_noise(values, y) == pytest.approx(expected, rel=1e-4)
    assert fit_noise(values, y, bounds=(0.01, 1.0)) == pytest.approx(1.0, rel=1e-5)
    assert 0 < fit_noise(values, values[:, 0]) < 1e-9


def test_the_posteriors_own_samples_agree_with_it() -> None:
    """One code path for both: sampled and exact distributions of the same tasks have the same measures."""
    source = SineOrLine(shots=5, queries=6, tasks=30, seed=2, dtype=torch.float64)
    x, y, xq, yq = (t[..., 0].numpy() for batch in source.batch(0) for t in (batch.x, batch.y))
    posterior = exact_posterior(x, y)
    exact = posterior.at(xq)
    sampled = Predictive(posterior.sample(800, 0)(xq), 0.3)
    assert isinstance(exact, Distribution)
    assert isinstance(sampled, Distribution)
    first, second = measure(exact, yq), measure(sampled, yq)
    assert isinstance(first, Measures)
    assert np.abs(first.negative_log_likelihood - second.negative_log_likelihood).mean() < 0.02
    assert np.abs(first.width_90 - second.width_90).mean() < 0.04
    assert np.abs(first.width_50 - second.width_50).mean() < 0.03
    assert abs(first.squared_error.mean() - second.squared_error.mean()) < 0.02


def test_mode_mass_of_known_functions() -> None:
    x = np.linspace(-5, 5, 60)
    lines = [slope * x + intercept for slope, intercept in ((1.0, 2.0), (-2.5, 0.0))]
    sines = [amplitude * np.sin(x - phase) for amplitude, phase in ((1.0, 0.3), (4.5, 3.0))]
    values = np.array([[*lines, *sines], [lines[0]] * 3 + [sines[0]], sines * 2])
    assert mode_mass(x, values).tolist() == [0.5, 0.75, 0.0]
    bent = values + 0.2 * np.cos(3 * x)
    assert mode_mass(x, bent).tolist() == [0.5, 0.75, 0.0]


def test_mode_mass_of_posterior_samples_is_the_posteriors() -> None:
    source = SineOrLine(shots=3, queries=1, tasks=40, seed=4, dtype=torch.float64)
    support = source.batch(0).support
    posterior = exact_posterior(support.x[..., 0].numpy(), support.y[..., 0].numpy())
    x = np.linspace(-5, 5, 50)
    mass = mode_mass(x, posterior.sample(60, 1)(np.tile(x, (40, 1))))
    assert np.minimum(posterior.line, posterior.sine).max() > 0.2
    assert np.abs(mass - posterior.line).max() < 4 * 0.5 / 60**0.5
    assert abs((mass - posterior.line).mean()) < 0.03


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="noise is a standard deviation"):
        Predictive(np.zeros((1, 1, 1)), 0.0)
    with pytest.raises(ValueError, match="at least one sample"):
        Predictive(np.zeros((1, 0, 1)), 1.0)
    with pytest.raises(ValueError, match="not finite"):
        fit_noise(np.full((1, 1, 1), np.nan), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="bounds must be two positive"):
        fit_noise(np.zeros((1, 1, 1)), np.ones((1, 1)), bounds=(1.0, 0.5))
    with pytest.raises(ValueError, match="level must lie between"):
        Predictive(np.zeros((1, 1, 1)), 1.0).quantile(1.0)
