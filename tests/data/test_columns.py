"""Columns become numbers, categories or levels; what is none of these is refused with advice."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from finetti.data.columns import covariate, factorise, kind_of, missing_mask, numbers
from finetti.errors import DataError


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0], "number"), ([1], "integer"), ([True], "boolean"), (["a"], "text"), ([Decimal("1")], "decimal"),
        (pd.Series([None, None], dtype=object), "empty"), ([1, "a"], "other"), ([1j], "other"), ([[1], [2]], "other"),
        (pd.Categorical(["a"]), "category"), (pd.to_datetime(["2020-01-01"]), "date"),
        (pd.to_timedelta([1], unit="D"), "date"), (pd.period_range("2020", periods=1, freq="Y"), "date"),
        (pd.arrays.SparseArray([0, 1]), "integer"), (pd.Series([1, 2.5], dtype=object), "number"),
    ],
)  # fmt: skip
def test_kinds(values, kind):
    assert kind_of(pd.Series(values)) == kind


def test_numbers_are_owned_writable_and_contiguous():
    series = pd.Series([1.0, 2.0])
    values = numbers(series, "y", "response")
    values[0] = 9.0
    assert series[0] == 1.0
    assert values.flags.writeable and values.flags.c_contiguous


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([True, False], "response 'y' must be numeric, but it holds True/False values.*astype"),
        (["1", "x"], "holds text; convert"),
        (pd.Categorical(["a", "b"]), "holds categories; convert"),
        (pd.to_datetime(["2020-01-01"]), "days since"),
        ([1, "a"], "mixed type"),
    ],
)
def test_responses_that_are_not_numbers(values, message):
    with pytest.raises(DataError, match=message):
        numbers(pd.Series(values), "y", "response")


def test_covariates():
    assert covariate(pd.Series([True, False]), "x").tolist() == [1.0, 0.0]
    assert covariate(pd.Series([Decimal("1.5")]), "x").tolist() == [1.5]
    assert covariate(pd.Series(pd.arrays.SparseArray([0, 1])), "x").tolist() == [0.0, 1.0]
    ordered = pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"], ordered=True))
    assert list(covariate(ordered, "x").cat.categories) == ["lo", "hi"]
    with pytest.raises(DataError, match=r"dates or times.*dt\.days"):
        covariate(pd.Series(pd.to_datetime(["2020-01-01"])), "when")
    with pytest.raises(DataError, match="neither all numbers nor all text"):
        covariate(pd.Series([1, "a"]), "x")


def test_text_is_sorted_by_code_point_and_numbers_as_numbers():
    assert factorise(pd.Series(["b", "B", "é", "a", "10", "9"]), "g")[1] == ("10", "9", "B", "a", "b", "é")
    assert factorise(pd.Series([-1.5, 10, 9, -0.0, 0.0]), "g")[1] == ("-1.5", "0", "9", "10")


@pytest.mark.parametrize(
    "values", [[1, "a"], pd.Categorical([1, "1"]), [np.inf, 1.0]], ids=["mixed", "same text", "infinite"]
)
def test_columns_that_cannot_group(values):
    with pytest.raises(DataError, match="'g'"):
        factorise(pd.Series(values), "g")


def test_times_of_day_are_kept_where_there_are_some():
    stamps = pd.Series(pd.to_datetime(["2020-01-02 06:00", "2020-01-01 00:00"]))
    assert factorise(stamps, "g")[1] == ("2020-01-01 00:00:00", "2020-01-02 06:00:00")


def test_missing_values_of_every_type():
    for values in (
        [1.0, np.nan], ["a", None], pd.Categorical(["a", None]), pd.array([1, None], dtype="Int64"),
        pd.to_datetime(["2020-01-01", None]), pd.array([1.0, None], dtype="Float64"), [True, None],
    ):  # fmt: skip
        assert missing_mask(pd.Series(values)).tolist() == [False, True]
