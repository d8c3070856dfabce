"""Random draws addressed by (seed, step, stream): nothing is remembered between steps, so any step can be visited.

Only the raw words of a counter-based generator are used. NumPy promises that a bit generator's words never change, and
does not promise it of the distributions built on them; what is built on them here is a few lines of exact integer
arithmetic, so a seed names the same tasks on every machine and NumPy release.
"""

import hashlib
import math

import numpy as np
from jaxtyping import Float, Int, UInt64

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def check_word(name: str, value: int) -> None:
    """Refuse a seed or step that is no 64-bit word.

    Raises:
        ValueError: if ``value`` is outside ``0 <= value < 2**64``.
    """
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} must be an integer from 0 to 2**64 - 1, not {value}")


def words(seed: int, step: int, stream: str, shape: tuple[int, ...]) -> UInt64[np.ndarray, "*shape"]:
    """Uniform 64-bit words of one step of one stream.

    The generator is Philox 4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Its key is
    (seed, stream) and its counter starts at ``step * 2**192``, so steps never overlap and ``step`` 10**9 costs what
    ``step`` 0 does.

    Args:
        seed: ``0 <= seed < 2**64``.
        step: ``0 <= step < 2**64``.
        stream: any name; two names give independent words.
        shape: shape of the result. A larger first axis begins with the words of a smaller one.

    Raises:
        ValueError: if the seed or the step is out of range.
    """
    check_word("seed", seed)
    check_word("step", step)
    label = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    generator = np.random.Philox(key=np.array([seed, label], np.uint64), counter=np.array([0, 0, 0, step], np.uint64))
    return generator.random_raw(math.prod(shape)).reshape(shape)


def below(drawn: UInt64[np.ndarray, "*shape"], bound: Int[np.ndarray, "..."] | int) -> Int[np.ndarray, "*shape"]:
    """Map words to integers in ``[0, bound)``: ``floor(word * bound / 2**64)``, exactly.

    No word is rejected, so the bias is below ``bound / 2**64``: about 1e-12 for ten million rows.

    Args:
        drawn: uniform words.
        bound: ``1 <= bound < 2**32``, broadcast against the words.
    """
    limit = np.asarray(bound).astype(np.uint64)
    # 64 by 32 bit product in two halves: neither product nor their sum can exceed 64 bits.
    product = (drawn >> _HALF) * limit + (((drawn & _LOW) * limit) >> _HALF)
    return (product >> _HALF).astype(np.int64)


def uniform(drawn: UInt64[np.ndarray, "*shape"], low: float, high: float) -> Float[np.ndarray, "*shape"]:
    """Map words to float64 in ``[low, high)`` with 53 random bits each."""
    unit = (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return low + (high - low) * unit


def nth_left(rank: Int[np.ndarray, "*lanes ranks"], taken: Int[np.ndarray, "*lanes taken"]) -> Int[np.ndarray, "..."]:
    """The ``rank``-th smallest non-negative integer (from 0) that is not among ``taken``.

    With ``taken`` sorted as ``t_0 < t_1 < ...``, exactly ``t_i - i`` free integers lie below ``t_i``, so the answer is
    ``rank + #{i : t_i - i <= rank}``.

    Args:
        rank: any number of ranks for each lane.
        taken: distinct integers, in any order.

    Returns:
        ``[*lanes, ranks]``.
    """
    free_below = np.sort(taken, axis=-1) - np.arange(taken.shape[-1])
    result = rank.copy()
    for i in range(taken.shape[-1]):  # one pass for each taken integer keeps the working memory at the result's size
        result += free_below[..., i, None] <= rank
    return result


def distinct(
    drawn: UInt64[np.ndarray, "*lanes k"], size: Int[np.ndarray, "*lanes"] | int
) -> Int[np.ndarray, "*lanes k"]:
    """Draw ``k`` of ``range(size)`` without replacement; every ordered choice has the same probability.

    The first ``k`` steps of a Fisher-Yates shuffle of ``range(size)``, without the array: draw ``j`` is a uniform rank
    among the ``size - j`` integers that are left. Time and memory depend on ``k`` and on the number of lanes only,
    never on ``size``. The first ``j`` results depend on the first ``j`` words only.

    Args:
        drawn: uniform words; all lanes advance together.
        size: size of each lane's population, at least ``k`` (the caller has checked it).
    """
    k = drawn.shape[-1]
    ranks = below(drawn, np.asarray(size)[..., None] - np.arange(k))
    chosen = np.ascontiguousarray(np.moveaxis(ranks, -1, 0))  # draws lead: each step below is over adjacent numbers
    # Draw i ranks what draws 0 to i - 1 have left. From the last but one draw backwards, j puts its own number back in
    # front of the later ones, which then rank what draws 0 to j - 1 have left; at the end nothing has been taken.
    for j in range(k - 2, -1, -1):
        later = chosen[j + 1 :]
        later += later >= chosen[j]
    return np.moveaxis(chosen, 0, -1)
