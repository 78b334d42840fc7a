"""`fi.meta` against published numbers, dense quadrature, and itself under permutation and change of unit."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finetti as fi
from tests.studies.meta_oracle import Oracle, oracle

# what a fit promises (2 % of a posterior sd for moments, 5 % for quantiles, as upper 90 % bounds), several times over
MEAN, QUANTILE = 3.5 * 0.02 / 1.325, 3.5 * 0.05 / 1.325
PROBS = {"q2.5": 0.025, "q50": 0.5, "q97.5": 0.975}
FLAT = {"beta": fi.flat()}

Y = np.array([28.39, 7.94, -2.75, 6.82, -0.64, 0.63, 18.01, 12.16])
SE = np.array([14.9, 10.2, 16.3, 11.0, 9.4, 11.4, 10.4, 17.6])
S0 = np.sqrt(8 / np.sum(SE**-2.0))

TAU_PRIORS = {
    "uniform": (fi.uniform(), lambda t: 0.0),
    "uniform to 30": (fi.uniform(0, 30), lambda t: 0.0 if t < 30 else -np.inf),
    "jeffreys": (fi.jeffreys(), lambda t: 0.5 * np.log(np.sum((t / (SE**2 + t**2)) ** 2))),
    "dumouchel": (fi.dumouchel(), lambda t: np.log(S0 / (S0 + t) ** 2)),
    "uniform shrinkage": (fi.uniform_shrinkage(), lambda t: np.log(2 * t * S0**2 / (S0**2 + t**2) ** 2)),
    "half-Cauchy": (fi.half_cauchy(5), lambda t: -np.log1p((t / 5) ** 2)),
    "half-normal": (fi.half_normal(10), lambda t: -0.5 * (t / 10) ** 2),
}


@pytest.fixture(scope="module")
def meta_data(shared_data) -> Path:
    return shared_data / "meta"


@pytest.fixture(scope="module")
def bcg(meta_data) -> pd.DataFrame:
    d = pd.read_csv(meta_data / "bcg.csv")
    d["yi"] = np.log(d.tpos / (d.tpos + d.tneg)) - np.log(d.cpos / (d.cpos + d.cneg))
    d["sei"] = np.sqrt(1 / d.tpos - 1 / (d.tpos + d.tneg) + 1 / d.cpos - 1 / (d.cpos + d.cneg))
    d["label"] = d.author + " " + d.year.astype(str)
    return d


def check_row(row: pd.Series, exact: tuple[float, float], quantiles: dict[str, float], moments: str = "both") -> None:
    """One row of a table against the oracle; NaN exactly where a moment does not exist."""
    mean, sd = exact
    assert np.isnan(row["mean"]) == (moments == "none")
    assert np.isnan(row["sd"]) == (moments != "both")
    # where the sd does not exist, the distance of the quartiles of a normal stands in for it
    width = sd if moments == "both" else (quantiles["q97.5"] - quantiles["q2.5"]) / 3.92
    if moments != "none":
        assert abs(row["mean"] - mean) < MEAN * width, (row["mean"], mean)
    if moments == "both":
        assert abs(row["sd"] - sd) < MEAN * sd, (row["sd"], sd)
    for column, value in quantiles.items():
        assert abs(row[column] - value) < QUANTILE * width, (column, row[column], value)


def quantiles(exact: Oracle, name: str) -> dict[str, float]:
    return {column: exact.quantile(name, p) for column, p in PROBS.items()}


def check_fit(fit: fi.Meta, exact: Oracle, moments: str = "both", taus: tuple[str, ...] = ("tau",)) -> None:
    """Overall, new study, every tau and every study."""
    probs = tuple(PROBS.values())
    assert fit.diagnostics.ok, fit.diagnostics.warnings
    overall, heterogeneity, studies = fit.overall(probs), fit.heterogeneity(probs), fit.studies(probs)
    check_row(overall.loc["overall"], exact.moments("overall"), quantiles(exact, "overall"), "both")
    check_row(overall.loc["new study"], exact.moments("new study"), quantiles(exact, "new study"), moments)
    for t, name in enumerate(taus):
        q = {column: exact.tau_quantile(t, p) for column, p in PROBS.items()}
        check_row(heterogeneity.loc[name], exact.of_tau(lambda tau, t=t: tau[:, t]), q, moments)
    for i, row in studies.iterrows():
        check_row(row, exact.moments(f"study {i}"), quantiles(exact, f"study {i}"), "both")


# ---- published numbers -----------------------------------------------------------------------------------------------


def test_rubins_eight_schools_as_bayesmeta_has_them():
    """Rover (2020), J. Stat. Softw. 93(6), section 3: flat mean, uniform tau; its intervals are the shortest ones."""
    fit = fi.meta(Y, SE, labels=list("ABCDEFGH"), priors={**FLAT, "sd": fi.uniform()})
    assert fit.heterogeneity().loc["tau", "q50"] == pytest.approx(5.23, abs=0.1)
    overall = fit.overall((0.025, 0.975)).loc["overall"]
    assert overall["mean"] == pytest.approx(8.09, abs=0.03)
    assert overall["q2.5"] == pytest.approx(-2.2, abs=0.2)
    assert overall["q97.5"] == pytest.approx(18.4, abs=0.2)


def test_bcg_with_a_half_cauchy(bcg):
    fit = fi.meta("yi", "sei", bcg, labels="label", priors={**FLAT, "sd": fi.half_cauchy(1)})
    tau = fit.heterogeneity().loc["tau"]
    assert tau["mean"] == pytest.approx(0.615, abs=0.004)
    assert tau["sd"] == pytest.approx(0.173, abs=0.004)


# ---- quadrature ------------------------------------------------------------------------------------------------------


@functools.cache
def schools(prior: str) -> Oracle:
    far = 1.8 if prior == "uniform to 30" else 12.0
    scale = 30 / np.sinh(1.8) if prior == "uniform to 30" else 5.0
    return oracle(Y, np.diag(SE**2), np.ones((8, 1)), [TAU_PRIORS[prior][1]], scale=scale, far=far)


@pytest.mark.parametrize("prior", TAU_PRIORS)
def test_every_tau_prior_against_quadrature(prior):
    fit = fi.meta(Y, SE, priors={**FLAT, "sd": TAU_PRIORS[prior][0]}, seed=2)
    check_fit(fit, schools(prior))


def test_two_or_three_studies_have_tails_and_say_so():
    """Three studies: posterior index of tau is the prior's plus 2; jeffreys has a mean and no sd, uniform no mean."""
    y, se = Y[:3], SE[:3]
    log_j = lambda t: 0.5 * np.log(np.sum((t / (se**2 + t**2)) ** 2))  # noqa: E731
    fit = fi.meta(y, se, priors={**FLAT, "sd": fi.jeffreys()})
    check_fit_tau = oracle(y, np.diag(se**2), np.ones((3, 1)), [log_j], scale=5.0, far=14.0, nodes=900)
    check_row(
        fit.heterogeneity(tuple(PROBS.values())).loc["tau"],
        check_fit_tau.of_tau(lambda t: t[:, 0]),
        {column: check_fit_tau.tau_quantile(0, p) for column, p in PROBS.items()},
        "mean only",
    )
    assert fit.overall()["sd"].isna().all()
    fit = fi.meta(y, se, priors={**FLAT, "sd": fi.uniform()})
    assert fit.heterogeneity()["mean"].isna().to_dict() == {"tau": True, "tau2": True, "I2": False}
    assert fit.overall()["mean"].isna().all()


def test_moderators_against_quadrature(bcg):
    """BCG with distance from the equator, jeffreys; predictions at two distances, one outside the data."""
    y, se = bcg.yi.to_numpy(), bcg.sei.to_numpy()
    X = np.column_stack([np.ones(13), bcg.ablat])
    log_prior = lambda t: 0.5 * np.log(np.sum((t / (se**2 + t**2)) ** 2))  # noqa: E731
    fit = fi.meta("yi", "sei", bcg, labels="label", moderators="ablat", priors={**FLAT, "sd": fi.jeffreys()})
    exact = oracle(y, np.diag(se**2), X, [log_prior], scale=0.2)
    check_fit(fit, exact)
    summary = fit.summary(tuple(PROBS.values()))
    check_row(summary.loc["beta[ablat]"], exact.moments("beta 1"), quantiles(exact, "beta 1"))
    at = oracle(y, np.diag(se**2), X, [log_prior], scale=0.2, row=np.array([1.0, 60.0]))
    new = fit.new_study(pd.DataFrame({"ablat": [0.0, 60.0]}, index=["equator", "60°"]), tuple(PROBS.values()))
    check_row(new.loc["60°"], at.moments("new study"), quantiles(at, "new study"))
    # I2 through the projection
    W = np.diag(se**-2.0)
    P = W - W @ X @ np.linalg.inv(X.T @ W @ X) @ X.T @ W
    s2 = (13 - 2) / np.trace(P)
    mean, sd = exact.of_tau(lambda t: t[:, 0] ** 2 / (t[:, 0] ** 2 + s2))
    assert fit.heterogeneity().loc["I2", "mean"] == pytest.approx(mean, abs=MEAN * sd)


def test_informative_priors_of_coefficients(bcg):
    """The default kind of prior: normal at the covariates' means, normal slopes."""
    y, se = bcg.yi.to_numpy(), bcg.sei.to_numpy()
    X = np.column_stack([np.ones(13), bcg.ablat - bcg.ablat.mean()])
    priors = {"Intercept": fi.normal(0, 0.3), "beta[ablat]": fi.normal(0, 0.01), "sd": fi.half_normal(0.5)}
    fit = fi.meta("yi", "sei", bcg, moderators="~ ablat", priors=priors)
    exact = oracle(
        y, np.diag(se**2), X, [lambda t: -0.5 * (t / 0.5) ** 2],
        beta=(np.zeros(2), np.array([0.3, 0.01])), scale=0.2, far=4.0,
    )  # fmt: skip
    check_fit(fit, exact)


def test_three_levels_against_quadrature(meta_data):
    """Schools in districts (Konstantopoulos 2011): both heterogeneity sds, schools, and the I2 of each level."""
    d = pd.read_csv(meta_data / "konstantopoulos2011.csv")
    y, v = d.yi.to_numpy(), d.vi.to_numpy()
    priors = {**FLAT, "sd": fi.half_normal(1)}
    fit = fi.meta("yi", "sqrt(vi)", d, labels="study", cluster="district", priors=priors)
    half_normal = lambda t: -0.5 * t**2  # noqa: E731
    exact = oracle(
        y, np.diag(v), np.ones((len(y), 1)), [half_normal] * 2, clusters=[d.district.to_numpy(), None], scale=0.2,
        nodes=40, far=3.5,
    )  # fmt: skip
    check_fit(fit, exact, taus=("tau_cluster", "tau_study"))
    w = 1 / v
    s2 = w.sum() * (len(v) - 1) / (w.sum() ** 2 - np.sum(w**2))  # Higgins and Thompson, equation 9
    table = fit.heterogeneity()
    for t, name in enumerate(("I2_cluster", "I2_study")):
        mean, sd = exact.of_tau(lambda tau, t=t: tau[:, t] ** 2 / (np.sum(tau**2, axis=1) + s2))
        assert table.loc[name, "mean"] == pytest.approx(mean, abs=MEAN * sd)
        assert table.loc[name, "sd"] == pytest.approx(sd, abs=MEAN * sd)
    assert list(table.index) == ["tau_cluster", "tau_study", "I2_cluster", "I2_study", "I2"]
    assert fit.studies()["share"].sum() == pytest.approx(1.0)
    assert {"sd_cluster[Intercept]", "sd_study[Intercept]"} <= set(fit.summary().index)


@functools.cache
def periodontal(folder: Path) -> tuple[pd.DataFrame, list[np.ndarray], np.ndarray]:
    """Five trials with two correlated outcomes (Berkey et al. 1998): the table, the blocks of V, and V."""
    d = pd.read_csv(folder / "berkey1998.csv")
    d["id"] = d.author + " " + d.outcome
    blocks = [g[["v1i", "v2i"]].to_numpy() for _, g in d.groupby("trial", sort=False)]
    V = np.zeros((10, 10))
    for i, block in enumerate(blocks):
        V[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    return d, blocks, V


def test_known_covariance_against_quadrature(meta_data):
    d, blocks, V = periodontal(meta_data)
    X = np.column_stack([d.outcome == "AL", d.outcome == "PD"]).astype(float)
    priors = {**FLAT, "sd": fi.jeffreys()}
    fit = fi.meta("yi", None, d, labels="id", V=blocks, moderators="0 + outcome", priors=priors)
    eigenvalues = np.linalg.eigvalsh(V)
    log_prior = lambda t: 0.5 * np.log(np.sum((t / (eigenvalues + t**2)) ** 2))  # noqa: E731
    exact = oracle(d.yi.to_numpy(), V, X, [log_prior], scale=0.1)
    check_fit(fit, exact)
    for j, label in enumerate(("beta[outcome[AL]]", "beta[outcome[PD]]")):
        row = fit.summary(tuple(PROBS.values())).loc[label]
        check_row(row, exact.moments(f"beta {j}"), quantiles(exact, f"beta {j}"))
    # what the user observed is shown, and nothing hidden
    np.testing.assert_allclose(fit.groups("study")["raw_se"], np.sqrt(np.diag(V)))
    np.testing.assert_allclose(fit.studies()["se"], np.sqrt(np.diag(V)))
    assert fit.group_names == ("study",)
    assert set(fit.posterior.data_vars) == {"beta", "sd_study", "u_study"}
    assert "5 blocks of 2 rows" in str(fit.model)
    residual = d.yi - X @ fit.summary()["mean"].to_numpy()[:2]
    np.testing.assert_allclose(fit.groups("study")["raw"], residual, atol=1e-12)


def test_known_covariance_in_clusters_with_moderators(meta_data):
    """V, three levels and a covariate at once, under priors made from the errors."""
    d, _, V = periodontal(meta_data)
    X = np.column_stack([np.ones(10), d.year])
    fit = fi.meta(
        "yi", None, d, labels="id", V=V, cluster="trial", moderators="year", priors={**FLAT, "sd": fi.dumouchel()}
    )  # fmt: skip
    trial = d.trial.to_numpy()
    Z = (trial[:, None] == np.unique(trial)).astype(float)
    s0 = [np.sqrt(A.shape[0] / np.trace(A)) for A in (Z.T @ np.linalg.inv(V) @ Z, np.linalg.inv(V))]
    log_priors = [lambda t, s=s: -2 * np.log(s + t) for s in s0]
    exact = oracle(d.yi.to_numpy(), V, X, log_priors, clusters=[trial, None], scale=0.1, nodes=60, far=11.0)
    probs = tuple(PROBS.values())
    for i, row in fit.studies(probs).iterrows():
        check_row(row, exact.moments(f"study {i}"), quantiles(exact, f"study {i}"))
    for t, name in enumerate(("tau_cluster", "tau_study")):
        q = {column: exact.tau_quantile(t, p) for column, p in PROBS.items()}
        check_row(fit.heterogeneity(probs).loc[name], exact.of_tau(lambda tau, t=t: tau[:, t]), q)
    overall = fit.overall(probs)
    check_row(overall.loc["overall"], exact.moments("overall"), quantiles(exact, "overall"))
    draws = sum(fit.draws(f"u_{name}") for name in ("study[Becker et al. AL, Intercept]", "cluster[5, Intercept]"))
    draws = draws + fit.draws("beta[Intercept]") + 1988 * fit.draws("beta[year]")
    mean, sd = exact.moments("study 9")
    assert draws.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(draws.size) + MEAN * sd)
    assert draws.std() == pytest.approx(sd, rel=0.1)


# ---- what a fit must not depend on -----------------------------------------------------------------------------------


def pair_of_fits(order: np.ndarray | None = None, unit: float = 1.0, **options) -> tuple[fi.Meta, fi.Meta]:
    rng = np.random.default_rng(4)
    k = 9
    d = pd.DataFrame({"y": rng.normal(2, 3, k), "s": rng.uniform(0.5, 3, k), "x": rng.normal(size=k)})
    d["name"], d["paper"] = [f"study {i}" for i in range(k)], ["p", "p", "q", "q", "q", "r", "s", "t", "t"]
    half = rng.normal(size=(k, k))
    V = np.where(d.paper.to_numpy()[:, None] == d.paper.to_numpy(), half @ half.T / k + 2 * np.eye(k), 0.0)
    changed = d if order is None else d.iloc[order]
    at = np.arange(k) if order is None else order
    fits = []
    for table, cov in ((d, V), (changed.assign(y=unit * changed.y), unit**2 * V[np.ix_(at, at)])):
        fits.append(
            fi.meta("y", None, table, labels="name", cluster="paper", V=cov, moderators="x", seed=1, **options)
        )  # fmt: skip
    return fits[0], fits[1]


def test_the_order_of_studies_changes_nothing():
    order = np.array([3, 8, 0, 5, 1, 7, 2, 6, 4])
    one, two = pair_of_fits(order)
    pd.testing.assert_frame_equal(one.overall(), two.overall(), rtol=1e-6)
    pd.testing.assert_frame_equal(one.heterogeneity(), two.heterogeneity(), rtol=1e-6)
    pd.testing.assert_frame_equal(
        one.studies().iloc[order].reset_index(drop=True), two.studies(), rtol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_a_change_of_unit_rescales(unit):
    one, two = pair_of_fits(unit=unit)
    pd.testing.assert_frame_equal(one.overall() * unit, two.overall(), rtol=1e-5)
    scale = [unit, unit, 1, 1, 1]
    pd.testing.assert_frame_equal(one.heterogeneity().mul(scale, axis=0), two.heterogeneity(), rtol=1e-4)
    numbers = ["effect", "se", "mean", "sd", "q5", "q50", "q95"]
    pd.testing.assert_frame_equal(one.studies()[numbers] * unit, two.studies()[numbers], rtol=1e-5)
    np.testing.assert_allclose(one.studies()[["share", "weight"]], two.studies()[["share", "weight"]], rtol=1e-4)


# ---- the tables ------------------------------------------------------------------------------------------------------


def test_shares_are_the_weights_of_generalised_least_squares(meta_data):
    """Averaged over nodes: against dense algebra at the oracle's, with V, clusters and a covariate."""
    d, _, V = periodontal(meta_data)
    X = np.column_stack([np.ones(10), d.year])
    trial = d.trial.to_numpy()
    sds = {"sd_study": fi.fixed(0.2), "sd_cluster": fi.fixed(0.3)}
    fit = fi.meta("yi", None, d, labels="id", V=V, cluster="trial", moderators="year", priors={**FLAT, **sds})
    Sigma = V + 0.09 * (trial[:, None] == trial) + 0.04 * np.eye(10)
    W = np.linalg.inv(Sigma)
    a = X.mean(axis=0) @ np.linalg.inv(X.T @ W @ X) @ X.T @ W
    np.testing.assert_allclose(fit.studies()["share"], a, rtol=1e-8)
    assert a @ d.yi == pytest.approx(fit.overall().loc["overall", "mean"])
    np.testing.assert_allclose(fit.studies()["weight"], 0.04 / (0.04 + np.diag(V)), rtol=1e-10)
    table = fit.heterogeneity()
    assert table.loc["tau_study"].tolist() == pytest.approx([0.2, 0.0, 0.2, 0.2, 0.2])
    assert table.loc["I2"].tolist()[1] == 0.0


def test_two_level_shares_average_over_tau():
    fit = fi.meta(Y, SE, priors={**FLAT, "sd": fi.half_cauchy(5)})
    exact = schools("half-Cauchy")
    w = 1 / (SE**2 + exact.tau**2)
    shares = exact.weights @ (w / w.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(fit.studies()["share"], shares, atol=1e-3)
    np.testing.assert_allclose(fit.studies()["weight"], exact.weights @ (exact.tau**2 * w), atol=3e-3)
    w = SE**-2.0
    s2 = w.sum() * 7 / (w.sum() ** 2 - np.sum(w**2))
    mean, sd = exact.of_tau(lambda t: t[:, 0] ** 2 / (t[:, 0] ** 2 + s2))
    assert fit.heterogeneity().loc["I2", "mean"] == pytest.approx(mean, abs=MEAN * sd)


def test_no_heterogeneity_is_the_common_effect():
    """tau held at 0: inverse-variance weighting, and a new study is the overall effect."""
    fit = fi.meta(Y, SE, priors={**FLAT, "sd": fi.fixed(0)})
    w = SE**-2.0
    overall = fit.overall()
    np.testing.assert_allclose(overall["mean"], np.average(Y, weights=w))
    np.testing.assert_allclose(overall["sd"], 1 / np.sqrt(w.sum()))
    np.testing.assert_allclose(fit.studies()["share"], w / w.sum())
    assert (fit.heterogeneity() == 0.0).all(axis=None)


def test_the_rest_of_a_fit_is_there(tmp_path):
    fit = fi.meta(Y, SE, labels=list("ABCDEFGH"), priors={"sd": fi.jeffreys()}, seed=5)
    assert isinstance(fit, fi.Fit)
    assert fit.effect_name == "effect"
    assert not fit.has_moderators
    assert fit.observed.columns.tolist() == ["study", "effect", "se"]
    assert fit.observed["study"].tolist() == list("ABCDEFGH")
    table = fit.groups("study")
    np.testing.assert_allclose(table["raw"], Y)
    np.testing.assert_allclose(table["raw_se"], SE)
    np.testing.assert_allclose(table["weight"], fit.studies()["weight"])
    np.testing.assert_allclose(table["mean"], fit.studies()["mean"])
    tau = fit.summary().loc["sd_study[Intercept]"]
    pd.testing.assert_series_equal(fit.heterogeneity().loc["tau"], tau.drop(["ess", "mcse"]), check_names=False)
    pd.testing.assert_series_equal(
        fit.overall().loc["overall"], fit.summary().loc["beta[Intercept]"].drop(["ess", "mcse"]), check_names=False
    )
    pd.testing.assert_frame_equal(fit.new_study(), fit.overall().loc[["new study"]])
    again = fi.load(fit.save(tmp_path / "meta.nc"))
    assert isinstance(again, fi.Meta)
    pd.testing.assert_frame_equal(again.studies(), fit.studies())
    pd.testing.assert_frame_equal(again.overall(), fit.overall())


def test_one_study_rests_on_its_priors():
    fit = fi.meta([0.5], [0.1], priors={"Intercept": fi.normal(0, 1), "sd": fi.half_normal(0.2)})
    exact = oracle(
        np.array([0.5]), np.diag([0.01]), np.ones((1, 1)), [lambda t: -0.5 * (t / 0.2) ** 2],
        beta=(np.zeros(1), np.ones(1)), scale=0.1, far=4.0,
    )  # fmt: skip
    check_fit(fit, exact)
    assert fit.studies().loc[0, "share"] == 1.0
    assert any("one observation" in w for w in fit.diagnostics.warnings)


@pytest.mark.parametrize("effects", [[0.3, 0.301, 0.299], [0.3, 0.3, 0.3]])
def test_studies_that_agree_do_not_make_the_default_priors_narrow(effects):
    """An effect with three standard errors of 0.2 cannot be known to 0.01, whatever the spread of the estimates."""
    fit = fi.meta(effects, [0.2, 0.2, 0.2])
    assert 0.11 < fit.overall().loc["overall", "sd"] < 0.2
    assert 0.03 < fit.heterogeneity().loc["tau", "q50"] < 0.2


# ---- input -----------------------------------------------------------------------------------------------------------

TABLE = {
    "yi": [0.1, 0.5, 0.3, 0.2], "vi": [0.04, 0.01, 0.09, 0.04], "sei": [0.2, 0.1, 0.3, 0.2],
    "name": ["b", "a", "d", "c"], "paper": ["p", "p", "q", "r"], "x": [1.0, 2.0, 4.0, 3.0], "se": [9.0, 9.0, 9.0, 9.0],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "csv", "dict", "arrays", "series"])
def test_every_kind_of_table(kind, tmp_path):
    import polars as pl
    import pyarrow as pa

    frame = pd.DataFrame(TABLE)
    frame.to_csv(tmp_path / "t.csv", index=False)
    expected = fi.meta("yi", "sei", frame, labels="name", moderators="x", cluster="paper").studies()
    assert expected["study"].tolist() == TABLE["name"]
    if kind in ("arrays", "series"):
        box = (lambda v: np.array(v)) if kind == "arrays" else (lambda v: pl.Series(v))
        fit = fi.meta(
            box(TABLE["yi"]), box(TABLE["sei"]), {"x": TABLE["x"]}, labels=box(TABLE["name"]), moderators="x",
            cluster=pa.array(TABLE["paper"]),
        )  # fmt: skip
    else:
        data = {
            "pandas": frame.set_index(np.array([5, 5, 7, 1])), "polars": pl.DataFrame(TABLE),
            "pyarrow": pa.table(TABLE), "csv": tmp_path / "t.csv", "dict": TABLE,
        }[kind]  # fmt: skip
        fit = fi.meta("yi", "sqrt(vi)", data, labels="name", moderators="x", cluster="paper")
        assert fit.effect_name == "yi"
    pd.testing.assert_frame_equal(fit.studies(), expected)


@pytest.mark.parametrize("shape", ["array", "frame", "blocks", "scalars"])
def test_every_shape_of_covariance(shape):
    block = np.array([[0.04, 0.01], [0.01, 0.01]])
    V = np.diag([0.04, 0.01, 0.09, 0.04])
    V[:2, :2] = block
    given = {
        "array": V, "frame": pd.DataFrame(V), "blocks": [block, [[0.09]], [[0.04]]],
        "scalars": [block.tolist(), 0.09, 0.04],
    }[shape]  # fmt: skip
    fit = fi.meta("yi", "sei", TABLE, V=given)
    ((rows, cov),) = fit.model.error_covariance
    assert rows.tolist() == [0, 1]
    np.testing.assert_array_equal(cov, block)
    pd.testing.assert_frame_equal(fit.overall(), fi.meta("yi", None, TABLE, V=V).overall(), rtol=1e-9)
    assert fi.meta("yi", None, TABLE, V=np.diag(np.diag(V))).model.error_covariance is None


def test_rows_with_gaps_are_dropped_when_asked_with_their_part_of_the_covariance():
    frame = pd.DataFrame(TABLE)
    frame.loc[1, "x"] = np.nan
    V = np.full((4, 4), 0.004) + np.diag([0.036, 0.006, 0.086, 0.036])
    with pytest.raises(fi.DataError, match=r"missing values.*'x' 1"):
        fi.meta("yi", None, frame, V=V, moderators="x")
    fit = fi.meta("yi", None, frame, labels="name", V=V, moderators="x", missing="drop")
    keep = [0, 2, 3]
    same = fi.meta("yi", None, frame.iloc[keep], labels="name", V=V[np.ix_(keep, keep)], moderators="x")
    pd.testing.assert_frame_equal(fit.studies(), same.studies())
    assert any("1 rows with missing" in w for w in fit.diagnostics.warnings)


def test_a_large_block_with_one_correlation_is_cheap():
    """200 effects of one correlation need one hidden column; 62 with arbitrary correlations are refused."""
    rng = np.random.default_rng(0)
    y, se = rng.normal(size=200), rng.uniform(0.2, 0.4, 200)
    V = np.outer(se, se) * (0.5 + 0.5 * np.eye(200))
    fit = fi.meta(y, None, V=V, priors={**FLAT, "sd": fi.fixed(0.3)})
    W = np.linalg.inv(V + 0.09 * np.eye(200)).sum(axis=0)
    assert fit.overall().loc["overall", "mean"] == pytest.approx(W @ y / W.sum(), rel=1e-8)
    assert fit.overall().loc["overall", "sd"] == pytest.approx(W.sum() ** -0.5, rel=1e-8)
    half = rng.normal(size=(62, 62))
    with pytest.raises(fi.DataError, match=r"block of 62 rows .* different directions; at most 60"):
        fi.meta(y[:62], None, V=half @ half.T / 62 + np.eye(62))


def without(name: str) -> dict[str, list]:
    return {k: v for k, v in TABLE.items() if k != name}


SQUARE = np.diag([0.04, 0.01, 0.09, 0.04])


def covariance(i: int, j: int, value: float, both: bool = True) -> np.ndarray:
    V = SQUARE.copy()
    V[i, j] = value
    V[j, i] = value if both else V[j, i]
    return V


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fi.meta("y", "sei", TABLE), "no column 'y' in the data; .*'yi'"),
        (lambda: fi.meta("yi", "sel", TABLE), "no column 'sel'.*did you mean 'se"),
        (lambda: fi.meta("yi", "sqrt(vj)", TABLE), "no column 'vj'"),
        (lambda: fi.meta("yi", "open(vi)", TABLE), "open"),
        (lambda: fi.meta("yi", "sei"), "effect='yi' names a column, but no table was given"),
        (lambda: fi.meta("yi", None, TABLE), "needs the standard errors"),
        (lambda: fi.meta("name", "sei", TABLE), "effect 'name' must be numeric"),
        (lambda: fi.meta("yi", "sei", TABLE, labels="label"), "no column 'label'"),
        (lambda: fi.meta([0.1, 0.2], [0.1]), "effect 2, se 1"),
        (lambda: fi.meta([0.1, 0.2], [0.1, 0.1], labels=["a"]), "study 1"),
        (lambda: fi.meta([0.1] * 3, "sei", TABLE), "the table has 4 rows"),
        (lambda: fi.meta([], []), "There are no studies"),
        (lambda: fi.meta(0.3, 0.1), "one value per study, but it is a single value"),
        (lambda: fi.meta([[0.1], [0.2]], [0.1, 0.1]), r"of shape \(2, 1\)"),
        (lambda: fi.meta([0.1, np.inf], [0.1, 0.1]), "is inf in row 1"),
        (lambda: fi.meta([0.1, np.nan], [0.1, 0.1]), "missing values"),
        (lambda: fi.meta("yi", "sei", {**TABLE, "yi": [0.1, None, 0.3, 0.2]}), r"of 4 rows: 'yi' 1\)"),
        (lambda: fi.meta("yi", "sei", {**TABLE, "name": ["b", None, "d", "c"]}, labels="name"), r"4 rows: 'name' 1\)"),
        (lambda: fi.meta([0.1, 0.2], [0.1, 0.0]), "must be above zero, but 'se' is 0 in row 1"),
        (lambda: fi.meta([0.1, 0.2], [-0.1, 0.1]), "'se' is -0.1 in row 0"),
        (lambda: fi.meta("yi", "sei", TABLE, labels="paper"), "'p' names 2 rows.*cluster='paper' and leave labels out"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="z"), "no column 'z'"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="yi ~ x"), "give the right side alone"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators=" "), "must be the right side of a formula"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="x + (1 | paper)"), "give the clusters of effects as cluster="),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="se"), "moderator 'se' has the name .* rename"),
        (lambda: fi.meta([0.1] * 4, [0.1] * 4, moderators="x"), "no table was given"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="C(name) + x"), "5 population coefficients.*only 4 rows"),
        (lambda: fi.meta("yi", "sei", TABLE, V=SQUARE[:3, :3]), "V describes 3 effects .*but there are 4"),
        (lambda: fi.meta("yi", "sei", TABLE, V=SQUARE[:3]), r"must be a square matrix.*shape is \(3, 4\)"),
        (lambda: fi.meta("yi", "sei", TABLE, V=covariance(0, 1, 0.01, both=False)), "not symmetric: 0.01 in row 0"),
        (lambda: fi.meta("yi", None, TABLE, V=covariance(0, 1, 0.03)), "not positive definite in its block of rows"),
        (lambda: fi.meta("yi", "sei", TABLE, V=covariance(0, 1, np.nan)), "V is nan in row 0, column 1"),
        (lambda: fi.meta("yi", "sei", TABLE, V=covariance(1, 1, 0.02)), "se² is 0.01, but V has 0.02"),
        (lambda: fi.meta("yi", None, TABLE, V=covariance(1, 1, 0.0)), "V has 0 on its diagonal in row 1"),
        (lambda: fi.meta("yi", None, TABLE, V="V.csv"), "numbers only"),
        (lambda: fi.meta("yi", "sei", TABLE, priors={"sd_school": fi.flat()}), "'sd_school' names no parameter"),
        (lambda: fi.meta("yi", "sei", TABLE, draws=0), "draws=0"),
        (lambda: fi.meta("yi", "sei", TABLE).new_study({"x": [1.0]}), "has no moderators"),
        (lambda: fi.meta("yi", "sei", TABLE, moderators="x").new_study({"z": [1.0]}), "do not fit the model.*'x'"),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_it_says(call, words):
    with pytest.raises(fi.FinettiError, match=words):
        call()


def test_the_standard_error_as_a_moderator():
    """Egger's regression: the same column in two roles."""
    data = {**without("se"), "se": TABLE["sei"]}
    fit = fi.meta("yi", "se", data, moderators="se")
    assert fit.model.design.columns == ("Intercept", "se")
