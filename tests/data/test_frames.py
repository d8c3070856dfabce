"""Tables of features, written by the libraries that people write them with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewstep.data import embeddings
from fewstep.data.features.formats import rows_in

ROWS = np.random.default_rng(0).normal(size=(6, 3))
LABELS = ["cat", "007", "7", "cat", "007", "7"]
SPLIT = ["train", "val", "test"] * 2


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def columns() -> dict[str, Any]:
    return {"Label": LABELS, **{f"f{i}": ROWS[:, i] for i in range(3)}, "split": SPLIT}


def by_pandas(path: Path) -> None:
    frame = pytest.importorskip("pandas").DataFrame(columns())
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",")  # with its index, under no name


def by_polars(path: Path) -> None:
    frame = pytest.importorskip("polars").DataFrame(columns())
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator=";")


@pytest.mark.parametrize("write", [by_pandas, by_polars])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_are_read_as_they_were_written(tmp_path: Path, write: Any, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    write(path)
    for split, names in (("train", ("cat",)), ("val", ("007",)), ("test", ("7",))):
        found = embeddings(path, split, normalise=False)  # type: ignore[arg-type]
        assert found.class_names == names
        wanted = ROWS[[i for i, of in enumerate(SPLIT) if of == split]]
        np.testing.assert_array_equal(found.gather(np.arange(2), dtype=found.store.dtype).numpy(), wanted)  # type: ignore[union-attr,arg-type]
    rows, labels = rows_in(path)
    np.testing.assert_array_equal(rows, ROWS)
    assert labels is not None
    assert labels.tolist() == LABELS


@pytest.mark.parametrize("fixed", [True, False])
def test_a_column_of_vectors(tmp_path: Path, fixed: bool) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kind = arrow.list_(arrow.float32(), 3) if fixed else arrow.list_(arrow.float32())
    vectors = arrow.array(ROWS.astype(np.float32).tolist(), kind)
    table = arrow.table({"embeddings": vectors, "id": list("abcdef"), "label": LABELS})
    parquet.write_table(table, tmp_path / "t.parquet")
    rows, labels = rows_in(tmp_path / "t.parquet")
    np.testing.assert_array_equal(rows, ROWS.astype(np.float32))
    assert rows.dtype == np.float32
    assert labels is not None
    assert labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("label,a,b\nx,1,2\ny,1,oops\n", "line 3 has 'oops' for 'b', which is no number"),
        ("label,a,b\nx,1,2\ny,1,\n", "line 3 has '' for 'b', which is no number"),
        ("label,a,b\nx,1,2\ny,1\n", "line 3 has 2 cells, but there are 3 columns"),
        ("1,2,3\n4,5,6\n", "must begin with a line of names"),
        ("label,a,A\nx,1,2\n", "two columns are named 'a'"),
        ("a,b\n1,2\n", "has no labels"),
        ("label,a\n,1\nx,2\n", "the label of row 0 is missing"),
        ("label,a\nx,nan\ny,1\n", "holds NaN or infinity"),
        ("", "must begin with a line of names"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"table\.csv") as error:
        embeddings(path, "all")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1 no, it is not")
    with pytest.raises(ValueError, match=r"table\.parquet: "):
        embeddings(path, "all")
