"""Replay on new rows: exact on the old ones, and strict about what was never seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from finetti.data.design import build
from finetti.errors import PredictionError
from finetti.model.formula import parse

rng = np.random.default_rng(8)
N = 40
DATA = pd.DataFrame(
    {
        "y": rng.normal(size=N),
        "x": rng.normal(size=N),
        "e": rng.uniform(1, 2, N),
        "w": rng.uniform(1, 2, N),
        "arm": rng.choice(["ctl", "low", "new"], N),
        "k": rng.integers(1, 4, N),
        "a": rng.choice(["u", "v"], N),
        "b": rng.choice([1, 2], N),
        "id": rng.integers(0, 9, N),
    }
)
DESIGN = build(
    parse("y | weights(w) ~ scale(x) * arm + C(k) + offset(log(e)) + (1 + x | id) + (0 + arm || a) + (1 | a:b)"), DATA
)
MEAN = DATA.drop(columns=["y", "w"])


def test_the_training_rows_give_the_training_design():
    new = DESIGN.replay(DATA, response_noise=True)
    np.testing.assert_array_equal(new.X, DESIGN.X)
    np.testing.assert_array_equal(new.offset, DESIGN.offset)
    np.testing.assert_array_equal(new.weights, DESIGN.weights)
    for (name, Z, index), factor in zip(new.factors, DESIGN.factors, strict=True):
        assert name == factor.name
        np.testing.assert_array_equal(Z, factor.Z)
        np.testing.assert_array_equal(index, factor.index)
    assert (new.n, new.se) == (N, None)


def test_one_row_of_any_make_and_type():
    row = {"x": [0.5], "e": [1.0], "arm": ["new"], "k": [2], "a": ["u"], "b": ["2"], "id": [3.0]}
    frames = (row, pd.DataFrame(row), pl.DataFrame(row), pd.DataFrame(row).astype({"arm": "category", "id": object}))
    designs = [DESIGN.replay(frame) for frame in frames]
    x = (0.5 - DATA["x"].mean()) / DATA["x"].std()
    np.testing.assert_allclose(designs[0].X, [[1, x, 0, 1, 1, 0, 0, x]])  # arm and k dummies before the interaction
    for new in designs:
        np.testing.assert_array_equal(new.X, designs[0].X)
        found = [f.levels[int(index[0])] for f, (_, _, index) in zip(DESIGN.factors, new.factors, strict=True)]
        assert found == ["3", "u", "u:2"]


def test_new_and_population_do_without_the_group_column():
    new = DESIGN.replay(MEAN.drop(columns=["id"]), groups={"id": "new"})
    name, Z, index = new.factors[0]
    assert name == "id" and (index == -1).all()
    np.testing.assert_array_equal(Z, DESIGN.factors[0].Z)
    everything = {"id": "population", "a": "population", "a:b": "population"}
    new = DESIGN.replay(MEAN.drop(columns=["id", "a", "b"]), groups=everything)
    assert all((index == -1).all() and not Z.any() and Z.shape == f.Z.shape
               for (_, Z, index), f in zip(new.factors, DESIGN.factors, strict=True))  # fmt: skip


def changed(name, row, value):
    frame = MEAN.astype({name: object})
    frame.loc[row, name] = value
    return frame


@pytest.mark.parametrize(
    ("newdata", "options", "message"),
    [
        (changed("arm", 4, "high"), {}, "'arm' of the new data has the category 'high'.*'ctl', 'low', 'new'"),
        (changed("k", 4, 9), {}, "category 9.*known ones: 1, 2, 3"),
        (changed("x", 4, None), {}, r"'x' of the new data is missing in 1 of 40 rows \(the first is row 4"),
        (changed("x", 4, np.inf), {}, "'x' of the new data is inf in row 4"),
        (MEAN.assign(x="1"), {}, "'x' was numeric.*text"),
        (MEAN.drop(columns="x"), {}, "no column 'x'"),
        (MEAN.drop(columns="id"), {}, "no column 'id', which says to which known group.*groups='new'"),
        (changed("id", 4, 77), {}, "levels of 'id' that were not in the fit: '77'.*groups='new'"),
        (MEAN, {"response_noise": True}, "depends on their weights.*'w'.*kind='mean'"),
        (MEAN, {"groups": {"Id": "new"}}, "'Id', but the grouping factors are: id, a, a:b"),
        (MEAN, {"groups": {"id": "unknown"}}, "use 'known', 'new' or 'population'"),
        (MEAN.iloc[:0], {}, "no rows"),
        ("absent.csv", {}, "no file"),
    ],
)
def test_new_data_that_do_not_fit(newdata, options, message):
    with pytest.raises(PredictionError, match=message):
        DESIGN.replay(newdata, **options)


def test_an_unseen_pair_of_known_levels():
    design = build(parse("y ~ 1 + (1 | a:b)"), {"y": [1.0, 2, 3], "a": ["u", "v", "v"], "b": [1, 2, 2]})
    with pytest.raises(PredictionError, match="'u:2'"):
        design.replay({"a": ["u"], "b": [2]})


def test_standard_errors_of_new_rows():
    design = build(parse("y | se(sqrt(v)) ~ 1"), {"y": [1.0, 2.0], "v": [1.0, 4.0]})
    assert design.replay({"v": [9.0]}, response_noise=True).se.tolist() == [3.0]
    assert design.replay({"other": [9.0, 1.0]}).n == 2
    with pytest.raises(PredictionError, match="standard errors"):
        design.replay({"other": [9.0]}, response_noise=True)
    with pytest.raises(PredictionError, match="above zero"):
        design.replay({"v": [0.0]}, response_noise=True)


def test_a_missing_cell_in_a_column_that_is_not_used_is_no_matter():
    assert DESIGN.replay(MEAN.assign(note=None)).n == N
