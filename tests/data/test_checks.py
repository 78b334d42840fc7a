"""Rank, spread, signs: what is refused, and what only warns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from finetti.data.checks import check_positive, check_rank, check_spread, factor_warnings, observed_rows
from finetti.errors import DataError, ModelError

rng = np.random.default_rng(1)
N = 40
ONE, A, B = np.ones(N), rng.normal(size=N), rng.normal(size=N)
HALF = (np.arange(N) % 2).astype(float)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Intercept": ONE, "a": A, "b": 2 * A - 3}, "`b` is a linear combination of `a`, `Intercept`"),
        ({"Intercept": ONE, "a": A, "b": 2 * A}, "`b` is a linear combination of `a`\\."),
        ({"Intercept": ONE, "k": 7 * ONE}, "`k` is a linear combination of `Intercept`"),
        ({"Intercept": ONE, "a": A, "b": B, "c": A + B, "d": A - B}, "`c` is .* `a`, `b`; `d` is .* `a`, `b`"),
        ({"Intercept": ONE, "z": 0 * ONE}, "`z` is zero in every row"),
        ({"u": HALF, "v": 1 - HALF, "w": ONE}, "`w` is a linear combination of `u`, `v`"),
        ({"a": A, "b": -A}, "`b` is a linear combination of `a`"),
        ({"z": 0 * ONE}, "`z` is zero in every row"),
        ({"Intercept": ONE, "a": 1e8 + A, "b": 3e8 + 3 * A}, "`b` is a linear combination of `a`"),
    ],
)
def test_dependent_columns_are_named_with_what_they_are_made_of(columns, message):
    with pytest.raises(ModelError, match=message):
        check_rank(np.column_stack(list(columns.values())), tuple(columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"Intercept": ONE, "year": 1e8 + A, "b": B},
        {"Intercept": ONE, "a": A, "b": A + 1e-4 * B},
        {"Intercept": 1 * ONE, "a": 1e-90 * A, "b": 1e90 * B},
        {"u": HALF, "v": 1 - HALF, "year": 1e8 + A},
        {"year": 1e8 + A},
        {"k": 3 * ONE},
        {},
    ],
)
def test_independent_columns_pass_in_any_unit_and_from_any_origin(columns):
    check_rank(np.column_stack(list(columns.values())) if columns else np.empty((N, 0)), tuple(columns))


def test_more_columns_than_rows():
    with pytest.raises(ModelError, match=r"3 population coefficients .* only 2 rows"):
        check_rank(np.ones((2, 3)), ("Intercept", "a", "b"))


def test_a_constant_response():
    with pytest.raises(ModelError, match="same value, 5, in all 3 rows"):
        check_spread(np.full(3, 5.0), "y", known_error=False)
    with pytest.raises(ModelError, match="one row"):
        check_spread(np.array([5.0]), "y", known_error=False)
    assert "same value" in check_spread(np.full(3, 0.1), "y", known_error=True)[0]
    assert "one observation" in check_spread(np.array([5.0]), "y", known_error=True)[0]
    assert check_spread(1e8 + np.array([0.0, 1.0]), "y", known_error=False) == ()
    assert check_spread(1e-6 * np.array([1.0, 2.0]), "y", known_error=False) == ()


def test_values_that_must_be_positive():
    with pytest.raises(DataError, match=r"must be above zero, but it is -1 in row 9 .*1 such rows in all\)\. Way out"):
        check_positive(np.array([1.0, -1.0]), "se", np.array([7, 9]), "Way out.")
    with pytest.raises(DataError, match="se is inf in row 7"):
        check_positive(np.array([np.inf, 1.0]), "se", np.array([7, 9]), "")


def test_missing_values_are_counted_and_dropped_only_when_asked():
    raw = {"x": pd.Series([1.0, np.nan, 3.0]), "g": pd.Series(["a", None, None])}
    with pytest.raises(DataError, match=r"of 3 rows: 'x' 1, 'g' 2.*missing='drop'"):
        observed_rows(raw, 3, "error")
    assert observed_rows(raw, 3, "drop").tolist() == [0]
    assert observed_rows({"x": pd.Series([1.0])}, 1, "error") is None
    with pytest.raises(DataError, match="No row is complete"):
        observed_rows({"x": pd.Series([np.nan])}, 1, "drop")
    with pytest.raises(DataError, match="missing='omit' is unknown"):
        observed_rows(raw, 3, "omit")


def factor(name, index, coefficients=("Intercept",)):
    index = np.array(index)
    return SimpleNamespace(
        name=name, index=index, levels=tuple(map(str, range(index.max() + 1))), coefficients=coefficients
    )


def test_warnings_about_groups():
    assert "single level" in factor_warnings([factor("g", [0, 0])], 2, True)[0]
    assert "one row per level" in factor_warnings([factor("g", [0, 1])], 2, True)[0]
    assert factor_warnings([factor("g", [0, 1])], 2, False) == ()
    same = factor_warnings([factor("g", [0, 0, 1]), factor("h", [1, 1, 0])], 3, True)
    assert "'g' and 'h' group the rows identically" in same[0]
    assert factor_warnings([factor("g", [0, 0, 1]), factor("h", [0, 1, 1])], 3, True) == ()
    assert factor_warnings([factor("g", [0, 0, 1]), factor("h", [1, 1, 0], ("x",))], 3, True) == ()


def test_a_natural_spline_beside_the_intercept_has_a_way_out():
    X = np.column_stack([ONE, HALF, 1 - HALF])
    with pytest.raises(ModelError, match="constraints='center'"):
        check_rank(X, ("Intercept", "cr(x, df=2)[1]", "cr(x, df=2)[2]"))
