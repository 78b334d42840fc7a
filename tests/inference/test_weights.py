"""Importance weights: Pareto smoothing against ArviZ, thresholds, weighted quantiles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from finetti.inference.weights import (
    effective_fraction,
    fit_pareto,
    k_threshold,
    normalise,
    smooth,
    weighted_quantiles,
)


def samples() -> dict[str, np.ndarray]:
    """Log weights with light to infinite-variance tails; sizes at which the length of the tail is a whole number."""
    rng = np.random.default_rng(5)
    return {
        "normal over t": scipy.stats.norm.logpdf(x := rng.standard_t(5, 10_000)) - scipy.stats.t(5).logpdf(x),
        "t over normal": scipy.stats.t(3).logpdf(x := rng.normal(size=2500)) - scipy.stats.norm.logpdf(x),
        "exponential": np.log(rng.exponential(size=400)),
        "k 0.5": np.log(rng.pareto(2.0, 10_000)),
        "k 1.2": np.log(rng.pareto(1 / 1.2, 10_000)),
        "bounded": np.log(rng.uniform(size=2500)),
        "far from zero": 900.0 + rng.normal(size=900),
        "few": rng.normal(size=100),
    }


@pytest.mark.parametrize("name", samples())
def test_smoothing_is_arvizs(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    log_w = samples()[name]
    expected, k = arviz.psislw(log_w.copy())
    got, mine = smooth(log_w)
    assert mine == pytest.approx(float(k), rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(np.log(normalise(got)), np.asarray(expected), rtol=1e-6, atol=1e-6)


def test_pareto_shapes_are_recovered() -> None:
    """Within four standard errors of Zhang and Stephens' estimate, (1 + k) / sqrt(n), plus its weak prior."""
    rng = np.random.default_rng(2)
    for k in (-0.3, 0.0, 0.4, 0.7, 1.0):
        n = 4000
        x = np.sort(scipy.stats.genpareto(k, scale=3.0).rvs(n, random_state=rng))
        shape, scale = fit_pareto(x)
        assert abs(shape - k) < 4 * (1 + abs(k)) / np.sqrt(n) + 10 / n
        assert scale == pytest.approx(3.0, rel=0.15)


def test_nodes_without_density_stay_out() -> None:
    log_w = np.append(np.random.default_rng(0).normal(size=500), [-np.inf, np.nan, -np.inf])
    out, k = smooth(log_w)
    assert np.all(np.isneginf(out[500:])) and np.isfinite(k)
    np.testing.assert_array_equal(normalise(out)[500:], 0.0)
    assert normalise(np.full(3, -np.inf)).sum() == 0.0


def test_equal_weights_need_no_smoothing_and_few_cannot_be_judged() -> None:
    out, k = smooth(np.full(1000, 3.0))
    assert k == -np.inf and np.ptp(out) == 0.0
    assert smooth(np.zeros(10))[1] == np.inf


def test_smoothing_keeps_the_order_and_the_bulk() -> None:
    log_w = np.log(np.random.default_rng(1).pareto(1.2, 1000))
    out, _ = smooth(log_w)
    assert np.all(np.diff(out[np.argsort(log_w)]) >= 0.0)
    bulk = np.argsort(log_w)[:800]
    np.testing.assert_allclose(out[bulk], log_w[bulk] - log_w.max(), rtol=1e-12)
    assert not np.array_equal(out[np.argsort(log_w)[-90:]], (log_w - log_w.max())[np.argsort(log_w)[-90:]])


def test_the_threshold_grows_with_the_sample() -> None:
    """Vehtari et al. (2024): min(1 - 1 / log10 S, 0.7)."""
    assert k_threshold(100) == pytest.approx(0.5)
    assert k_threshold(1000) == pytest.approx(2 / 3)
    assert k_threshold(2200) == pytest.approx(0.7, abs=1e-3)
    assert k_threshold(10**6) == 0.7
    assert k_threshold(5) == 0.0


def test_effective_fraction() -> None:
    assert effective_fraction(np.zeros(50)) == pytest.approx(1.0)
    assert effective_fraction(np.array([0.0] + [-np.inf] * 9)) == pytest.approx(0.1)
    assert effective_fraction(np.full(4, -np.inf)) == 0.0
    # E[w]^2 / E[w^2] of a lognormal is exp(-sd^2)
    log_w = 0.7 * scipy.special.ndtri((np.arange(20_000) + 0.5) / 20_000)
    assert effective_fraction(log_w + 1e4) == pytest.approx(np.exp(-0.49), rel=2e-3)


def test_quantiles_of_equal_weights_are_those_of_the_sample() -> None:
    x = np.random.default_rng(3).normal(size=101)
    probs = np.array([0.05, 0.25, 0.5, 0.9])
    expected = np.quantile(x, probs, method="hazen")  # midpoints of the steps, as here
    np.testing.assert_allclose(weighted_quantiles(x, np.full(101, 2.0), probs), expected, rtol=1e-12)


def test_a_weight_of_three_is_three_points() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=400), rng.integers(0, 4, 400)
    probs = np.array([0.1, 0.5, 0.95])
    repeated = np.quantile(np.repeat(x, w), probs, method="hazen")
    # ties spread a step over its points: the difference is at most a step
    np.testing.assert_allclose(weighted_quantiles(x, w.astype(float), probs), repeated, atol=0.05)


@given(
    x=hnp.arrays(float, 30, elements=st.integers(-(10**6), 10**6).map(float), unique=True),
    w=hnp.arrays(float, 30, elements=st.floats(0.01, 10.0)),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
)
def test_quantiles_move_with_their_units_and_rise(x: np.ndarray, w: np.ndarray, shift: float, scale: float) -> None:
    probs = np.array([0.01, 0.3, 0.5, 0.99])
    q = weighted_quantiles(x, w, probs)
    assert np.all(np.diff(q) >= 0) and q[0] >= x.min() and q[-1] <= x.max()
    moved = weighted_quantiles(shift + scale * x, 7.0 * w, probs)
    np.testing.assert_allclose(moved, shift + scale * q, rtol=1e-9, atol=1e-6 * (1 + scale))
