"""The exact posterior against closed forms, brute force, and the tasks it is the posterior of."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fewstep.data.functions.sine_or_line import SineOrLine, SineOrLinePrior
from fewstep.evaluation.exact import truncated_normal
from fewstep.evaluation.exact.sine_or_line import ExactPosterior, exact_posterior

Array = NDArray[np.float64]


def tasks(count: int, *, shots: int = 5, queries: int = 4, seed: int = 0) -> tuple[SineOrLine, list[Array]]:
    source = SineOrLine(shots=shots, queries=queries, tasks=count, seed=seed, dtype=torch.float64)
    support, query = source.batch(0)
    return source, [t[..., 0].numpy() for t in (support.x, support.y, query.x, query.y)]


@pytest.fixture(scope="module")
def drawn() -> tuple[SineOrLine, list[Array], ExactPosterior]:
    source, data = tasks(1500, seed=5, queries=1)
    return source, data, exact_posterior(*data[:2])


def normal_log_density(y: Array, mean: Array, covariance: Array) -> float:
    error = y - mean
    quadratic = error @ np.linalg.solve(covariance, error)
    return float(-0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + len(y) * np.log(2 * np.pi)))


def brute(kind: str, x: Array, y: Array, noise: float, prior: SineOrLinePrior, n: int = 1500) -> float:
    """``ln p(y | x, kind)`` by the midpoint rule on a dense grid over both parameters."""
    ranges = (prior.amplitude, prior.phase) if kind == "sine" else (prior.intercept, prior.slope)
    c, theta = (low + (high - low) * (np.arange(n) + 0.5) / n for low, high in ranges)
    total = np.zeros((n, n))
    for one_x, one_y in zip(x, y, strict=True):
        values = c[:, None] * np.sin(one_x - theta) if kind == "sine" else c[:, None] + theta * one_x
        total += -0.5 * ((one_y - values) / noise) ** 2 - np.log(noise) - 0.5 * np.log(2 * np.pi)
    return float(total.max() + np.log(np.exp(total - total.max()).mean()))


def test_wide_ranges_give_bayesian_linear_regression() -> None:
    """Where the box holds the whole likelihood, a flat prior is the limit of a normal one, whose answer is closed."""
    _, (x, y, xq, yq) = tasks(6)
    side, noise = 400.0, 0.3
    prior = SineOrLinePrior(slope=(-side, side), intercept=(-side, side), lines=1.0)
    found = exact_posterior(x, y, prior=prior, noise=noise, panels=32)
    density, mean, joint = found.log_density(xq, yq), found.mean(xq), found.joint_log_density(xq, yq)
    assert (found.line == 1).all()
    for i in range(6):
        basis, query = (np.stack((v, np.ones_like(v)), 1) for v in (x[i], xq[i]))
        gram = basis.T @ basis
        best = np.linalg.solve(gram, basis.T @ y[i])
        rss = ((y[i] - basis @ best) ** 2).sum()
        evidence = (
            -0.5 * rss / noise**2
            - 5 / 2 * np.log(2 * np.pi * noise**2)
            + np.log(2 * np.pi * noise**2)
            - 0.5 * np.linalg.slogdet(gram)[1]
            - 2 * np.log(2 * side)
        )
        assert found.log_evidence[i] == pytest.approx(evidence, abs=1e-5)
        covariance = noise**2 * (np.eye(4) + query @ np.linalg.solve(gram, query.T))
        assert mean[i] == pytest.approx(query @ best, abs=1e-6)
        assert joint[i] == pytest.approx(normal_log_density(yq[i], query @ best, covariance), abs=2e-5)
        for j in range(4):
            expected = normal_log_density(yq[i, j : j + 1], (query @ best)[j : j + 1], covariance[j : j + 1, j : j + 1])
            assert density[i, j] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_evidence_agrees_with_a_dense_grid(shots: int) -> None:
    _, (x, y, _, _) = tasks(3, shots=shots)
    prior = SineOrLinePrior(lines=0.3)
    found = exact_posterior(x, y, prior=prior, noise=0.5)
    for i in range(3):
        sine, line = (brute(kind, x[i], y[i], 0.5, prior) for kind in ("sine", "line"))
        assert found.sine_log_evidence[i] == pytest.approx(sine, abs=2e-4, rel=1e-4)
        assert found.line_log_evidence[i] == pytest.approx(line, abs=2e-4, rel=1e-4)
        assert found.line[i] == pytest.approx(1 / (1 + 0.7 / 0.3 * math.exp(sine - line)), abs=1e-4)


def test_density_is_a_ratio_of_evidences() -> None:
    _, (x, y, xq, yq) = tasks(20)
    found = exact_posterior(x, y)
    density = found.log_density(xq, yq)
    for j in range(4):
        more = exact_posterior(np.c_[x, xq[:, j]], np.c_[y, yq[:, j]])
        assert np.allclose(density[:, j], more.log_evidence - found.log_evidence, rtol=0, atol=1e-4)
    assert np.allclose(found.joint_log_density(xq[:, :1], yq[:, :1]), density[:, 0], rtol=0, atol=1e-4)


def test_densities_integrate_to_one_and_to_their_mean_and_cdf() -> None:
    _, (x, y, xq, _) = tasks(6, shots=3)
    found = exact_posterior(x, y)
    grid, step = np.linspace(-22, 22, 551, retstep=True)
    mean = found.mean(xq)
    nearest = np.abs(grid - mean[..., None]).argmin(2)
    cdf = found.at(xq).cdf(grid[nearest])
    for j in range(2):
        inputs, targets = np.repeat(xq[:, j : j + 1], len(grid), 1), np.tile(grid, (6, 1))
        density = np.exp(found.log_density(inputs, targets))
        assert density.sum(1) * step == pytest.approx(1, abs=1e-7)
        assert (density * grid).sum(1) * step == pytest.approx(mean[:, j], abs=1e-5)
        # the trapezium rule up to a point, and its first correction
        cumulative = (
            np.cumsum(density, 1) * step - density * step / 2 - np.gradient(density, step, axis=1) * step**2 / 12
        )
        assert cdf[:, j] == pytest.approx(cumulative[np.arange(6), nearest[:, j]], abs=1e-4)


def test_the_error_estimate_holds() -> None:
    _, (x, y, xq, _) = tasks(200)
    found, finer = exact_posterior(x, y), exact_posterior(x, y, panels=64)
    assert (np.abs(found.line - finer.line) <= found.line_error + 1e-10).all()
    assert (np.abs(found.log_evidence - finer.log_evidence) <= found.log_evidence_error + 1e-10).mean() > 0.98
    assert np.abs(found.line - finer.line).max() < 1e-6
    assert np.abs(found.log_evidence - finer.log_evidence).max() < 1e-5
    assert np.abs(found.mean(xq) - finer.mean(xq)).max() < 1e-4
    half = found.coarser()
    assert half.panels == 8
    assert np.array_equal(np.abs(half.line - found.line), found.line_error)


def test_no_rows_give_the_prior() -> None:
    x = np.linspace(-5, 5, 4)[None]
    found = exact_posterior(np.zeros((1, 0)), np.zeros((1, 0)))
    assert found.line == pytest.approx(0.5)
    assert found.log_evidence == pytest.approx(0, abs=1e-12)
    # E[A] E[sin(x - φ)], and the lines' mean is zero
    assert found.mean(x) == pytest.approx(0.5 * 2.55 * -2 * np.cos(x) / np.pi, abs=1e-10)
    values = found.sample(20_000, 0)(x)[0]
    assert values.std(0) == pytest.approx(np.sqrt(0.5 * (3 * x[0] ** 2 + 3) + 0.5 * 8.5 * 0.5), rel=0.1)


def test_kinds_are_as_probable_as_stated(drawn: tuple[SineOrLine, list[Array], ExactPosterior]) -> None:
    source, _, found = drawn
    truth = source.functions(0).line
    assert np.allclose(found.line + found.sine, 1, rtol=0, atol=1e-14)
    deviation = np.sqrt((found.line * found.sine).sum())
    assert abs((truth - found.line).sum()) < 3 * deviation
    doubtful = (found.line > 0.02) & (found.line < 0.98)
    assert doubtful.sum() > 50
    for low, high in ((0.02, 0.3), (0.3, 0.7), (0.7, 0.98)):
        some = (found.line > low) & (found.line < high)
        spread = np.sqrt((found.line * found.sine)[some].sum())
        assert abs((truth - found.line)[some].sum()) < 3 * spread


def test_targets_are_uniform_under_their_distribution(drawn: tuple[SineOrLine, list[Array], ExactPosterior]) -> None:
    _, (_, _, xq, yq), found = drawn
    transform = np.sort(found.at(xq).cdf(yq)[:, 0])
    count = len(transform)
    assert np.abs(transform - (np.arange(count) + 0.5) / count).max() < 1.63 / count**0.5  # Kolmogorov, 1%
    for probability in (0.5, 0.9):
        inside = np.abs(transform - 0.5) < probability / 2
        assert abs(inside.mean() - probability) < 3 * np.sqrt(probability * (1 - probability) / count)


def test_quantiles_invert_the_cdf() -> None:
    _, (x, y, xq, yq) = tasks(20)
    found = exact_posterior(x, y)
    low, high = found.at(xq).interval(0.9)
    for level, ends in ((0.05, low), (0.95, high), (0.5, found.at(xq).quantile(0.5))):
        assert np.allclose(found.at(xq).cdf(ends), level, rtol=0, atol=1e-5)
    assert (low < high).all()
    assert np.array_equal(found.at(xq).mean(), found.mean(xq))
    assert np.array_equal(found.at(xq).log_density(yq), found.log_density(xq, yq))


def test_samples_have_the_posteriors_moments() -> None:
    _, (x, y, xq, _) = tasks(12, shots=3)
    found = exact_posterior(x, y)
    functions = found.sample(2000, 3)
    values = functions(xq)
    error = values.std(1) / 2000**0.5
    assert (np.abs(values.mean(1) - found.mean(xq)) < 4.5 * error + 1e-3).all()
    assert (np.abs(functions.line.mean(1) - found.line) < 4 * np.sqrt(found.line * found.sine / 2000) + 1e-3).all()
    noisy = values + 0.3 * np.random.default_rng(0).standard_normal(values.shape)
    for level, ends in zip((0.1, 0.9), found.at(xq).interval(0.8), strict=True):
        assert np.abs((noisy < ends[:, None]).mean(1) - level).max() < 4.5 * 0.3 / 2000**0.5
    again = found.sample(10, 3)
    assert np.array_equal(again.line, functions.line[:, :10])
    assert np.array_equal(again(xq), values[:, :10])
    assert not np.array_equal(found.sample(10, 4)(xq), again(xq))


def test_the_order_of_rows_and_tasks_does_not_matter() -> None:
    _, (x, y, xq, yq) = tasks(10)
    found, turned = exact_posterior(x, y), exact_posterior(x[::-1, ::-1], y[::-1, ::-1])
    assert np.allclose(turned.line[::-1], found.line, rtol=0, atol=1e-9)
    assert np.allclose(turned.log_density(xq[::-1], yq[::-1])[::-1], found.log_density(xq, yq), rtol=0, atol=1e-7)


def test_little_noise_reveals_the_function() -> None:
    source, (x, _, xq, _) = tasks(100)
    functions = source.functions(0)
    found = exact_posterior(x, functions(x), noise=1e-3)
    assert (np.where(functions.line, found.line, found.sine) > 1 - 1e-9).all()
    assert np.abs(found.mean(xq) - functions(xq)).mean() < 5e-3
    assert (found.log_density(xq, functions(xq)) > 2).mean() > 0.95


@pytest.mark.parametrize("far", [1e2, 1e5])
def test_outlying_data_stay_finite(far: float) -> None:
    _, (x, y, xq, yq) = tasks(4)
    y[:, 0] = far
    found = exact_posterior(x, y)
    density = found.log_density(xq, yq - far)
    assert np.isfinite(found.log_evidence).all()
    assert np.isfinite(density).all()
    assert (density < -(far**2) / 2).all()
    assert np.isfinite(found.mean(xq)).all()
    assert np.isfinite(found.at(xq).quantile(0.9)).all()


@pytest.mark.parametrize(("a", "w"), [(-1.0, 2.5), (3.0, 0.4), (-9.0, 5.0), (0.5, 1e-6), (30.0, 2.0), (-2.0, 1e-4)])
def test_truncated_normals(a: float, w: float) -> None:
    t = a + w * (np.arange(200_000) + 0.5) / 200_000
    shift = 0.5 * min(t**2)
    density = np.exp(shift - 0.5 * t**2)
    ends = np.array([a]), np.array([w])
    log_mean = np.log(density.mean()) - shift - 0.5 * np.log(2 * np.pi)
    assert truncated_normal.log_mean_density(*ends)[0] == pytest.approx(log_mean, abs=1e-8)
    assert truncated_normal.mean(*ends)[0] == pytest.approx((density * t).sum() / density.sum(), abs=1e-8 + 1e-6 * w)
    cumulative = np.cumsum(density) / density.sum()
    offset = truncated_normal.quantile(np.array([0.3]), *ends)[0]
    assert offset == pytest.approx(t[np.searchsorted(cumulative, 0.3)] - a, abs=2e-5 * w)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.0}, "noise is a standard deviation, positive"),
        ({"panels": 7}, "panels must be even"),
        ({"y": np.full((2, 3), np.nan)}, "must be finite"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_posterior(**({"x": np.zeros((2, 3)), "y": np.zeros((2, 3))} | arguments))  # type: ignore[arg-type]
