"""Expression matrices of every make, with labels where they are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from finetti.data.contrasts import read_contrasts
from finetti.data.matrix import column_names, open_matrix, read_matrix
from finetti.data.samples import read_samples
from finetti.errors import DataError, FormulaError, ModelError

VALUES = np.array([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]])
FRAME = pd.DataFrame(VALUES, columns=["s1", "s2", "s3"], index=["tp53", "myc"])
COLUMNS = FRAME.reset_index(names="gene")


def test_every_make_gives_the_same(tmp_path):
    COLUMNS.to_csv(tmp_path / "m.csv", index=False)
    COLUMNS.to_csv(tmp_path / "m.tsv.gz", index=False, sep="\t")
    COLUMNS.to_parquet(tmp_path / "m.parquet")
    makes = [
        FRAME, COLUMNS, pl.from_pandas(COLUMNS), pa.Table.from_pandas(COLUMNS), COLUMNS.to_dict("list"),
        tmp_path / "m.csv", str(tmp_path / "m.tsv.gz"), tmp_path / "m.parquet",
    ]  # fmt: skip
    for make in makes:
        found = read_matrix(make)
        np.testing.assert_array_equal(found.values, VALUES)
        assert found.values.flags.c_contiguous and found.values.dtype == np.float64
        assert found.genes.tolist() == ["tp53", "myc"] and found.samples == ("s1", "s2", "s3")


def test_an_array_has_no_names():
    found = read_matrix(VALUES)
    assert found.genes.tolist() == ["1", "2"] and found.samples is None
    assert read_matrix([[1, 2], [3, 4]], labels=["a", "b"]).genes.tolist() == ["a", "b"]
    unnamed = read_matrix(pd.DataFrame(VALUES))
    assert unnamed.samples is None and unnamed.genes.tolist() == ["1", "2"]
    assert column_names(open_matrix(VALUES)) is None and column_names(open_matrix(FRAME)) == ("s1", "s2", "s3")


def test_labels_are_found_or_told():
    numbered = pd.DataFrame({"Gene": [7, 8], "s1": [1.0, 2.0], "s2": [1, 2]})
    assert read_matrix(numbered).genes.tolist() == ["7", "8"]
    told = pd.DataFrame(
        {"gene_index": [36, 37], "probe": ["A_at", "B_at"], "description": ["x", "x"], "s1": [1.0, 2.0]}
    )
    found = read_matrix(told)
    assert found.genes.tolist() == ["A_at", "B_at"] and found.left_out == ("gene_index", "description")
    assert read_matrix(told, labels="gene_index").genes.tolist() == ["36", "37"]
    # integers without a telling name are a sample
    assert read_matrix(pd.DataFrame({"a": [7, 8], "s1": [1.0, 2.0]})).samples == ("a", "s1")
    # what the design knows is a sample, whatever its name
    assert read_matrix(numbered, wanted=["Gene", "s1"]).samples == ("Gene", "s1")
    assert read_matrix(FRAME.assign(note="x"), wanted=["s3", "s1"]).left_out == ("s2", "note")
    assert read_matrix(FRAME.set_axis(["a", None])).genes.tolist() == ["a", "?"]


@pytest.mark.parametrize(
    ("matrix", "labels", "told"),
    [
        (np.ones(3), None, "two dimensions"),
        (np.ones((0, 3)), None, "two dimensions"),
        ([[1, 2], [3]], None, "differ in length"),
        (np.array([["a", "b"]]), None, "not numbers"),
        (VALUES, "gene", "an array has none"),
        (FRAME.assign(s2=["1.5", "x"]), None, "'x' in row 1"),
        (FRAME.assign(note=["n", "m"]), None, "the column 'note' holds text|The column 'note' holds text"),
        (FRAME.assign(s2=[True, False]), None, "boolean"),
        (FRAME.assign(s2=pd.to_datetime(["2020-01-01", "2020-01-02"])), None, "date"),
        (FRAME.assign(s2=[np.nan, np.nan]), None, "'s2' has no value"),
        (FRAME.assign(s2=[None, None]), None, "'s2' has no value"),
        (FRAME.replace(5.0, np.inf), None, "inf for gene 'myc', sample 's2'"),
        (FRAME * 1e200, None, "change its unit"),
        (FRAME, "probe", "not a column"),
        (FRAME.set_axis(["s", "s", "t"], axis=1), None, "'s' stands over 2"),
        (COLUMNS[["gene"]], None, "no column of samples"),
        (pd.concat({"a": FRAME}), None, "2 levels"),
        (3.0, None, "cannot be read"),
    ],
)
def test_refuses(matrix, labels, told):
    with pytest.raises(DataError, match=told):
        read_matrix(matrix, labels)


def test_refuses_other_containers():
    sparse = pytest.importorskip("scipy.sparse").csr_array(VALUES)
    with pytest.raises(DataError, match="toarray"):
        read_matrix(sparse)


def test_names_of_samples():
    table = {"id": ["s3", "s1", "s2"], "site": ["p", "q", "p"], "x": [1.0, 2.0, 4.0]}
    four = {k: [*v, v[-1]] for k, v in table.items()} | {"id": ["s3", "s1", "s2", "s4"]}
    found = read_samples("~ x", four, None, ("gene", "s1", "s2", "s3", "s4"))
    assert found.samples == ("s3", "s1", "s2", "s4") and found.order(("s1", "s2", "s3", "s4"), 4) == [2, 0, 1, 3]
    assert read_samples("~ x", four, None, None).samples is None
    with pytest.raises(DataError, match="more than once"):
        read_samples("~ x", four, "site", ("s1", "s2", "s3", "s4"))
    with pytest.raises(DataError, match="which the design does not name"):
        found.order(("s1", "s2", "s3", "s4", "s5"), 5)


COEFFICIENTS = ("Intercept", "group[T.a b]", "age", "x:group[T.c]", "I(age ** 2)", "x.1")


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("age", [0, 0, 1, 0, 0, 0]),
        ("-age + 2 * group[T.a b]", [0, 2, -1, 0, 0, 0]),
        ("x:group[T.c] - `group[T.a b]` / 2", [0, -0.5, 0, 1, 0, 0]),
        ("3 * (age - I(age ** 2)) - (x.1 - Intercept) / 4", [0.25, 0, 3, 0, -3, -0.25]),
        ("2 - 2 + age", [0, 0, 1, 0, 0, 0]),
    ],
)
def test_contrasts_are_read_as_written(text, weights):
    names, found = read_contrasts(text, COEFFICIENTS, np.eye(6))
    assert names == (text,)
    assert found[:, 0].tolist() == weights


def test_contrasts_by_default_and_refused():
    names, weights = read_contrasts(None, COEFFICIENTS, np.eye(6))
    assert names == COEFFICIENTS[1:] and weights.shape == (6, 5)
    assert read_contrasts(None, ("Intercept",), np.ones((3, 1)))[0] == ("Intercept",)
    assert read_contrasts(None, ("x1", "x2"), np.array([[1.0, 2], [1, 3]]))[0] == ("x2",)
    # a category that occurs twice is nobody's alias
    for wrong in ("b", "age / age", "age / 0", "age +", "age; age", "__import__('os')", "agee", {}, 7, {"a": None}):
        with pytest.raises(ModelError):
            read_contrasts(wrong, ("g[b]", "h[b]", "age"), np.eye(3))
    with pytest.raises(ModelError, match="must differ"):
        read_contrasts(["age", "age"], COEFFICIENTS, np.eye(6))
    with pytest.raises(ModelError, match="not a number"):
        read_contrasts({"x": {"age": "one"}}, COEFFICIENTS, np.eye(6))


@pytest.mark.parametrize(("given", "place"), [("~ x +", 5), ("x +", 3), ("  ~ x + f(x)", 9), ("~ x x", 5)])
def test_a_wrong_design_counts_characters_as_given(given, place):
    with pytest.raises(FormulaError) as caught:
        read_samples(given, pd.DataFrame({"x": [1, 2, 3, 4]}), None, None)
    assert str(caught.value).startswith(f"design={given!r}, character {place},")
