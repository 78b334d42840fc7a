"""Targets with known answers for the outer step, as it wants them (see `finetti.inference.hyper.Target`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.special
import scipy.stats

Array = np.ndarray


@dataclass
class Analytic:
    """A log density with known mean, sd, quantiles and log integral; gradient by differences."""

    names: tuple[str, ...]
    density: Callable[[Array], Array]
    mean: Array
    sd: Array
    quantile: Callable[[float], Array]  # of every coordinate
    log_integral: float
    start: Array
    cost: float = 1e-5
    calls: list[Array] = field(default_factory=list)

    def log_density(self, theta: Array) -> tuple[Array, tuple[Array, ...]]:
        self.calls.append(theta)
        return self.density(theta), (theta**2,)

    def gradient(self, theta: Array) -> tuple[Array, Array]:
        h, out = 1e-5, np.empty_like(theta)
        for k in range(theta.shape[1]):
            e = h * np.eye(theta.shape[1])[k]
            with np.errstate(invalid="ignore"):  # -inf less -inf, where there is no density
                out[:, k] = (self.density(theta + e) - self.density(theta - e)) / (2 * h)
        return self.density(theta), out

    def starts(self) -> Array:
        return np.atleast_2d(self.start)

    def curvature(self) -> Array:
        return np.ones(len(self.names))


def gaussian(d: int, cost: float = 1e-5) -> Analytic:
    """Correlated, with scales over one order of magnitude; integral exp(3)."""
    rng = np.random.default_rng(d)
    root = rng.normal(size=(d, d)) + 2.0 * np.eye(d)
    scale = np.geomspace(0.1, 1.0, d)
    cov = (root @ root.T) * np.outer(scale, scale)
    mean = rng.normal(size=d)
    dist, sd = scipy.stats.multivariate_normal(mean, cov), np.sqrt(np.diag(cov))
    return Analytic(
        tuple(f"x{k}" for k in range(d)),
        lambda t: np.atleast_1d(dist.logpdf(t)) + 3.0,
        mean, sd, lambda p: mean + sd * scipy.stats.norm.ppf(p), 3.0, mean + 0.5 * sd, cost,
    )  # fmt: skip


def skewed(d: int, cost: float = 1e-5) -> Analytic:
    """Independent logs of gamma(0.8) variables: an exponential left tail as of a log sd near zero."""
    shape = np.linspace(0.8, 3.0, d)
    psi, trigamma = scipy.special.digamma(shape), scipy.special.polygamma(1, shape)
    return Analytic(
        tuple(f"x{k}" for k in range(d)),
        lambda t: np.sum(shape * t - np.exp(np.minimum(t, 700.0)) - scipy.special.gammaln(shape), axis=1) - 2.0,
        psi, np.sqrt(trigamma), lambda p: np.log(scipy.stats.gamma(shape).ppf(p)), -2.0, np.zeros(d), cost,
    )  # fmt: skip


def bimodal(gap: float, cost: float = 1e-5, starts: Array | None = None) -> Analytic:
    """Two Gaussians in two dimensions, 70 % and 30 %, `gap` apart in the first, of different widths."""
    a, b, w = np.array([0.0, 1.0]), np.array([gap, -1.0]), np.array([0.7, 0.3])
    sa, sb = np.array([1.0, 0.5]), np.array([0.6, 1.0])

    def density(t: Array) -> Array:
        one = np.log(w[0]) + scipy.stats.norm.logpdf(t, a, sa).sum(axis=1)
        two = np.log(w[1]) + scipy.stats.norm.logpdf(t, b, sb).sum(axis=1)
        return np.logaddexp(one, two)

    mean = w[0] * a + w[1] * b
    var = w[0] * (sa**2 + (a - mean) ** 2) + w[1] * (sb**2 + (b - mean) ** 2)

    def quantile(p: float) -> Array:
        grid = np.linspace(-12, 12 + gap, 200_001)[:, None]
        cdf = w[0] * scipy.stats.norm.cdf(grid, a, sa) + w[1] * scipy.stats.norm.cdf(grid, b, sb)
        return np.array([np.interp(p, cdf[:, j], grid[:, 0]) for j in range(2)])

    both = np.array([a + 0.3, b + 0.3]) if starts is None else starts
    return Analytic(("x", "y"), density, mean, np.sqrt(var), quantile, 0.0, both, cost)
