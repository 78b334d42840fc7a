"""A formula and a table become arrays: the features of a Gaussian multilevel model one by one, and its refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.data.design import build
from finetti.errors import DataError, ModelError, NotBuiltError
from finetti.model.formula import parse

rng = np.random.default_rng(5)
N = 48
DATA = {
    "y": rng.normal(10, 2, N),
    "x": rng.normal(size=N),
    "e": rng.uniform(1, 9, N),
    "s": rng.uniform(0.5, 2, N),
    "w": rng.integers(1, 5, N),
    "a": rng.choice(["u", "v", "w"], N),
    "b": rng.choice([1, 2, 10], N),
    "arm": rng.choice(["ctl", "new"], N),
}


def design(formula, missing="error", **columns):
    return build(parse(formula), pd.DataFrame({**DATA, **columns}), missing)


def test_the_arrays_of_a_model_with_everything():
    d = design("y | weights(w) ~ x * arm + offset(log(e)) + (1 + x | a) + (1 + x || b) + (1 | a:b)")
    assert d.columns == ("Intercept", "x", "arm[T.new]", "x:arm[T.new]")
    new = (DATA["arm"] == "new").astype(float)
    np.testing.assert_allclose(d.X, np.column_stack([np.ones(N), DATA["x"], new, DATA["x"] * new]))
    np.testing.assert_allclose(d.offset, np.log(DATA["e"]))
    np.testing.assert_array_equal(d.weights, DATA["w"])
    assert d.intercept and d.se is None and not d.se_sigma and d.n_dropped == 0 and d.warnings == ()
    a, b, ab = d.factors
    assert (a.name, a.levels, a.coefficients, a.blocks) == ("a", ("u", "v", "w"), ("Intercept", "x"), ((0, 1),))
    assert (b.levels, b.blocks) == (("1", "2", "10"), ((0,), (1,)))
    assert ab.name == "a:b" and ab.levels[0] == "u:1" and ab.coefficients == ("Intercept",)
    assert [a.levels[i] for i in a.index] == list(DATA["a"])
    assert [ab.levels[i] for i in ab.index] == [f"{p}:{q}" for p, q in zip(DATA["a"], DATA["b"], strict=True)]
    np.testing.assert_allclose(a.Z, np.column_stack([np.ones(N), DATA["x"]]))
    for array in (d.y, d.offset, d.X, d.weights, a.Z, ab.Z):
        assert array.dtype == np.float64 and array.flags.c_contiguous and array.flags.writeable and array.flags.owndata
    assert all(f.index.dtype == np.int64 and f.index.flags.c_contiguous for f in d.factors)


def test_terms_of_one_grouping_factor_are_merged():
    d = design("y ~ 1 + (1 | a) + (0 + x | a) + (0 + arm || b)")
    a, b = d.factors
    assert (a.coefficients, a.blocks) == (("Intercept", "x"), ((0,), (1,)))
    assert (b.coefficients, b.blocks) == (("arm[ctl]", "arm[new]"), ((0,), (1,)))


def test_dummies_of_a_category_vary_by_group():
    (a,) = design("y ~ 1 + (0 + C(b) | a)").factors
    assert (a.coefficients, a.blocks) == (("C(b)[1]", "C(b)[2]", "C(b)[10]"), ((0, 1, 2),))
    (a,) = design("y ~ 1 + (1 + arm || a)").factors
    assert (a.coefficients, a.blocks) == (("Intercept", "arm[T.new]"), ((0,), (1,)))


def test_nesting_is_written_out():
    d = design("y ~ 1 + (1 | a/b)")
    assert [f.name for f in d.factors] == ["a", "a:b"]
    parent = dict(zip(d.factors[1].index, d.factors[0].index, strict=True))
    assert len(parent) == len(d.factors[1].levels)


def test_responses():
    np.testing.assert_allclose(design("log(e) ~ 1").y, np.log(DATA["e"]))
    np.testing.assert_array_equal(design("`my y` ~ 1", **{"my y": DATA["y"]}).y, DATA["y"])
    np.testing.assert_allclose(design("I(y / 2) ~ 1").y, DATA["y"] / 2)
    d = design("y | se(s) ~ 1 + (1 | a)")
    np.testing.assert_array_equal(d.se, DATA["s"])
    assert not d.se_sigma
    assert design("y | se(sqrt(s), sigma=True) ~ 1").se_sigma
    np.testing.assert_allclose(design("y ~ 0 + x + offset(e) + offset(2 * x)").offset, DATA["e"] + 2 * DATA["x"])


def test_no_population_columns():
    d = design("y ~ 0 + (1 | a)")
    assert d.X.shape == (N, 0) and d.columns == () and not d.intercept


def test_a_response_may_also_be_a_covariate_by_another_name():
    d = design("log(e) ~ e + (1 | a)")
    np.testing.assert_array_equal(d.X[:, 1], DATA["e"])


def test_one_column_may_group_and_explain():
    d = design("y ~ b + (1 | b)")
    np.testing.assert_array_equal(d.X[:, 1], DATA["b"])
    assert d.factors[0].levels == ("1", "2", "10")


def test_missing_rows_are_dropped_only_when_asked_and_only_for_used_columns():
    x = DATA["x"].copy()
    x[[2, 5]] = np.nan
    a = DATA["a"].astype(object)
    a[a == "w"] = None
    assert design("y ~ 1", x=x).n_dropped == 0
    with pytest.raises(DataError, match=r"'x' 2.*missing='drop'"):
        design("y ~ x", x=x)
    d = design("y ~ x + (1 | a)", missing="drop", x=x, a=a)
    kept = np.array([i for i in range(N) if not np.isnan(x[i]) and a[i] is not None])
    np.testing.assert_array_equal(d.rows, kept)
    assert d.n_dropped == N - len(kept)
    assert d.factors[0].levels == ("u", "v")
    np.testing.assert_array_equal(d.X[:, 1], x[kept])
    with pytest.raises(DataError, match="No row is complete"):
        design("y ~ x", missing="drop", x=np.full(N, np.nan))


def put(name, row, value):
    column = np.array(DATA[name], dtype=float)
    column[row] = value
    return {name: column}


@pytest.mark.parametrize(
    ("formula", "columns", "message"),
    [
        ("y ~ X", {}, "no column 'X'.*did you mean|Available"),
        ("y ~ x", put("x", 7, np.inf), "Column 'x' is inf in row 7"),
        ("y ~ x", put("y", 7, -np.inf), "response 'y' is -inf in row 7"),
        ("log(y) ~ x", put("y", 7, 0.0), r"response 'log\(y\)' is -inf in row 7"),
        ("y | se(s) ~ 1", put("s", 3, 0.0), r"standard error in se\(\) must be above zero.* 0 in row 3"),
        ("y | se(s) ~ 1", put("s", 3, -2.0), "-2 in row 3"),
        ("y | weights(w) ~ 1", put("w", 3, 0.0), "weight.* must be above zero.*leave out"),
        ("y | weights(a) ~ 1", {}, "weight.*must be numeric.*'a' holds text"),
        ("y ~ 1 + offset(a)", {}, "offset must be numeric"),
        ("y ~ 1 + offset(log(x))", {}, "offset is nan in row"),
        ("a ~ 1", {}, "response 'a' must be numeric"),
        ("y ~ 1", {"y": DATA["x"] > 0}, "True/False"),
        ("y ~ day", {"day": pd.date_range("2020-01-01", periods=N)}, "dates or times"),
        ("y ~ 1 + (1 | b)", {"b": [1, "a"] * (N // 2)}, "mixed"),
        ("y ~ 1 + (1 | x)", put("x", 0, np.inf), "infinite"),
        ("y ~ x", {"x": 1e120 * DATA["x"]}, "Column 'x' has values of size .*change its unit"),
        ("y ~ 1 + (0 + x | a)", {"x": 1e-120 * DATA["x"]}, "Column 'x' has values of size .*change its unit"),
        ("y ~ 1", {"y": 1e200 * DATA["y"]}, "response 'y' has values of size .*change its unit"),
    ],
)
def test_data_that_are_refused(formula, columns, message):
    with pytest.raises(DataError, match=message):
        design(formula, **columns)


@pytest.mark.parametrize(
    ("formula", "columns", "message"),
    [
        ("y ~ x + I(2 * x)", {}, r"`I\(2 \* x\)` is a linear combination of `x`"),
        ("y ~ k", {"k": np.full(N, 3.0)}, "`k` is a linear combination of `Intercept`"),
        ("y ~ arm", {"arm": ["only"] * N}, "'arm' has a single category"),
        ("y ~ C(k)", {"k": np.full(N, 3)}, r"C\(\) of 'k' has a single category \(3\)"),
        ("y ~ 1", {"y": np.full(N, 0.1)}, "same value, 0.1, in all 48 rows"),
        ("y ~ 1 + offset(y)", {}, "same value, 0,"),
        ("y ~ 1 + (0 + k | a)", {"k": np.zeros(N)}, "'k' is zero in every row"),
        ("y ~ a * C(b) * arm", {"a": ["u"] * 9 + ["v"] * 39, "arm": ["ctl"] * 9 + ["new"] * 39}, "combination"),
    ],
)
def test_models_that_the_data_cannot_identify(formula, columns, message):
    with pytest.raises(ModelError, match=message):
        design(formula, **columns)


def test_a_coefficient_twice_in_one_factor():
    from finetti.model.formula import Formula, GroupTerm, Response

    twice = Formula(Response("y"), "1", (), (GroupTerm(("a",), "1"), GroupTerm(("a",), "1 + x")))
    with pytest.raises(ModelError, match="'Intercept' appears in two group terms of 'a'"):
        build(twice, DATA)


def test_few_rows():
    with pytest.raises(ModelError, match="one row"):
        build(parse("y ~ 1"), {"y": [1.0]})
    with pytest.raises(ModelError, match="2 population coefficients"):
        build(parse("y ~ x"), {"y": [1.0], "x": [2.0]})
    with pytest.raises(DataError, match="no rows"):
        build(parse("y ~ 1"), {"y": []})
    assert build(parse("y | se(s) ~ 1"), {"y": [1.0], "s": [2.0]}).X.tolist() == [[1.0]]


def test_doubtful_designs_warn():
    assert "single level ('u')" in design("y ~ 1 + (1 | a)", a=["u"] * N).warnings[0]
    assert "one row per level" in design("y ~ 1 + (1 | id)", id=range(N)).warnings[0]
    assert design("y | se(s) ~ 1 + (1 | id)", id=range(N)).warnings == ()
    assert "one row per level" in design("y | se(s, sigma=True) ~ 1 + (1 | id)", id=range(N)).warnings[0]
    assert design("y | weights(w) ~ 1 + (1 | id)", id=range(N)).warnings == ()
    copy = [f"copy of {a}" for a in DATA["a"]]
    assert "group the rows identically" in design("y ~ 1 + (1 | a) + (1 | c)", c=copy).warnings[0]
    assert "same value" in design("y | se(s) ~ 1 + (1 | a)", y=np.ones(N)).warnings[0]


def test_what_is_not_built_says_so():
    with pytest.raises(NotBuiltError, match="trials"):
        design("y | trials(w) ~ 1")


def test_the_design_does_not_change_with_the_users_frame():
    frame = pd.DataFrame({"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 5.0]})
    d = build(parse("y ~ x"), frame)
    frame.loc[0, :] = 99.0
    assert d.y[0] == 1.0 and d.X[0, 1] == 0.0


# ---- properties ------------------------------------------------------------------------------------------------------

FULL = parse("y | weights(w) ~ center(x) * arm + offset(log(e)) + (1 + x | a) + (1 | a:b)")


def same(d1, d2, rows=slice(None)):
    assert d1.columns == d2.columns
    for name in ("y", "offset", "weights", "X"):
        np.testing.assert_allclose(getattr(d1, name), getattr(d2, name)[rows], rtol=1e-12, atol=1e-12)
    for f1, f2 in zip(d1.factors, d2.factors, strict=True):
        assert (f1.name, f1.levels, f1.coefficients, f1.blocks) == (f2.name, f2.levels, f2.coefficients, f2.blocks)
        np.testing.assert_array_equal(f1.index, f2.index[rows])
        np.testing.assert_array_equal(f1.Z, f2.Z[rows])


@given(st.permutations(range(N)))
def test_permuting_rows_permutes_the_design(order):
    frame = pd.DataFrame(DATA)
    same(build(FULL, frame.iloc[list(order)]), build(FULL, frame), list(order))


@given(st.permutations(["u", "v", "w"]))
def test_renaming_levels_renames_levels(names):
    renamed = dict(zip(["u", "v", "w"], names, strict=True))
    first = design("y ~ 1 + (1 | a)").factors[0]
    second = design("y ~ 1 + (1 | a)", a=[renamed[a] for a in DATA["a"]]).factors[0]
    assert [renamed[first.levels[i]] for i in first.index] == [second.levels[i] for i in second.index]


def test_every_make_of_frame_gives_the_same_design(tmp_path):
    frame = pd.DataFrame(DATA)
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_csv(tmp_path / "d.csv.gz", index=False)
    frame.to_parquet(tmp_path / "d.parquet")
    expected = build(FULL, frame)
    nullable = frame.convert_dtypes()
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    category = frame.astype({"a": "category", "arm": "category", "b": "category"})
    text = frame.astype({"a": object, "arm": object})
    for data in (
        pl.from_pandas(frame), pa.Table.from_pandas(frame), DATA, nullable, arrow, category, text,
        pa.Table.from_pandas(category), tmp_path / "d.csv", str(tmp_path / "d.csv.gz"), tmp_path / "d.parquet",
        pl.from_pandas(frame).with_columns(pl.col("a", "arm").cast(pl.Categorical)),
    ):  # fmt: skip
        same(build(FULL, data), expected)


# ---- real data -------------------------------------------------------------------------------------------------------


def test_insteval(shared_data):
    d = build(parse("y ~ 1 + (1 | s) + (1 | d) + (1 | dept:service)"), shared_data / "multilevel" / "insteval.csv.gz")
    assert len(d.y) == 73_421
    assert [len(f.levels) for f in d.factors] == [2972, 1128, 28]
    assert all(len(np.unique(f.index)) == len(f.levels) for f in d.factors)


def test_pastes_and_cbpp(shared_data):
    pastes = build(parse("strength ~ 1 + (1 | batch/cask)"), shared_data / "multilevel" / "pastes.csv")
    assert [len(f.levels) for f in pastes.factors] == [10, 30]
    assert pastes.factors[1].levels[:2] == ("A:a", "A:b")
    cbpp = build(parse("incidence ~ C(period) + (1 | herd)"), shared_data / "multilevel" / "cbpp.csv")
    assert cbpp.columns == ("Intercept", "C(period)[T.2]", "C(period)[T.3]", "C(period)[T.4]")
    assert cbpp.factors[0].levels == tuple(str(i) for i in range(1, 16))
