"""The polynomial surrogate of the weights: exact where the log density is one, unbiased however poor it is."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from finetti.inference.proposal import Mixture
from finetti.inference.sobol import SobolStreams
from finetti.inference.surrogate import Surrogate, fit_surrogate, n_terms
from finetti.inference.warp import identity_warp

R = 16


def proposal(d: int, df: float = 20.0) -> Mixture:
    return Mixture(np.zeros((1, d)), 1.2 * np.eye(d)[None], np.ones(1), df, identity_warp(d))


def nodes(q: Mixture, per: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    theta = q.sample(SobolStreams(q.d + 2, R, np.random.SeedSequence(seed)).next(per))
    return theta, np.repeat(np.arange(R), per)


def fitted(log_density, d: int, per: int, seed: int = 0) -> tuple[Surrogate, np.ndarray]:  # type: ignore[no-untyped-def]
    q = proposal(d)
    theta, replicate = nodes(q, per, seed)
    s = fit_surrogate(
        q, theta, log_density(theta) - q.log_density(theta), replicate, np.random.SeedSequence([seed, 99])
    )
    assert s is not None
    return s, theta


def test_terms_are_counted() -> None:
    assert [n_terms(2, k) for k in (1, 2, 3)] == [3, 6, 10] and n_terms(4, 2) == 15


def test_a_gaussian_is_exact_with_a_handful_of_nodes() -> None:
    """Its log density is a polynomial of degree 2: nothing is left for the nodes to add."""
    mean, cov = np.array([0.4, -0.3, 0.1]), np.array([[1.0, 0.5, 0.0], [0.5, 0.8, 0.2], [0.0, 0.2, 0.6]])
    s, theta = fitted(scipy.stats.multivariate_normal(mean, cov).logpdf, 3, 4)
    assert s.degree == 2 and s.residual_sd < 1e-6
    m, sd, *_ = s.moments(theta, s.theta)
    # what remains is the error of the dense points
    np.testing.assert_allclose(m, mean, atol=0.02)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(cov)), rtol=0.02)
    assert s.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", ["skewed", "bimodal"])
def test_the_correction_is_unbiased_however_poor_the_polynomial(shape: str) -> None:
    """Mean over 40 seeds against the truth, in its own standard error; and what it reports is what it does."""
    if shape == "skewed":
        a = 1.5

        def log_density(t: np.ndarray) -> np.ndarray:
            return np.sum(a * t - np.exp(t), axis=1)

        truth = float(scipy.special.digamma(a))
    else:

        def log_density(t: np.ndarray) -> np.ndarray:
            x = np.logaddexp(
                scipy.stats.norm.logpdf(t[:, 0], -1.2, 0.5), np.log(0.5) + scipy.stats.norm.logpdf(t[:, 0], 1.2, 0.4)
            )
            return x + scipy.stats.norm.logpdf(t[:, 1])

        truth = -1.2 * 2 / 3 + 1.2 / 3
    estimates, reported = [], []
    for seed in range(40):
        s, theta = fitted(log_density, 2, 32, seed)
        m, _, e, _ = s.moments(theta, s.theta)
        estimates.append(m[0])
        reported.append(e[0])
    spread = np.std(estimates, ddof=1)
    assert abs(np.mean(estimates) - truth) < 4.5 * spread / np.sqrt(40)
    # a ratio of standard deviations, 40 against 16 degrees of freedom
    assert 0.5 < spread / np.sqrt(np.mean(np.square(reported))) < 1.8


def test_quantiles_of_a_gaussian() -> None:
    s, theta = fitted(scipy.stats.multivariate_normal(np.zeros(2), np.eye(2)).logpdf, 2, 8)
    probs = np.array([0.025, 0.05, 0.5, 0.95, 0.975])
    q, e = (a[:, 0] for a in s.quantiles(theta[:, :1], s.theta[:, :1], probs))
    np.testing.assert_allclose(q, scipy.stats.norm.ppf(probs), atol=0.03)
    assert np.all(e >= 0) and np.all(e < 0.05)


def test_quantiles_do_not_inherit_the_error_of_a_poor_polynomial() -> None:
    """Truth and what is claimed, where a polynomial of two humps is off by a third."""
    shapes = scipy.stats.norm([-1.2, 1.2], [0.5, 0.4])

    def cdf(x: float) -> float:
        return float(shapes.cdf(x) @ [2 / 3, 1 / 3])

    def log_density(t: np.ndarray) -> np.ndarray:
        return np.log(shapes.pdf(t[:, :1]) @ [2 / 3, 1 / 3]) + scipy.stats.norm.logpdf(t[:, 1])

    probs = np.array([0.2, 0.5, 0.8])
    truth = np.array([scipy.optimize.brentq(lambda x, p=p: cdf(x) - p, -4, 4) for p in probs])
    found, claimed = [], []
    for seed in range(12):
        s, theta = fitted(log_density, 2, 512, seed)
        q, e = s.quantiles(theta[:, :1], s.theta[:, :1], probs)
        found.append(q[:, 0] - truth)
        claimed.append(e[:, 0])
    z = np.array(found) / np.array(claimed)
    assert np.sqrt(np.mean(z**2)) < 1.7


def test_a_tail_of_the_polynomial_beyond_the_proposal_is_cut() -> None:
    """The proposal is half as wide as the polynomial's tail: where it has no nodes, nothing would correct that tail."""

    def log_density(t: np.ndarray) -> np.ndarray:  # flat at the middle, so that a polynomial has tails too long
        return -np.sum(np.abs(t) ** 5, axis=1)

    q = Mixture(np.zeros((1, 2)), 0.35 * np.eye(2)[None], np.ones(1), 20.0, identity_warp(2))
    theta, replicate = nodes(q, 64, 3)
    log_ratio = log_density(theta) - q.log_density(theta)
    s = fit_surrogate(q, theta, log_ratio, replicate, np.random.SeedSequence([3, 99]))
    assert s is not None
    w = np.exp(log_ratio - log_ratio.max())
    largest = np.quantile(w / w.mean(), 0.98)
    assert np.max(w / w.mean() - s.residual) < 1.1 * largest


def test_too_few_nodes_make_no_surrogate() -> None:
    q = proposal(4)
    theta, replicate = nodes(q, 1, 0)
    got = fit_surrogate(q, theta, np.zeros(len(theta)), replicate, np.random.SeedSequence(0))
    assert got is None
    dead = np.full(len(theta), -np.inf)
    assert fit_surrogate(q, theta, dead, replicate, np.random.SeedSequence(0)) is None
