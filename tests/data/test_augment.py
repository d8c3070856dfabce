from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.core.types import Batch, Task
from fewstep.data import Augmentation, Augmented, Dataset, EpisodeSampler, Sinusoids, TaskList, TaskSource, draws
from fewstep.data.images.augment import WORDS

EVERYTHING = Augmentation(crop=2, flip=True, colour=0.4)


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(draws.uniform(draws.words(5, 0, "images", shape), 0.0, 1.0))


def words(*shape: int, seed: int = 0) -> np.ndarray:
    return draws.words(seed, 0, "test", (*shape, WORDS))


def word_of(value: int, of: int) -> int:
    """A word that is drawn as ``value`` of ``range(of)``."""
    return ((2 * value + 1) * 2**63) // of


def drawn(down: int, across: int, mirrored: bool, crop: int) -> np.ndarray:
    """Words of one image that is shifted by so many pixels."""
    places = [word_of(down + crop, 2 * crop + 1), word_of(across + crop, 2 * crop + 1), word_of(mirrored, 2)]
    return np.array([places + [0] * (WORDS - 3)], np.uint64)


def box(top: int, left: int, extent: tuple[int, int], size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
    """Words of one image whose crop of that extent begins there."""
    places = [word_of(place, all_ - own + 1) for place, own, all_ in zip((top, left), extent, size, strict=True)]
    return np.array([[*places, word_of(mirrored, 2)] + [0] * (WORDS - 3)], np.uint64)


def fixed(extent: tuple[int, int], size: tuple[int, int], **others: object) -> Augmentation:
    """Random-sized crops that all have one extent."""
    share, ratio = extent[0] * extent[1] / (size[0] * size[1]), extent[1] / extent[0]
    return Augmentation(area=(share, share), aspect=(ratio, ratio), **others)


def first_and_last(change: Augmentation, w: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First and last row and column of boxes: what is enlarged to the old size keeps the pixels of its corners."""
    x = torch.arange(float(size[0] * size[1]), dtype=torch.float64).reshape(1, *size).expand(len(w), 1, *size)
    seen = change(x, w).flatten(1)[:, [0, -1]].round().long().numpy()
    first, last = np.stack(np.divmod(seen, size[1]), -1).swapaxes(0, 1)
    return first, last


def assert_spread(values: np.ndarray, low: float, high: float, slack: float) -> None:
    """Uniform from low to high but for a rounding: the distance of distribution functions (Kolmogorov, p < 1e-5)."""
    assert low - slack <= values.min()
    assert values.max() <= high + slack
    unit = np.sort((values - low) / (high - low))
    apart = np.abs(unit - (np.arange(len(unit)) + 0.5) / len(unit)).max()
    assert apart < 2.5 / len(unit) ** 0.5 + slack / (high - low)


def sampler(**changed: object) -> EpisodeSampler:
    store = images(4 * 9, 3, 6, 7).float()
    dataset = Dataset.from_sorted(store, np.arange(5) * 9)
    return EpisodeSampler(dataset, **{"ways": 3, "shots": 2, "queries": 4, "tasks": 5, "seed": 1, **changed})


def equal(first: Task, second: Task) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def part(task: Task, slice_: slice) -> Task:
    return Task(*(Batch(*(tensor[slice_] for tensor in batch)) for batch in task))


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize(("down", "across"), [(0, 0), (2, 0), (-1, 2), (0, -2), (-2, -2)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_known_shifts(padding: str, down: int, across: int, mirrored: bool) -> None:
    x = images(1, 3, 5, 6)
    mode = {"reflect": "reflect", "zeros": "constant"}[padding]
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode=mode)
    cut = padded[..., 2 + down : 7 + down, 2 + across : 8 + across]
    moved = Augmentation(crop=2, flip=True, padding=padding)(x, drawn(down, across, mirrored, 2))
    assert torch.equal(moved, cut.flip(-1) if mirrored else cut)


def test_every_shift_and_both_sides_are_drawn() -> None:
    """As often as each other: 9 shifts and 2 sides of 9,000 draws, within five standard deviations."""
    n = 9000
    x = torch.zeros(n, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    where = Augmentation(crop=1)(x, words(n)).flatten(1).argmax(1).bincount(minlength=25).reshape(5, 5)
    assert where.sum() == where[1:4, 1:4].sum() == n
    assert (where[1:4, 1:4] - n / 9).abs().max() < 5 * (n * 8 / 81) ** 0.5
    ramp = torch.arange(5.0).expand(n, 1, 5, 5)
    mirrored = Augmentation(flip=True)(ramp, words(n))[:, 0, 0, 0] == 4
    assert abs(mirrored.sum() - n / 2) < 5 * (n / 4) ** 0.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), crop=st.integers(0, 4), flip=st.booleans(), level=st.floats(0, 1))
def test_properties_of_moves(seed: int, crop: int, flip: bool, level: float) -> None:
    x, w = images(7, 3, 5, 6), words(7, seed=seed)
    move = Augmentation(crop=crop, flip=flip)
    constant = torch.full_like(x, level)
    assert torch.equal(move(constant, w), constant)
    mirror = Augmentation(flip=True)
    assert torch.equal(mirror(mirror(x, w), w), x)
    assert torch.equal(move(x, w)[3:4], move(x[3:4], w[3:4])), "an image does not know of the others"
    assert torch.equal(Augmentation()(x, w), x)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("crop", [0, 2])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 3), (4, 2)])
def test_crops_of_a_side(top: int, left: int, crop: int, mirrored: bool) -> None:
    x = images(1, 3, 8, 7)
    w = box(top, left, (4, 4), (8 + 2 * crop, 7 + 2 * crop), mirrored)
    for padding, mode in (("reflect", "reflect"), ("zeros", "constant")):
        cut = torch.nn.functional.pad(x, (crop,) * 4, mode=mode)[..., top : top + 4, left : left + 4]
        seen = Augmentation(crop, True, padding=padding, side=4)(x, w)
        assert torch.equal(seen, cut.flip(-1) if mirrored else cut)
    square = x[..., :7, :]
    assert torch.equal(Augmentation(crop, True, side=7)(square, w), Augmentation(crop, True)(square, w))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 2), (5, 4)])
def test_boxes_at_scale_1_are_their_pixels(top: int, left: int, mirrored: bool, dtype: torch.dtype) -> None:
    x = images(2, 3, 14, 13).to(dtype)
    cut = x[..., top : top + 9, left : left + 9]
    for stored in (x, x.contiguous(memory_format=torch.channels_last)):
        w = box(top, left, (9, 9), (14, 13), mirrored).repeat(2, 0)
        seen = fixed((9, 9), (14, 13), flip=True, side=9)(stored, w)
        assert (seen.dtype, seen.is_contiguous()) == (dtype, True)
        assert torch.equal(seen, cut.flip(-1) if mirrored else cut)


@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.float64), (3, torch.float32), (3, torch.bfloat16)])
@pytest.mark.parametrize(
    ("extent", "side"), [((17, 12), 5), ((4, 6), 11), ((20, 3), 8), ((1, 1), 4), ((20, 23), 1), ((7, 9), None)]
)
def test_boxes_agree_with_another_resizing(
    extent: tuple[int, int], side: int | None, channels: int, dtype: torch.dtype
) -> None:
    """PyTorch's own, in float64, of the box cut out: reduced, enlarged, one of each, and to a pixel."""
    size, top, left = (20, 23), 20 - extent[0], (23 - extent[1]) // 2
    x = images(1, channels, *size).to(dtype)
    seen = fixed(extent, size, side=side)(x, box(top, left, extent, size))
    cut = x[..., top : top + extent[0], left : left + extent[1]].double()
    expected = torch.nn.functional.interpolate(cut, (side, side) if side else size, mode="bilinear", antialias=True)
    within = {torch.float64: 1e-12, torch.float32: 3e-7, torch.bfloat16: 2e-3}[dtype]  # bfloat16: of the result only
    assert (seen.double() - expected).abs().max() <= within


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    side=st.none() | st.integers(1, 9),
    area=st.tuples(st.floats(1e-3, 1), st.floats(1e-3, 1)).map(sorted).map(tuple),
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted).map(tuple),
)
def test_properties_of_boxes(
    seed: int, size: tuple[int, int], side: int | None, area: tuple[float, float], aspect: tuple[float, float]
) -> None:
    x, w = images(6, 3, *size), words(6, seed=seed)
    change = Augmentation(area=area, aspect=aspect, side=side)
    seen = change(x, w)
    assert seen.shape == (6, 3, *((side, side) if side else size))
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert ((low - 1e-12 <= seen) & (seen <= high + 1e-12)).all(), "means of pixels"
    torch.testing.assert_close(change(x[3:4], w[3:4]), seen[3:4])
    torch.testing.assert_close(change(0.25 + x / 2, w), 0.25 + seen / 2)
    mirrored = torch.from_numpy(draws.below(w[:, 2], 2) == 1)[:, None, None, None]
    torch.testing.assert_close(replace(change, flip=True)(x, w), torch.where(mirrored, seen.flip(-1), seen))
    whole = replace(change, area=(1.0, 1.0), side=None)
    assert torch.equal(whole(x, w), x), "whatever the aspect"


def test_boxes_are_spread_and_their_numbers_independent() -> None:
    size, n = 64, 3000
    w = words(n)
    first, last = first_and_last(Augmentation(area=(0.08, 1.0)), w, (size, size))
    extent = last - first + 1
    share, ratio = extent.prod(1) / size**2, np.log(extent[:, 1] / extent[:, 0])
    assert_spread(share, 0.08, 1.0, 1 / size)
    small = share < 0.7  # of which every ratio fits
    assert_spread(ratio[small], np.log(3 / 4), np.log(4 / 3), 0.04)
    place = (first + 0.5) / (size - extent + 1)
    for axis in (0, 1):
        assert_spread(place[extent[:, axis] <= size / 2, axis], 0.0, 1.0, 0.5 / (size / 2))
    numbers = np.column_stack([share, ratio, place, draws.below(w[:, 2:3], 2), draws.uniform(w[:, 3:], 0.0, 1.0)])
    apart = np.corrcoef(numbers[small], rowvar=False) - np.eye(numbers.shape[1])
    assert np.abs(apart).max() < 5 / small.sum() ** 0.5


@pytest.mark.parametrize(("size", "extent"), [((12, 48), (12, 24)), ((48, 12), (24, 12)), ((24, 24), (17, 17))])
def test_where_no_ratio_fits_the_nearest_is_taken(size: tuple[int, int], extent: tuple[int, int]) -> None:
    """Boxes of half of the image that should be square: they keep their area."""
    first, last = first_and_last(Augmentation(area=(0.5, 0.5), aspect=(1.0, 1.0)), words(20), size)
    assert (last - first + 1 == extent).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), strength=st.floats(0.01, 2), channels=st.sampled_from([1, 3]))
def test_properties_of_colours(seed: int, strength: float, channels: int) -> None:
    x, w = images(7, channels, 4, 4), words(7, seed=seed)
    change = Augmentation(colour=strength)
    changed = change(x, w)
    assert changed.min() >= 0
    assert changed.max() <= 1
    torch.testing.assert_close(changed[3:4], change(x[3:4], w[3:4]))
    grey = torch.full_like(x, 0.25)
    factor = torch.from_numpy(draws.uniform(w[:, 3], max(0.0, 1 - strength), 1 + strength))
    torch.testing.assert_close(change(grey, w), grey * factor[:, None, None, None])  # only its brightness can change


def test_colours_by_their_equations() -> None:
    x, w = 0.3 + 0.3 * images(2, 3, 4, 5), words(2)  # no clamp acts
    changed = Augmentation(colour=0.1)(x, w)
    for image, word, result in zip(x, w, changed, strict=True):
        b, c, a = (0.9 + 0.2 * float(value) / 2**64 for value in word[3:])
        image = image * b
        mean = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]).mean()
        image = mean + c * (image - mean)
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        torch.testing.assert_close(result, grey + a * (image - grey))


def test_every_image_has_a_draw_of_its_own() -> None:
    source = sampler()
    task = source.batch(0)
    same = images(3, 6, 7).float()

    class Same:  # one image everywhere
        ways, tasks = source.ways, source.tasks

        def batch(self, step: int, slice_: slice | None = None) -> Task:
            return Task(
                *(batch._replace(x=same.expand_as(batch.x).clone()) for batch in part(task, slice_ or slice(None)))
            )

    for step in (0, 1):
        seen = Augmented(Same(), Augmentation(colour=0.4), 0).batch(step)
        flat = torch.cat([seen.support.x.flatten(0, 1), seen.query.x.flatten(0, 1)]).flatten(1)
        assert len(flat.unique(dim=0)) == len(flat) == 5 * 3 * (2 + 4)


@pytest.mark.parametrize(
    "slice_", [slice(0, 2), slice(2, 5), slice(1, None, 2), slice(3, 99), slice(-2, None), slice(5, 9)]
)
@pytest.mark.parametrize("short", [False, True])
def test_a_slice_is_a_slice(slice_: slice, short: bool) -> None:
    source: TaskSource = sampler()
    step = 7
    if short:
        source, step = TaskList.draw(sampler(tasks=4), 2), 1
        source = replace(source, tasks=5)  # the second batch has three
    augmented = Augmented(source, EVERYTHING, 3)
    whole = augmented.batch(step)
    assert equal(augmented.batch(step, slice_), part(whole, slice_))
    assert not torch.equal(whole.support.x, source.batch(step).support.x)
    assert torch.equal(whole.support.y, source.batch(step).support.y)
    assert torch.equal(whole.query.weight, source.batch(step).query.weight)


def test_draws_are_functions_of_seed_stream_and_step() -> None:
    source = sampler()
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = Augmented(source, EVERYTHING, 3).batch(9)
    assert equal(first, Augmented(source, EVERYTHING, 3).batch(9))
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    for other in (Augmented(source, EVERYTHING, 4), Augmented(source, EVERYTHING, 3, stream="other")):
        assert not torch.equal(first.support.x, other.batch(9).support.x)
    more = Augmented(sampler(queries=6), EVERYTHING, 3).batch(9)
    assert torch.equal(first.support.x, more.support.x), "more queries leave the support as it was"


def test_an_augmented_source_is_a_source() -> None:
    augmented = Augmented(sampler(), EVERYTHING, 0)
    assert isinstance(augmented, TaskSource)
    assert (augmented.ways, augmented.shots, augmented.queries, augmented.tasks) == (3, 2, 4, 5)
    for nothing in (Augmentation(), Augmentation(padding="zeros", aspect=(1.0, 1.0))):
        assert equal(Augmented(sampler(), nothing, 0).batch(2), sampler().batch(2))
        Augmented(Sinusoids(shots=1, queries=1, tasks=2, seed=0), nothing, 0).batch(0)  # which are no images
    for smaller in (Augmentation(side=5), Augmentation(area=(0.2, 1.0), side=5)):
        assert Augmented(sampler(), smaller, 0).batch(2).query.x.shape == (5, 3 * 4, 3, 5, 5)
    assert not equal(Augmented(sampler(), Augmentation(area=(0.2, 1.0)), 0).batch(2), sampler().batch(2))
    with pytest.raises(AttributeError, match="TaskList, has no shots"):
        _ = Augmented(TaskList.draw(sampler(), 1), EVERYTHING, 0).shots


def test_what_cannot_be_augmented_is_refused() -> None:
    with pytest.raises(ValueError, match="crop must be at least 0 pixels, got -1"):
        Augmentation(crop=-1)
    with pytest.raises(ValueError, match="colour must be a strength of at least 0, got nan"):
        Augmentation(colour=float("nan"))
    for area in ((0.0, 1.0), (0.5, 0.2), (0.5, 1.1), (0.5, float("nan"))):
        with pytest.raises(ValueError, match=r"area must be the least and the largest share .* got \("):
            Augmentation(area=area)
    for aspect in ((0.0, 1.0), (2.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match=r"aspect must be the least and the largest ratio .* got \("):
            Augmentation(aspect=aspect)
    with pytest.raises(ValueError, match="side must be at least 1 pixel, got 0"):
        Augmentation(side=0)
    with pytest.raises(ValueError, match=r"crop = 1 adds pixels .* set crop to 0, or leave area out"):
        Augmentation(crop=1, area=(0.5, 1.0))
    with pytest.raises(ValueError, match="images of 8 × 5 pixels with 1 added at every side have no crop of 8 × 8"):
        Augmentation(crop=1, side=8)(images(1, 3, 8, 5), words(1))
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        Augmented(sampler(), EVERYTHING, -1)
    with pytest.raises(ValueError, match=r"the inputs of this source are \[2, 1, 1\]"):
        Augmented(Sinusoids(shots=1, queries=1, tasks=2, seed=0), EVERYTHING, 0).batch(0)
    with pytest.raises(ValueError, match="images of 3 × 4 pixels have no 3 to reflect"):
        Augmentation(crop=3)(images(1, 3, 3, 4), words(1))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        Augmentation(colour=1.0)(images(1, 2, 3, 3), words(1))
    with pytest.raises(ValueError, match="images from 0 to 1, these are from"):
        Augmentation(colour=1.0)(images(1, 3, 3, 3) - 0.5, words(1))
