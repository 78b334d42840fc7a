"""Bands and p-values of uniformity: their level by simulation, their probability against a slow recursion."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from finetti.errors import FinettiError
from finetti.posterior.uniformity import _leaving, ecdf_band, uniform_p_value


def slow_leaving(low: np.ndarray, high: np.ndarray) -> float:
    """Probability of leaving the limits, from binomial transitions of the count between all limits in order."""
    n = low.size
    t, p = 0.0, np.zeros(n + 1)
    p[0] = 1.0
    events = sorted([(v, 0) for v in low] + [(v, 1) for v in high])
    passed = [0, 0]
    for at, kind in events:
        new = np.zeros(n + 1)
        for k in range(n + 1):
            new[k:] += p[k] * scipy.stats.binom.pmf(np.arange(n - k + 1), n - k, (at - t) / (1.0 - t))
        p, t = new, at
        p[passed[0] + 1 :] = 0.0  # as many points as low limits have been passed, at most
        passed[kind] += 1
        p[: passed[1]] = 0.0
    return 1.0 - float(p.sum())


@pytest.mark.parametrize("n", [1, 2, 5, 17])
@pytest.mark.parametrize("level", [0.3, 0.02])
def test_probability_equals_the_binomial_recursion(n, level):
    i = np.arange(1, n + 1)
    low, high = scipy.stats.beta.ppf(0.5 * level, i, n - i + 1), scipy.stats.beta.isf(0.5 * level, i, n - i + 1)
    assert _leaving(n, level) == pytest.approx(slow_leaving(low, high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 60, 400])
def test_band_has_its_level(n):
    rng, sims = np.random.default_rng(n), 4000
    ordered = np.sort(rng.random((sims, n)), axis=1)
    for prob in (0.5, 0.95):
        band = ecdf_band(n, prob)
        outside = np.mean(np.any((ordered < band.low) | (ordered > band.high), axis=1))
        assert abs(outside - (1 - prob)) < 4 * np.sqrt(prob * (1 - prob) / sims)


def test_p_value_is_uniform_and_agrees_with_the_band():
    rng = np.random.default_rng(3)
    band = ecdf_band(40)
    u = [rng.random(40) for _ in range(2000)]
    p = np.array([uniform_p_value(v) for v in u])
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    assert [v < 0.05 for v in p] == [not band.contains(v) for v in u]


def test_steps_are_the_order_statistics_limits():
    n, rng = 30, np.random.default_rng(0)
    band = ecdf_band(n, 0.9)
    for _ in range(300):
        u = rng.beta(1.0, rng.uniform(0.5, 1.5), n)
        at = np.sort(np.concatenate([u, band.z]))
        ecdf = np.searchsorted(np.sort(u), at, side="right") / n
        k = np.searchsorted(band.z, at, side="right") - 1
        inside = np.all((ecdf >= band.lower[k]) & (ecdf <= band.upper[k]))
        assert bool(inside) == band.contains(u)
    assert band.lower[0] == band.lower[1] == 0.0
    assert band.lower[-1] == band.upper[-1] == 1.0
    assert np.all(np.diff(band.z) >= 0)


def test_departures_are_noticed():
    rng = np.random.default_rng(1)
    ndtr = scipy.stats.norm.cdf
    z = scipy.stats.norm.ppf((np.arange(500) + 0.5) / 500)
    assert uniform_p_value(ndtr(z)) > 0.99
    for wrong in (ndtr(1.3 * z), ndtr(0.75 * z), ndtr(z + 0.25)):
        assert uniform_p_value(wrong) < 1e-3
    assert uniform_p_value(np.append(rng.random(50), 0.0)) == 0.0


def test_ten_thousand_values_and_small_p():
    band = ecdf_band(10_000)
    assert ecdf_band(10_000) is band
    assert _leaving(10_000, band.level) == pytest.approx(0.05, rel=1e-4)
    at = np.searchsorted(band.z, 0.5)
    # a little wider than the Kolmogorov-Smirnov band of 1.36 / sqrt(n) in the middle
    assert 1.36 < 100 * (band.upper[at] - 0.5) < 1.9
    assert 0.0 <= uniform_p_value(np.full(200, 0.3)) < 1e-12


def test_bad_requests():
    for n in (0, 2.5, 10**7, True):
        with pytest.raises(FinettiError, match="whole number"):
            ecdf_band(n)
    with pytest.raises(FinettiError, match="strictly"):
        ecdf_band(10, 1.0)
    for u in ([0.2, 1.2], [np.nan, 0.5]):
        with pytest.raises(FinettiError, match="between 0 and 1"):
            uniform_p_value(u)
    assert np.isnan(uniform_p_value([]))
