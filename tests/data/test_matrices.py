"""formulaic behind its door: what a right side may see, what it learns, and what it must not do silently."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from finetti.data.columns import covariate
from finetti.data.matrices import learn_expression, learn_terms, read_right_side
from finetti.errors import DataError, FormulaError, ModelError

rng = np.random.default_rng(3)
N = 60
RAW = {
    "x": rng.uniform(1, 5, N),
    "z": rng.normal(size=N),
    "g": rng.choice(["a", "b", "c"], N),
    "k": rng.integers(1, 5, N),
    "my col": rng.normal(size=N),
    "flag": rng.random(N) < 0.5,
}
FRAME = {name: covariate(pd.Series(values), name) for name, values in RAW.items()}


def learn(text, frame=None, n=N):
    return learn_terms(read_right_side(text), frame or FRAME, n)


def take(rows):
    return {name: column.iloc[rows].reset_index(drop=True) for name, column in FRAME.items()}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("1", ("Intercept",)),
        ("0", ()),
        ("1 + x", ("Intercept", "x")),
        ("0 + x", ("x",)),
        ("1 + g", ("Intercept", "g[T.b]", "g[T.c]")),
        ("0 + g", ("g[a]", "g[b]", "g[c]")),
        ("1 + C(k)", ("Intercept", "C(k)[T.2]", "C(k)[T.3]", "C(k)[T.4]")),
        ("0 + C(k)", ("C(k)[1]", "C(k)[2]", "C(k)[3]", "C(k)[4]")),
        ("1 + C(g, contr.sum)", ("Intercept", "C(g, contr.sum)[S.a]", "C(g, contr.sum)[S.b]")),
        ("1 + C(flag)", ("Intercept", "C(flag)[T.1]")),
        ("1 + flag", ("Intercept", "flag")),
        ("1 + x * g", ("Intercept", "x", "g[T.b]", "g[T.c]", "x:g[T.b]", "x:g[T.c]")),
        ("1 + `my col`", ("Intercept", "my col")),
        ("1 + log(`my col` ** 2)", ("Intercept", "log(`my col` ** 2)")),
        ("1 + np.log(x)", ("Intercept", "np.log(x)")),
    ],
)  # fmt: skip
def test_labels(text, columns):
    terms, matrix = learn(text)
    assert terms.columns == columns
    assert matrix.shape == (N, len(columns))
    assert matrix.dtype == np.float64 and matrix.flags.c_contiguous and matrix.flags.writeable


FORMULAS = [
    "1", "0", "1 + x", "0 + x + g", "1 + x * g", "1 + C(k) : g", "1 + center(x) + scale(z)", "1 + poly(x, 3)",
    "1 + bs(x, df=5)", "1 + cr(x, df=4, constraints='center')", "1 + log(x) + np.sqrt(x) + I(x ** 2)",
    "1 + scale(log(x))", "1 + g : center(x)", "1 + C(k, contr.treatment(base=4))",
    "1 + C(g, contr.sum)", "1 + C(k, contr.helmert) + flag", "1 + poly(x, 2, raw=True)", "0 + center(x):C(k)",
    "1 + scale(`my col`)", "1 + log2(x) + log10(x) + log1p(x) + exp(z) + abs(z)", "1 + (x + z + g) ** 2", "1 + x / g",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_replay_is_exact_on_the_training_rows_and_on_any_part_of_them(text):
    terms, matrix = learn(text)
    np.testing.assert_array_equal(terms.replay(FRAME, N), matrix)
    for rows in ([0], [5, 3, 3, 40], list(range(N))[::-1]):
        np.testing.assert_allclose(terms.replay(take(rows), len(rows)), matrix[rows], rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(terms.replay(FRAME, N), matrix)  # replaying has taught it nothing


def test_centre_and_scale_are_those_of_the_training_rows():
    terms, _ = learn("1 + center(x) + scale(z)")
    new = {"x": pd.Series([10.0]), "z": pd.Series([2.0])}
    x, z = RAW["x"], RAW["z"]
    np.testing.assert_allclose(terms.replay(new, 1), [[1, 10 - x.mean(), (2 - z.mean()) / z.std(ddof=1)]])


def test_only_the_whitelisted_functions_are_in_reach():
    for text in ("1 + np.sin(x)", "1 + np.load(x)", "1 + open(x)", "1 + N(x)", "1 + pd(x)", "1 + RAW(x)"):
        with pytest.raises(FormulaError, match="not a function that a formula can call"):
            learn(text)
    with pytest.raises(FormulaError):
        learn("1 + {__import__('os').getcwd()}")
    with pytest.raises(DataError):  # the caller's variables are out of reach
        learn_expression("N + x", FRAME)


def test_a_column_with_the_name_of_a_function():
    frame = {"scale": FRAME["x"], "x": FRAME["x"]}
    terms, matrix = learn("1 + scale", frame)
    np.testing.assert_array_equal(matrix[:, 1], RAW["x"])
    learn("1 + scale(x)", frame)  # the column is not used here, so the function is meant
    with pytest.raises(ModelError, match="name of a function"):
        learn("1 + scale(x) + scale", frame)
    assert terms.columns == ("Intercept", "scale")


def test_a_column_called_intercept_is_refused():
    with pytest.raises(ModelError, match="'Intercept' would be taken"):
        learn("0 + Intercept", {"Intercept": FRAME["x"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + log(z)", r"'log\(z\)' is nan in row \d+ .*z = -"),
        ("1 + I(1 / (x - x))", "is inf in row 0"),
        ("1 + log(g)", "cannot be computed.*hold categories.*'g'"),
        ("1 + C(k, levels=[1, 2, 3])", "category 4, which is not among the known ones: 1, 2, 3"),
    ],
)
def test_values_that_cannot_be_used(text, message):
    with pytest.raises(DataError, match=message):
        learn(text)


def test_unseen_and_single_categories():
    terms, _ = learn("1 + C(k)")
    with pytest.raises(DataError, match=r"C\(\) of 'k' meets the category 7.*known ones: 1, 2, 3, 4"):
        terms.replay({"k": pd.Series([1.0, 7.0])}, 2)
    with pytest.raises(ModelError, match=r"C\(\) of 'k' has a single category \(3\)"):
        learn("1 + C(k)", {"k": pd.Series([3.0, 3.0])}, 2)


def test_a_spline_does_not_extrapolate():
    terms, _ = learn("1 + bs(x, df=4)")
    with pytest.raises(DataError, match="outside the range"):
        terms.replay({"x": pd.Series([99.0])}, 1)


def test_category_of_other_numbers_keeps_their_text():
    assert learn("0 + C(x)", {"x": pd.Series([0.5, 1.0, 0.5])}, 3)[0].columns == ("C(x)[0.5]", "C(x)[1.0]")


def test_expressions_learn_too():
    expression, value = learn_expression("center(x)", FRAME)
    np.testing.assert_allclose(value, RAW["x"] - RAW["x"].mean())
    np.testing.assert_allclose(expression.replay({"x": pd.Series([0.0])}, 1), [-RAW["x"].mean()])
    assert learn_expression("`my col`", FRAME)[1] is FRAME["my col"]
