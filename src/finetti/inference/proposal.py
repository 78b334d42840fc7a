"""Proposal of the outer step: a mixture of warped multivariate t distributions, driven by Sobol points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.special import chdtri, gammaln, ndtr, ndtri

from finetti.inference.warp import Warp, fit_warp, identity_warp
from finetti.inference.weights import log_sum_exp

__all__ = ["Mixture", "bent_mixture", "laplace_mixture", "refit", "with_safety"]

Floats = npt.NDArray[np.float64]

# share and stretch of the safety component: Pareto k cannot see a mode that no node visits
WIDE_SHARE = 0.1
WIDE_STRETCH = 3.0


@lru_cache(maxsize=8)
def _stretch(df: float) -> Callable[[Floats], Floats]:
    """sqrt(df / chi2) at a normal score: a spline of the chi-square's inverse, good to 1e-9.

    The inverse itself would cost more than everything else that is done to a point.
    """
    from scipy.interpolate import CubicSpline

    score = np.linspace(-6.5, 6.5, 1001)
    spline = CubicSpline(score, 0.5 * np.log(df / chdtri(df, ndtr(score))))
    return lambda x: np.exp(spline(x))


@dataclass(frozen=True)
class Mixture:
    """K multivariate t components of phi: means (K, d), lower Cholesky scales (K, d, d), weights (K,).

    theta = warp(phi); every method speaks of theta.
    """

    means: Floats
    scales: Floats
    weights: Floats
    df: float
    warp: Warp

    @property
    def d(self) -> int:
        return int(self.means.shape[1])

    @property
    def n_modes(self) -> int:
        """Components without their wide companions."""
        return max(self.weights.size // 2, 1)

    def sample(self, u: Floats) -> Floats:
        """Map points of (0, 1)^(d + 2) to the mixture: d normals, one chi-square, one component."""
        return self.warp.forward(self.sample_phi(u))

    def sample_phi(self, u: Floats) -> Floats:
        """The same in the coordinates that are not warped."""
        d = self.d
        which = np.minimum(np.searchsorted(np.cumsum(self.weights), u[:, d + 1]), self.weights.size - 1)
        # d normals and the normal score of the chi-square
        z = ndtri(u[:, : d + 1])
        z = z[:, :d] * _stretch(self.df)(z[:, d])[:, None]
        out = np.empty_like(z)
        for k in range(self.weights.size):
            mine = which == k
            out[mine] = z[mine] @ self.scales[k].T + self.means[k]
        return out

    def component_log_density(self, theta: Floats) -> Floats:
        """Log density of each component with its weight, (S, K)."""
        phi = self.warp.inverse(theta)
        return self._components(phi) - self.warp.log_slope(phi)[:, None]

    def _components(self, phi: Floats) -> Floats:
        d, df = self.d, self.df
        out = np.empty((phi.shape[0], self.weights.size))
        const = gammaln(0.5 * (df + d)) - gammaln(0.5 * df) - 0.5 * d * np.log(df * np.pi)
        for k, (mean, L, weight) in enumerate(zip(self.means, self.scales, self.weights, strict=True)):
            z = solve_triangular(L, (phi - mean).T, lower=True, check_finite=False)
            half = np.sum(np.log(np.diag(L)))
            out[:, k] = np.log(weight) + const - half - 0.5 * (df + d) * np.log1p(np.einsum("ds,ds->s", z, z) / df)
        return out

    def log_density(self, theta: Floats) -> Floats:
        phi = self.warp.inverse(theta)
        return log_sum_exp(self._components(phi)) - self.warp.log_slope(phi)

    def log_density_phi(self, phi: Floats) -> Floats:
        """Log density of phi itself, without the warp's slope."""
        return log_sum_exp(self._components(phi))

    def with_df(self, df: float) -> Mixture:
        return replace(self, df=df)


def _cholesky(covariance: Floats) -> Floats:
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def with_safety(means: Floats, scales: Floats, weights: Floats, df: float, warp: Warp) -> Mixture:
    """Each component beside a wide one; means (K, d), lower Cholesky scales (K, d, d), weights (K,) of any sum."""
    weights = weights / weights.sum()
    return Mixture(
        np.concatenate([means, means]),
        np.concatenate([scales, WIDE_STRETCH * scales]),
        np.concatenate([(1.0 - WIDE_SHARE) * weights, WIDE_SHARE * weights]),
        df,
        warp,
    )


def laplace_mixture(modes: Floats, covariances: Floats, heights: Floats, df: float) -> Mixture:
    """One t per mode with the inverse Hessian as scale, weighted by the Laplace evidence of each."""
    scales = _cholesky(covariances)
    log_mass = heights + np.sum(np.log(np.diagonal(scales, axis1=1, axis2=2)), axis=1)
    weights = np.exp(log_mass - log_sum_exp(log_mass))
    return with_safety(modes, scales, np.maximum(weights, 0.05), df, identity_warp(modes.shape[1]))


def bent_mixture(warp: Warp, covariance: Floats, df: float) -> Mixture:
    """One t around the centre of a warp, with the correlations of theta there."""
    d = warp.centre.size
    scale = _cholesky(covariance / np.outer(warp.scale, warp.scale))
    return with_safety(np.zeros((1, d)), scale[None], np.ones(1), df, warp)


def refit(old: Mixture, theta: Floats, weights: Floats) -> Mixture:
    """Moment-match the main components to weighted nodes, each to its own share of them.

    A single component also gets a new warp. With several, theta is not warped.
    """
    K = old.weights.size // 2
    if K == 1:  # with several modes the marginal quantiles say nothing about the shape of one
        warp = fit_warp(theta, weights)
        phi = warp.inverse(theta)
        mean = weights @ phi
        centred = phi - mean
        cov = (centred * weights[:, None]).T @ centred * (old.df - 2.0) / old.df
        try:
            return with_safety(mean[None], _cholesky(cov)[None], np.ones(1), old.df, warp)
        except np.linalg.LinAlgError:
            return old
    log_density = old.component_log_density(theta)
    mine = np.exp(log_density[:, :K] - log_sum_exp(log_density[:, :K])[:, None])
    means, scales, mass = old.means[:K].copy(), old.scales[:K].copy(), np.zeros(K)
    shrink = (old.df - 2.0) / old.df  # a t with this scale matrix has the nodes' covariance
    for k in range(K):
        r = weights * mine[:, k]
        mass[k] = max(float(r.sum()), 0.02)
        # nodes that carry the component; with fewer the moments would be worse than what we have
        if r.sum() <= 0 or r.sum() ** 2 / np.sum(r**2) < 4 * old.d + 8:
            continue
        r = r / r.sum()
        mean = r @ theta
        centred = theta - mean
        cov = (centred * r[:, None]).T @ centred * shrink
        try:
            scales[k] = _cholesky(cov)
            means[k] = mean
        except np.linalg.LinAlgError:
            continue
    return with_safety(means, scales, mass, old.df, old.warp)
