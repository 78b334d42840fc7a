"""Tables of any make are read alike, and what cannot be read is refused in plain words."""

from __future__ import annotations

import datetime as dt
import gzip
from decimal import Decimal
from pathlib import Path

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetti.data.columns import covariate, factorise
from finetti.data.frames import read
from finetti.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda d: pd.DataFrame(d),
        lambda d: pd.DataFrame(d, index=[7, 7, 9]),
        lambda d: pl.DataFrame(d),
        lambda d: pa.table(d),
        lambda d: d,
        lambda d: {k: np.array(v) for k, v in d.items()},
        lambda d: np.array(list(zip(*d.values(), strict=True)), dtype=[("x", "f8"), ("k", "i4"), ("g", "U3")]),
        lambda d: nw.from_native(pl.DataFrame(d)),
    ],
)
def test_every_make_of_frame(make):
    table = read(make({"x": [1.5, 2.0, -1.0], "k": [3, 1, 2], "g": ["b", "a", "b"]}))
    assert (table.n, table.names) == (3, ("x", "k", "g"))
    np.testing.assert_array_equal(covariate(table.column("x"), "x"), [1.5, 2.0, -1.0])
    np.testing.assert_array_equal(covariate(table.column("k"), "k"), [3.0, 1.0, 2.0])
    g = covariate(table.column("g"), "g")
    assert list(g) == ["b", "a", "b"] and list(g.cat.categories) == ["a", "b"]


@pytest.mark.parametrize(
    ("series", "levels", "index"),
    [
        (pl.Series(["b", "a", "c"], dtype=pl.Categorical), ("a", "b", "c"), [1, 0, 2]),
        (pl.Series(["b", "a", "b"], dtype=pl.Enum(["z", "b", "a"])), ("b", "a"), [0, 1, 0]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("b", "a"), [0, 1, 0]),
        (pa.array(["b", "a", "b"], pa.string_view()), ("a", "b"), [1, 0, 1]),
        (
            pa.chunked_array([pa.array(["b"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]),
            ("b", "a"),
            [0, 1, 0],
        ),
        (pa.array([10, 9, 10], pa.uint64()), ("9", "10"), [1, 0, 1]),
        (pd.Series(["b", "a", "b"], dtype="string[pyarrow]"), ("a", "b"), [1, 0, 1]),
        (pd.Series(["b", "a", "b"], dtype=object), ("a", "b"), [1, 0, 1]),
        (pd.Series(["b", "a", "b"], dtype=pd.ArrowDtype(pa.string())), ("a", "b"), [1, 0, 1]),
        (pd.Series([10, 9, 10], dtype="Int64"), ("9", "10"), [1, 0, 1]),
        (pd.Series([10, 9, 10], dtype=pd.ArrowDtype(pa.int32())), ("9", "10"), [1, 0, 1]),
        (pd.Series([10.0, 9.5, 10.0]), ("9.5", "10"), [1, 0, 1]),
        (pd.Series([True, False, True], dtype="boolean"), ("False", "True"), [1, 0, 1]),
        (pd.Categorical(["b", "a", "b"], categories=["b", "unused", "a"]), ("b", "a"), [0, 1, 0]),
        (pd.Categorical([2, 1, 2]), ("1", "2"), [1, 0, 1]),
        (pd.to_datetime(["2024-03-01", "2023-12-24", "2024-03-01"]), ("2023-12-24", "2024-03-01"), [1, 0, 1]),
        ([dt.date(2024, 3, 1), dt.date(2023, 12, 24), dt.date(2024, 3, 1)], ("2023-12-24", "2024-03-01"), [1, 0, 1]),
        ([Decimal("10.5"), Decimal("9"), Decimal("10.5")], ("9", "10.5"), [1, 0, 1]),
        (pl.Series([dt.date(2024, 3, 1), dt.date(2023, 12, 24)]), ("2023-12-24", "2024-03-01"), [1, 0]),
    ],
)  # fmt: skip
def test_levels_of_every_type(series, levels, index):
    if isinstance(series, pl.Series):
        frame = pl.DataFrame({"g": series})
    elif isinstance(series, pa.Array | pa.ChunkedArray):
        frame = pa.table({"g": series})
    else:
        frame = pd.DataFrame({"g": series})
    found, names = factorise(read(frame).column("g"), "g")
    assert names == levels
    assert found.tolist() == index
    assert found.dtype == np.int64


def test_identifiers_beyond_2_to_the_53_stay_apart_even_beside_nulls():
    ids = [2**60, 2**60 + 1, None]
    for frame in (pl.DataFrame({"g": ids}), pa.table({"g": ids}), pd.DataFrame({"g": pd.array(ids, dtype="Int64")})):
        column = read(frame).column("g")
        assert factorise(column[~column.isna()].reset_index(drop=True), "g")[1] == (str(2**60), str(2**60 + 1))


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"x": [1, None], "b": [True, None]}),
        pa.table({"x": [1, None], "b": [True, None]}),
        pd.DataFrame({"x": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
        pd.DataFrame({"x": [1, None], "b": [True, None]}),
        pd.DataFrame({"x": pd.array([1, None], dtype="int64[pyarrow]"), "b": pd.array([True, None], "bool[pyarrow]")}),
    ],
)  # fmt: skip
def test_nulls_beside_numbers_and_booleans(frame):
    table = read(frame)
    np.testing.assert_array_equal(covariate(table.column("x"), "x"), [1.0, np.nan])
    np.testing.assert_array_equal(covariate(table.column("b"), "b"), [1.0, np.nan])


def test_csv_types_are_decided_by_whole_columns(tmp_path):
    text = (
        '\ufeff"y",id,code,flag,zero,hex,big,word,mixed,plus\n'
        "1.5,308,007,TRUE,0,0x1F,123456789012345678901,a,1,+1\n"
        " 2 ,309,010,false,0.5,0x2A,123456789012345678902,NA,b,-2\n"
        '-3e2,"12",100,True,1,0x00,3,,2,3\n'
    )
    table = read(write(tmp_path / "d.csv", text))
    assert table.names[0] == "y"
    assert table.column("y").tolist() == [1.5, 2.0, -300.0]
    assert table.column("id").tolist() == [308, 309, 12]
    assert table.column("code").tolist() == ["007", "010", "100"]
    assert table.column("flag").tolist() == [True, False, True]
    assert table.column("zero").tolist() == [0.0, 0.5, 1.0]
    assert table.column("hex").tolist() == ["0x1F", "0x2A", "0x00"]
    assert table.column("big").tolist() == ["123456789012345678901", "123456789012345678902", "3"]
    assert table.column("word").isna().tolist() == [False, True, True]
    assert table.column("mixed").tolist() == ["1", "b", "2"]
    assert table.column("plus").tolist() == [1, -2, 3]


def test_csv_tsv_gzip_and_parquet(tmp_path):
    frame = pd.DataFrame({"y": [1.0, 2.5], "g": ["a, b", 'say "x"\nand y']})
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_csv(tmp_path / "d.csv.gz", index=False)
    frame.to_csv(tmp_path / "d.TSV", index=False, sep="\t")
    frame.to_parquet(tmp_path / "d.parquet")
    for name in ("d.csv", "d.csv.gz", "d.TSV", "d.parquet"):
        for path in (tmp_path / name, str(tmp_path / name)):
            table = read(path)
            assert table.column("y").tolist() == [1.0, 2.5], name
            assert table.column("g").tolist() == frame["g"].tolist(), name


def test_csv_index_column_without_a_name_is_left_out(tmp_path):
    pd.DataFrame({"y": [1.0, 2.0]}).to_csv(tmp_path / "d.csv")
    assert read(tmp_path / "d.csv").names == ("y",)


def test_parquet_keeps_the_order_of_categories(tmp_path):
    frame = pd.DataFrame({"g": pd.Categorical(["low", "high"], categories=["low", "mid", "high"])})
    frame.to_parquet(tmp_path / "d.parquet")
    assert factorise(read(tmp_path / "d.parquet").column("g"), "g")[1] == ("low", "high")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pl.LazyFrame({"x": [1]}), r"\.collect\(\)"),
        ([1, 2], "type list cannot be read"),
        (pd.Series([1]), "type Series cannot be read"),
        (np.zeros((2, 2)), "type ndarray cannot be read"),
        (pd.DataFrame({"x": []}), "no rows"),
        (pd.DataFrame(), "no columns"),
        ({}, "no columns"),
        ({"x": [1, 2], "y": [1]}, "equally long.*'x' 2, 'y' 1"),
        ({"x": [1, 2], "y": 3}, "'y' a single value"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "more than one 'x'"),
        (pa.table([[1], [2]], names=["x", "x"]), "more than one 'x'"),
        (pd.DataFrame([[1, 2]]), r"must be text.*0 \(int\)"),
    ],
)
def test_what_cannot_be_read(data, message):
    with pytest.raises(DataError, match=message):
        read(data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", "", "is empty"),
        ("d.csv", "\n1,2\n", "column names"),
        ("d.csv", "x,y\n", "no rows"),
        ("d.csv", "x,x\n1,2\n", "more than one 'x'"),
        ("d.csv", "x,y\n1,2\n1,2,3\n", "cannot be read.*[Ee]xpected 2 columns"),
        ("d.xlsx", "x", r"unknown by its name; expected one of \.csv"),
        ("d", "x", "unknown by its name"),
        ("d.parquet", "not parquet", "cannot be read"),
        ("d.csv.gz", "not gzip", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, text))


def test_other_encodings_and_separators_are_told(tmp_path):
    (tmp_path / "d.csv").write_bytes("y,Zürich\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read(tmp_path / "d.csv")
    with pytest.raises(DataError, match="separated by something else than commas"):
        read(write(tmp_path / "e.csv", "x;y\n1;2\n")).column("x")
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"x\n1\n"))
    assert read(tmp_path / "f.csv.gz").column("x").tolist() == [1]


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="directory"):
        read(tmp_path)


def test_a_missing_column_names_the_closest():
    with pytest.raises(DataError, match=r"no column 'Day'.*did you mean 'Days'"):
        read({"Days": [1], "Subject": [2]}).column("Day")


def test_parquet_without_pandas_metadata(tmp_path):
    pq.write_table(pa.table({"x": pa.array([1, None]), "g": pa.array(["b", "a"])}), tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet").column("x").isna().tolist() == [False, True]
