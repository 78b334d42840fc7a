"""Moments and quantiles of mixtures of normals against scipy, and the group table as averages over nodes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import ndtr

import finetti as fi
from finetti.posterior.groups import MOST_NODES, MOST_VALUES, representative_nodes
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles

PROBS = np.array([0.001, 0.05, 0.5, 0.95, 0.999])


def exact(w: np.ndarray, m: np.ndarray, s: np.ndarray, p: float) -> float:
    low, high = (m - 12 * s).min(), (m + 12 * s).max()
    return float(
        scipy.optimize.brentq(lambda x: w @ scipy.stats.norm.cdf(x, m, s) - p, low, high, xtol=1e-14, rtol=1e-15)
    )


@pytest.mark.parametrize("seed", range(6))
def test_quantiles_invert_the_cdf(seed: int) -> None:
    rng = np.random.default_rng(seed)
    S, shape = 50, (3, 2)
    w = rng.dirichlet(np.full(S, 0.5))
    mean = rng.normal(size=(S, *shape)) * 10.0 ** rng.integers(-3, 4)
    variance = np.exp(rng.normal(size=(S, *shape)) * 3.0)
    got = mixture_quantiles(w, mean, variance, PROBS)
    keep = w > 1e-12
    for i in np.ndindex(shape):
        m, s = mean[(keep, *i)], np.sqrt(variance[(keep, *i)])
        spread = np.sqrt(w[keep] @ (s**2 + (m - w[keep] @ m) ** 2))
        expected = [exact(w[keep] / w[keep].sum(), m, s, p) for p in PROBS]
        np.testing.assert_allclose(got[i], expected, atol=1e-7 * spread)


def test_a_point_mass_is_a_jump_and_nan_stays() -> None:
    w = np.array([0.3, 0.7])
    mean, variance = np.array([[0.0, 1.0], [2.0, np.nan]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    got = mixture_quantiles(w, mean, variance, [0.2, 0.5])
    assert got[0, 0] == pytest.approx(0.0, abs=1e-6)  # the jump at zero takes in 20 %
    assert got[0, 1] == pytest.approx(exact(np.array([1.0]), np.array([2.0]), np.array([1.0]), 0.2 / 0.7), abs=1e-6)
    assert np.isnan(got[1]).all()
    constant = mixture_quantiles(w, np.full((2, 1), 5.0), np.zeros((2, 1)), [0.1, 0.9])
    np.testing.assert_array_equal(constant, 5.0)


def test_moments_are_the_law_of_total_variance() -> None:
    rng = np.random.default_rng(3)
    w, mean, variance = rng.dirichlet(np.ones(9)), rng.normal(size=(9, 4)), rng.uniform(0.1, 2, (9, 4))
    centre, sd = mixture_moments(w, mean, variance)
    np.testing.assert_allclose(centre, w @ mean)
    np.testing.assert_allclose(sd**2, w @ (variance + mean**2) - centre**2)


def test_representative_nodes_keep_the_weights() -> None:
    rng = np.random.default_rng(0)
    w = rng.dirichlet(np.full(1000, 0.3))
    every, same = representative_nodes(w, 1)
    assert every.size == np.sum(w > 1e-12) and same.sum() == pytest.approx(1.0)
    nodes, thinned = representative_nodes(w, int(MOST_VALUES // 200))
    assert nodes.size <= 200 and thinned.sum() == pytest.approx(1.0)
    x = rng.normal(size=1000)
    sd = np.sqrt(w @ (x - w @ x) ** 2)
    assert abs(thinned @ x[nodes] - w @ x) < 5.0 * sd / np.sqrt(200)


@pytest.mark.parametrize("formula", [
    "Reaction ~ 1 + Days + (1 + Days | Subject)",
    "Reaction ~ 1 + Days + (1 + Days || Subject)",
    "Reaction ~ 1 + Days + (1 | Subject)",
])  # fmt: skip
def test_the_group_table_averages_over_nodes(formula: str) -> None:
    """raw, weight and population are weighted means over nodes; estimate = W raw + (I - W) population inside them."""
    fit = fi.fit(formula, fi.datasets.load("sleepstudy"))
    hyper, table = fit.inference.hyper, fit.groups("Subject")
    (batch,) = fit.inference.conditional.groups("Subject", hyper.theta)
    w, q = hyper.weights, batch.mean.shape[2]
    assert list(table["n"]) == [10] * (18 * q)
    rtol = 1e-9 if w.size <= MOST_NODES else 1e-3  # beyond, the table thins them
    for column, values in (
        ("raw", batch.raw), ("raw_se", batch.raw_se), ("mean", batch.mean),
        ("weight", np.diagonal(batch.weight, axis1=2, axis2=3)),
        ("population", np.broadcast_to(batch.population[:, None], batch.mean.shape)),
    ):  # fmt: skip
        np.testing.assert_allclose(table[column], np.tensordot(w, values, axes=1).ravel(), rtol=rtol)
    gap = np.einsum("sjab,sjb->sja", batch.weight, batch.raw - batch.population[:, None])
    gap += batch.population[:, None] - batch.mean
    assert np.abs(gap).max() < 1e-10 * np.abs(batch.mean).max()
    second = batch.mean**2 + np.diagonal(batch.cov, axis1=2, axis2=3)
    centre = np.tensordot(w, batch.mean, axes=1)
    np.testing.assert_allclose(table["sd"] ** 2, (np.tensordot(w, second, axes=1) - centre**2).ravel(), rtol=10 * rtol)


def test_raw_is_nan_where_a_group_cannot_have_its_own_line() -> None:
    """A subject with one row has no slope of its own, and still an estimate."""
    d = fi.datasets.load("sleepstudy")
    d = d[(d["Subject"].astype(str) != "308") | (d["Days"] == 3)].assign(Subject=lambda t: t["Subject"].astype(str))
    table = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", d).groups("Subject")
    alone = table[table["level"] == "308"]
    assert alone[["raw", "raw_se"]].isna().all().all() and (alone["n"] == 1).all()
    assert alone[["mean", "sd", "weight", "q5"]].notna().all().all()
    assert table[table["level"] != "308"][["raw", "raw_se"]].notna().all().all()


def test_without_pooling_the_table_is_least_squares() -> None:
    d = fi.datasets.load("sleepstudy")
    table = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", d, pooling="none").groups("Subject")
    for level, rows in table.groupby("level"):
        own = d[d["Subject"].astype(str) == level]
        slope, intercept = np.polyfit(own["Days"], own["Reaction"], 1)
        np.testing.assert_allclose(rows["mean"], [intercept, slope], rtol=1e-8)
        np.testing.assert_allclose(rows["raw"], [intercept, slope], rtol=1e-8)
        np.testing.assert_allclose(rows["weight"], 1.0, rtol=1e-12)
        assert rows["population"].isna().all()


def test_complete_pooling_is_one_line_for_all() -> None:
    d = fi.datasets.load("sleepstudy")
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", d, pooling="complete", priors={"beta": fi.flat()})
    slope, intercept = np.polyfit(d["Days"], d["Reaction"], 1)
    table = fit.groups("Subject")
    np.testing.assert_allclose(table["mean"], np.tile([intercept, slope], 18), rtol=1e-7)
    np.testing.assert_array_equal(table["weight"], 0.0)


def test_a_far_quantile_beside_a_near_jump_meets_its_probability() -> None:
    """A short Newton step once ended the search where the cdf was 6.7e-4 instead of 1e-6."""
    rng = np.random.default_rng(0)
    p = np.array([1e-6, 1e-4, 0.025, 0.5, 0.975, 1.0 - 1e-6])
    for _ in range(200):
        w = rng.dirichlet(np.full(int(rng.integers(2, 60)), 0.3))
        mean, sd = rng.standard_t(2, size=w.size), 10.0 ** rng.uniform(-3, 1, w.size)
        found = mixture_quantiles(w, mean[:, None], sd[:, None] ** 2, p)[0]
        for q, prob in zip(found, p, strict=True):
            edge = 1e-9 * (1.0 + np.sqrt(w @ (sd**2 + (mean - w @ mean) ** 2)))
            low, high = (float(w @ ndtr((q + e - mean) / sd)) for e in (-edge, edge))
            slack = 2e-4 * min(prob, 1.0 - prob)
            assert low - slack <= prob <= high + slack
