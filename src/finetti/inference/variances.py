"""Variances of many genes as draws from one distribution: the posterior of (d0, s0^2).

    s_j^2 | sigma_j^2 ~ sigma_j^2 chi^2(d_j) / d_j              d_j residual degrees of freedom
    sigma_j^2 ~ d0 s0_j^2 / chi^2(d0)                            so that s_j^2 / s0_j^2 ~ F(d_j, d0)
    sigma_j^2 | s_j^2 ~ (d0 + d_j) s~_j^2 / chi^2(d0 + d_j),    s~_j^2 = (d0 s0_j^2 + d_j s_j^2) / (d0 + d_j)

s0_j^2 is common, or log s0_j^2 is a natural spline of average expression. theta = (log d0, level, slopes): the level is
the mean of log s0_j^2 over the genes, the slopes belong to columns of mean 0 and mean square 1.

Priors. w = D / (D + d0), D the median of d_j, is the weight that a typical gene's own variance keeps. It is uniform on
(0, 1), the uniform shrinkage prior (Daniels 1999, Canad. J. Statist. 27:567): log d0 is logistic around log D. At
d0 = infinity (all variances equal) w = 0 is an ordinary value with density 1. The level is flat, the right-invariant
prior of a scale, so that units change nothing; slopes are normal(0, 2.5) on the log scale, where 2.5 is a factor of 12.

With this prior P(d0 > x) falls as 1 / x times the relative likelihood of d0 = infinity. The mean of d0 exists, for
practical purposes, only where that likelihood is negligible; elsewhere it is NaN, and quantiles stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, gammaln, polygamma

from finetti.inference.hyper import HyperPosterior, Progress, Settings, explore
from finetti.inference.variance_kernels import common_scale, scale_by_row
from finetti.inference.variance_moments import moment_estimate
from finetti.linalg.blas import single_threaded
from finetti.linalg.system import over_chunks

__all__ = ["VarianceNodes", "VariancePosterior", "VarianceTarget", "closest_chi_square", "explore_variances"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# sd of the prior of the slopes of log s0^2
SLOPE_SD = 2.5
# argument from which the Stirling series of the gamma function is used: its error is then below 1e-13
STIRLING = 30.0
# without a trend a node costs microseconds: as many as give four digits; the general target is met twice over
PLAIN = Settings(mean_error=0.01, quantile_error=0.025, min_nodes=4096, min_seconds=0.4)
TRENDED = Settings(mean_error=0.01, quantile_error=0.025, min_seconds=0.2)
# the mean and the sd of d0 exist for practical purposes if d0 = infinity adds less than this share to them, when
# integrated up to so many times a typical d0
NEGLIGIBLE, REACH = 0.01, 1e3
# nodes that stand for the posterior: strips of d0, and levels in each
STRIPS, LEVELS = 8, 4


class VarianceTarget:
    """log p(theta) + sum_j log p(s_j^2 | theta), theta = (log d0, coefficients of log s0^2), for `hyper.explore`.

    Parameters
    ----------
    variance, df : (G,) residual variances and degrees of freedom, all above 0
    columns : (G, k), optional
        Basis of the trend, the constant first.
    """

    def __init__(self, variance: Floats, df: Floats, columns: Floats | None = None) -> None:
        order = np.argsort(df, kind="stable")
        kinds, start = np.unique(df[order], return_index=True)
        self.variance, self.df, self.columns = variance, df, columns
        self.half = kinds / 2.0
        self.start = np.append(start, df.size).astype(np.int64)
        self.count = np.diff(self.start).astype(np.float64)
        # in units of a typical variance: u = r exp(-eta) / b cannot overflow by units
        self.unit = float(np.exp(np.mean(np.log(variance))))
        self.r = np.ascontiguousarray((df / 2.0 * (variance / self.unit))[order])
        self.basis = None if columns is None else np.ascontiguousarray(columns[order])
        a = df[order] / 2.0
        ones = np.ones((df.size, 1)) if self.basis is None else self.basis
        self.pull = a @ ones  # sum of a_j basis_j
        self.fixed = float(a @ np.log(self.r)) - float(np.sum(self.count * gammaln(self.half)))
        self.typical = float(np.median(df))

    @property
    def names(self) -> tuple[str, ...]:
        k = 1 if self.basis is None else self.basis.shape[1]
        return ("log_d0", "level", *(f"slope{i}" for i in range(1, k)))

    @property
    def cost(self) -> float:
        """Nominal seconds per node."""
        return self.r.size * (2e-9 if self.basis is None else 1e-8) + 2e-7

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        return self._evaluate(theta, False)[0], ()

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        return self._evaluate(theta, True)

    def _evaluate(self, theta: Floats, slopes: bool) -> tuple[Floats, Floats]:
        S, G = theta.shape[0], self.half.size
        coefficients = np.ascontiguousarray(theta[:, 1:]).copy()
        coefficients[:, 0] -= np.log(self.unit)
        with np.errstate(all="ignore"):
            b = 0.5 * np.exp(np.clip(theta[:, 0], -600.0, 600.0))
            total = np.empty((S, G))
            share = np.empty((S if slopes else 0, G if self.basis is None else theta.shape[1] - 1))
            if self.basis is None:
                scale = np.exp(-coefficients[:, 0]) / b

                def work(part: slice) -> None:
                    common_scale(self.r, self.start, scale[part], total[part], share[part])
            else:
                basis = self.basis

                def work(part: slice) -> None:
                    scale_by_row(
                        self.r, self.start, basis, coefficients[part], b[part], self.half, total[part], share[part]
                    )

            over_chunks(work, S, grain=max(1, int(2e-4 / self.cost)))
            a, n = self.half, self.count
            ratio, ratio_slope = log_gamma_ratio(a, b[:, None])
            z = theta[:, 0] - np.log(self.typical)
            value = (
                self.fixed - coefficients @ self.pull - a @ n * np.log(b)
                - np.sum((a + b[:, None]) * total, axis=1) + ratio @ n
                - np.abs(z) - 2.0 * np.log1p(np.exp(-np.abs(z)))
                - 0.5 * np.sum(coefficients[:, 1:] ** 2, axis=1) / SLOPE_SD**2
            )  # fmt: skip
            if not slopes:
                return value, np.empty((0, 0))
            slope = np.empty_like(theta)
            slope[:, 1:] = -self.pull
            if self.basis is None:
                weighted = np.sum((a + b[:, None]) * share, axis=1)
                slope[:, 1] += weighted
            else:
                slope[:, 1:] += share
                weighted = share[:, 0]  # the first column of the basis is 1
            slope[:, 2:] -= coefficients[:, 1:] / SLOPE_SD**2
            slope[:, 0] = -(a @ n) + weighted - b * total.sum(axis=1) + ratio_slope @ n - np.tanh(0.5 * z)
        return value, slope

    def start_at(self, d0: float) -> Floats:
        """theta with this d0 and the mean of log s_j^2 that goes with it."""
        b = d0 / 2.0
        e = np.log(self.variance) - digamma(self.df / 2) + np.log(self.df / 2)
        columns = np.ones((e.size, 1)) if self.columns is None else self.columns
        coefficients = np.linalg.lstsq(columns, e, rcond=None)[0]
        coefficients[0] += digamma(b) - np.log(b)
        return np.array([np.log(d0), *coefficients])

    def starts(self) -> Floats:
        found = moment_estimate(self.variance, self.df, self.columns).d0
        first = float(np.clip(found, 0.2, 50.0 * self.typical))
        return np.array([self.start_at(d0) for d0 in (first, 20.0 * self.typical)])

    def curvature(self) -> Floats:
        """Fisher information at the first start, roughly."""
        b = 0.5 * float(np.exp(self.starts()[0, 0]))
        information = float(np.sum(self.count * self.half * b / (self.half + b + 1.0)))
        share = float(np.median(self.half / (self.half + b)))
        out = np.full(len(self.names), max(information, 1.0))
        out[0] = max(0.25 * self.r.size * share**2, 0.5)
        return out


def log_gamma_ratio(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """log(Gamma(a + b) / Gamma(b)), and b times its derivative by b, without cancellation at large b."""

    def tail(x: Floats) -> Floats:
        return (1.0 - (1.0 / 30.0 - 1.0 / (105.0 * x * x)) / (x * x)) / (12.0 * x)

    def tail_slope(x: Floats) -> Floats:
        return (1.0 - (0.1 - 1.0 / (21.0 * x * x)) / (x * x)) / (12.0 * x * x)

    a, b = np.broadcast_arrays(a, b)
    large = b > STIRLING
    big, small = np.where(large, b, STIRLING), np.where(large, STIRLING, b)
    log1p = np.log1p(a / big)
    series = (a + big - 0.5) * log1p + a * np.log(big) - a + tail(a + big) - tail(big)
    # digamma(x) = log x - 1 / (2 x) - tail_slope(x)
    series_slope = big * (log1p + tail_slope(big) - tail_slope(a + big)) + 0.5 * a / (a + big)
    value = np.where(large, series, gammaln(a + small) - gammaln(small))
    slope = np.where(large, series_slope, small * (digamma(a + small) - digamma(small)))
    return value, slope


@dataclass(frozen=True, eq=False)
class VarianceNodes:
    """A few weighted values of (d0, s0^2) that stand for the posterior; a single one, where it is an estimate.

    Attributes
    ----------
    weights : (K,) summing to one
    d0 : (K,) prior degrees of freedom, inf where all variances are equal
    coefficients : (K, k) of log s0^2: the level, then the slopes of the trend
    """

    weights: Floats
    d0: Floats
    coefficients: Floats

    def prior_variance(self, columns: Floats | None = None) -> Floats:
        """s0^2 at each node: (K, 1), or (K, G) with the columns (G, k) of a trend."""
        if columns is None:
            return np.exp(self.coefficients[:, :1])
        return np.exp(self.coefficients @ columns.T)


@dataclass(frozen=True, eq=False)
class VariancePosterior:
    """Weighted nodes of theta = (log d0, coefficients of log s0^2), and the target that they come from."""

    target: VarianceTarget
    hyper: HyperPosterior

    @cached_property
    def limit(self) -> float:
        """The limit of x P(d0 > x) for large x, in units of d0: what d0 = infinity weighs.

        The coefficients at d0 = infinity are integrated by Laplace's method, as exact as the verdict needs to be.
        """
        target = self.target
        far = float(np.log(1e7 * max(target.typical, 1.0)))
        theta = target.start_at(float(np.exp(far)))
        if target.basis is None:
            theta[1] = np.log(np.sum(target.df * target.variance) / np.sum(target.df))
        height = float(target.log_density(theta[None])[0][0])
        volume = 0.5 * (theta.size - 1) * np.log(2 * np.pi / np.sum(target.count * target.half))
        return float(np.exp(min(height + volume + far - self.hyper.log_evidence, 700.0)))

    def summary(self, probs: Floats) -> tuple[list[str], Floats]:
        """Labels d0, s0_squared, log_s0_squared[1], ... and rows of mean, sd, quantiles, ess, mcse.

        The mean and the sd of d0 are NaN where d0 = infinity is too plausible for them to exist.
        """
        hyper = self.hyper
        dense = None if hyper.surrogate is None else hyper.surrogate.theta

        def natural(theta: Floats) -> Floats:
            with np.errstate(over="ignore"):
                return np.column_stack([np.exp(theta[:, :2]), theta[:, 2:]])

        with np.errstate(over="ignore", invalid="ignore"):
            mean, sd, error, _ = hyper.weighted.moments(natural(hyper.theta), None if dense is None else natural(dense))
        quantiles = natural_quantiles(hyper, dense, probs)
        middle = float(np.exp(hyper.weights @ hyper.theta[:, 0]))
        # E[d0; d0 > x] grows as limit log x, and E[d0^2; d0 > x] as limit x
        if not self.limit * np.log(REACH) < NEGLIGIBLE * middle:
            mean[0] = sd[0] = error[0] = np.nan
        elif not self.limit * REACH * middle < NEGLIGIBLE * sd[0] ** 2:
            sd[0] = np.nan
        rows = np.column_stack([mean, sd, quantiles.T, (sd / error) ** 2, error])
        labels = ["d0", "s0_squared", *(f"log_s0_squared[{i}]" for i in range(1, mean.size - 1))]
        return labels, rows

    def nodes(self, strips: int = STRIPS, levels: int = LEVELS) -> VarianceNodes:
        """A rule of 8 x 4 nodes, unless told otherwise, for averages over the posterior, in place of its thousands.

        Moderated variances are linear in w = D / (D + d0), which gets the Gauss rule of its own posterior. At each w
        the level is about normal, its mean and variance polynomials of w, and gets a Gauss-Hermite rule; slopes are at
        their means given both. Tail probabilities of moderated t are then right to 1 % (30 genes) or 0.01 % (300).
        """
        theta, w, D = self.hyper.theta, self.hyper.weights, self.target.typical
        share = D / (D + np.exp(theta[:, 0]))
        centre = float(w @ share)
        scale = float(np.sqrt(w @ (share - centre) ** 2))
        z = (share - centre) / scale
        at, weight = gauss_rule(z, w, strips)
        level_at, residual = _regress(z, theta[:, 1], w, at, 4)
        variance_at, _ = _regress(z, residual**2, w, at, 2)
        # a polynomial may dip below zero at the ends
        sd_at = np.sqrt(np.maximum(variance_at, 0.05 * (w @ residual**2)))
        normal, normal_weight = np.polynomial.hermite_e.hermegauss(levels)
        across = sd_at[:, None] * normal
        coefficients = np.empty((strips * levels, theta.shape[1] - 1))
        coefficients[:, 0] = (level_at[:, None] + across).ravel()
        for k in range(2, theta.shape[1]):
            slope_at, rest = _regress(z, theta[:, k], w, at, 2)
            tilt = (w @ (rest * residual)) / (w @ residual**2)
            coefficients[:, k - 1] = (slope_at[:, None] + tilt * across).ravel()
        weights = np.outer(weight, normal_weight / normal_weight.sum()).ravel()
        share_at = np.clip(centre + scale * at, 1e-12, 1.0 - 1e-12)
        return VarianceNodes(weights, np.repeat(D / share_at - D, levels), coefficients)


def gauss_rule(z: Floats, weights: Floats, n: int) -> tuple[Floats, Floats]:
    """Gauss rule of n nodes for a weighted sample: exact for its polynomials up to degree 2 n - 1.

    Lanczos on the sample gives the recurrence of its orthogonal polynomials, whose Jacobi matrix has the nodes as
    eigenvalues (Golub and Welsch 1969, Math. Comp. 23:221).

    Examples
    --------
    >>> x, w = gauss_rule(np.linspace(-1, 1, 2001), np.full(2001, 1 / 2001), 2)
    >>> x.round(2).tolist(), w.round(2).tolist()
    ([-0.58, 0.58], [0.5, 0.5])
    """
    basis = [np.sqrt(weights / weights.sum())]
    diagonal, beside = np.empty(n), np.empty(n)
    for k in range(n):
        v = z * basis[k]
        diagonal[k] = basis[k] @ v
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for u in basis:
                v = v - (u @ v) * u
        beside[k] = np.linalg.norm(v)
        basis.append(v / beside[k])
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return values, vectors[0] ** 2


def _regress(z: Floats, y: Floats, w: Floats, at: Floats, degree: int) -> tuple[Floats, Floats]:
    """Weighted polynomial of y on z: its values at other points, and the residuals."""
    root = np.sqrt(w)
    powers = np.polynomial.polynomial.polyvander(z, degree)
    coefficients = np.linalg.lstsq(powers * root[:, None], y * root, rcond=None)[0]
    return np.polynomial.polynomial.polyval(at, coefficients), y - powers @ coefficients


def natural_quantiles(hyper: HyperPosterior, dense: Floats | None, probs: Floats) -> Floats:
    """Quantiles (P, k) of d0, s0^2 and the slopes, taken on the unconstrained scale."""
    out, _ = hyper.weighted.quantiles(hyper.theta, dense, probs)
    order = np.argsort(probs)
    out[order] = np.maximum.accumulate(out[order], axis=0)
    out[:, :2] = np.exp(out[:, :2])
    return out


def explore_variances(
    variance: Floats, df: Floats, columns: Floats | None = None, seed: int = 0, progress: Progress | None = None
) -> VariancePosterior:
    """Explore the posterior of (log d0, coefficients of log s0^2).

    Parameters
    ----------
    variance, df : (G,) residual variances and degrees of freedom, all above 0
    columns : (G, k), optional
        Basis of the trend, the constant first.

    Examples
    --------
    >>> s2 = np.random.default_rng(1).f(4, 10, size=500)
    >>> labels, rows = explore_variances(s2, np.full(500, 4.0)).summary(np.array([0.05, 0.95]))
    >>> labels, bool(rows[0, 2] < 10 < rows[0, 3])
    (['d0', 's0_squared'], True)
    """
    target = VarianceTarget(variance, df, columns)
    with single_threaded():  # many small matrices, and threads of our own over the nodes
        return VariancePosterior(target, explore(target, seed, PLAIN if columns is None else TRENDED, progress))


def closest_chi_square(weights: Floats, variance: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Scaled inverse chi-square closest to a mixture of such, in Kullback-Leibler divergence from the mixture.

    The density of 1 / sigma^2 is a gamma, an exponential family, and the closest member has the mixture's means of
    1 / sigma^2 and of its logarithm.

    Parameters
    ----------
    weights : (K,) summing to one
    variance, df : (K, G)

    Returns
    -------
    variance, df : (G,)

    Examples
    --------
    >>> s2, df = closest_chi_square(np.array([0.5, 0.5]), np.array([[2.0], [2.0]]), np.array([[6.0], [6.0]]))
    >>> s2.round(9).tolist(), df.round(6).tolist()
    ([2.0], [6.0])
    """
    mean = weights @ (1.0 / variance)
    half = df / 2.0
    # log(a) - digamma(a) without cancellation where a is large
    gap = _log_minus_digamma(half)
    # log E[x] - E[log x] for x = 1 / sigma^2: the spread between nodes, and the mean spread at nodes
    between = np.log(mean) + weights @ np.log(variance)
    target = np.maximum(between, 0.0) + weights @ gap
    # log(a) - digamma(a) lies between 1 / (2 a) and 1 / a; Newton on its reciprocal, which is nearly linear
    with np.errstate(divide="ignore", invalid="ignore"):
        a = 0.5 / target
        for _ in range(20):
            value = _log_minus_digamma(a)
            slope = np.where(a > 1e6, -0.5 / a**2, 1.0 / a - polygamma(1, np.minimum(a, 1e6)))
            step = (1.0 / target - 1.0 / value) * value**2 / -slope
            a = a + np.where(np.isfinite(step), step, 0.0)
            if np.all(~np.isfinite(step) | (np.abs(step) < 1e-10 * a)):
                break
    return 1.0 / mean, 2.0 * a


def _log_minus_digamma(a: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        series = 0.5 / a + 1.0 / (12.0 * a**2)
    small = np.minimum(a, 1e5)
    return np.where(a > 1e4, series, np.log(small) - digamma(small))
