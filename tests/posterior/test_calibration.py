"""Simulation-based calibration: parameters from the prior, data from them, and the posterior's CDF at the truth.

Talts et al. (2018, arXiv:1804.06788), without ranks of resampled draws: the weighted CDF over the nodes for
hyperparameters, the mixture of normal CDFs for coefficients. If everything is right these are uniform. Every quantity
gets a Kolmogorov-Smirnov and a dispersion test (too narrow or too wide posteriors); with K quantities each p-value
must exceed 1e-3 / (2 K), so that a correct program fails once in a thousand seeds, and these seeds are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.special import ndtr

import finetti as fi
from finetti.inference.hyper import Settings
from finetti.inference.infer import infer
from finetti.posterior.fit import Fit

FITS = 100
ALARM = 1e-3

Sampler = Callable[[np.random.Generator], tuple[pd.DataFrame, dict[str, float]]]


def varying_intercept(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, float]]:
    """Eight groups, very unequal; y ~ 1 + x + (1 | g). Intercept at the mean of x."""
    g = np.repeat(np.arange(8), [1, 2, 3, 3, 4, 6, 8, 13])
    x = np.random.default_rng(1).normal(2.0, 1.0, g.size)
    truth = {"sd_g[Intercept]": abs(rng.normal()) * 1.5, "sigma": rng.gamma(3.0, 1 / 3.0)}
    alpha, slope = rng.normal(1.0, 2.0), rng.normal(0.0, 1.0)
    truth |= {"beta[Intercept]": alpha - slope * x.mean(), "beta[x]": slope}
    u = rng.normal(size=8) * truth["sd_g[Intercept]"]
    truth |= {f"g{j} Intercept": truth["beta[Intercept]"] + u[j] for j in range(8)}
    y = truth["beta[Intercept]"] + slope * x + u[g] + truth["sigma"] * rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{k}" for k in g]}), truth


def varying_slope(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, float]]:
    """Six groups with correlated intercepts and slopes; y ~ 1 + x + (1 + x | g)."""
    g = np.repeat(np.arange(6), [2, 4, 5, 6, 7, 8])
    x = np.random.default_rng(2).normal(1.0, 1.0, g.size)
    sd = np.abs(rng.normal(size=2)) * [1.0, 0.8]
    # LKJ(2) for two: (r + 1) / 2 ~ beta(2, 2)
    r = 2.0 * rng.beta(2.0, 2.0) - 1.0
    truth = {"sd_g[Intercept]": sd[0], "sd_g[x]": sd[1], "cor_g[Intercept, x]": r, "sigma": rng.gamma(4.0, 0.25)}
    alpha, slope = rng.normal(0.0, 2.0), rng.normal(0.0, 1.0)
    truth |= {"beta[Intercept]": alpha - slope * x.mean(), "beta[x]": slope}
    z = rng.normal(size=(6, 2))
    u = np.column_stack([sd[0] * z[:, 0], sd[1] * (r * z[:, 0] + np.sqrt(1 - r**2) * z[:, 1])])
    whole = np.array([truth["beta[Intercept]"], slope]) + u
    truth |= {f"g{j} {c}": whole[j, k] for j in range(6) for k, c in enumerate(("Intercept", "x"))}
    y = whole[g, 0] + whole[g, 1] * x + truth["sigma"] * rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{k}" for k in g]}), truth


CASES: dict[str, tuple[str, Sampler, dict[str, Any]]] = {
    "varying intercept": (
        "y ~ 1 + x + (1 | g)", varying_intercept,
        {"Intercept": fi.normal(1, 2), "beta[x]": fi.normal(0, 1), "sd": fi.half_normal(1.5), "sigma": fi.gamma(3, 3)},
    ),
    "varying slope": (
        "y ~ 1 + x + (1 + x | g)", varying_slope,
        {"Intercept": fi.normal(0, 2), "beta[x]": fi.normal(0, 1), "sd_g[Intercept]": fi.half_normal(1),
         "sd_g[x]": fi.half_normal(0.8), "cor_g": fi.lkj(2), "sigma": fi.gamma(4, 4)},
    ),
}  # fmt: skip


def positions(fit: Fit, truth: dict[str, float]) -> dict[str, float]:
    """Posterior CDF at the truth of every parameter: nodes for theta, mixtures of normals for coefficients."""
    inference = fit.inference
    hyper = inference.hyper
    w = hyper.weights
    out = {k: float(w @ (v <= truth[k])) for k, v in inference.coordinates.natural(hyper.theta).items()}
    mean, variance = hyper.payload
    for k, column in enumerate(fit.model.design.columns):
        z = (truth[f"beta[{column}]"] - mean[:, k]) / np.sqrt(variance[:, k])
        out[f"beta[{column}]"] = float(w @ ndtr(z))
    (f,) = fit.model.design.factors
    (batch,) = inference.conditional.groups("g", hyper.theta)
    for j, level in enumerate(f.levels):
        for k, c in enumerate(f.coefficients):
            name = f"{level} {c}"
            z = (truth[name] - batch.mean[:, j, k]) / np.sqrt(batch.cov[:, j, k, k])
            out[name] = float(w @ ndtr(z))
    return out


def p_values(u: np.ndarray) -> tuple[float, float]:
    """Of uniformity, and of the sum of squares of the normal scores (dispersion)."""
    z = scipy.stats.norm.ppf(np.clip(u, 1e-9, 1 - 1e-9))
    chi2 = scipy.stats.chi2(u.size)
    low = float(chi2.cdf(np.sum(z**2)))
    return float(scipy.stats.kstest(u, "uniform").pvalue), 2.0 * min(low, 1.0 - low)


@pytest.mark.parametrize("name", CASES)
def test_posteriors_are_calibrated(name: str) -> None:
    formula, sample, priors = CASES[name]
    rng, found, failed = np.random.default_rng(20240607), [], 0
    for _ in range(FITS):
        data, truth = sample(rng)
        # a Monte Carlo error of 4 % of an sd is far below what so few fits could see
        bound = fi.Model(formula, priors=priors).bind(data)
        fit = Fit(infer(bound, settings=Settings(mean_error=0.04, quantile_error=0.1)), 4, 0)
        failed += not fit.inference.hyper.reliable
        found.append(positions(fit, truth))
    assert failed <= 0.05 * FITS
    table = pd.DataFrame(found)
    p = {label: p_values(table[label].to_numpy()) for label in table}
    limit = ALARM / (2 * len(p))
    assert min(min(v) for v in p.values()) > limit, sorted(p.items(), key=lambda kv: min(kv[1]))[:3]


def test_the_test_would_notice() -> None:
    """Posteriors 40 % too narrow, or off by half an sd, are caught with as many fits."""
    z = np.random.default_rng(0).normal(size=FITS)
    limit = ALARM / (2 * 18)
    assert min(p_values(ndtr(z))) > limit
    assert min(p_values(ndtr(1.7 * z))) < limit
    assert min(p_values(ndtr(0.6 * z))) < limit
    assert min(p_values(ndtr(z + 0.6))) < limit
