"""The normal distribution restricted to an interval, accurate for any interval: tiny, huge, or far in a tail.

Everything is in standard units: the interval is ``[a, a + w]`` of a variable with mean 0 and deviation 1. The special
functions are PyTorch's, because SciPy takes long to import; arrays are NumPy's, float64.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.evaluation.arrays import to_numpy

Array = NDArray[np.float64]
_ROOT_2, _HALF_LOG_2PI = np.sqrt(2.0), 0.5 * np.log(2 * np.pi)


def log_mean_density(a: Float[np.ndarray, "*shape"], w: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """``ln (1/w) ∫_a^{a+w} φ(t) dt`` with φ the standard normal density; ``ln φ(a)`` at ``w = 0``.

    No difference of nearly equal numbers is left to rounding: where both ends have one sign, Mills' ratio (the scaled
    complementary error function) takes the exponential out; where they have two signs, two positive areas are added;
    below ``w = 1e-5`` the density is an exponential over the interval up to ``w²/8`` of its value.
    """
    # By symmetry the middle may be taken as positive, and then the end nearer to 0 is on the left.
    left = np.where(2 * a + w < 0, -(a + w), a)
    result = np.empty_like(left)
    narrow = w < 1e-5
    tail = ~narrow & (left >= 0)
    around = ~narrow & (left < 0)
    a, w, near, far = left[around], w[around], w[tail], w[narrow]
    result[around] = np.log(0.5 * (_erf((a + w) / _ROOT_2) - _erf(a / _ROOT_2)) / w)
    a, w = left[tail], near
    scaled = _erfcx(a / _ROOT_2) - _erfcx((a + w) / _ROOT_2) * np.exp(-w * (a + w / 2))
    result[tail] = np.log(0.5 * scaled / w) - 0.5 * a**2
    a, w = left[narrow], far
    slope = a * w  # the mean of exp(-a t) over 0 < t < w
    ratio = np.where(slope < 1e-8, 1 - slope / 2, -np.expm1(-slope) / np.where(slope == 0, 1, slope))
    result[narrow] = np.log(ratio) - _HALF_LOG_2PI - 0.5 * a**2
    return result


def mean(a: Float[np.ndarray, "*shape"], w: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Mean of the standard normal restricted to ``[a, a + w]``: ``(φ(a) - φ(a + w)) / (Φ(a + w) - Φ(a))``."""
    mirrored = 2 * a + w < 0
    left = np.where(mirrored, -(a + w), a)
    middle = left + w / 2
    difference = np.where(w > 0, -np.expm1(-w * middle) / np.where(w > 0, w, 1), middle)
    value = np.exp(-_HALF_LOG_2PI - 0.5 * left**2 - log_mean_density(left, w)) * difference
    return np.asarray(np.where(mirrored, -value, value))


def quantile(
    level: Float[np.ndarray, "*shape"], a: Float[np.ndarray, "*shape"], w: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """``z - a`` in ``[0, w]`` with ``P(t < z) = level`` for the standard normal restricted to ``[a, a + w]``.

    Bisection to ``w / 2**48``; the offset from ``a`` is returned because it keeps its digits where ``z`` would not.
    """
    low, high = np.zeros_like(w), w.copy()
    with np.errstate(divide="ignore"):
        wanted = np.log(level) + np.log(w) + log_mean_density(a, w)
        for _ in range(48):
            middle = (low + high) / 2
            below = np.log(middle) + log_mean_density(a, middle) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def _erfcx(x: Array) -> Array:
    return to_numpy(torch.special.erfcx(torch.from_numpy(np.ascontiguousarray(x))))


def _erf(x: Array) -> Array:
    return to_numpy(torch.special.erf(torch.from_numpy(np.ascontiguousarray(x))))
