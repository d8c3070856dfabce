from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.data import Dataset, l2_normalise, mean_input

LABELS = ["b", "a", "b", "c", "a", "b"]


def rows(n: int = 6, width: int = 2) -> torch.Tensor:
    return torch.arange(n * width, dtype=torch.float32).reshape(n, width)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_from_labels_groups_rows_stably(labels: list[str]) -> None:
    dataset = Dataset.from_labels(torch.arange(len(labels))[:, None], labels)
    expected = sorted(range(len(labels)), key=lambda i: labels[i])
    everything = np.arange(len(dataset))
    assert dataset.gather(everything)[:, 0].tolist() == expected
    assert [dataset.class_names[c] for c in dataset.labels] == sorted(labels)
    assert dataset.sizes.tolist() == [labels.count(name) for name in dataset.class_names]


def test_number_labels_sort_as_numbers() -> None:
    assert Dataset.from_labels(rows(3), [10, 9, 2]).class_names == ("2", "9", "10")
    assert Dataset.from_labels(rows(3), torch.tensor([10, 9, 2])).class_names == ("2", "9", "10")
    assert Dataset.from_labels(rows(2), np.array([b"x", b"y"])).class_names == ("x", "y")


def test_from_sorted_keeps_the_rows() -> None:
    dataset = Dataset.from_sorted(rows(), [0, 1, 6], ["one", "five"])
    assert dataset.order is None
    assert dataset.sizes.tolist() == [1, 5]
    assert torch.equal(dataset.gather(np.array([[5], [0]])), rows()[torch.tensor([[5], [0]])])
    assert Dataset.from_sorted(rows(), [0, 6]).class_names == ("0",)


def test_subset_selects_and_reorders_classes() -> None:
    dataset = Dataset.from_labels(rows(), LABELS, name="letters", split="train")
    subset = dataset.subset([2, 1], split="val")
    assert subset.class_names == ("c", "b")
    assert torch.equal(subset.gather(np.arange(4)), rows()[[3, 0, 2, 5]])
    assert str(subset) == "letters val"
    assert subset.store is dataset.store
    again = subset.subset([1])
    assert torch.equal(again.gather(np.arange(3)), rows()[[0, 2, 5]])


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (np.uint8, 51, 0.2),
        (np.float16, 0.5, 0.5),
        (np.float64, 0.25, 0.25),
        (np.int64, 51, 51.0),
        (np.bool_, 1, 1.0),
        (">f4", 1.5, 1.5),
    ],
)
@pytest.mark.parametrize("out", [torch.float32, torch.float64])
def test_gather_converts(dtype: str, value: float, expected: float, out: torch.dtype) -> None:
    gathered = Dataset.from_sorted(np.full((2, 3), value, dtype), [0, 2]).gather(np.array([1]), dtype=out)
    assert gathered.dtype == out
    assert gathered.tolist() == torch.full((1, 3), expected, dtype=out).tolist()
    if np.dtype(dtype).isnative:
        tensor = Dataset.from_sorted(torch.from_numpy(np.full((2, 3), value, dtype)), [0, 2])
        assert torch.equal(tensor.gather(np.array([1]), dtype=out), gathered)


def test_gather_never_hands_out_the_store() -> None:
    store = rows()
    gathered = Dataset.from_sorted(store, [0, 6]).gather(np.array([2]))
    gathered += 100
    assert torch.equal(store, rows())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("transform", [None, l2_normalise])
def test_gather_into_given_memory(dtype: type, transform: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    dataset = Dataset.from_sorted(np.arange(1, 13, dtype=dtype).reshape(6, 2), [0, 6]).transformed(transform)
    for positions in (np.array([[4, 0, 4], [1, 5, 2]]), np.array([[3, 3, 1], [0, 2, 4]])):
        out = torch.full((2, 3, 2), torch.nan)
        assert dataset.gather(positions, out=out).data_ptr() == out.data_ptr()
        assert torch.equal(out, dataset.gather(positions))


@pytest.mark.filterwarnings("error")
def test_gather_from_memory_that_is_read_only_or_in_another_order() -> None:
    fixed = rows().numpy()
    fixed.setflags(write=False)
    wanted = np.array([4, 1])
    for store, expected in (
        (fixed, rows()[[4, 1]]),
        (fixed[::-1], rows()[[1, 4]]),  # negative strides: no tensor can view it
        (np.asfortranarray(fixed), rows()[[4, 1]]),
        (fixed[:, :1], rows()[[4, 1], :1]),
        (rows()[:, 1:], rows()[[4, 1], 1:]),
    ):
        assert torch.equal(Dataset.from_sorted(store, [0, 6]).gather(wanted), expected)


def test_gather_refuses_positions_out_of_range() -> None:
    dataset = Dataset.from_sorted(rows(), [0, 6])
    for wrong in (-1, 6):
        with pytest.raises(IndexError, match="there are 6"):
            dataset.gather(np.array([0, wrong]))


def test_transform_sees_only_the_gathered_rows() -> None:
    seen = []

    def transform(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return l2_normalise(x)

    dataset = Dataset.from_sorted(rows(), [0, 6]).transformed(transform)
    out = dataset.gather(np.array([[1, 2], [3, 4]]))
    assert seen == [4]
    assert out.shape == (2, 2, 2)
    assert torch.allclose(out.norm(dim=-1), torch.ones(2, 2))
    assert torch.equal(dataset.transformed(None).gather(np.array([3])), rows()[[3]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_row_that_is_not_finite_is_named(bad: float, as_array: bool) -> None:
    store = rows()
    store[4, 1] = bad
    store[5, 1] = bad
    given_rows = store.numpy() if as_array else store
    with pytest.raises(ValueError, match=r"letters: row 4 \(class 'a'\) holds NaN or infinity"):
        Dataset.from_labels(given_rows, LABELS, name="letters")
    with pytest.raises(ValueError, match=r"row 4 \(class 'q'\)"):
        Dataset.from_sorted(given_rows, [0, 4, 6], ["p", "q"])


def test_memory_maps_are_checked_on_request(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "m", np.float32, "w+", shape=(6, 2))
    mapped[3] = np.nan
    Dataset.from_sorted(mapped, [0, 6])  # not looked at: it might be larger than memory
    dataset = Dataset.from_labels(mapped, LABELS)
    with pytest.raises(ValueError, match=r"row 3 \(class 'c'\)"):
        dataset.check_finite()
    dataset.subset([0, 1]).check_finite()
    mapped[4] = np.nan
    with pytest.raises(ValueError, match=r"row 4 \(class 'a'\)"):
        dataset.subset([0, 1]).check_finite()  # after a row of a class that was left out


def test_memory_maps_are_read_by_the_row(tmp_path: Path) -> None:
    """A sparse file of 8 TB: any operation that touched all of it would not return."""
    n, width = 10**9, 1024
    with (tmp_path / "big").open("wb") as file:
        file.truncate(n * width * 8)
    big = np.memmap(tmp_path / "big", np.float64, "r", shape=(n, width))
    dataset = Dataset.from_sorted(big, [0, n // 2, n])
    assert dataset.gather(np.array([0, n - 1])).shape == (2, width)
    assert isinstance(dataset.store, np.memmap)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 5, "6 rows but 5 labels"),
        (["a", "b", None, "a", "b", "a"], "label of row 2 is missing"),
        (["a", "", "a", "a", "b", "a"], "label of row 1 is missing"),
        ([1.0, 2.0, 1.0, float("nan"), 1.0, 1.0], "label of row 3 is missing"),
        ([], "at least one label"),
        ([["a"]] * 6, r"got shape \(6, 1\)"),
    ],
)
def test_bad_labels_are_refused(labels: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset.from_labels(rows(), labels)


@pytest.mark.parametrize(
    ("offsets", "names", "message"),
    [
        ([0, 5], None, "rise from 0 to the number of rows, 6"),
        ([1, 6], None, "rise from 0"),
        ([0, 4, 3, 6], None, "rise from 0"),
        ([0, 6], ["a", "b"], "one entry more than there are classes"),
        ([0, 3, 6], ["a", "a"], "'a' occurs more than once"),
    ],
)
def test_bad_offsets_are_refused(offsets: list[int], names: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset.from_sorted(rows(), offsets, names)


@pytest.mark.parametrize("classes", [[], [3], [-1]])
def test_bad_subsets_are_refused(classes: list[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 2"):
        Dataset.from_labels(rows(), LABELS).subset(classes)
    with pytest.raises(ValueError, match="occurs more than once"):
        Dataset.from_labels(rows(), LABELS).subset([0, 0])


def test_l2_normalise() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-7, 4e-7]])
    # The last row's sum of squares, 2.5e-13, lies under the floor: it is scaled by 1e6, not to length 1.
    assert torch.allclose(l2_normalise(x), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.3, 0.4]]))
    point = torch.zeros(1, 2, requires_grad=True)
    l2_normalise(point).sum().backward()
    assert torch.isfinite(point.grad).all()


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Some classes of an unsorted store of half precision in a file, read seven rows at a time."""
    monkeypatch.setattr("fewstep.data.dataset.AT_ONCE", 7 * 37)
    store = np.memmap(tmp_path / "m", np.float16, "w+", shape=(120, 37))
    store[:] = np.random.default_rng(0).standard_normal(store.shape) + 2
    return Dataset.from_labels(store, np.arange(120) % 5, name="n").subset([3, 0, 4]).transformed(l2_normalise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_memory_is_the_same_to_the_bit(mapped: Dataset, dtype: torch.dtype) -> None:
    held = mapped.in_memory(dtype)
    assert (held.transform, held.order, held.store.dtype) == (None, None, dtype)
    assert (str(held), held.class_names) == (str(mapped), mapped.class_names)
    np.testing.assert_array_equal(held.offsets, mapped.offsets)
    for rows_ in (1, 2, 5, 31, 72):
        positions = np.random.default_rng(rows_).integers(0, 72, (2, rows_))
        assert torch.equal(held.gather(positions, dtype=dtype), mapped.gather(positions, dtype=dtype))
    mapped.store[:] = 0
    assert held.gather(np.arange(72)).norm(dim=1).min() > 0.99, "a copy"


def test_in_memory_scales_bytes_once() -> None:
    images = Dataset.from_sorted(torch.arange(240, dtype=torch.uint8).reshape(4, 60), [0, 4])
    assert torch.equal(images.in_memory().gather(np.arange(4)), images.gather(np.arange(4)))


def test_in_memory_keeps_to_its_limit(mapped: Dataset) -> None:
    wide = mapped.transformed(lambda x: x.repeat(1, 2))
    assert wide.in_memory(limit_bytes=72 * 74 * 4 - 1) is wide, "the rows that count are the transformed ones"
    assert wide.in_memory(limit_bytes=72 * 74 * 4).feature_shape == (74,)
    assert mapped.in_memory(torch.float64, limit_bytes=72 * 37 * 8 - 1) is mapped


def test_mean_input(mapped: Dataset) -> None:
    chosen = np.concatenate([mapped.store[c::5] for c in (3, 0, 4)]).astype(np.float64)
    expected = (chosen / np.sqrt(np.square(chosen).sum(1, keepdims=True))).mean(0)
    np.testing.assert_allclose(mean_input(mapped).numpy(), expected, rtol=1e-13)
    white = Dataset.from_sorted(torch.full((30, 1, 2, 2), 255, dtype=torch.uint8), [0, 30])
    assert torch.equal(mean_input(white), torch.ones(1, 2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="no rows"):
        mean_input(Dataset.from_sorted(rows()[:0], [0, 0]))


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint8])
def test_tokens_stay_integers(dtype: type) -> None:
    rows = np.arange(12).reshape(6, 2).astype(dtype)
    dataset = Dataset.from_sorted(rows, [0, 3, 6], tokens=True)
    for same in (dataset, dataset.subset([1, 0]).subset([1, 0]), dataset.in_memory()):
        found = same.gather(np.array([[4, 0]]), dtype=torch.float64)
        assert found.dtype == torch.int64
        assert found.tolist() == [[[8, 9], [0, 1]]]
    assert Dataset.from_labels(rows, list("abcabc"), tokens=True).gather(np.array([1])).tolist() == [[6, 7]]


@pytest.mark.parametrize("rows", [np.ones((4, 2)), torch.ones(4, 2), np.ones((4, 2), bool)])
def test_tokens_that_are_no_integers_are_refused(rows: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"tokens are integers, but the rows are .*: give them in an integer type"):
        Dataset.from_sorted(rows, [0, 2, 4], tokens=True)
