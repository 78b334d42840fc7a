"""Odd but legitimate data: the answer is honest, and moves with the units.

Answers are held to the brute-force quadrature of `tests.oracle_quadrature`, or to the same fit in other units, names
or formats (a fit is deterministic given its seed, so that such twins agree to rounding and not to Monte Carlo error).
"""

from __future__ import annotations

import datetime
import decimal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from tests.oracle_quadrature import quadrature_posterior
from tests.oracles import from_design
from tests.robust_data import DATA, GROUPS, N, table

VALUES = ["mean", "q5", "q50", "q95"]


SPIKE = np.arange(N) == 7
SINGLES = np.arange(N).astype(str)


def coherent(summary: pd.DataFrame) -> None:
    """Quantiles in order, sds positive or NaN, standard deviations not negative."""
    values = summary.drop(columns=["ess", "mcse"]).dropna()
    q = values[["q5", "q50", "q95"]].to_numpy()
    assert np.all(np.diff(q, axis=1) >= 0), values
    free = values[values.sd > 0]
    width = (free.q95 - free.q5) / free.sd
    assert np.all(width > 0.02) and np.all(width < 20), values
    assert np.all(values.loc[[i for i in values.index if i == "sigma" or i.startswith("sd_")], "q5"] >= 0), values


def compare(fit: fi.Fit, *, quantiles: float = 0.15, moments: float = 0.1) -> None:
    """The summary agrees with brute force: differences in posterior sds.

    The tolerances are three times the documented error targets (5 % for quantiles, 2 % for means and sds of the
    unconstrained hyperparameters), with room for the skewness of an sd in natural units.
    """
    assert fit.diagnostics.ok, fit.diagnostics.warnings
    summary = fit.summary()
    coherent(summary)
    bound = fit.model
    truth = quadrature_posterior(from_design(bound.design, bound.priors), bound.priors)
    assert truth.error < 0.02, truth.worst
    for label, row in summary.iterrows():
        want = truth.table[str(label)]
        for name in ("q5", "q50", "q95"):
            assert row[name] == pytest.approx(want[name], abs=quantiles * want["sd"]), (label, name)
        for name in ("mean", "sd"):
            assert row[name] == pytest.approx(want[name], abs=moments * want["sd"]), (label, name)


# ---- few rows, few groups --------------------------------------------------------------------------------------------

SMALL = {
    "six groups of ten": ("y ~ x + (1 | g)", DATA),
    "one row per group": ("y ~ x + (1 | g)", table(g=SINGLES)),
    "two rows, two groups": ("y ~ 1 + (1 | g)", DATA.iloc[[0, 30]]),
    "three rows, three groups": ("y ~ 1 + (1 | g)", DATA.iloc[[0, 20, 30]]),
    "three rows, two groups": ("y ~ x + (1 | g)", DATA.iloc[[0, 1, 30]]),
    "two rows, one group": ("y ~ 1 + (1 | g)", DATA.head(2)),
    "as many coefficients as rows": ("y ~ x + (1 | g)", DATA.iloc[[0, 30]]),
    "one group": ("y ~ x + (1 | g)", DATA.head(10)),
    "a group with one row": ("y ~ x + (1 | g)", DATA.head(51)),
    "a group with one row, slopes": ("y ~ x + (0 + x | g)", DATA.head(51)),
    "known errors, one exact row": ("y | se(s) ~ x + (1 | g)", table(s=np.where(SPIKE, 1e-6, 1.0))),
    "known errors and sigma, one exact row": (
        "y | se(s, sigma=True) ~ x + (1 | g)", table(s=np.where(SPIKE, 1e-6, 1.0)),
    ),
    "known errors, one useless row": ("y | se(s) ~ x + (1 | g)", table(s=np.where(SPIKE, 1e6, 1.0))),
    "weights over eight decades": ("y | weights(w) ~ x + (1 | g)", table(w=10.0 ** np.linspace(-4, 4, N))),
    "one enormous weight": ("y | weights(w) ~ x + (1 | g)", table(w=np.where(SPIKE, 1e8, 1.0))),
    "constant y with known errors": ("y | se(s) ~ x + (1 | g)", table(y=3.0)),
    "sd all but fixed by its prior": ("y ~ x + (1 | g)", DATA),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_odd_data_against_brute_force(case: str) -> None:
    formula, frame = SMALL[case]
    priors = {"sd_g": fi.half_normal(1e-8)} if case.startswith("sd all") else None
    compare(fi.fit(formula, frame, priors=priors))


def test_two_rows_with_slopes() -> None:
    fit = fi.fit("y ~ x + (1 + x | g)", DATA.iloc[[0, 30]])
    coherent(fit.summary())
    assert any("one row per level" in w for w in fit.diagnostics.warnings)


def test_one_row_with_a_known_error() -> None:
    """Beyond the row the answer rests on the priors, and says so; the group's interval covers the observation."""
    fit = fi.fit("y | se(s) ~ 1 + (1 | g)", DATA.head(1))
    said = " ".join(fit.diagnostics.warnings)
    assert "one observation" in said and "single level ('a')" in said
    row = fit.groups("g").loc[0]
    assert row.q5 < DATA.y[0] < row.q95 and row.sd > 0.5 * DATA.s[0]


def test_one_group_is_wide_and_warned_about() -> None:
    fit = fi.fit("y ~ 1 + (1 | g)", DATA.head(10))
    assert any("single level ('a')" in w and "prior alone" in w for w in fit.diagnostics.warnings)
    alone = fi.fit("y ~ 1", DATA.head(10)).summary().loc["beta[Intercept]", "sd"]
    assert fit.summary().loc["beta[Intercept]", "sd"] > 1.5 * alone


def test_one_row_per_group_is_warned_about() -> None:
    fit = fi.fit("y ~ x + (1 | g)", table(g=SINGLES))
    assert any("one row per level" in w and "sigma" in w for w in fit.diagnostics.warnings)


def test_a_group_with_one_row_is_shrunk_most() -> None:
    groups = fi.fit("y ~ x + (1 | g)", DATA.head(51)).groups("g").set_index("level")
    assert groups.loc["f", "n"] == 1
    assert groups.loc["f", "weight"] < 0.5 * groups.drop("f").weight.min()
    assert groups.loc["f", "sd"] > groups.drop("f").sd.max()


def test_a_slope_from_one_row_has_no_raw_estimate() -> None:
    groups = fi.fit("y ~ x + (1 + x | g)", DATA.head(51)).groups("g")
    last = groups[groups.level == "f"]
    assert last[["raw", "raw_se"]].isna().all(axis=None)
    assert last[["weight", "mean", "sd", "q5", "q50", "q95"]].notna().all(axis=None)


# ---- moments that do not exist ---------------------------------------------------------------------------------------

# Number of schools, hyperprior of the sd, and which of mean and sd exist. With flat beta the density of the sd falls as
# sd^-(J - 1) times the prior: the mean exists where the tail index (that power minus 1) is above 1, the sd above 2.
TAILS = [
    (1, "half_cauchy", False, False),
    (2, "half_cauchy", True, False),
    (3, "half_cauchy", True, True),
    (3, "uniform", False, False),
    (4, "uniform", True, False),
    (5, "uniform", True, True),
]


@pytest.mark.parametrize(("rows", "prior", "has_mean", "has_sd"), TAILS)
def test_moments_that_do_not_exist_are_nan(rows: int, prior: str, has_mean: bool, has_sd: bool) -> None:
    sd = fi.half_cauchy(5) if prior == "half_cauchy" else fi.uniform()
    data = fi.datasets.load("eight_schools").head(rows)
    fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", data, priors={"sd": sd, "beta": fi.flat()})
    summary = fit.summary()
    for label in ("sd_school[Intercept]", "beta[Intercept]"):  # flat beta inherits the tail
        assert np.isfinite(summary.loc[label, "mean"]) == has_mean, label
        assert np.isfinite(summary.loc[label, "sd"]) == has_sd, label
        assert np.isfinite(summary.loc[label, ["q5", "q50", "q95"]].astype(float)).all(), label
    coherent(summary)
    noted = [w for w in fit.diagnostics.warnings if "sd_school[Intercept]" in w and "NaN" in w]
    assert bool(noted) == (not has_sd)
    new = fit.predict(data.head(1), groups="new")
    assert np.isfinite(new.loc[new.index[0], "sd"]) == has_sd
    # what the data do inform stays finite
    assert fit.groups("school")[["mean", "sd", "q5", "q95"]].notna().all(axis=None)


@pytest.mark.parametrize("rows", [20, 30])
def test_flat_sds_of_few_groups_with_slopes(rows: int) -> None:
    """Whatever is shown is coherent, or the fit says that it failed."""
    fit = fi.fit("y ~ x + (1 + x | g)", DATA.head(rows), priors={"sd": fi.flat()})
    if fit.diagnostics.ok:
        coherent(fit.summary())
    else:
        assert "FAILED" in str(fit)


@pytest.mark.parametrize("groups", [2, 3])
def test_flat_sd_of_few_groups(groups: int) -> None:
    fit = fi.fit("y ~ x + (1 | g)", DATA.head(10 * groups), priors={"sd": fi.uniform()})
    assert fit.diagnostics.ok, fit.diagnostics.warnings
    summary = fit.summary()
    coherent(summary)
    assert np.isnan(summary.loc["sd_g[Intercept]", "sd"])


# ---- units -----------------------------------------------------------------------------------------------------------

MODELS = {
    "intercepts": ("y ~ x + (1 | g)", {}),
    "slopes": ("y ~ x + (1 + x | g)", {}),
    "crossed": ("y ~ x + (1 + x || g) + (1 | h)", {}),
    "known errors": ("y | se(s) ~ x + (1 | g)", {}),
    "known errors and sigma": ("y | se(s, sigma=True) ~ x + (1 | g)", {}),
    "weights": ("y | weights(w) ~ x + (1 | g)", {}),
    "empirical": ("y ~ x + (1 | g)", {"pooling": "empirical"}),
    "unpooled": ("y ~ x + (1 | g)", {"pooling": "none"}),
    "complete": ("y ~ x + (1 | g)", {"pooling": "complete"}),
}
# y' = shift + unit y; a shift of 1e8 leaves eight digits of y, of which the answer may lose two more
UNITS = {"millions": (0.0, 1e6, 1e-8), "millionths": (0.0, 1e-6, 1e-8), "offset of 1e8": (1e8, 1.0, 1e-5)}


def moved(fit: fi.Fit, twin: fi.Fit, shift: float, unit: float, tolerance: float, x_unit: float = 1.0) -> None:
    """`twin` is `fit` in other units, to `tolerance` posterior sds."""
    one, other = fit.summary(), twin.summary()
    assert list(one.index) == list(other.index)
    assert fit.diagnostics.n_nodes == twin.diagnostics.n_nodes
    for label in one.index:
        scale = 1.0 if label.startswith("cor_") else unit
        if label.endswith("x]") and not label.startswith("cor_"):
            scale /= x_unit
        want = one.loc[label, VALUES] * scale + (shift if label == "beta[Intercept]" else 0.0)
        sd = one.loc[label, "sd"] * scale
        reference = sd if sd > 0 else abs(one.loc[label, "mean"]) * scale or scale
        np.testing.assert_allclose(
            other.loc[label, VALUES].astype(float),
            want.astype(float),
            rtol=1e-12,
            atol=tolerance * reference,
            err_msg=label,
        )
        np.testing.assert_allclose(other.loc[label, "sd"], sd, rtol=tolerance, atol=1e-300, err_msg=label)
    a, b = fit.groups("g"), twin.groups("g")
    np.testing.assert_allclose(a.weight, b.weight, rtol=10 * tolerance, atol=1e-12)
    scale = np.where(a.coefficient == "x", unit / x_unit, unit)
    gap = np.where(a.coefficient == "Intercept", shift, 0.0)
    np.testing.assert_allclose(
        b["mean"] - gap, a["mean"] * scale, rtol=0, atol=10 * tolerance * float(np.max(np.abs(a["mean"]) * scale))
    )


@pytest.mark.parametrize("change", UNITS, ids=str)
@pytest.mark.parametrize("case", MODELS, ids=str)
def test_units_of_the_response(case: str, change: str) -> None:
    formula, options = MODELS[case]
    shift, unit, tolerance = UNITS[change]
    tolerance = max(tolerance, 1e-6 if case == "empirical" else 0.0)  # its maximum is found to that
    fit = fi.fit(formula, DATA, **options)
    twin = fi.fit(formula, table(y=shift + unit * DATA.y, s=unit * DATA.s), **options)
    moved(fit, twin, shift, unit, tolerance)


@pytest.mark.parametrize("x_unit", [1e6, 1e-6])
def test_units_of_a_covariate(x_unit: float) -> None:
    fit = fi.fit("y ~ x + (1 + x | g)", DATA)
    moved(fit, fi.fit("y ~ x + (1 + x | g)", table(x=x_unit * DATA.x)), 0.0, 1.0, 1e-8, x_unit)


def test_origin_of_a_covariate() -> None:
    """With the prior on the predictor at the means, only the intercept moves when x starts at 1e6."""
    one = fi.fit("y ~ x + (1 | g)", DATA)
    twin = fi.fit("y ~ x + (1 | g)", table(x=DATA.x + 1e6))
    keep = ["beta[x]", "sd_g[Intercept]", "sigma"]
    np.testing.assert_allclose(
        twin.summary().loc[keep, [*VALUES, "sd"]], one.summary().loc[keep, [*VALUES, "sd"]], rtol=1e-6
    )
    a, b = one.predict(), twin.predict()
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * float(a.sd.min()))


def test_a_random_slope_far_from_the_origin() -> None:
    """Empirical Bayes does not depend on the origin of x; lme4 1.1-31 stops 0.16 short of the maximum here."""
    options = {"pooling": "empirical", "priors": {"beta": fi.flat()}}
    one = fi.fit("y ~ x + (1 + x | g)", DATA, **options)
    twin = fi.fit("y ~ x + (1 + x | g)", table(x=DATA.x + 200), **options)
    assert twin.diagnostics.log_marginal == pytest.approx(one.diagnostics.log_marginal, abs=1e-4)
    np.testing.assert_allclose(twin.predict()["mean"], one.predict()["mean"], atol=0.01)


def test_a_random_slope_at_a_million_is_coherent() -> None:
    fit = fi.fit("y ~ x + (1 + x | g)", table(x=DATA.x + 1e6))
    assert fit.diagnostics.ok
    coherent(fit.summary())
    assert 0.9 < fit.summary().loc["sigma", "mean"] < 1.2
    assert np.corrcoef(fit.predict()["mean"], fi.fit("y ~ x + (1 + x | g)", DATA).predict()["mean"])[0, 1] > 0.9


def test_an_outlier_of_1e10() -> None:
    fit = fi.fit("y ~ x + (1 | g)", table(y=np.where(SPIKE, 1e10, DATA.y)))
    assert fit.diagnostics.ok
    coherent(fit.summary())


# ---- shapes of models ------------------------------------------------------------------------------------------------


def wide(columns: int, rows: int, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, columns)), columns=[f"v{i}" for i in range(columns)])
    return frame.assign(
        g=np.repeat(np.arange(rows // 10), 10).astype(str),
        k=np.tile(list("abcd"), rows)[:rows],
        k2=rng.choice(list("xyz"), rows),
        y=frame.v0 + rng.normal(size=rows) + np.repeat(rng.normal(size=rows // 10), 10),
    )


def test_sixteen_hyperparameters_say_whether_they_are_right() -> None:
    """Beyond 15 the design asks for NUTS; until then a miss is said loudly, and nothing incoherent is shown."""
    fit = fi.fit("y ~ v0 + (1 + v0 + v1 + v2 + v3 | g)", wide(4, 200))
    assert fit.diagnostics.n_hyperparameters == 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.FinettiWarning)
        coherent(fit.summary())
    assert fit.diagnostics.ok or "FAILED" in str(fit)


def test_two_hundred_columns() -> None:
    data = wide(200, 400)
    fit = fi.fit("y ~ " + " + ".join(f"v{i}" for i in range(200)) + " + (1 | g)", data)
    X = np.column_stack([np.ones(400), data[[f"v{i}" for i in range(200)]], pd.get_dummies(data.g).iloc[:, 1:]])
    least_squares = np.linalg.lstsq(X.astype(float), data.y.to_numpy(), rcond=None)[0]
    summary = fit.summary()
    assert fit.diagnostics.ok
    assert np.corrcoef(summary["mean"].iloc[1:201], least_squares[1:201])[0, 1] > 0.95
    assert summary.loc["beta[v0]", "q5"] < 1 < summary.loc["beta[v0]", "q95"]


def test_more_columns_than_rows() -> None:
    with pytest.raises(fi.ModelError, match=r"201 population coefficients .* only 150 rows"):
        fi.fit("y ~ " + " + ".join(f"v{i}" for i in range(200)), wide(200, 150))


def test_slopes_of_a_category() -> None:
    fit = fi.fit("y ~ k + (1 + k || g)", wide(2, 200))
    assert fit.diagnostics.ok
    assert {f"sd_g[k[T.{c}]]" for c in "bcd"} <= set(fit.summary().index)
    assert fit.groups("g").coefficient.unique().tolist() == ["Intercept", "k[T.b]", "k[T.c]", "k[T.d]"]


def test_interactions() -> None:
    data = wide(2, 200)
    fit = fi.fit("y ~ v0 * k + v1:k2 + (1 | g:k)", data)
    labels = [f"beta[v0:k[T.{c}]]" for c in "bcd"] + [f"beta[v1:k2[{c}]]" for c in "xyz"]
    assert fit.diagnostics.ok and set(labels) <= set(fit.summary().index)
    assert len(fit.groups("g:k")) == data.groupby(["g", "k"]).ngroups


def test_nesting_three_deep() -> None:
    fit = fi.fit("y ~ 1 + (1 | g/k/k2)", wide(2, 200))
    assert fit.diagnostics.ok
    assert [i for i in fit.summary().index if i.startswith("sd_")] == [
        "sd_g[Intercept]", "sd_g:k[Intercept]", "sd_g:k:k2[Intercept]",
    ]  # fmt: skip
    coherent(fit.summary())


def test_the_same_term_twice_is_one_term() -> None:
    one, twice = fi.fit("y ~ x + (1 + x | g)", DATA), fi.fit("y ~ x + x + (1 + x + x | g)", DATA)
    pd.testing.assert_frame_equal(one.summary(), twice.summary())


def test_a_held_coefficient_is_held() -> None:
    row = fi.fit("y ~ x + (1 | g)", DATA, priors={"beta[x]": fi.fixed(0.3)}).summary().loc["beta[x]"]
    assert row[VALUES].tolist() == pytest.approx([0.3] * 4)
    assert row.sd == 0.0 and np.isnan(row.ess)


def test_empirical_pooling_holds_what_is_fixed() -> None:
    """`fixed` is no hyperprior to be ignored: the parameter is held, whatever the kind of pooling."""
    priors = {"sd_g": fi.fixed(2.0), "sigma": fi.fixed(1.5)}
    summary = fi.fit("y ~ x + (1 | g)", DATA, pooling="empirical", priors=priors).summary()
    assert summary.loc["sd_g[Intercept]", "mean"] == pytest.approx(2.0)
    assert summary.loc["sigma", "mean"] == pytest.approx(1.5)


def test_every_row_alone_without_groups() -> None:
    """No coefficient at all, and no hyperparameter: still a fit with tables."""
    fit = fi.fit("y | se(s) ~ 0", DATA)
    assert fit.summary().empty and fit.predict()["mean"].eq(0).all()


# ---- the same numbers, whatever carries them -------------------------------------------------------------------------

SLOPES = "y ~ x + (1 + x | g)"
LEVELS = dict(zip(GROUPS, range(6), strict=True))
DATES = {c: datetime.date(2020, 1, i + 1) for c, i in LEVELS.items()}


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    return fi.fit(SLOPES, DATA).summary()


def polars(frame: pd.DataFrame) -> Any:
    import polars as pl

    return pl.from_pandas(frame)


def arrow(frame: pd.DataFrame) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(frame)


CARRIERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "dict": lambda d: d.to_dict("list"),
    "polars": polars,
    "pyarrow": arrow,
    "pandas nullable": lambda d: d.convert_dtypes(),
    "pandas on arrow": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda d: d.astype({"x": object, "y": object}),
    "decimals": lambda d: d.assign(y=[decimal.Decimal(repr(v)) for v in d.y]),
    "rows shuffled": lambda d: d.sample(frac=1, random_state=3),
    "index repeated": lambda d: d.set_index(np.zeros(N, dtype=int)),
    "categories out of order, one unused": lambda d: d.assign(g=pd.Categorical(d.g, list("zfedcba"))),
    "integer groups": lambda d: d.assign(g=d.g.map(LEVELS)),
    "whole float groups": lambda d: d.assign(g=d.g.map(LEVELS).astype(float)),
    "date groups": lambda d: d.assign(g=d.g.map(DATES)),
    "time stamp groups": lambda d: d.assign(g=pd.to_datetime(d.g.map(DATES))),
}


@pytest.mark.parametrize("carrier", CARRIERS, ids=str)
def test_carrier(carrier: str, plain: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(fi.fit(SLOPES, CARRIERS[carrier](DATA)).summary(), plain, rtol=1e-6)


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.tsv", "D.CSV", "d.parquet"])
def test_file(name: str, tmp_path: Path, plain: pd.DataFrame) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        DATA.to_parquet(path)
    else:
        DATA.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    pd.testing.assert_frame_equal(fi.fit(SLOPES, path).summary(), plain, rtol=1e-6)
    pd.testing.assert_frame_equal(fi.fit(SLOPES, str(path)).summary(), plain, rtol=1e-6)


def test_boolean_groups() -> None:
    assert fi.fit("y ~ x + (1 | g)", table(g=DATA.g > "c")).groups("g").level.tolist() == ["False", "True"]


def test_missing_values_are_dropped_when_asked_and_counted(tmp_path: Path) -> None:
    gaps = DATA.copy()
    gaps.loc[[3, 9], "x"] = np.nan
    gaps.loc[5, "g"] = None
    gaps.loc[7, "w"] = np.nan  # not used by the model
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    whole = fi.fit(SLOPES, DATA.drop(index=[3, 5, 9])).summary()
    for source in (gaps, tmp_path / "gaps.csv"):
        fit = fi.fit(SLOPES, source, missing="drop")
        pd.testing.assert_frame_equal(fit.summary(), whole, rtol=1e-9)
        assert fit.n_rows == 57 and any("3 rows with missing values" in w for w in fit.diagnostics.warnings)
        assert "3 rows" in str(fit)


def test_a_group_that_is_missing_altogether_is_dropped() -> None:
    fit = fi.fit(SLOPES, table(y=DATA.y.where(DATA.g != "a")), missing="drop")
    assert fit.groups("g").level.unique().tolist() == list("bcdef")


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, two = (fi.fit(SLOPES, DATA, seed=3) for _ in range(2))
    other = fi.fit(SLOPES, DATA, seed=4)
    pd.testing.assert_frame_equal(one.summary(), two.summary(), check_exact=True)
    pd.testing.assert_frame_equal(one.groups("g"), two.groups("g"), check_exact=True)
    assert np.array_equal(one.draws("u_g[a, x]"), two.draws("u_g[a, x]"))
    assert not np.array_equal(one.draws("u_g[a, x]"), other.draws("u_g[a, x]"))


# ---- names -----------------------------------------------------------------------------------------------------------

ODD = ["a,b", "c[d]", "e:f", '"q"', "it's", "ü✓"]


def test_odd_level_names(plain: pd.DataFrame) -> None:
    fit = fi.fit(SLOPES, table(g=DATA.g.map(dict(zip(GROUPS, ODD, strict=True)))))
    assert set(fit.groups("g").level) == set(ODD)
    np.testing.assert_allclose(fit.summary(), plain, rtol=1e-6)
    reference = fi.fit(SLOPES, DATA)
    for level, letter in zip(ODD, GROUPS, strict=True):
        assert np.isfinite(fit.draws(f"u_g[{level}, x]")).all()
        one = fit.predict({"x": [1.0], "g": [level]}).loc[0, "mean"]
        assert one == pytest.approx(reference.predict({"x": [1.0], "g": [letter]}).loc[0, "mean"], rel=1e-6)
    assert set(fit.posterior["g"].values.tolist()) == set(ODD)


NAMES = {
    "unicode": ("größe ~ température + (1 + température | 学校)", ("größe", "température", "学校")),
    "spaces": ("`my y` ~ `my x` + (1 + `my x` | `my g`)", ("my y", "my x", "my g")),
    "dots": ("`a.y` ~ `a.x` + (1 + `a.x` | `a.g`)", ("a.y", "a.x", "a.g")),
    "words of Python": ("`class` ~ `for` + (1 + `for` | `if`)", ("class", "for", "if")),
    "our own words": ("sigma ~ normal + (1 + normal | fixed)", ("sigma", "normal", "fixed")),
}


@pytest.mark.parametrize("case", NAMES, ids=str)
def test_odd_column_names(case: str, plain: pd.DataFrame) -> None:
    formula, (y, x, g) = NAMES[case]
    data = DATA.rename(columns={"y": y, "x": x, "g": g})
    fit = fi.fit(formula, data)
    np.testing.assert_allclose(fit.summary(), plain, rtol=1e-6)
    assert f"sd_{g}[{x}]" in fit.summary().index
    assert np.isfinite(fit.draws(f"u_{g}[a, {x}]")).all()
    assert len(fit.predict(data.head(2))) == 2
    held = fi.fit(formula, data, priors={f"sd_{g}[{x}]": fi.fixed(0.5)})
    assert held.summary().loc[f"sd_{g}[{x}]", "mean"] == 0.5


@pytest.mark.parametrize("name", ["chain", "draw", "coefficient", "beta", "sigma", "observation", "u"])
def test_a_group_named_like_a_dimension(name: str) -> None:
    """A store chain or a lottery's draw is a group like any other, and its draws can be had in xarray."""
    data = DATA.rename(columns={"g": name})
    fit = fi.fit(f"y ~ x + (1 | {name})", data)
    assert fit.posterior[f"u_{name}"].shape == (4, 1000, 6, 1)
    fit.to_arviz()


def test_two_groups_whose_dimensions_could_collide() -> None:
    fit = fi.fit("y ~ x + (1 | g) + (1 | g_coefficient)", DATA.rename(columns={"h": "g_coefficient"}))
    assert fit.posterior["u_g"].shape[2] == 6 and fit.posterior["u_g_coefficient"].shape[2] == 5
