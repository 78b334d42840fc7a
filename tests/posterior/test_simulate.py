"""Draws from priors against their densities, and simulated responses against the covariance that the model states."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.integrate import quad

import finetti as fi
from finetti.data.bound import bind
from finetti.errors import ModelError, PriorError
from finetti.model.priors import sd_logpdf
from finetti.posterior.simulate import draw_correlations, draw_one, draw_prior, labels, simulate, slim

DRAWS = 4000
SDS = [
    fi.half_normal(2), fi.half_cauchy(3), fi.half_t(4, 0.5), fi.exponential(0.7), fi.gamma(2, 3),
    fi.inverse_gamma(2, 3), fi.uniform(1, 4), fi.beta(2, 5), fi.dumouchel(2), fi.uniform_shrinkage(0.5),
]  # fmt: skip
COEFFICIENTS = [fi.normal(3, 2), fi.student_t(4, -1, 2), fi.uniform(-3, 1)]


@pytest.mark.parametrize("prior", SDS + COEFFICIENTS, ids=str)
def test_draws_follow_the_density(prior):
    rng = np.random.default_rng(5)
    draws = np.sort([draw_one(prior, rng) for _ in range(DRAWS)])
    density = prior.logpdf if prior in COEFFICIENTS else (lambda x: sd_logpdf(prior, x))
    # the CDF between neighbouring deciles of the draws, by quadrature of the density
    edges = draws[np.arange(0, DRAWS, DRAWS // 10)]
    mass = [quad(lambda x: float(np.exp(density(x))), a, b)[0] for a, b in itertools.pairwise(edges)]
    error = np.sqrt(0.1 * 0.9 / DRAWS)
    assert np.max(np.abs(np.array(mass) - 0.1)) < 4 * error


@pytest.mark.parametrize(("q", "eta"), [(2, 2.0), (3, 1.0), (4, 3.5)])
def test_correlations_are_lkj(q, eta):
    rng = np.random.default_rng(1)
    draws = np.array([draw_correlations(fi.lkj(eta), q, rng) for _ in range(1500)])
    assert np.allclose(np.diagonal(draws, axis1=1, axis2=2), 1.0)
    assert np.linalg.eigvalsh(draws).min() > 0.0
    # every correlation has the law 2 Beta(b, b) - 1 with b = eta - 1 + q / 2
    b = eta - 1.0 + 0.5 * q
    for i in range(q):
        for j in range(i):
            assert scipy.stats.kstest((draws[:, i, j] + 1.0) / 2.0, scipy.stats.beta(b, b).cdf).pvalue > 1e-4


def crossed(**columns) -> pd.DataFrame:
    g = np.repeat(["a", "b", "c"], 4)
    h = np.tile(["p", "q"], 6)
    x = np.array([0.0, 1, 2, 5, -1, 3, 2, 2, 0, 4, 1, 1])
    rng = np.random.default_rng(0)
    return pd.DataFrame({"y": rng.normal(size=12), "g": g, "h": h, "x": x, **columns})


def check_moments(bound, values, mean, covariance, sims=6000):
    """Mean and covariance of simulated responses, within Monte Carlo error."""
    rng = np.random.default_rng(2)
    y = np.array([simulate(bound, values, rng).y for _ in range(sims)])
    sd = np.sqrt(np.diag(covariance))
    assert np.max(np.abs(y.mean(axis=0) - mean) / sd) < 4.5 / np.sqrt(sims)
    gap = np.abs(np.cov(y.T) - covariance) / np.sqrt(covariance**2 + np.outer(sd, sd) ** 2)
    assert gap.max() < 4.8 / np.sqrt(sims)


def test_covariance_is_the_models():
    weights = np.linspace(0.5, 4.0, 12)
    data = crossed(w=weights, off=np.arange(12.0))
    bound = fi.Model("y | weights(w) ~ 1 + x + offset(off) + (1 + x | g) + (1 | h)").bind(data)
    values = {"beta[Intercept]": 2.0, "beta[x]": -1.0, "sd_g[Intercept]": 1.5, "sd_g[x]": 0.4,
              "cor_g[Intercept, x]": -0.6, "sd_h[Intercept]": 0.8, "sigma": 0.7}  # fmt: skip
    assert set(labels(bound)) == set(values)
    Z = np.column_stack([np.ones(12), data["x"]])
    Sigma = np.array([[1.5**2, -0.6 * 1.5 * 0.4], [-0.6 * 1.5 * 0.4, 0.4**2]])
    same = lambda c: data[c].to_numpy()[:, None] == data[c].to_numpy()  # noqa: E731
    V = same("g") * (Z @ Sigma @ Z.T) + same("h") * 0.64 + np.diag(0.49 / weights)
    check_moments(bound, values, 2.0 - data["x"] + data["off"], V)


def test_known_errors_and_their_covariance():
    se = np.linspace(0.3, 1.0, 12)
    data = crossed(se=se)
    values = {"beta[Intercept]": 1.0, "sd_g[Intercept]": 0.5, "sigma": 0.6}
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    both = fi.Model("y | se(se, sigma=True) ~ 1 + (1 | g)").bind(data)
    check_moments(both, values, np.ones(12), 0.25 * same + np.diag(se**2 + 0.36))
    cov = 0.5 * np.outer(se[:3], se[:3])
    cov[np.diag_indices(3)] = se[:3] ** 2
    blocks = ((np.array([0, 1, 2]), cov),)
    known = bind(fi.Model("y | se(se) ~ 1 + (1 | g)"), data, error_covariance=blocks)
    assert "sigma" not in labels(known)
    V = np.diag(se**2)
    V[:3, :3] = cov
    check_moments(known, values, np.ones(12), 0.25 * same + V)


def test_effects_and_truth_are_returned():
    bound = fi.Model("y ~ 1 + x + (1 + x || g)").bind(crossed())
    values = {"beta[Intercept]": 0.0, "beta[x]": 0.0, "sd_g[Intercept]": 1.0, "sd_g[x]": 0.0, "sigma": 1e-9}
    made = simulate(bound, values, np.random.default_rng(1))
    assert made.truth == values
    assert made.u["g"].shape == (3, 2)
    assert np.all(made.u["g"][:, 1] == 0.0)
    assert np.allclose(made.y, made.u["g"][bound.design.factors[0].index, 0], atol=1e-7)
    complete = fi.Model("y ~ 1 + (1 | g)", pooling="complete").bind(crossed())
    assert labels(complete) == ("beta[Intercept]", "sigma")
    assert not simulate(complete, {"beta[Intercept]": 0, "sigma": 1}, np.random.default_rng(1)).u["g"].any()


def test_intercept_prior_is_at_the_covariates_means():
    priors = {"Intercept": fi.fixed(10), "beta[x]": fi.normal(0, 1)}
    bound = fi.Model("y ~ 1 + x", priors=priors).bind(crossed())
    rng = np.random.default_rng(0)
    for _ in range(5):
        drawn = draw_prior(bound, rng)
        assert drawn["beta[Intercept]"] + bound.design.X[:, 1].mean() * drawn["beta[x]"] == pytest.approx(10.0)
    raw = fi.Model("y ~ 1 + x", priors={"beta[Intercept]": fi.fixed(10)}).bind(crossed())
    assert draw_prior(raw, rng)["beta[Intercept]"] == 10.0


def test_default_priors_can_be_drawn_and_simulated():
    bound = slim(fi.Model("y ~ 1 + x + (1 + x | g) + (1 | h)").bind(crossed()))
    rng = np.random.default_rng(0)
    drawn = draw_prior(bound, rng)
    assert tuple(drawn) == labels(bound)
    assert np.isfinite(simulate(bound, drawn, rng).y).all()


def test_what_cannot_be_drawn_is_refused():
    data = crossed(se=np.full(12, 0.5))
    rng = np.random.default_rng(0)
    flat = fi.Model("y ~ 1 + x + (1 | g)", priors={"beta": fi.flat(), "sd": fi.uniform()}).bind(data)
    with pytest.raises(
        PriorError, match=r"Intercept ~ flat\(\); beta\[x\] ~ flat\(\); sd_g\[Intercept\] ~ uniform\(\)"
    ):
        draw_prior(flat, rng)
    jeffreys = fi.Model("y | se(se) ~ 1 + (1 | g)", priors={"sd": fi.jeffreys()}).bind(data)
    with pytest.raises(PriorError, match="jeffreys"):
        draw_prior(jeffreys, rng)
    # an improper prior of a term without hyperparameters plays no part
    complete = fi.Model("y ~ 1 + (1 | g)", priors={"sd": fi.uniform()}, pooling="complete").bind(data)
    assert "sd_g[Intercept]" not in draw_prior(complete, rng)
    unpooled = fi.Model("y ~ 1 + (1 | g)", pooling="none").bind(data)
    with pytest.raises(ModelError, match="not pooled"):
        simulate(unpooled, {}, rng)
    bound = fi.Model("y ~ 1 + (1 | g)").bind(data)
    with pytest.raises(ModelError, match=r"'sigma' is needed"):
        simulate(bound, {"beta[Intercept]": 0, "sd_g[Intercept]": 1}, rng)
    with pytest.raises(ModelError, match="impossible"):
        simulate(bound, {"beta[Intercept]": 0, "sd_g[Intercept]": -1, "sigma": 1}, rng)
