"""A smooth surrogate of the importance weights: moments, quantiles and draws from few nodes.

In the warped coordinates phi the posterior is nearly Gaussian: a low-order polynomial fits its log
density, and with it the weights w = p / q. Expectations under the fitted s = exp(polynomial) / q
come for nothing from a dense set of proposal points; the nodes only have to estimate what it misses:

    E_q[f w] = E_q[f s] + mean over nodes of f (w - s),

a control variate, exact in expectation however poor the polynomial. The one that serves a
replicate is fitted without it, so that its correction is unbiased, and the spread over
replicates is an honest Monte Carlo error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from finetti.inference.proposal import Mixture, SobolStream
from finetti.inference.weights import normalise, weighted_quantiles

__all__ = ["Surrogate", "fit_surrogate", "n_terms"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# dense points of each replicate
DENSE_POINTS = 2**9
# monomials beyond this would cost more than the nodes they save
MOST_TERMS = 400
# the polynomial is fitted where the log density is within this (plus d) of its top
DEPTH = 4.0
# share of the mean weight that nodes with little posterior mass keep in the fit
FLOOR = 0.05
# half-width in probability over which the density at a quantile is taken
DENSITY_BAND = 0.02


@dataclass(frozen=True)
class Surrogate:
    """Dense weighted points, and what the nodes add to them.

    theta (M, d) : dense proposal points, an independent scrambling for each replicate, one after another
    dense (M,) : weights from the polynomial fitted without the replicate, relative to the mean weight
    residual (S,) : w - s at the nodes; replicate (S,)
    residual_sd : of log w around the polynomial, at nodes left out of its fit
    degree : of the polynomial
    """

    theta: Floats
    dense: Floats
    residual: Floats
    replicate: Ints
    residual_sd: float
    degree: int

    @property
    def n_replicates(self) -> int:
        return int(self.replicate.max()) + 1

    @property
    def weights(self) -> Floats:
        """Dense weights that sum to one."""
        return self.dense / self.dense.sum()

    def _per_replicate(self, at_nodes: Floats, at_dense: Floats) -> tuple[Floats, Floats]:
        """Unnormalised expectations (R, ...) and normalisers (R,) of each replicate."""
        R = self.n_replicates
        columns = at_nodes.reshape(at_nodes.shape[0], -1)
        dense_columns = at_dense.reshape(at_dense.shape[0], -1)
        # row r averages over the nodes of replicate r
        average = (self.replicate == np.arange(R)[:, None]).astype(float)
        average /= average.sum(axis=1, keepdims=True)
        normaliser = self.dense.reshape(R, -1).mean(axis=1) + average @ self.residual
        numerator = (dense_columns * self.dense[:, None]).reshape(R, -1, dense_columns.shape[1]).mean(axis=1)
        numerator += average @ (columns * self.residual[:, None])
        return numerator.reshape(R, *at_nodes.shape[1:]), normaliser

    def expect(self, at_nodes: Floats, at_dense: Floats) -> tuple[Floats, Floats]:
        """Posterior expectation of f(theta), (S, ...) at nodes and (M, ...) at dense points, and its mcse."""
        numerator, normaliser = self._per_replicate(at_nodes, at_dense)
        total = normaliser.mean()
        value = numerator.mean(axis=0) / total
        R = normaliser.size
        deviation = (numerator - normaliser.reshape(-1, *([1] * (numerator.ndim - 1))) * value) / total
        return value, deviation.std(axis=0, ddof=1) / np.sqrt(R)

    def moments(self, at_nodes: Floats, at_dense: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, sd and their mcse of columns (S, k), (M, k)."""
        centre, spread = _moments_of(at_dense, self.weights)
        f, g = (at_nodes - centre) / spread, (at_dense - centre) / spread
        both, _ = self.expect(np.concatenate([f, f**2], axis=1), np.concatenate([g, g**2], axis=1))
        k = f.shape[1]
        m1, m2 = both[:k], both[k:]
        variance = m2 - m1**2
        sd = np.sqrt(np.maximum(variance, 1e-12))
        # influence of each replicate on the mean and on the sd
        _, mean_e = self.expect(f, g)
        _, sd_e = self.expect(((f - m1) ** 2 - sd**2) / (2 * sd), ((g - m1) ** 2 - sd**2) / (2 * sd))
        # a variance that came out negative: the polynomial is of no use here, and says so
        broken = variance <= 0.0
        mean_e, sd_e = np.where(broken, np.inf, mean_e), np.where(broken, np.inf, sd_e)
        return centre + spread * m1, spread * sd, spread * mean_e, spread * sd_e

    def quantiles(self, at_nodes: Floats, at_dense: Floats, probs: Floats) -> tuple[Floats, Floats]:
        """Quantiles (P,) of one function (S,), (M,) of theta, and their mcse."""
        # most quantiles of interest lie well inside; the band shrinks towards the ends
        band = np.minimum(DENSITY_BAND, 0.5 * np.minimum(probs, 1.0 - probs))
        ends = weighted_quantiles(at_dense, self.weights, np.concatenate([probs, probs - band, probs + band]))
        P = probs.size
        start, slope = ends[:P], np.maximum(ends[2 * P :] - ends[P : 2 * P], 1e-300) / (2.0 * band)
        below, error = self.expect(
            (at_nodes[:, None] <= start).astype(float), (at_dense[:, None] <= start).astype(float)
        )
        return start + (probs - below) * slope, error * slope


def _moments_of(x: Floats, w: Floats) -> tuple[Floats, Floats]:
    mean = w @ x
    return mean, np.maximum(np.sqrt(w @ (x - mean) ** 2), 1e-300)


def n_terms(d: int, degree: int) -> int:
    """Number of monomials up to a degree in d variables."""
    return comb(d + degree, degree)


def _exponents(d: int, degree: int) -> list[tuple[int, ...]]:
    """Every monomial as the tuple of its variables, lower degrees first."""
    return [c for k in range(degree + 1) for c in combinations_with_replacement(range(d), k)]


def _features(z: Floats, degree: int) -> Floats:
    """Monomials of the columns of z, (S, K), each one product away from a lower one."""
    names = _exponents(z.shape[1], degree)
    place = {name: i for i, name in enumerate(names)}
    out = np.ones((len(names), z.shape[0]))
    for i, name in enumerate(names[1:], start=1):
        np.multiply(out[place[name[1:]]], z[:, name[0]], out=out[i])
    return out.T


@dataclass(frozen=True)
class _Chart:
    """Standardised phi, and the ball in which the polynomial is trusted."""

    proposal: Mixture
    centre: Floats
    L: Floats
    radius: float = np.inf

    def z(self, phi: Floats) -> Floats:
        return solve_triangular(self.L, (phi - self.centre).T, lower=True).T

    def inside(self, z: Floats) -> tuple[Floats, Floats]:
        """z moved onto the ball, and the log density lost on the way, Gaussian beyond it."""
        square = np.sum(z * z, axis=1)
        shrink = np.minimum(1.0, self.radius / np.sqrt(np.maximum(square, 1e-300)))
        return z * shrink[:, None], -0.5 * np.maximum(square - self.radius**2, 0.0)


def fit_surrogate(
    proposal: Mixture, theta: Floats, log_ratio: Floats, replicate: Ints, seed: np.random.SeedSequence
) -> Surrogate | None:
    """Fit, choosing the degree by the error at left-out replicates; None if there are too few nodes."""
    d = theta.shape[1]
    alive = np.isfinite(log_ratio)
    if alive.sum() < 1.5 * n_terms(d, 2):
        return None
    R = int(replicate.max()) + 1
    top = log_ratio[alive].max()
    log_w = np.where(alive, log_ratio - top, -np.inf)
    log_w = log_w - np.log(np.mean(np.exp(log_w)))
    w = np.exp(log_w)
    share = normalise(log_w)
    phi = proposal.warp.inverse(theta)
    centre = share @ phi
    try:
        L = np.asarray(np.linalg.cholesky(((phi - centre).T * share) @ (phi - centre)), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    log_q = proposal.log_density(theta) + proposal.warp.log_slope(phi)
    log_p = log_w + log_q  # of phi, up to a constant
    chart = _Chart(proposal, centre, L)
    z = chart.z(phi)
    # the polynomial serves where the density matters, and is fitted there only
    core = alive & (log_p > log_p[alive].max() - DEPTH - d)
    if core.sum() < 1.5 * n_terms(d, 2):
        return None
    radius = float(np.sqrt(np.max(np.sum(z[core] ** 2, axis=1))))
    chart = _Chart(proposal, centre, L, radius)
    z, lost = chart.inside(z)
    # children by name, not by spawning: the same points however often the nodes are assessed
    seeds = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, r)) for r in range(R)]
    dense = proposal.sample(np.concatenate([SobolStream(d + 2, s).next(DENSE_POINTS) for s in seeds]))
    phi_dense = proposal.warp.inverse(dense)
    log_q_dense = proposal.log_density(dense) + proposal.warp.log_slope(phi_dense)
    z_dense, lost_dense = chart.inside(chart.z(phi_dense))

    best: tuple[float, int, Floats, Floats] | None = None
    fit_weight = np.where(core, w + FLOOR, 0.0)
    target = np.where(core, log_p, 0.0)
    for degree in (2, 3, 4):
        K = n_terms(d, degree)
        if degree > 2 and (core.sum() < 3 * K or K > MOST_TERMS):
            break
        F = _features(z, degree)
        G, h = np.empty((R, K, K)), np.empty((R, K))
        for r in range(R):
            mine = replicate == r
            weighted = F[mine] * fit_weight[mine, None]
            G[r], h[r] = weighted.T @ F[mine], weighted.T @ target[mine]
        everything = G.sum(axis=0)
        ridge = 1e-9 * np.diag(np.diag(everything))
        coefs = np.linalg.solve(everything - G + ridge, (h.sum(axis=0) - h)[:, :, None])[:, :, 0]
        left_out = np.einsum("sk,sk->s", F, coefs[replicate])
        error = float(np.sqrt(share @ np.where(core, target - left_out, 0.0) ** 2))
        if best is None or error < best[0]:
            best = (error, degree, coefs, left_out)
    assert best is not None
    residual_sd, degree, coefs, left_out = best
    # a polynomial may not invent a higher mode, nor a point that outweighs every node
    ceiling, heaviest = float(log_p[alive].max()) + 1.0, float(log_w[alive].max())

    def weight(log_density: Floats, lost: Floats, log_q: Floats) -> Floats:
        return np.exp(np.minimum(np.minimum(log_density, ceiling) + lost - log_q, heaviest))

    F_dense = _features(z_dense, degree).reshape(R, DENSE_POINTS, -1)
    log_s = np.einsum("rmk,rk->rm", F_dense, coefs).ravel()
    return Surrogate(
        dense,
        weight(log_s, lost_dense, log_q_dense),
        w - weight(left_out, lost, log_q),
        replicate,
        residual_sd,
        degree,
    )
