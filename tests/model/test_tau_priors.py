"""Priors that are made from known standard errors: their numbers, their definition, where they may stand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.integrate import quad

import finetti as fi
from finetti.data.bound import bind
from finetti.errors import PriorError
from finetti.model.model import Model
from finetti.model.tau import typical_error

FROM_ERRORS = {"jeffreys": fi.jeffreys(), "dumouchel": fi.dumouchel(), "uniform_shrinkage": fi.uniform_shrinkage()}
SE = np.array([15.0, 10.0, 16.0, 11.0, 9.0])
STUDIES = {"y": [28.0, 8.0, -3.0, 7.0, -1.0], "s": SE, "g": list("abcde")}
META = "y | se(s) ~ 1 + (1 | g)"
ROWS = {"y": [1.0, 2.0, 4.0, 3.0], "s": [1.0, 2.0, 2.0, 1.0], "x": [0.0, 1.0, 2.0, 1.0], "g": ["a", "a", "b", "b"]}


def resolved(formula: str, data, **given):
    return bind(Model(formula, priors=given or {"sd": fi.jeffreys()}), data).priors


def information(tau: float, V: np.ndarray, Z: np.ndarray) -> float:
    """Fisher information in tau of Normal(0, V + tau^2 ZZ'): half the trace of the squared relative derivative."""
    A = np.linalg.solve(V + tau**2 * Z @ Z.T, 2.0 * tau * Z @ Z.T)
    return 0.5 * np.trace(A @ A)


@pytest.mark.parametrize("V", ["diagonal", "blocks"])
@pytest.mark.parametrize("levels", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 2]])
def test_jeffreys_is_the_root_of_the_information(V, levels):
    """Where rows are studies, where they share a level, and where V joins rows of different levels."""
    rng = np.random.default_rng(3)
    cov = np.diag(rng.uniform(0.5, 4.0, 6))
    blocks = ()
    if V == "blocks":
        half = rng.normal(size=(3, 3))
        rows = np.array([1, 2, 4])
        cov[np.ix_(rows, rows)] = half @ half.T + np.eye(3)
        blocks = ((rows, cov[np.ix_(rows, rows)]),)
    data = {"y": rng.normal(size=6), "s": np.sqrt(np.diag(cov)), "g": levels}
    bound = bind(Model(META, priors={"sd": fi.jeffreys()}), data, error_covariance=blocks)
    prior = bound.priors["sd_g[Intercept]"]
    Z = np.eye(max(levels) + 1)[levels]
    tau = np.array([0.01, 0.3, 1.0, 4.0, 100.0])
    exact = np.array([0.5 * np.log(information(t, cov, Z)) for t in tau])
    np.testing.assert_allclose(prior.logpdf(tau) - prior.logpdf(1.0), exact - exact[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dumouchel", "uniform_shrinkage"])
def test_s0_is_the_harmonic_mean_of_the_variances(name):
    s0 = np.sqrt(5 / np.sum(SE**-2.0))
    prior = resolved(META, STUDIES, sd=FROM_ERRORS[name])["sd_g[Intercept]"]
    assert prior.s0 == pytest.approx(s0, rel=1e-12)
    assert str(prior) == f"{name}({s0:.4g})"
    assert quad(lambda t: np.exp(prior.logpdf(t)), 0, s0)[0] == pytest.approx(0.5, abs=1e-9)  # the median
    given = resolved(META, STUDIES, sd=getattr(fi, name)(3))["sd_g[Intercept]"]
    assert given == getattr(fi, name)(3)


def test_uniform_shrinkage_is_uniform_in_the_shrinkage():
    prior, s0 = fi.uniform_shrinkage(2.0), 2.0
    for b in (0.1, 0.5, 0.9):
        tau = s0 * np.sqrt(1 / b - 1)
        assert quad(lambda t: np.exp(prior.logpdf(t)), 0, tau)[0] == pytest.approx(1 - b, abs=1e-9)


def test_levels_with_several_rows_count_as_their_means():
    prior = resolved("y | se(s) ~ 1 + (1 | g)", ROWS, sd=fi.dumouchel())["sd_g[Intercept]"]
    assert prior.s0 == pytest.approx(typical_error((0.8, 0.8)))  # 1 / (1 + 1/4)


def test_each_coefficient_has_its_own_numbers():
    priors = resolved("y | se(s) ~ 1 + (1 + x || g)", ROWS, sd=fi.jeffreys())
    assert priors["sd_g[Intercept]"].variances == pytest.approx((0.8, 0.8))
    assert priors["sd_g[x]"].variances == pytest.approx((4.0, 0.5))


@pytest.mark.parametrize("prior", FROM_ERRORS.values(), ids=str)
def test_without_data_there_is_no_density(prior):
    for ask in (prior.logpdf, prior.dlogpdf):
        with pytest.raises(PriorError, match=re.escape(f"{prior} has no density before it has met data")):
            ask(1.0)
    assert str(prior) in str(Model(META, priors={"sd": prior}))  # but it can be written on the board


@pytest.mark.parametrize("prior", FROM_ERRORS.values(), ids=str)
@pytest.mark.parametrize(
    ("formula", "key", "words"),
    [
        ("y ~ 1 + (1 | g)", "sd", "made from known standard errors, but this model estimates its error"),
        ("y | se(s, sigma=True) ~ 1 + (1 | g)", "sd_g", "made from known standard errors, but this model"),
        ("y ~ 1 + (1 | g)", "sigma", "made from known standard errors, and then there is no sigma"),
        (META, "Intercept", "does not suit it"),
        ("y | se(s) ~ 1 + (1 + x | g)", "cor", "does not suit it"),
    ],
)
def test_where_they_may_not_stand(prior, formula, key, words):
    with pytest.raises(PriorError, match=words):
        bind(Model(formula, priors={key: prior}), ROWS)


def test_they_have_a_scale_of_their_own_where_it_is_given():
    """dumouchel(s0) is an ordinary prior, also of a sigma."""
    priors = bind(
        Model("y ~ 1 + (1 | g)", priors={"sd": fi.dumouchel(2), "sigma": fi.uniform_shrinkage(3)}), ROWS
    ).priors
    assert str(priors["sigma"]) == "uniform_shrinkage(3)"


def test_they_work_in_an_ordinary_fit():
    fit = fi.fit(META, STUDIES, priors={"beta": fi.flat(), "sd": fi.jeffreys()})
    same = fi.meta(STUDIES["y"], SE, priors={"beta": fi.flat(), "sd": fi.jeffreys()})
    assert fit.summary().loc["sd_g[Intercept]", "mean"] == pytest.approx(same.heterogeneity().loc["tau", "mean"])
    assert fit.priors.loc["sd_g[Intercept]"].tolist() == ["jeffreys()", "sd"]


@pytest.mark.parametrize("twins", [False, True], ids=["", "all effects alike"])
@pytest.mark.parametrize("slopes", [0, 1])
@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("prior", "more"), [(fi.uniform(), 2), (fi.flat(), 2), (fi.jeffreys(), 1), (fi.dumouchel(), 0)], ids=str
)
def test_how_many_studies_an_improper_prior_needs(prior, more, k, slopes, twins):
    """Flat coefficients beside it; the tail index of the posterior is what theory says."""
    p = 1 + slopes
    if k < p:
        pytest.skip("fewer studies than coefficients")
    y, se = ([1.0] * k, [0.5] * k) if twins else ([1.0, 1.4, 0.3, 2.0, 1.1][:k], [0.4, 0.1, 1.0, 0.3, 0.2][:k])
    data = {"y": y, "s": se, "x": [0.0, 1.0, 1.0, 3.0, 2.0][:k], "g": list("abcde")[:k]}
    formula = f"y | se(s) ~ 1{' + x' * slopes} + (1 | g)"
    fit = lambda: fi.fit(formula, data, priors={"beta": fi.flat(), "sd": prior})  # noqa: E731
    if k < p + more:
        with pytest.raises(PriorError, match=r"improper.*at least two groups more than coefficients, jeffreys"):
            fit()
    else:
        index = k - p + {2: -1.0, 1: 0.0, 0: 1.0}[more]
        assert fit().inference.tails["sd_g[Intercept]"] == pytest.approx(index, abs=0.02)


@pytest.mark.parametrize(("clusters", "proper"), [("uvw", False), ("uvww", True)])
def test_two_improper_scales_may_be_improper_together(clusters, proper):
    """Three clusters are enough for either alone; together they need another study."""
    k = len(clusters)
    data = {"y": [1.0, 1.4, 0.3, 2.0][:k], "s": [0.4, 0.1, 1.0, 0.3][:k], "g": range(k), "c": list(clusters)}
    formula, flat = "y | se(s) ~ 1 + (1 | c) + (1 | g)", {"beta": fi.flat()}
    for key in ("sd_c", "sd_g"):
        assert fi.fit(formula, data, priors={**flat, key: fi.uniform()}).diagnostics.ok
    if proper:
        fi.fit(formula, data, priors={**flat, "sd": fi.uniform()})
    else:
        with pytest.raises(PriorError, match=r"sd_c\[Intercept\] and sd_g\[Intercept\] is improper"):
            fi.fit(formula, data, priors={**flat, "sd": fi.uniform()})
