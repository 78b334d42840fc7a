"""The unconstrained coordinates theta: transforms, Jacobians, priors, correlation factors.

A standard deviation is explored as its log, a bounded one as a logit, a correlation matrix as
the inverse hyperbolic tangents of its canonical partial correlations (Lewandowski, Kurowicka
and Joe 2009, J. Multivariate Anal. 100, 1989-2001), a coefficient with a non-Gaussian prior
as itself. Every log density here includes the Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, expit, log_expit

from finetti.model.priors import Fixed, Flat, Lkj, Prior, Uniform, sd_dlogpdf, sd_logpdf

__all__ = ["Coordinate", "CorrelationBlock", "cholesky_correlation", "correlation_of"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coordinate:
    """One free scalar hyperparameter and its map from theta (R) to its natural value."""

    label: str
    prior: Prior
    is_coefficient: bool = False
    centre: float = 0.0  # an unbounded coefficient is centre + unit * theta, so that theta is of order one
    unit: float = 1.0

    @property
    def support(self) -> tuple[float, float]:
        """Open interval of the natural value; a standard deviation is never negative."""
        low, high = self.prior.support
        return (low, high) if self.is_coefficient else (max(low, 0.0), high)

    def natural(self, theta: Floats) -> Floats:
        low, high = self.support
        if np.isinf(low):
            return self.centre + self.unit * theta
        if np.isinf(high):
            return low + np.exp(theta)
        return low + (high - low) * expit(theta)

    def theta(self, value: float) -> float:
        """Inverse of `natural`, the value moved inside the support if need be."""
        low, high = self.support
        if np.isinf(low):
            return float((value - self.centre) / self.unit)
        if np.isinf(high):
            return float(np.log(value - low)) if value > low else -5.0
        share = min(max((value - low) / (high - low), 0.01), 0.99)
        return float(np.log(share) - np.log1p(-share))

    def log_slope(self, theta: Floats) -> Floats:
        """log d natural / d theta."""
        low, high = self.support
        if np.isinf(low):
            return np.full_like(theta, np.log(self.unit))
        if np.isinf(high):
            return theta
        return np.log(high - low) + log_expit(theta) + log_expit(-theta)

    def log_density(self, theta: Floats) -> Floats:
        value = self.natural(theta)
        logpdf = self.prior.logpdf(value) if self.is_coefficient else sd_logpdf(self.prior, value)
        return logpdf + self.log_slope(theta)

    def gradient(self, theta: Floats) -> Floats:
        """Derivative of `log_density` with respect to theta."""
        value = self.natural(theta)
        slope = self.prior.dlogpdf(value) if self.is_coefficient else sd_dlogpdf(self.prior, value)
        low, high = self.support
        if np.isinf(low):
            return slope * self.unit
        bend = np.ones_like(theta) if np.isinf(high) else 1.0 - 2.0 * expit(theta)
        return slope * np.exp(self.log_slope(theta)) + bend


@dataclass(frozen=True)
class CorrelationBlock:
    """The correlations of one block of q coefficients: q (q - 1) / 2 coordinates, or none if fixed."""

    members: tuple[int, ...]
    prior: Prior

    @property
    def size(self) -> int:
        q = len(self.members)
        return 0 if isinstance(self.prior, Fixed) else q * (q - 1) // 2

    @property
    def eta(self) -> float:
        """LKJ shape; a uniform prior on a single correlation is LKJ(1)."""
        if isinstance(self.prior, Lkj):
            return float(self.prior.eta)
        assert isinstance(self.prior, Uniform | Flat)
        return 1.0

    def _shapes(self) -> Floats:
        """Beta shape of each canonical partial correlation, in the order of `pairs`."""
        q = len(self.members)
        return np.array([self.eta + 0.5 * (q - 2 - j) for i in range(1, q) for j in range(i)])

    def cholesky(self, theta: Floats) -> Floats:
        """Cholesky factors C (S, q, q) of the correlation matrices."""
        q = len(self.members)
        if isinstance(self.prior, Fixed):
            r = float(self.prior.value)
            corr = np.full((q, q), r) + (1.0 - r) * np.eye(q)
            return np.broadcast_to(np.linalg.cholesky(corr), (theta.shape[0], q, q)).copy()
        return cholesky_correlation(np.tanh(theta), q)

    def log_density(self, theta: Floats) -> Floats:
        if not self.size:
            return np.zeros(theta.shape[0])
        b = self._shapes()
        # log(1 - tanh^2) without cancellation: 2 log 2 - 2 |x| - 2 log1p(exp(-2|x|))
        x = np.abs(theta)
        log_gap = 2.0 * np.log(2.0) - 2.0 * x - 2.0 * np.log1p(np.exp(-2.0 * x))
        return np.sum(b * log_gap - (2.0 * b - 1.0) * np.log(2.0) - betaln(b, b), axis=1)

    def gradient(self, theta: Floats) -> Floats:
        return -2.0 * self._shapes() * np.tanh(theta) if self.size else theta


def cholesky_correlation(partial: Floats, q: int) -> Floats:
    """Cholesky factors (S, q, q) from canonical partial correlations (S, q (q - 1) / 2), row by row."""
    S = partial.shape[0]
    C = np.zeros((S, q, q))
    C[:, 0, 0] = 1.0
    at = 0
    for i in range(1, q):
        left = np.ones(S)
        for j in range(i):
            t = partial[:, at]
            C[:, i, j] = t * left
            left = left * np.sqrt((1.0 - t) * (1.0 + t))
            at += 1
        C[:, i, i] = left
    return C


def cholesky_slopes(theta: Floats, C: Floats) -> list[tuple[int, Floats]]:
    """Derivatives of row i of C with respect to each coordinate: a list of (i, (S, q))."""
    q = C.shape[1]
    t = np.tanh(theta)
    slopes: list[tuple[int, Floats]] = []
    at = 0
    for i in range(1, q):
        left = np.ones(theta.shape[0])
        for j in range(i):
            row = np.zeros((theta.shape[0], q))
            gap = (1.0 - t[:, at]) * (1.0 + t[:, at])
            row[:, j] = gap * left
            row[:, j + 1 :] = -t[:, at, None] * C[:, i, j + 1 :]
            slopes.append((i, row))
            left = left * np.sqrt(gap)
            at += 1
    return slopes


def correlation_of(C: Floats) -> Floats:
    """Correlation matrices (S, q, q) of Cholesky factors."""
    return C @ np.swapaxes(C, 1, 2)


def is_fixed(prior: Prior) -> bool:
    """Whether a hyperparameter is held at a value."""
    return isinstance(prior, Fixed)
