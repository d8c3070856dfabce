import math

import numpy as np
import pytest
import torch

from fewstep.evaluation import Interval, interval, paired


def test_closed_form() -> None:
    # 0, 1, 2, 3: mean 3/2, s² = 5/3, s/√n = √(5/12)
    result = interval([0.0, 1.0, 2.0, 3.0])
    assert result.mean == 1.5
    assert result.half_width == pytest.approx(1.96 * math.sqrt(5 / 12), rel=1e-15)
    assert result.tasks == 4


def test_covers_the_true_mean_nineteen_times_in_twenty() -> None:
    source = np.random.default_rng(0)
    samples = source.binomial(75, 0.6, (2000, 100)) / 75
    covered = [abs(result.mean - 0.6) <= result.half_width for result in map(interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_paired_removes_what_tasks_share() -> None:
    source = np.random.default_rng(0)
    hardness = source.normal(size=500)
    a, b = hardness + 0.5 + 0.01 * source.normal(size=500), hardness
    result = paired(a, b)
    assert result.mean == pytest.approx(0.5, abs=0.002)
    assert result.half_width < 0.02 * interval(a).half_width
    assert paired(b, a).mean == -result.mean


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"percent": True}, "95.31 ± 0.12"),
        ({"percent": True, "decimals": 1, "sign": True}, "+95.3 ± 0.1"),
        ({}, "0.9531 ± 0.0012"),
    ],
)
def test_text(given: dict[str, int], expected: str) -> None:
    assert Interval(0.95312, 0.00118, 600).text(**given) == expected


def test_errors_of_an_inner_loop_that_diverges_stay_readable() -> None:
    assert str(Interval(1.6e6, 2.4e6, 600)) == "1.60e+06 ± 2.40e+06"


def test_takes_tensors() -> None:
    assert interval(torch.tensor([1.0, 3.0])).mean == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "at least 2 tasks, got 1"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([1.0, math.nan, math.inf], "2 of 3 values are not finite, the first is nan at task 1"),
    ],
)
def test_errors(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval(np.array(values))


def test_paired_needs_the_same_tasks() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired([1.0, 2.0, 3.0], [1.0, 2.0])
