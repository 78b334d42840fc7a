"""Bad input at the front door: one test per mistake, on the class of the error and on what its message says.

A message says what was given, what was expected, and what to do: the fragments below are words of each. The suite
runs with warnings as errors, so that none of these may leak a warning of numpy, pandas or xarray either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from tests.robust_data import DATA, N, table

FORMULA = "y ~ x + (1 | g)"


EXACT = np.repeat(np.arange(6.0), 10)  # constant within every group


def with_cell(column: str, value: Any, row: int = 3) -> pd.DataFrame:
    values = DATA[column].astype(object).to_list()
    values[row] = value
    return DATA.assign(**{column: values if isinstance(value, (str, type(None))) else np.array(values, dtype=float)})


@contextmanager
def refused(error: type[Exception], *fragments: str) -> Iterator[None]:
    """The body raises exactly this error, in a message of bounded length that holds every fragment."""
    with pytest.raises(fi.FinettiError) as caught:
        yield
    message = str(caught.value)
    assert caught.type is error, f"{caught.type.__name__}: {message}"
    for fragment in fragments:
        assert fragment in message, message
    assert 20 < len(message) < 900, f"{len(message)} characters: {message[:300]}"
    assert "\x1b" not in message


@pytest.fixture(scope="module")
def fit() -> fi.Fit:
    return fi.fit("y ~ x + (1 + x | g)", DATA)


# ---- the data --------------------------------------------------------------------------------------------------------

COLUMNS = {
    "covariate": ("y ~ z + (1 | g)", "'z'", "Available: 'y', 'x', 'g'"),
    "group": ("y ~ x + (1 | G)", "'G'", "Available"),
    "response": ("Y ~ x + (1 | g)", "'Y'", "Available"),
    "standard error": ("y | se(sd) ~ x", "'sd'", "Available"),
    "slope": ("y ~ x + (1 + z | g)", "'z'", "Available"),
    "offset": ("y ~ x + offset(log(z))", "'z'", "Available"),
}


@pytest.mark.parametrize("case", COLUMNS, ids=str)
def test_unknown_column(case: str) -> None:
    formula, *fragments = COLUMNS[case]
    with refused(fi.DataError, "no column", *fragments):
        fi.fit(formula, DATA)


CELLS = {
    "missing response": ("y", np.nan, FORMULA, ("missing", "'y' 1", "missing='drop'")),
    "infinite response": ("y", np.inf, FORMULA, ("'y'", "inf", "row 3", "finite")),
    "missing covariate": ("x", np.nan, FORMULA, ("missing", "'x' 1", "missing='drop'")),
    "infinite covariate": ("x", -np.inf, FORMULA, ("'x'", "-inf", "row 3", "finite")),
    "missing group": ("g", None, FORMULA, ("missing", "'g' 1", "missing='drop'")),
    "missing se": ("s", np.nan, "y | se(s) ~ x", ("missing", "'s' 1")),
    "infinite se": ("s", np.inf, "y | se(s) ~ x", ("inf", "row 3", "finite")),
    "zero se": ("s", 0.0, "y | se(s) ~ x", ("standard error", "above zero", "is 0 in row 3")),
    "negative se": ("s", -1.0, "y | se(s) ~ x", ("standard error", "above zero", "is -1 in row 3")),
    "negative se beside sigma": ("s", -1.0, "y | se(s, sigma=True) ~ x", ("standard error", "above zero")),
    "missing weight": ("w", np.nan, "y | weights(w) ~ x", ("missing", "'w' 1")),
    "infinite weight": ("w", np.inf, "y | weights(w) ~ x", ("inf", "row 3", "finite")),
    "zero weight": ("w", 0.0, "y | weights(w) ~ x", ("weight", "above zero", "is 0 in row 3", "leave out")),
    "negative weight": ("w", -2.0, "y | weights(w) ~ x", ("weight", "above zero", "is -2 in row 3")),
    "a word in the response": ("y", "n/a?", FORMULA, ("'y'", "numeric", "convert")),
    "undefined offset": ("w", -1.0, "y ~ x + offset(log(w))", ("offset", "nan", "row 3")),
    "logarithm of a negative": ("w", -1.0, "y ~ log(w)", ("'log(w)'", "row 3", "w = -1")),
}


@pytest.mark.parametrize("case", CELLS, ids=str)
def test_bad_cell(case: str) -> None:
    column, value, formula, fragments = CELLS[case]
    with refused(fi.DataError, *fragments):
        fi.fit(formula, with_cell(column, value))


RESPONSES = {
    "text": (DATA.y.astype(str), ("'y'", "numeric", "text", "convert")),
    "words": (DATA.g, ("'y'", "numeric", "text")),
    "booleans": (DATA.y > 2, ("'y'", "True/False", "astype(float)")),
    "categories": (pd.Categorical(DATA.g), ("'y'", "numeric", "categories")),
    "dates": (pd.date_range("2020-01-01", periods=N), ("'y'", "numeric", "date", "days")),
    "complex": (DATA.y + 0j, ("'y'", "numeric")),
}


@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_response_that_is_no_number(case: str) -> None:
    values, fragments = RESPONSES[case]
    with refused(fi.DataError, *fragments):
        fi.fit(FORMULA, DATA.assign(y=values))


def test_dates_as_covariate() -> None:
    with refused(fi.DataError, "'x'", "dates", "convert"):
        fi.fit(FORMULA, DATA.assign(x=pd.date_range("2020-01-01", periods=N)))


def test_lists_as_groups() -> None:
    with refused(fi.DataError, "'g'", "convert"):
        fi.fit(FORMULA, DATA.assign(g=[[1]] * N))


def test_text_as_standard_errors() -> None:
    with refused(fi.DataError, "standard error", "numeric", "'g'"):
        fi.fit("y | se(g) ~ x", DATA)


FRAMES = {
    "no rows": (FORMULA, DATA.iloc[:0], fi.DataError, ("no rows",)),
    "no columns": (FORMULA, pd.DataFrame(), fi.DataError, ("no columns",)),
    "one row": ("y ~ 1 + (1 | g)", DATA.iloc[:1], fi.ModelError, ("one row", "se(s)")),
    "fewer rows than coefficients": (FORMULA, DATA.iloc[:1], fi.ModelError, ("2 population coefficients", "1 row")),
    "duplicate columns": (FORMULA, pd.concat([DATA, DATA[["x"]]], axis=1), fi.DataError, ("differ", "'x'", "rename")),
    "column names of numbers": (FORMULA, DATA.rename(columns={"s": 0}), fi.DataError, ("must be text", "0 (int)")),
    "a column named Intercept": (
        "y ~ Intercept", DATA.rename(columns={"x": "Intercept"}), fi.ModelError, ("'Intercept'", "rename"),
    ),
    "constant response": (FORMULA, table(y=3.0), fi.ModelError, ("'y'", "same value, 3", "60 rows", "check")),
    "zero response": (FORMULA, table(y=0.0), fi.ModelError, ("'y'", "same value, 0")),
    "response equal to the offset": (
        "y ~ 1 + offset(x) + (1 | g)", table(y=DATA.x), fi.ModelError, ("'y'", "less the offset", "same value, 0"),
    ),
    "constant covariate": (FORMULA, table(x=3.0), fi.ModelError, ("`x`", "combination of `Intercept`", "Drop")),
    "zero covariate": (FORMULA, table(x=0.0), fi.ModelError, ("`x`", "zero in every row", "Drop")),
    "zero slope column": ("y ~ 1 + (1 + x | g)", table(x=0.0), fi.ModelError, ("'x'", "zero in every row", "drop")),
    "one category": ("y ~ k", table(k="a"), fi.ModelError, ("'k'", "single category", "drop")),
    "a column twice under two names": (
        "y ~ x + z", table(z=2 * DATA.x + 1), fi.ModelError, ("`z`", "combination of `x`, `Intercept`", "Drop"),
    ),
    "two names of one category": ("y ~ g + k", table(k=DATA.g), fi.ModelError, ("`k[T.b]`", "`g[T.b]`", "Drop")),
    "huge values": (FORMULA, table(y=1e150 * DATA.y), fi.DataError, ("'y'", "e+150", "unit")),
    "tiny values": (FORMULA, table(y=1e-150 * DATA.y), fi.DataError, ("'y'", "e-150", "unit")),
    "two groups of one name": (
        "y ~ 1 + (1 | a:b)", table(a=["1", "1:2"] * 30, b=["2:3", "3"] * 30), fi.DataError, ("'1:2:3'", "rename"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMES, ids=str)
def test_data_that_cannot_be_modelled(case: str) -> None:
    formula, frame, error, fragments = FRAMES[case]
    with refused(error, *fragments):
        fi.fit(formula, frame)


PERFECT = {
    "constant within groups": ("y ~ 1 + (1 | g)", table(y=EXACT), {}),
    "computed from x": (FORMULA, table(y=3 + 2 * DATA.x), {}),
    "computed from x, with slopes": ("y ~ x + (1 + x | g)", table(y=3 + 2 * DATA.x), {}),
    "the response among its own predictors": ("y ~ y + (1 | g)", DATA, {}),
    "the response among its own predictors and groups": ("x ~ x + (1 | x)", DATA, {}),
    "perfectly separated": (FORMULA, table(y=(DATA.g > "c") * 1.0, x=(DATA.g > "c") * 1.0), {}),
    "constant within groups, not pooled": ("y ~ 1 + (1 | g)", table(y=EXACT), {"pooling": "none"}),
    "constant within groups, empirical": ("y ~ 1 + (1 | g)", table(y=EXACT), {"pooling": "empirical"}),
    "computed from x, sigma bounded above": (
        FORMULA, table(y=3 + 2 * DATA.x), {"priors": {"sigma": fi.uniform(0, 5)}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PERFECT, ids=str)
def test_perfect_fit(case: str) -> None:
    formula, frame, options = PERFECT[case]
    with refused(fi.InferenceError, "exactly", "sigma", "se(s)"):
        fi.fit(formula, frame, **options)


NOT_TABLES = {
    "None": (None, ("NoneType", "table", ".csv")),
    "list": ([1, 2], ("list", "table")),
    "records": (DATA.to_dict("records"), ("list", "table")),
    "number": (5, ("int", "table")),
    "array": (np.zeros((3, 3)), ("ndarray", "table")),
    "series": (DATA.y, ("Series", "table")),
    "function": (len, ("table",)),
    "no such file": ("nofile.csv", ("no file", "'nofile.csv'")),
    "empty name": ("", ("directory", ".csv")),
    "ragged dict": ({"y": [1, 2], "g": [1]}, ("equally long", "'y' 2", "'g' 1")),
}


@pytest.mark.parametrize("case", NOT_TABLES, ids=str)
def test_data_that_are_no_table(case: str) -> None:
    given, fragments = NOT_TABLES[case]
    with refused(fi.DataError, *fragments):
        fi.fit("y ~ 1 + (1 | g)", given)


FILES = {
    "empty.csv": (b"", ("empty.csv", "empty")),
    "header.csv": (b"y,x,g\n", ("header.csv", "no rows")),
    "ragged.csv": (b"y,x,g\n1,2\n2,3,b,4,5\n", ("ragged.csv", "cannot be read")),
    "latin.csv": ("y,x,g\n1,2,é\n".encode("latin-1"), ("latin.csv", "UTF-8")),
    "binary.csv": (bytes(range(256)), ("binary.csv", "cannot be read")),
    "twice.csv": (b"y,x,x,g\n1,2,2,a\n2,3,3,b\n", ("differ", "'x'", "rename")),
    "semicolons.csv": (b"y;x;g\n1;2;a\n2;3;b\n", ("'y'", "y;x;g", "separated")),
    "spaces.csv": (b"y, x, g\n1,2,a\n2,3,b\n", ("'x'", "' x'")),
    "not.parquet": (b"abc", ("not.parquet", "cannot be read")),
    "data.xlsx": (b"PK", ("data.xlsx", ".csv", ".parquet")),
    "gap.csv": (b"y,x,g\n1,NA,a\n2,3,b\n4,2,b\n", ("missing", "'x' 1", "missing='drop'")),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_file(name: str, tmp_path: Path) -> None:
    content, fragments = FILES[name]
    (tmp_path / name).write_bytes(content)
    with refused(fi.DataError, *fragments):
        fi.fit(FORMULA, tmp_path / name)


def test_nothing_left_after_dropping() -> None:
    with refused(fi.DataError, "No row is complete", "'x' 60"):
        fi.fit(FORMULA, table(x=np.nan), missing="drop")


def test_a_lazy_frame_is_not_collected_behind_the_back() -> None:
    import polars as pl

    with refused(fi.DataError, "lazy", ".collect()"):
        fi.fit(FORMULA, pl.from_pandas(DATA).lazy())


# ---- the arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, 3, ["y ~ x"], b"y ~ x", {"y": 1}, DATA], ids=lambda v: type(v).__name__)
def test_formula_of_the_wrong_kind(given: Any) -> None:
    with refused(fi.ModelError, "formula", f"type {type(given).__name__}", "'y ~ 1 + x + (1 | g)'"):
        fi.fit(given, DATA)


def test_formula_and_data_swapped() -> None:
    with refused(fi.ModelError, "formula", "DataFrame"):
        fi.fit(DATA, FORMULA)  # type: ignore[arg-type]


PRIORS = {
    "unknown key": ({"foo": fi.normal(0, 1)}, ("'foo'", "no parameter", "Valid keys", "'sigma'")),
    "unknown column": ({"beta[z]": fi.normal(0, 1)}, ("'beta[z]'", "no parameter", "'beta[x]'")),
    "unknown coefficient": ({"sd_g[x]": fi.half_t(3, 1)}, ("'sd_g[x]'", "no parameter", "'sd_g[Intercept]'")),
    "no correlations": ({"cor": fi.lkj(1)}, ("'cor'", "no correlations")),
    "key of a number": ({1: fi.normal(0, 1)}, ("key 1", "int", "text")),
    "bare number": ({"sigma": 1.0}, ("'sigma'", "1.0", "fi.fixed(1.0)")),
    "None": ({"sigma": None}, ("'sigma'", "None", "fi.half_t")),
    "text": ({"sigma": "half_t(3, 1)"}, ("'sigma'", "without quotes")),
    "constructor not called": ({"sigma": fi.half_t}, ("'sigma'", "half_t", "call it")),
    "lkj on a sd": ({"sd_g": fi.lkj(2)}, ("'sd_g'", "lkj(2)", "not negative", "fi.half_t")),
    "normal on a sd": ({"sd_g": fi.normal(0, 1)}, ("'sd_g'", "normal(0, 1)", "fi.half_normal(1)")),
    "negative fixed sd": ({"sd_g": fi.fixed(-1)}, ("'sd_g'", "fixed(-1)", "0 or more")),
    "sigma fixed at zero": ({"sigma": fi.fixed(0)}, ("'sigma'", "fixed(0)", "above 0")),
    "uniform below zero on a sd": ({"sd_g": fi.uniform(-1, 1)}, ("'sd_g'", "uniform(-1, 1)", "fi.uniform(0, 1)")),
    "half normal on a slope": ({"beta": fi.half_normal(1)}, ("'beta'", "half_normal(1)", "fi.normal")),
    "group effects": ({"u_g": fi.normal(0, 1)}, ("'u_g'", "'sd_g'")),
    "intercept twice": (
        {"Intercept": fi.normal(0, 1), "beta[Intercept]": fi.normal(0, 1)}, ("'Intercept'", "'beta[Intercept]'", "one"),
    ),
    "a list": ([], ("priors=[]", "list", "dict")),
    "a prior alone": (fi.normal(0, 1), ("normal(0, 1)", "dict")),
}  # fmt: skip


@pytest.mark.parametrize("case", PRIORS, ids=str)
def test_bad_priors(case: str) -> None:
    priors, fragments = PRIORS[case]
    with refused(fi.PriorError, *fragments):
        fi.fit(FORMULA, DATA, priors=priors)


def test_prior_on_a_sigma_that_is_not_there() -> None:
    with refused(fi.PriorError, "sigma does not exist", "se()", "sigma=True"):
        fi.fit("y | se(s) ~ x", DATA, priors={"sigma": fi.half_normal(1)})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("normal", (0, -1)), ("normal", (0, 0)), ("normal", ("a", 1)), ("normal", (np.nan, 1)), ("normal", (0, np.inf)),
        ("student_t", (0, 0, 1)), ("half_normal", (-1,)), ("half_cauchy", (True,)), ("half_t", (0, 1)),
        ("exponential", (0,)), ("gamma", (1, -1)), ("inverse_gamma", (0, 1)), ("uniform", (2, 1)), ("lkj", (0,)),
        ("beta", (0, 1)), ("fixed", ("x",)), ("fixed", (np.nan,)), ("half_normal", ([1],)),
    ],
    ids=str,
)  # fmt: skip
def test_bad_numbers_in_a_prior(name: str, arguments: tuple[Any, ...]) -> None:
    with refused(fi.PriorError, f"{name}: ", "give"):
        getattr(fi, name)(*arguments)


OPTIONS = {
    "pooling typo": ({"pooling": "partal"}, fi.ModelError, ("'partal'", "'partial'", "'empirical'")),
    "pooling None": ({"pooling": None}, fi.ModelError, ("pooling=None", "'partial'")),
    "pooling of an unknown term": ({"pooling": {"h": "none"}}, fi.ModelError, ("'h'", "Available: 'g'")),
    "pooling typo for a term": ({"pooling": {"g": "nne"}}, fi.ModelError, ("'g'", "'nne'", "'none'")),
    "pooling list": ({"pooling": ["none"]}, fi.ModelError, ("['none']", "'none'")),
    "family": ({"family": "poisson"}, fi.NotBuiltError, ("'poisson'", "not built", "'gaussian'")),
    "family None": ({"family": None}, fi.NotBuiltError, ("family=None", "'gaussian'")),
    "link": ({"link": "log"}, fi.NotBuiltError, ("'log'", "not built", "'identity'")),
    "laplace": ({"method": "laplace"}, fi.NotBuiltError, ("'laplace'", "not built", "'auto'")),
    "method typo": ({"method": "exactt"}, fi.InferenceError, ("'exactt'", "'exact'")),
    "method None": ({"method": None}, fi.InferenceError, ("None", "'auto'")),
    "structure": ({"structure": "kin"}, fi.NotBuiltError, ("'kin'", "not built")),
    "structure matrix": ({"structure": {"g": np.eye(100)}}, fi.NotBuiltError, ("structure", "not built")),
    "parent": ({"parent": "t"}, fi.NotBuiltError, ("'t'", "not built")),
    "missing": ({"missing": "omit"}, fi.DataError, ("'omit'", "'error'", "'drop'")),
    "no draws": ({"draws": 0}, fi.FinettiError, ("draws=0", "whole number", "4000")),
    "half a draw": ({"draws": 1.5}, fi.FinettiError, ("draws=1.5", "whole number")),
    "draws as text": ({"draws": "many"}, fi.FinettiError, ("'many'", "whole number")),
    "negative seed": ({"seed": -1}, fi.FinettiError, ("seed=-1", "at least 0")),
    "seed None": ({"seed": None}, fi.FinettiError, ("seed=None", "whole number")),
    "progress is no function": ({"progress": 3}, fi.FinettiError, ("progress", "3")),
}


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_bad_option(case: str) -> None:
    options, error, fragments = OPTIONS[case]
    with refused(error, *fragments):
        fi.fit(FORMULA, DATA, **options)


@pytest.mark.parametrize("modifier", ["trials", "cens"])
def test_modifier_that_is_not_built(modifier: str) -> None:
    with refused(fi.NotBuiltError, f"{modifier}()", "not built", "se()"):
        fi.fit(f"y | {modifier}(w) ~ x", DATA)


@pytest.mark.parametrize("name", ["family", "link", "priors", "structure", "parent", "pooling"])
def test_what_belongs_to_a_model_that_was_given(name: str) -> None:
    value = {"priors": {}, "pooling": "none"}.get(name, "log")
    with refused(fi.ModelError, name, "Model", "fi.Model(formula,"):
        fi.fit(fi.Model(FORMULA), DATA, **{name: value})


# ---- what the data cannot tell ---------------------------------------------------------------------------------------


def schools(rows: int) -> pd.DataFrame:
    return fi.datasets.load("eight_schools").head(rows)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("prior", [fi.flat(), fi.uniform()], ids=str)
def test_improper_posterior_with_known_errors(rows: int, prior: Any) -> None:
    """With flat beta the density of the sd falls as sd^(1 - J): there is no posterior below three groups."""
    with refused(fi.PriorError, "improper", "sd_school[Intercept]", "half_cauchy"):
        fi.fit("effect | se(se) ~ 1 + (1 | school)", schools(rows), priors={"sd": prior, "beta": fi.flat()})


@pytest.mark.parametrize("prior", [fi.flat(), fi.uniform()], ids=str)
def test_improper_posterior_of_one_group(prior: Any) -> None:
    with refused(fi.PriorError, "improper", "sd_g[Intercept]", "half_cauchy"):
        fi.fit(FORMULA, DATA.head(10), priors={"sd": prior})


def test_improper_posterior_of_sigma() -> None:
    with refused(fi.PriorError, "improper", "sigma"):
        fi.fit("y ~ 1", DATA.head(2), priors={"sigma": fi.flat(), "beta": fi.flat()})


def test_improper_posterior_of_sd_and_sigma() -> None:
    """Two groups of one row: nothing bounds either of the two."""
    with refused(fi.PriorError, "improper"):
        fi.fit("y ~ 1 + (1 | g)", DATA.iloc[[0, 30]], priors={"sd": fi.uniform(), "sigma": fi.uniform()})


OVERLAP = {
    "a and a:b": ("y ~ x + (1 | g) + (1 | g:h)", ("'g'", "'g:h'")),
    "a / b": ("y ~ x + (1 | g/h)", ("'g'", "'g:h'")),
    "one factor under two names": ("y ~ x + (1 | g) + (1 | k)", ("'g'", "'k'")),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", ("'g'", "'h'")),
}


@pytest.mark.parametrize("case", OVERLAP, ids=str)
def test_unpooled_terms_that_overlap(case: str) -> None:
    formula, fragments = OVERLAP[case]
    with refused(fi.ModelError, *fragments, "unpooled", "partial"):
        fi.fit(formula, table(k=DATA.g), pooling="none")


def test_unidentified_beside_an_unpooled_term() -> None:
    fit = fi.fit("y ~ x + z + (1 | g)", table(z=EXACT**2), pooling="none")
    summary = fit.summary()
    assert summary.loc[["beta[Intercept]", "beta[z]"]].isna().all(axis=None)
    assert summary.loc[["beta[x]", "sigma"], ["mean", "sd", "q5", "q95"]].notna().all(axis=None)
    assert any("beta[Intercept], beta[z]" in w for w in fit.diagnostics.warnings)
    with refused(fi.PredictionError, "'g'", "not pooled", "pooling='partial'"):
        fit.predict(DATA.head(1).assign(z=0.0), groups="new")


EVIDENCE = {
    "flat coefficients": ({"priors": {"beta": fi.flat()}}, ("proper", "beta[x]")),
    "flat intercept": ({"priors": {"Intercept": fi.flat()}}, ("proper", "Intercept")),
    "uniform sd": ({"priors": {"sd": fi.uniform()}}, ("proper", "sd_g[Intercept]", "half_t")),
    "flat sigma": ({"priors": {"sigma": fi.flat()}}, ("proper", "sigma")),
    "empirical": ({"pooling": "empirical"}, ("empirical", "maximised", "log_marginal")),
    "unpooled": ({"pooling": "none"}, ("proper", "unpooled", "g", "pooling='partial'")),
}


@pytest.mark.parametrize("case", EVIDENCE, ids=str)
def test_evidence_that_does_not_exist(case: str) -> None:
    options, fragments = EVIDENCE[case]
    fit = fi.fit(FORMULA, DATA, **options)
    with refused(fi.PriorError, *fragments):
        fit.evidence()


# ---- asking a fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["G", "u_g", "g[Intercept]", 3, ["g"]], ids=str)
def test_groups_of_a_wrong_term(fit: fi.Fit, name: Any) -> None:
    with refused(fi.FinettiError, repr(name), "not a grouping term", "'g'"):
        fit.groups(name)


def test_groups_where_there_are_none() -> None:
    with refused(fi.FinettiError, "no grouping terms", "(1 | group)"):
        fi.fit("y ~ x", DATA).groups("g")


@pytest.mark.parametrize("probs", [2, 0, 1, -0.1, "half", None, (0.05, 1.5), np.nan, [[0.1]], {}, True], ids=repr)
@pytest.mark.parametrize("table_of", ["summary", "groups", "predict"])
def test_bad_probabilities(fit: fi.Fit, table_of: str, probs: Any) -> None:
    with refused(fi.FinettiError, "probs", "(0.05, 0.5, 0.95)"):
        getattr(fit, table_of)(probs=probs)


@pytest.mark.parametrize(
    "label",
    ["foo", "beta", "sd_g", "u_g", "u_g[zz, x]", "u_g[a, z]", "u_g[a,x]", "cor_g[x, Intercept]", "sigma ", None, 3],
    ids=repr,
)
def test_draws_of_a_wrong_label(fit: fi.Fit, label: Any) -> None:
    with refused(fi.FinettiError, f"no parameter {label!r}", "Available", "'beta[x]'"):
        fit.draws(label)


HEAD = DATA.head(3)
NEWDATA = {
    "no covariate": (HEAD.drop(columns="x"), {}, ("'x'", "Available")),
    "no group": (HEAD.drop(columns="g"), {}, ("'g'", "groups='new'", "groups='population'")),
    "unseen level": (HEAD.assign(g="zz"), {}, ("'g'", "'zz'", "groups='new'", "groups='population'")),
    "missing value": (HEAD.assign(x=np.nan), {}, ("'x'", "missing", "3 of 3 rows")),
    "infinite value": (HEAD.assign(x=np.inf), {}, ("'x'", "inf", "row 0")),
    "text for numbers": (HEAD.assign(x="a"), {}, ("'x'", "numeric", "'a'")),
    "missing group": (HEAD.assign(g=None), {}, ("'g'", "missing")),
    "no rows": (HEAD.iloc[:0], {}, ("no rows",)),
    "a list": ([1, 2], {}, ("list", "table")),
    "a number": (3, {}, ("int", "table")),
    "no such file": ("nofile.csv", {}, ("no file", "nofile.csv")),
    "a dict of numbers": ({"x": 1.0, "g": "a"}, {}, ("equally long", "single value")),
    "columns twice": (pd.concat([HEAD, HEAD[["x"]]], axis=1), {}, ("differ", "'x'")),
    "groups typo": (HEAD, {"groups": "knwon"}, ("'knwon'", "'known'")),
    "groups None": (HEAD, {"groups": None}, ("None", "'known'")),
    "groups number": (HEAD, {"groups": 3}, ("3", "'known'")),
    "groups of an unknown term": (HEAD, {"groups": {"h": "new"}}, ("'h'", "'g'")),
    "groups typo for a term": (HEAD, {"groups": {"g": "nw"}}, ("'nw'", "'new'")),
    "groups list for a term": (HEAD, {"groups": {"g": ["new"]}}, ("['new']", "'known'")),
    "kind typo": (HEAD, {"kind": "resp"}, ("'resp'", "'response'")),
    "kind None": (HEAD, {"kind": None}, ("None", "'mean'")),
}


@pytest.mark.parametrize("case", NEWDATA, ids=str)
def test_bad_prediction(fit: fi.Fit, case: str) -> None:
    newdata, options, fragments = NEWDATA[case]
    with refused(fi.PredictionError, *fragments):
        fit.predict(newdata, **options)


def test_prediction_needs_the_category_of_the_fit() -> None:
    fit = fi.fit("y ~ h", DATA)
    with refused(fi.PredictionError, "'h'", "'zz'", "no coefficient", "'p', 'q'"):
        fit.predict({"h": ["zz"]})


def test_response_noise_needs_the_standard_errors() -> None:
    fit = fi.fit("y | se(s) ~ x", DATA)
    with refused(fi.PredictionError, "standard errors", "'s'", "kind='mean'"):
        fit.predict({"x": [1.0]}, kind="response")


def test_log_likelihood_is_yes_or_no(fit: fi.Fit) -> None:
    with refused(fi.FinettiError, "log_likelihood", "'x'"):
        fit.to_arviz(log_likelihood="x")  # type: ignore[arg-type]


def test_shrinkage_plot_of_a_wrong_term(fit: fi.Fit) -> None:
    with refused(fi.FinettiError, "'h'", "'g'"):
        fit.plot.shrinkage("h")
    with refused(fi.FinettiError, "'zz'", "'Intercept'"):
        fit.plot.shrinkage("g", "zz")


# ---- formulas --------------------------------------------------------------------------------------------------------

FORMULAS = [
    "", "y", "y ~", "~ x", "y ~ .", "y ~ x ~ g", "y ~ (1 | g", "y ~ (| g)", "y ~ (1 |)", "y ~ (0 | g)", "y ~ 1 | g",
    "y ~ (1 | g | h)", "y ~ (1 | x + g)", "y ~ (1 | g * h)", "y ~ (1 | log(g))", "y ~ x:(1 | g)", "y ~ (1 | g) * x",
    "y ~ x + (1 | g) + (1 | g)", "y + x ~ 1", "y ~ x^2", "y ~ x %in% g", "y ~ log + log(w)", "y | se(s) + se(s) ~ x",
    "y | se(s) + weights(w) ~ x", "y | se(s, sigm=True) ~ x", "y | se(1) ~ x", "y | foo(s) ~ x",
]  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS)
def test_formula_that_cannot_be_read(formula: str) -> None:
    frame = table(log=DATA.x) if "log +" in formula else DATA
    with refused(fi.FormulaError, "formula"):
        fi.fit(formula, frame)


ATTACKS = [
    "y ~ __import__('os').system('touch {file}')", "y ~ x.__class__", "y ~ I(().__class__.__bases__)",
    "y ~ `x`.__class__", "y ~ [open('{file}', 'w') for i in x]", "y ~ {{open('{file}', 'w')}}",
    "y ~ (lambda: open('{file}', 'w'))()", "y ~ eval('1')", "y ~ exec('1')", "y ~ open('{file}', 'w')",
    "y ~ np.load('{file}')", "y ~ np.exp.__globals__", "y ~ I(x if x else x)", "y ~ I((z := x))",
    "y ~ f'{{open(1)}}'", "y ~ getattr(x, 'values')", "y ~ x; import os", "y ~ x\n import os", "y ~ x\x00",
    "open('{file}', 'w') ~ x", "y | se(open('{file}', 'w')) ~ x", "y | weights(eval('w')) ~ x",
    "y ~ offset(open('{file}', 'w'))", "y ~ (1 | eval('g'))", "y ~ (1 + eval('x') | g)",
    "y ~ x ** 99999999", "y ~ I(x ** 9 ** 9 ** 9)", "y ~ I(x ** 999999)", "y ~ (x + s + w) ** 30",
    "y ~ I(10 ** 10 ** 10 * x)", "y ~ poly(x, 100000)", "y ~ bs(x, df=1000000)", "y ~ C(g, levels=[1] * 10 ** 9)",
    "y ~ (a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p) ** 10",
    "y ~ " + "(" * 3000 + "x" + ")" * 3000, "y ~ " + " + ".join(["x"] * 20000), "y ~ " + "-" * 5000 + "x",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a[:40])
def test_formula_attack(attack: str, tmp_path: Path) -> None:
    """Refused before evaluation: nothing ran that could have made a file."""
    file = tmp_path / "made"
    with refused(fi.FormulaError, "formula"):
        fi.fit(attack.format(file=file.as_posix()), DATA)
    assert not file.exists()
