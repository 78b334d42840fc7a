"""A smooth surrogate of the importance weights: moments, quantiles and draws from few nodes.

In the warped coordinates phi the posterior is nearly Gaussian: a low-order polynomial fits its log
density. Expectations under the fitted s = exp(polynomial) come for nothing from a dense set of points
of their own density q'; the nodes only have to estimate what it misses:

    E_p[f] = E_q'[f s / q'] + mean over nodes of f (p - s) / q,

a control variate, exact in expectation however poor the polynomial. The one that serves a
replicate is fitted without it, so that its correction is unbiased, and the spread over
replicates is an honest Monte Carlo error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from finetti.inference.proposal import Mixture
from finetti.inference.sobol import SobolStreams
from finetti.inference.weights import normalise

__all__ = ["Surrogate", "fit_surrogate", "n_terms"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# dense points of each replicate for each of its nodes, and the fewest and most: a dense point costs a tenth of a
# cheap node, and once the polynomial is good its points are what limits the precision
DENSE_PER_NODE, DENSE_FEWEST, DENSE_MOST = 8, 2**9, 2**12
# monomials beyond this would cost more than the nodes they save
MOST_TERMS = 400
# the polynomial is fitted where the log density is within this (plus d) of its top
DEPTH = 4.0
# the same for points of a scan, and their weight in the fit
SCAN_DEPTH, SCAN_WEIGHT = 10.0, 0.3
# share of the mean weight that nodes with little posterior mass keep in the fit
FLOOR = 0.05
# sd 1.36: in every coordinate the weights of a standard normal stay below 1.2
LOGISTIC_SCALE = 0.75
# the polynomial may not exceed the proposal by more than this share of the nodes do, if they are that many at least:
# what few nodes say of their own largest weight would follow them
LARGEST, LARGEST_FEWEST = 0.02, 10
# half-width in probability over which the density at a quantile is taken
DENSITY_BAND = 0.02


@dataclass(frozen=True)
class Surrogate:
    """Dense weighted points, and what the nodes add to them.

    theta (M, d) : dense points, an independent scrambling for each replicate, one after another
    dense (M,) : s / q', from the polynomial fitted without the replicate, relative to the mean weight of the nodes
    residual (S,) : (p - s) / q at the nodes; replicate (S,)
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

    @cached_property
    def _correction(self) -> Floats:
        """(R, S): row r averages what it is given, times w - s, over the nodes of replicate r."""
        mine = self.replicate == np.arange(self.n_replicates)[:, None]
        return mine * self.residual / mine.sum(axis=1, keepdims=True)

    @cached_property
    def _normaliser(self) -> Floats:
        """(R,) the mean weight of each replicate."""
        return self.dense.reshape(self.n_replicates, -1).mean(axis=1) + self._correction.sum(axis=1)

    def _per_replicate(self, at_nodes: Floats, at_dense: Floats) -> Floats:
        """Unnormalised expectations (R, k) of columns (S, k), (M, k)."""
        R, k = self.n_replicates, at_nodes.shape[1]
        dense = self.dense.reshape(R, 1, -1)
        return (dense @ at_dense.reshape(R, -1, k))[:, 0] / dense.shape[2] + self._correction @ at_nodes

    def expect(self, at_nodes: Floats, at_dense: Floats) -> tuple[Floats, Floats]:
        """Posterior expectation of f(theta), (S, k) at nodes and (M, k) at dense points, and its mcse."""
        numerator, normaliser = self._per_replicate(at_nodes, at_dense), self._normaliser
        total = normaliser.mean()
        value = numerator.mean(axis=0) / total
        deviation = (numerator - normaliser[:, None] * value) / total
        return value, deviation.std(axis=0, ddof=1) / np.sqrt(normaliser.size)

    def moments(self, at_nodes: Floats, at_dense: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, sd and their mcse of columns (S, k), (M, k)."""
        centre, spread = _moments_of(at_dense, self.weights)
        f, g = (at_nodes - centre) / spread, (at_dense - centre) / spread
        total, root = self._normaliser.mean(), np.sqrt(self.n_replicates)
        z = self._normaliser[:, None] / total
        first, second = self._per_replicate(f, g) / total, self._per_replicate(f * f, g * g) / total
        m1 = first.mean(axis=0)
        variance = second.mean(axis=0) - m1**2
        sd = np.sqrt(np.maximum(variance, 1e-12))
        # influence of each replicate on the mean and on the sd
        mean_e = (first - z * m1).std(axis=0, ddof=1) / root
        around = second - 2.0 * m1 * first + (m1**2 - sd**2) * z
        sd_e = (around / (2.0 * sd)).std(axis=0, ddof=1) / root
        # a variance that came out negative: the polynomial is of no use here, and says so
        broken = variance <= 0.0
        mean_e, sd_e = np.where(broken, np.inf, mean_e), np.where(broken, np.inf, sd_e)
        return centre + spread * m1, spread * sd, spread * mean_e, spread * sd_e

    def quantiles(self, at_nodes: Floats, at_dense: Floats, probs: Floats) -> tuple[Floats, Floats]:
        """Quantiles (P, k) of k functions (S, k), (M, k) of theta, and their mcse."""
        # most quantiles of interest lie well inside; the band shrinks towards the ends
        band = np.minimum(DENSITY_BAND, 0.5 * np.minimum(probs, 1.0 - probs))
        wanted = np.concatenate([probs, probs - band, probs + band])
        P, k = probs.size, at_nodes.shape[1]
        # the points and the corrections at the nodes together: one distribution, some of whose weights are negative
        weights = np.concatenate([self.dense / self.dense.size, self.residual / self.residual.size])
        pooled = np.concatenate([at_dense, at_nodes])
        ends = np.stack([_signed_quantiles(pooled[:, j], weights, wanted) for j in range(k)], axis=1)
        x, slope = ends[:P], np.maximum(ends[2 * P :] - ends[P : 2 * P], 1e-300) / (2.0 * band[:, None])
        _, error = self.expect(
            (at_nodes[:, None] <= x).reshape(-1, P * k).astype(float),
            (at_dense[:, None] <= x).reshape(-1, P * k).astype(float),
        )
        return x, error.reshape(P, k) * slope


def _signed_quantiles(x: Floats, w: Floats, probs: Floats) -> Floats:
    """Quantiles of points some of whose weights are negative: a distribution function with small steps down.

    It is made monotone from below and from above, and the two are averaged.
    """
    order = np.argsort(x)
    x, w = x[order], w[order]
    F = np.cumsum(w) - 0.5 * w
    rising = 0.5 * (np.maximum.accumulate(F) + np.minimum.accumulate(F[::-1])[::-1])
    return np.interp(probs * w.sum(), rising, x)


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


def _logistic(u: Floats) -> tuple[Floats, Floats]:
    """Independent logistic variables of points in the cube, (M, d), and their log density.

    Slightly wider than a standard normal; coordinates that stay apart keep what Sobol points are good for.
    """
    log_u, log_1mu = np.log(u), np.log1p(-u)
    return LOGISTIC_SCALE * (log_u - log_1mu), np.sum(log_u + log_1mu, axis=1) - u.shape[1] * np.log(LOGISTIC_SCALE)


def fit_surrogate(
    proposal: Mixture,
    theta: Floats,
    log_ratio: Floats,
    replicate: Ints,
    seed: np.random.SeedSequence,
    scan: tuple[Floats, Floats] | None = None,
) -> Surrogate | None:
    """Fit, choosing the degree by the error at left-out replicates; None if there are too few nodes.

    `scan`: points (P, d) and log densities (P,) that belong to no replicate and help the polynomial along the axes.
    """
    d = theta.shape[1]
    alive = np.isfinite(log_ratio)
    if alive.sum() < 1.5 * n_terms(d, 2):
        return None
    R = int(replicate.max()) + 1
    top = log_ratio[alive].max()
    log_w = np.where(alive, log_ratio - top, -np.inf)
    scale = top + np.log(np.mean(np.exp(log_w)))
    log_w = log_ratio - scale
    w = np.exp(log_w)
    share = normalise(log_w)
    phi = proposal.warp.inverse(theta)
    centre = share @ phi
    try:
        L = np.asarray(np.linalg.cholesky(((phi - centre).T * share) @ (phi - centre)), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    log_q = proposal.log_density_phi(phi)
    log_p = log_w + log_q  # of phi, up to a constant
    chart = _Chart(centre, L)
    z = chart.z(phi)
    # the polynomial serves where the density matters, and is fitted there only
    core = alive & (log_p > log_p[alive].max() - DEPTH - d)
    if core.sum() < 1.5 * n_terms(d, 2):
        return None
    radius = float(np.sqrt(np.max(np.sum(z[core] ** 2, axis=1))))
    fixed_z, fixed_p = np.zeros((0, d)), np.zeros(0)
    if scan is not None:
        fixed_phi = proposal.warp.inverse(scan[0])
        fixed_z = chart.z(fixed_phi)
        fixed_p = scan[1] + proposal.warp.log_slope(fixed_phi) - scale
        near = fixed_p > log_p[alive].max() - SCAN_DEPTH
        fixed_z, fixed_p = fixed_z[near], fixed_p[near]
        radius = float(np.sqrt(np.max(np.sum(fixed_z**2, axis=1), initial=radius**2)))
    chart = _Chart(centre, L, radius)
    z, lost = chart.inside(z)
    M = int(np.clip(DENSE_PER_NODE * (theta.shape[0] // R), DENSE_FEWEST, DENSE_MOST))
    if proposal.n_modes == 1:
        free, log_q_dense = _logistic(SobolStreams(d, R, seed).next(M))
        phi_dense = centre + free @ L.T
        log_q_dense -= np.sum(np.log(np.diag(L)))
        proposed = proposal.log_density_phi(phi_dense)
    else:  # one bell would not cover several modes
        phi_dense = proposal.sample_phi(SobolStreams(d + 2, R, seed).next(M))
        log_q_dense, free = proposal.log_density_phi(phi_dense), chart.z(phi_dense)
        proposed = log_q_dense
    z_dense, lost_dense = chart.inside(free)

    best: tuple[float, int, Floats, Floats] | None = None
    fit_weight = np.where(core, w + FLOOR, 0.0)
    target = np.where(core, log_p, 0.0)
    by = np.argsort(replicate, kind="stable")  # replicates have equal shares of the nodes
    for degree in (2, 3, 4):
        K = n_terms(d, degree)
        if degree > 2 and (core.sum() < 3 * K or K > MOST_TERMS):
            break
        F = _features(z, degree)
        each = F[by].reshape(R, -1, K)
        weighted = np.swapaxes(each * fit_weight[by].reshape(R, -1, 1), 1, 2)
        G, h = weighted @ each, (weighted @ target[by].reshape(R, -1, 1))[:, :, 0]
        if fixed_p.size:
            along = _features(fixed_z, degree)
            G_fixed, h_fixed = SCAN_WEIGHT * along.T @ along, SCAN_WEIGHT * along.T @ fixed_p
            G, h = G + G_fixed / (R - 1), h + h_fixed / (R - 1)  # each replicate is left out once, these never
        everything = G.sum(axis=0)
        ridge = 1e-9 * np.diag(np.diag(everything))
        coefs = np.linalg.solve(everything - G + ridge, (h.sum(axis=0) - h)[:, :, None])[:, :, 0]
        left_out = np.einsum("sk,sk->s", F, coefs[replicate])
        error = float(np.sqrt(share @ np.where(core, target - left_out, 0.0) ** 2))
        if best is None or error < best[0]:
            best = (error, degree, coefs, left_out)
    assert best is not None
    residual_sd, degree, coefs, left_out = best
    ceiling = float(log_p[alive].max()) + 1.0
    n_largest = int(LARGEST * log_w.size)
    most = float(np.sort(log_w)[-n_largest]) if n_largest >= LARGEST_FEWEST else np.inf

    def density(polynomial: Floats, z: Floats, lost: Floats, log_q: Floats) -> Floats:
        """Log of s. A polynomial may not invent a higher mode, nor tails of more than twice the variance.

        Where it exceeds the proposal by far, a node would take all of that away again; but such nodes are so rare
        that most fits have none, and neither their mean nor their spread over replicates would know.
        """
        bounded = np.minimum(polynomial, ceiling - 0.25 * np.sum(z * z, axis=1)) + lost
        return np.minimum(bounded, most + log_q)

    F_dense = _features(z_dense, degree).reshape(R, M, -1)
    log_s = (F_dense @ coefs[:, :, None]).ravel()
    return Surrogate(
        proposal.warp.forward(phi_dense),
        np.exp(density(log_s, z_dense, lost_dense, proposed) - log_q_dense),
        w - np.exp(density(left_out, z, lost, log_q) - log_q),
        replicate,
        residual_sd,
        degree,
    )
