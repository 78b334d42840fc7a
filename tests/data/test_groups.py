"""Levels of grouping factors, nested ones included, and finding them again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetti.data.groups import code_columns, learn_grouping
from finetti.errors import DataError


def learn(*columns, **series):
    coded = code_columns({name: pd.Series(values) for name, values in series.items()})
    return learn_grouping(columns, coded)


def test_nested_levels_are_the_observed_pairs_in_the_order_of_both_columns():
    grouping, index = learn("a", "b", a=["B", "A", "B", "A"], b=[10, 9, 9, 9])
    assert grouping.levels == ("A:9", "B:9", "B:10")
    assert index.tolist() == [2, 0, 1, 0]
    assert index.dtype == np.int64 and index.flags.c_contiguous


def test_three_columns():
    grouping, index = learn("a", "b", "c", a=[1, 1, 2, 2], b=["x", "y", "x", "x"], c=[True, True, False, True])
    assert grouping.levels == ("1:x:True", "1:y:True", "2:x:False", "2:x:True")
    assert index.tolist() == [0, 1, 2, 3]


def test_pairs_are_never_confused_by_their_text():
    with pytest.raises(DataError, match=r"both be called 'A:1:2'.*colons"):
        learn("a", "b", a=["A:1", "A"], b=["2", "1:2"])
    grouping, _ = learn("a", "b", a=["A:1", "B"], b=["2", "1:2"])
    coded = code_columns({"a": pd.Series(["A", "A:1"]), "b": pd.Series(["1:2", "2"])})
    assert grouping.encode(coded).tolist() == [-1, grouping.levels.index("A:1:2")]


def test_levels_are_found_by_text_across_types():
    grouping, _ = learn("g", g=[308, 9])
    assert grouping.encode(code_columns({"g": pd.Series(["9", "308", "10"])})).tolist() == [0, 1, -1]
    assert grouping.encode(code_columns({"g": pd.Series([308.0])})).tolist() == [1]
    assert grouping.encode(code_columns({"g": pd.Series(pd.Categorical([9, 7]))})).tolist() == [0, -1]


def test_an_unseen_pair_of_known_parts_is_unseen():
    grouping, _ = learn("a", "b", a=["A", "B"], b=["x", "y"])
    coded = code_columns({"a": pd.Series(["A", "A", "B"]), "b": pd.Series(["x", "y", "y"])})
    assert grouping.encode(coded).tolist() == [0, -1, 1]


ROW = st.tuples(st.integers(-5, 5), st.sampled_from(["x", "y", "zz"]), st.booleans())


@given(st.lists(ROW, min_size=1, max_size=30))
def test_the_same_rows_are_found_again(rows):
    a, b, c = (list(column) for column in zip(*rows, strict=True))
    coded = code_columns({"a": pd.Series(a), "b": pd.Series(b), "c": pd.Series(c)})
    grouping, index = learn_grouping(("a", "b", "c"), coded)
    assert grouping.encode(coded).tolist() == index.tolist()
    assert [grouping.levels[i] for i in index] == [f"{x}:{y}:{z}" for x, y, z in rows]
    assert sorted(set(index)) == list(range(len(grouping.levels)))
    observed = [tuple(row) for row in sorted(set(rows))]
    assert list(grouping.levels) == [f"{x}:{y}:{z}" for x, y, z in observed]
