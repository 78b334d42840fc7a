"""The marginal posterior of a screen whose pi0 and slab scale are smooth curves of a number.

    logit pi0_g = m_pi + sd_pi0 (B c)_g,   log tau_g = m_tau + sd_slab_sd (B d)_g,   w = (c, d) ~ N(0, I)

with B a natural cubic spline of a few terms, each of mean 0 and mean square 1 over the tests. Nodes are of theta and w
jointly, in coordinates that take out what ties them together: with a Newton step or two to

    w^(theta), near the maximum of log p(x | theta, w) - |w|^2 / 2, and P(theta) = L L', its negative Hessian there,

w = w^ + L'^-1 z has a posterior near N(0, I) in z whatever theta is. The map is triangular, its Jacobian 1 / |L|, and
weights are exact wherever Newton's method ends. Without z, the value at z = 0 is the Laplace approximation of
log p(x | theta), whose modes start the search and which maximum likelihood maximises.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.modes import Modes, find_modes
from finetti.inference.proposal import Mixture, laplace_mixture
from finetti.inference.spike_slab import Slab
from finetti.inference.spike_slab_by import Grouped, first_curvature, first_starts
from finetti.inference.spike_slab_by_priors import ByHyper
from finetti.inference.variance_moments import learn_trend

__all__ = ["CurveTarget", "curve_basis"]

Floats = npt.NDArray[np.float64]

# Newton steps at most, steps (in posterior sds) that are not worth another one, least precision (1 is the prior's)
STEPS, SMALL, LEAST = 6, 0.2, 0.5
# counted nanoseconds of a test: in one look at slopes and curvatures, of which there are about so many
LOOK, LOOKS = 2.5e-8, 3.0
# of differences, in the unconstrained coordinates of theta
DELTA = 0.01
# how long the vector of Newton's step may be
LONGEST = 3.0


def curve_basis(value: Floats, sizes: npt.NDArray[np.int64]) -> Floats:
    """Spline terms (G, k) at the bins' values, k at most 3, orthonormal over `sizes` tests in each bin.

    Examples
    --------
    >>> B = curve_basis(np.arange(6.0), np.full(6, 10))
    >>> (B.T @ B / 6).round(9).tolist() == np.eye(3).tolist()
    True
    """
    trend = learn_trend(np.repeat(value, sizes))
    assert trend is not None, "a covariate that does not vary is refused where it is read"
    return np.ascontiguousarray(trend.columns(value)[:, 1:])


@dataclass(frozen=True)
class CurveTarget:
    """log p(theta) + log p(z) + log p(x | theta, z); nodes yield the share of nulls, its variance 0, a, t (S, G)."""

    grouped: Grouped
    slab: Slab
    hyper: ByHyper
    basis: Floats

    @property
    def names(self) -> tuple[str, ...]:
        return self.hyper.names + tuple(f"{kind}[{j + 1}]" for kind in ("c", "d") for j in range(self.basis.shape[1]))

    @property
    def d_theta(self) -> int:
        return len(self.hyper.names)

    @property
    def cost(self) -> float:
        tests, simple = self.grouped.tests, self.grouped.tests._simple(self.slab)
        return LOOKS * (tests.n * LOOK if simple else 2.0 * tests.cost(self.slab)) + 1e-5

    def _curves(self, six: Floats, w: Floats) -> tuple[Floats, Floats]:
        k = self.basis.shape[1]
        a = six[:, 0, None] + six[:, 1, None] * (w[:, :k] @ self.basis.T)
        return a, six[:, 2, None] + six[:, 3, None] * (w[:, k:] @ self.basis.T)

    def _look(self, six: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
        """Log p(x | theta, w) - |w|^2 / 2 at (S, 2 k) points, its gradient and negative Hessian."""
        a, t = self._curves(six, w)
        mu, kappa = np.ascontiguousarray(six[:, 4]), np.ascontiguousarray(six[:, 5])
        out = self.grouped.curvatures(self.slab, a, t, mu, kappa)
        B, k = self.basis, self.basis.shape[1]
        value = out[:, :, 0].sum(axis=1) - 0.5 * np.sum(w * w, axis=1)
        s = six[:, [1, 3]]
        gradient = np.concatenate([s[:, j, None] * (out[:, :, 1 + j] @ B) for j in range(2)], axis=1) - w
        H = np.empty((len(w), 2 * k, 2 * k))
        pairs = (B[:, :, None] * B[:, None, :]).reshape(len(B), -1)
        for i, j, at in ((0, 0, 3), (0, 1, 4), (1, 1, 5)):
            block = (out[:, :, at] @ pairs).reshape(-1, k, k) * (s[:, i] * s[:, j])[:, None, None]
            H[:, i * k : (i + 1) * k, j * k : (j + 1) * k] = block
            H[:, j * k : (j + 1) * k, i * k : (i + 1) * k] = np.swapaxes(block, 1, 2)
        return value, gradient, np.eye(2 * k) - H

    @cached_property
    def _reference(self) -> tuple[Floats, Floats]:
        """The coefficients (2 k,) of the curves at the first start, on the scale of logit pi0 and log tau; m there."""
        theta = self._first[:1]
        six = self.hyper.six(theta)
        k = self.basis.shape[1]
        w, *_ = self._newton(six, np.zeros((1, 2 * k)), 25)
        s = np.repeat(six[0, [1, 3]], k)
        return s * w[0], six[0]

    def _newton(self, six: Floats, w: Floats, steps: int = STEPS) -> tuple[Floats, Floats, Floats]:
        """w^ (S, 2 k), the objective there, and the Cholesky factor L of its floored negative Hessian."""
        value, gradient, P = self._look(six, w)
        L, move = _step(gradient, P)
        active = np.arange(len(w))
        for _ in range(steps):
            size = np.sqrt(np.maximum(np.einsum("si,si->s", gradient[active], move[active]), 0.0))
            active = active[size > SMALL]
            if not active.size:
                break
            trial = w[active] + move[active]
            new, slope, P = self._look(six[active], trial)
            good = new >= value[active]
            back = active[~good]
            move[back] *= 0.3
            gradient[back] *= 0.3  # so that the size of what is left is judged by the shorter step
            done = active[good]
            w[done], value[done], gradient[done] = trial[good], new[good], slope[good]
            L[done], move[done] = _step(slope[good], P[good])
        return w, value, L

    def _start(self, six: Floats) -> Floats:
        """The reference curve, shrunk to the spreads of each node."""
        b, at = self._reference
        k = self.basis.shape[1]
        s, s0 = np.repeat(six[:, [1, 3]], k, axis=1), np.repeat(at[[1, 3]], k)
        return np.clip(b / np.sqrt(np.maximum(s * s + 0.05 * s0 * s0, 1e-12)), -6.0, 6.0)

    def laplace(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Laplace approximation of log p(x | theta) + log p(theta), with w^, L and the six."""
        six = self.hyper.six(theta)
        w, value, L = self._newton(six, self._start(six))
        total = value - np.sum(np.log(np.diagonal(L, axis1=1, axis2=2)), axis=1) + self._rest(theta, six)
        return total, w, L, six

    def _rest(self, theta: Floats, six: Floats) -> Floats:
        tests = self.grouped.tests
        return np.asarray(tests.constant - tests.n * np.log(six[:, 5]) + self.hyper.log_prior(theta))

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        with np.errstate(all="ignore"):
            outer, z = theta[:, : self.d_theta], theta[:, self.d_theta :]
            _, w, L, six = self.laplace(outer)
            w = w + np.linalg.solve(np.swapaxes(L, 1, 2), z[:, :, None])[:, :, 0]
            a, t = self._curves(six, w)
            nodes = (np.ascontiguousarray(six[:, 4]), np.ascontiguousarray(six[:, 5]))
            out = self.grouped.curvatures(self.slab, a, t, *nodes)[:, :, 0].sum(axis=1)
            value = out - 0.5 * np.sum(w * w, axis=1) - np.sum(np.log(np.diagonal(L, axis1=1, axis2=2)), axis=1)
            value = value - 0.5 * z.shape[1] * np.log(2.0 * np.pi) + self._rest(outer, six)
            share = (1.0 / (1.0 + np.exp(-a))) @ (self.grouped.sizes / self.grouped.tests.n)
            return value, (share, np.zeros(len(a)), a, t)

    def marginal_gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """The Laplace approximation and its gradient by central differences, (S,) and (S, d)."""
        with np.errstate(all="ignore"):
            S, d = theta.shape
            shift = DELTA * np.eye(d)
            points = np.concatenate([theta[:, None], theta[:, None] + shift, theta[:, None] - shift], axis=1)
            value = self.laplace(points.reshape(-1, d))[0].reshape(S, 2 * d + 1)
            return value[:, 0], (value[:, 1 : d + 1] - value[:, d + 1 :]) / (2.0 * DELTA)

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """By central differences; the search for modes uses `marginal_gradient`, on fewer coordinates."""
        S, d = theta.shape
        shift = DELTA * np.eye(d)
        points = np.concatenate([theta[:, None], theta[:, None] + shift, theta[:, None] - shift], axis=1)
        value = self.log_density(points.reshape(-1, d))[0].reshape(S, 2 * d + 1)
        return value[:, 0], (value[:, 1 : d + 1] - value[:, d + 1 :]) / (2.0 * DELTA)

    @cached_property
    def _first(self) -> Floats:
        return first_starts(self.grouped.tests, self.slab, self.hyper)

    def starts(self) -> Floats:
        none = np.zeros((len(self._first), 2 * self.basis.shape[1]))
        return np.concatenate([self._first, none], axis=1)

    def curvature(self) -> Floats:
        n, G = float(self.grouped.tests.n), float(self.basis.shape[1] + 1)
        return np.concatenate([first_curvature(self.hyper.names, n, G), np.ones(2 * self.basis.shape[1])])

    def marginal_modes(self) -> Modes:
        """Modes of the Laplace approximation."""
        return find_modes(self.marginal_gradient, self._first, self.curvature()[: self.d_theta], dear=True)

    def first(self) -> tuple[Modes, Mixture]:
        """Modes and a proposal for `explore`: those of the Laplace approximation, and N(0, I) for z."""
        found, k = self.marginal_modes(), 2 * self.basis.shape[1]
        d = self.d_theta
        covariance = np.tile(np.eye(d + k), (len(found.theta), 1, 1))
        covariance[:, :d, :d] = found.covariance
        theta = np.concatenate([found.theta, np.zeros((len(found.theta), k))], axis=1)
        modes = Modes(theta, found.height, covariance, found.converged, found.largest_gradient, found.evaluations)
        return modes, laplace_mixture(theta, covariance, found.height, 20.0)


def _step(gradient: Floats, P: Floats) -> tuple[Floats, Floats]:
    """Cholesky factors of P with its eigenvalues raised to `LEAST`, and Newton's steps."""
    P = np.where(np.all(np.isfinite(P), axis=(1, 2))[:, None, None], P, np.eye(P.shape[1]))
    values, vectors = np.linalg.eigh(P)
    values = np.maximum(values, np.maximum(LEAST, 1e-10 * values[:, -1:]))
    safe = (vectors * values[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    move = np.linalg.solve(safe, np.where(np.isfinite(gradient), gradient, 0.0)[:, :, None])[:, :, 0]
    longest = np.sqrt(np.sum(move**2, axis=1))
    return np.linalg.cholesky(safe), move * np.minimum(1.0, LONGEST / np.maximum(longest, 1e-300))[:, None]
