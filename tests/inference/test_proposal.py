"""The proposal: a density that integrates to one, samples that follow it, and the warp's Jacobian."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from finetti.inference.proposal import Mixture, laplace_mixture, refit
from finetti.inference.warp import Warp, fit_warp, identity_warp


def warp(d: int) -> Warp:
    return Warp(np.linspace(-1, 2, d), np.linspace(0.5, 2.0, d), np.linspace(0.0, 1.5, d), np.linspace(0.7, 0.0, d))


def mixture(d: int, bent: bool, df: float = 5.0) -> Mixture:
    rng = np.random.default_rng(d)
    means = rng.normal(size=(3, d)) * 1.5
    scales = np.tril(rng.normal(size=(3, d, d)) * 0.3) + 0.7 * np.eye(d)
    return Mixture(means, scales, np.array([0.5, 0.3, 0.2]), df, warp(d) if bent else identity_warp(d))


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_warps_invert(phi: list[float]) -> None:
    w, x = warp(3), np.array([phi])
    np.testing.assert_allclose(w.inverse(w.forward(x)), x, rtol=1e-12, atol=1e-12)
    h = 1e-6 * np.maximum(np.abs(x), 1.0)
    away = np.where(np.abs(x) > 2 * h, x, 3 * h)
    slope = (w.forward(away + h) - w.forward(away - h)) / (2 * h)
    np.testing.assert_allclose(w.log_slope(away), np.log(slope).sum(axis=1), rtol=1e-6, atol=1e-7)


def test_a_warp_takes_the_skewness_out() -> None:
    """The log of a half-normal standard deviation: exponential to the left, Gaussian to the right."""
    u = (np.arange(4000) + 0.5) / 4000
    theta = np.log(scipy.stats.halfnorm.ppf(u))[:, None]
    found = fit_warp(theta, np.full(4000, 1 / 4000))
    phi = found.inverse(theta)[:, 0]
    assert abs(scipy.stats.skew(phi)) < 0.5 < 1.2 < abs(scipy.stats.skew(theta[:, 0]))
    straight = fit_warp(scipy.stats.norm.ppf(u)[:, None], np.full(4000, 1 / 4000))
    assert straight.left[0] < 0.02 and straight.right[0] < 0.02
    np.testing.assert_allclose([straight.centre[0], straight.scale[0]], [0.0, 1.0], atol=0.02)


@pytest.mark.parametrize("bent", [False, True])
def test_the_density_of_one_coordinate_integrates_to_one(bent: bool) -> None:
    q = mixture(1, bent)
    edges = [-np.inf, -20, -5, -1, 0, 1, 5, 20, np.inf]
    total = sum(
        scipy.integrate.quad(lambda t: float(np.exp(q.log_density(np.array([[t]]))[0])), a, b, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    )
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bent", [False, True])
def test_the_density_integrates_to_one_in_three_dimensions(bent: bool) -> None:
    """Importance sampling from something else: a wide Cauchy-tailed product."""
    q = mixture(3, bent, df=20.0)
    rng = np.random.default_rng(0)
    n = 200_000
    phi = 3.0 * rng.standard_t(4, size=(n, 3))
    theta = q.warp.forward(phi)
    log_r = scipy.stats.t(4, scale=3.0).logpdf(phi).sum(axis=1) - q.warp.log_slope(phi)
    # the slope once more by differences, so that its sign is not taken on trust
    h = 1e-5
    slope = np.log((q.warp.forward(phi + h) - q.warp.forward(phi - h)) / (2 * h)).sum(axis=1)
    np.testing.assert_allclose(slope, q.warp.log_slope(phi), atol=1e-3)
    w = np.exp(q.log_density(theta) - log_r)
    assert abs(w.mean() - 1.0) < 4.5 * w.std() / np.sqrt(n)


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_samples_follow_the_density(d: int, bent: bool) -> None:
    """E_q[r / q] = 1 for densities r far narrower than q, set in different places, in standard errors."""
    q = mixture(d, bent)
    n = 2**14
    scores = []
    theta = q.sample(np.random.default_rng(7).random((n, d + 2)))
    log_q = q.log_density(theta)
    for c in range(6):
        phi0 = q.means[c % 3] + 0.8 * q.scales[c % 3] @ np.random.default_rng(c).normal(size=d)
        phi = q.warp.inverse(theta)
        r = scipy.stats.norm.logpdf(phi, phi0, 0.5).sum(axis=1) - q.warp.log_slope(phi)
        w = np.exp(r - log_q)
        scores.append((w.mean() - 1.0) / (w.std() / np.sqrt(n)))
    assert np.abs(scores).max() < 4.5
    # and the mixture is the textbook one where there is no warp
    if not bent:
        expected = sum(
            weight * scipy.stats.multivariate_t(m, L @ L.T, q.df).pdf(theta[:50])
            for m, L, weight in zip(q.means, q.scales, q.weights, strict=True)
        )
        np.testing.assert_allclose(np.exp(log_q[:50]), expected, rtol=1e-9)


def test_marginals_of_samples_are_the_marginals() -> None:
    """Kolmogorov and Smirnov on a single unwarped component: location, scale and degrees of freedom at once."""
    L = np.array([[1.5, 0.0], [0.7, 0.4]])
    q = Mixture(np.array([[1.0, -2.0]]), L[None], np.ones(1), 5.0, identity_warp(2))
    theta = q.sample(np.random.default_rng(11).random((20_000, 4)))
    for j in range(2):
        scale = np.sqrt((L @ L.T)[j, j])
        assert scipy.stats.kstest(theta[:, j], scipy.stats.t(5, q.means[0, j], scale).cdf).pvalue > 1e-4
    assert np.corrcoef(theta.T)[0, 1] == pytest.approx((L @ L.T)[0, 1] / np.prod(np.sqrt(np.diag(L @ L.T))), abs=0.05)


def test_a_laplace_mixture_has_a_component_and_a_wide_one_per_mode() -> None:
    modes, cov = np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([np.eye(2), 4.0 * np.eye(2)])
    q = laplace_mixture(modes, cov, np.array([0.0, 0.0]), 5.0)
    assert q.weights.sum() == pytest.approx(1.0)
    # equal heights: mass goes with the root of the determinant, 1 : 4; a tenth is for safety, three times as wide
    np.testing.assert_allclose(q.weights, [0.18, 0.72, 0.02, 0.08], atol=1e-12)
    np.testing.assert_allclose(q.scales[2:], 3.0 * q.scales[:2])


def test_refitting_matches_moments() -> None:
    rng = np.random.default_rng(3)
    cov = np.array([[2.0, 0.8], [0.8, 1.0]])
    theta = rng.multivariate_normal([3.0, -1.0], cov, 40_000)
    old = laplace_mixture(np.zeros((1, 2)), np.eye(2)[None], np.zeros(1), 20.0)
    new = refit(old, theta, np.full(40_000, 1 / 40_000))
    mean = new.warp.forward(new.means[:1])
    np.testing.assert_allclose(mean[0], [3.0, -1.0], atol=0.05)
    S = new.scales[0] @ new.scales[0].T * 20.0 / 18.0 * np.outer(new.warp.scale, new.warp.scale)
    np.testing.assert_allclose(S, cov, rtol=0.1)


def test_refitting_keeps_modes_apart() -> None:
    rng = np.random.default_rng(5)
    old = laplace_mixture(np.array([[0.0], [6.0]]), np.array([[[2.0]], [[2.0]]]), np.zeros(2), 20.0)
    theta = np.concatenate([rng.normal(0.5, 0.5, (3000, 1)), rng.normal(6.5, 0.3, (1000, 1))])
    new = refit(old, theta, np.full(4000, 1 / 4000))
    np.testing.assert_allclose(new.means[:2, 0], [0.5, 6.5], atol=0.1)
    assert np.all(new.scales[:2, 0, 0] < 0.8 * np.sqrt(2.0))  # narrower than before, though old tails still share nodes
    np.testing.assert_allclose(new.weights[:2] / new.weights[:2].sum(), [0.75, 0.25], atol=0.02)
