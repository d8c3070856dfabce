import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # only a test dependency through scikit-learn

from fewstep.data import draws


def test_words_are_pinned() -> None:
    """A change here would give every seed other tasks than it has had."""
    assert draws.words(7, 3, "episodes", (2,)).tolist() == [1108012130475917705, 13793700484510706593]


def test_words_depend_on_seed_step_and_stream_alone() -> None:
    base = draws.words(1, 2, "a", (8,))
    assert np.array_equal(base, draws.words(1, 2, "a", (8,)))
    for other in (draws.words(2, 2, "a", (8,)), draws.words(1, 3, "a", (8,)), draws.words(1, 2, "b", (8,))):
        assert not np.intersect1d(base, other).size


def test_more_words_begin_with_fewer() -> None:
    assert np.array_equal(draws.words(0, 0, "a", (7, 3))[:2], draws.words(0, 0, "a", (2, 3)))


@pytest.mark.parametrize(("seed", "step", "named"), [(-1, 0, "seed"), (2**64, 0, "seed"), (0, -1, "step")])
def test_addresses_out_of_range_are_refused(seed: int, step: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be an integer from 0"):
        draws.words(seed, step, "a", (1,))


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1))
def test_below_is_the_exact_product(word: int, bound: int) -> None:
    assert draws.below(np.array([word], np.uint64), bound)[0] == word * bound >> 64


def test_uniform_stays_below_its_upper_end() -> None:
    assert draws.uniform(np.array([0, 2**64 - 1], np.uint64), 0.0, 1.0).tolist() == [0.0, 1 - 2.0**-53]


@given(st.integers(1, 40), st.data())
def test_distinct_draws_are_distinct_and_in_range(k: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(k, 60))
    seed = data.draw(st.integers(0, 1000))
    drawn = draws.distinct(draws.words(seed, 0, "t", (4, k)), size)
    assert drawn.min() >= 0
    assert drawn.max() < size
    assert all(len(set(lane)) == k for lane in drawn.tolist())


@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 1000))
def test_distinct_is_a_shuffle_of_the_integers_that_are_left(k: int, spare: int, seed: int) -> None:
    words = draws.words(seed, 0, "t", (3, k))
    for lane, drawn in zip(words, draws.distinct(words, k + spare).tolist(), strict=True):
        left = list(range(k + spare))
        assert drawn == [left.pop(int(word) * len(left) >> 64) for word in lane]


@pytest.mark.parametrize("extreme", [0, 2**64 - 1])
def test_extreme_words_give_the_ends_in_order(extreme: int) -> None:
    drawn = draws.distinct(np.full((1, 5), extreme, np.uint64), 5)[0].tolist()
    assert drawn == ([0, 1, 2, 3, 4] if extreme == 0 else [4, 3, 2, 1, 0])


def test_every_ordered_triple_is_equally_likely() -> None:
    """All 5 * 4 * 3 ordered triples: a draw biased in any place, or a pair that repels or attracts, shows here."""
    drawn = draws.distinct(draws.words(0, 0, "t", (60_000, 3)), 5)
    counts = np.bincount(drawn @ [25, 5, 1], minlength=125)
    valid = np.array([len({i // 25, i // 5 % 5, i % 5}) == 3 for i in range(125)])
    assert counts[~valid].sum() == 0
    assert stats.chisquare(counts[valid]).pvalue > 1e-4


def test_the_first_draws_do_not_depend_on_how_many_follow() -> None:
    words = draws.words(0, 0, "t", (50, 9))
    assert np.array_equal(draws.distinct(words, 20)[:, :4], draws.distinct(words[:, :4].copy(), 20))


@settings(max_examples=50)
@given(st.sets(st.integers(0, 30), max_size=12), st.randoms(use_true_random=False))
def test_nth_left_counts_what_is_free(taken: set[int], random: object) -> None:
    shuffled = list(taken)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    free = [i for i in range(60) if i not in taken][:20]
    assert draws.nth_left(np.arange(20), np.array(shuffled, np.int64)).tolist() == free
