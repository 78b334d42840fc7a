"""Are these n values draws from Uniform(0, 1): simultaneous bands of their ECDF, and the p-value of the same test.

The i-th smallest of n uniform values has the law Beta(i, n - i + 1). The band gives every order statistic the same
pointwise level gamma,

    l_i = F_i^-1(gamma / 2) <= u_(i) <= F_i^-1(1 - gamma / 2) = h_i,   i = 1..n,

with gamma so small that all n statements hold together with probability `prob`. For the ECDF this is the band of
Säilynoja, Bürkner and Vehtari (2022, Statistics and Computing 32, 32): the count N(z) of values up to z is
Binomial(n, z), and N(z) >= i is the same event as u_(i) <= z. It is taken at all z at once, so that no grid is chosen.

The simultaneous probability is exact, without simulation. A Poisson process of rate n on (0, 1), given that it has n
points, is n uniform values; its count passes the 2n limits in their order, and between two of them it is convolved
with a Poisson law of mean about one half. All terms are positive, and each needs few (an idea of Moscovich and Nadler
2017, Statistics and Probability Letters 123, 177-182, who use Fourier transforms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, betaincinv

from finetti.errors import FinettiError
from finetti.linalg.jit import kernel

__all__ = ["Band", "ecdf_band", "uniform_p_value"]

Floats = npt.NDArray[np.float64]

# beyond this many values a band takes more than seconds
MOST_VALUES = 100_000
# relative accuracy of the probability of leaving the band
CLOSE = 1e-6


@dataclass(frozen=True)
class Band:
    """Limits that the whole ECDF of n uniform values keeps with probability `prob`.

    z, lower, upper : (2n + 2,) the least and the largest value that the ECDF may have on [z_k, z_k+1), right-continuous
        steps from z = 0 to z = 1
    low, high : (n,) the same as limits of the order statistics, low_i <= u_(i) <= high_i: the band of a QQ plot
    level : pointwise probability of leaving the band, the same at every order statistic
    prob : simultaneous probability of staying inside
    """

    n: int
    prob: float
    level: float
    z: Floats
    lower: Floats
    upper: Floats
    low: Floats
    high: Floats

    def contains(self, u: npt.ArrayLike) -> bool:
        """Whether the ECDF of n values stays inside, everywhere."""
        ordered = np.sort(np.asarray(u, dtype=np.float64))
        return bool(np.all((ordered >= self.low) & (ordered <= self.high)))


def ecdf_band(n: int, prob: float = 0.95) -> Band:
    """Simultaneous band of the ECDF of n uniform values; subtract z for the band of the ECDF difference.

    Parameters
    ----------
    n : int
        Number of values, 1 to 100,000.
    prob : float
        Probability that the whole ECDF stays inside, for uniform values.

    Returns
    -------
    Band

    Raises
    ------
    FinettiError
        For a number or probability outside these ranges.

    Examples
    --------
    >>> band = ecdf_band(100)
    >>> at = np.searchsorted(band.z, 0.5, side="right") - 1
    >>> float(band.lower[at]), float(band.upper[at])
    (0.35, 0.65)
    >>> round(band.level, 4)
    0.0022
    """
    if isinstance(n, bool) or not 1 <= n <= MOST_VALUES or int(n) != n:
        raise FinettiError(f"n={n!r} values cannot have a band; n must be a whole number from 1 to {MOST_VALUES:,}")
    if not 0.0 < prob < 1.0:
        raise FinettiError(f"prob={prob!r} must lie strictly between 0 and 1, such as 0.95")
    return _band(int(n), float(prob))


@lru_cache(maxsize=64)
def _band(n: int, prob: float) -> Band:
    level = _level(n, prob)
    low, high = _limits(n, level)
    z = np.concatenate([[0.0], np.sort(np.concatenate([low, high])), [1.0]])
    lower = np.searchsorted(high, z, side="right") / n
    upper = np.searchsorted(low, z, side="right") / n
    for array in (z, lower, upper, low, high):
        array.setflags(write=False)  # the band is shared by all who ask for it
    return Band(n, prob, level, z, lower, upper, low, high)


def uniform_p_value(u: npt.ArrayLike) -> float:
    """p-value of uniformity: of the smallest pointwise tail probability of any order statistic.

    It is below 0.05 exactly where the ECDF leaves the 95 % band. Values of exactly 0 or 1 are impossible under
    uniformity, and give 0.

    Parameters
    ----------
    u : array_like of shape (n,)
        Values in [0, 1]. Without any the p-value is NaN.

    Raises
    ------
    FinettiError
        For values outside [0, 1] or NaN.

    Examples
    --------
    >>> round(uniform_p_value([0.1, 0.35, 0.5, 0.8]), 2)
    0.97
    >>> uniform_p_value([0.001, 0.002, 0.004, 0.005]) < 1e-6
    True
    """
    ordered = np.sort(np.asarray(u, dtype=np.float64).ravel())
    n = ordered.size
    if n == 0:
        return math.nan
    if n > MOST_VALUES:
        raise FinettiError(f"{n:,} values are too many for this test; at most {MOST_VALUES:,}")
    if not (ordered[0] >= 0.0 and ordered[-1] <= 1.0):
        raise FinettiError("a test of uniformity takes values between 0 and 1; some are outside, or not a number")
    i = np.arange(1, n + 1)
    level = 2.0 * min(float(np.min(betainc(i, n - i + 1, ordered))), float(np.min(betaincc(i, n - i + 1, ordered))))
    return 1.0 if level >= 1.0 else min(max(_leaving(n, level), 0.0), 1.0)


def _limits(n: int, level: float) -> tuple[Floats, Floats]:
    """The central 1 - level interval of every order statistic, mirror images of each other."""
    i = np.arange(1, n + 1)
    low = np.asarray(betaincinv(i, n - i + 1, 0.5 * level), dtype=np.float64)
    return low, np.ascontiguousarray(1.0 - low[::-1])


def _leaving(n: int, level: float) -> float:
    """Probability that some order statistic of n uniform values is outside its central 1 - level interval."""
    if level <= 0.0:
        return 0.0
    low, high = _limits(n, level)
    # a path ends with n points; Poisson(n) has exactly n with probability exp(log_all)
    log_all = n * math.log(n) - n - math.lgamma(n + 1.0)
    return 1.0 - _staying(low, high) / math.exp(log_all)


@kernel()
def _staying(low, high):  # type: ignore[no-untyped-def]
    """Probability that a Poisson process of rate n on (0, 1) has n points whose order statistics keep all limits."""
    n = low.shape[0]
    p, new = np.zeros(n + 1), np.zeros(n + 1)
    pmf = np.zeros(n + 1)
    p[0] = 1.0
    first, last = 0, 0  # counts that are alive
    i, j = 0, 0  # low limits and high limits passed so far
    t = 0.0
    while True:
        if j < n and (i >= n or high[j] <= low[i]):
            at, kind = high[j], 1
        elif i < n:
            at, kind = low[i], 0
        else:
            at, kind = 1.0, 2
        mean = n * max(at - t, 0.0)
        t = at
        top = i if i < n else n  # at most as many points as low limits have been passed
        # terms of the Poisson law until the rest cannot matter
        terms = 1
        pmf[0] = math.exp(-mean)
        while terms <= top - first:
            pmf[terms] = pmf[terms - 1] * mean / terms
            terms += 1
            if terms > mean and pmf[terms - 1] < 1e-18:
                break
        high_count = min(last + terms - 1, top)
        for k in range(first, high_count + 1):
            total = 0.0
            for m in range(max(first, k - terms + 1), min(last, k) + 1):
                total += p[m] * pmf[k - m]
            new[k] = total
        p, new = new, p
        last = high_count
        if kind == 0:
            i += 1
        elif kind == 1:
            j += 1
            if first < j:  # fewer points than high limits passed: the path has left
                first = j
            if last < first:
                return 0.0
        else:
            return p[n] if last >= n else 0.0


def _level(n: int, prob: float) -> float:
    """The pointwise level at which the probability of leaving is 1 - prob, by bracketed false position in logs."""
    target = math.log1p(-prob)

    def gap(log_level: float) -> float:
        leaving = _leaving(n, math.exp(log_level))
        return (math.log(leaving) if leaving > 0.0 else -800.0) - target

    # of n dependent statements at least one holds with more than the level of each, and less than their sum
    a, b = target - math.log(n), min(target, -1e-12)
    fa, fb = gap(a), gap(b)
    side = 0
    for _ in range(60):
        if b - a < CLOSE:
            break
        x = (a * fb - b * fa) / (fb - fa) if fb > fa else 0.5 * (a + b)
        x = x if a < x < b else 0.5 * (a + b)
        fx = gap(x)
        if abs(fx) < CLOSE:
            return math.exp(x)
        if fx < 0.0:  # the Illinois rule: an end that stays is given less weight
            a, fa = x, fx
            fb = 0.5 * fb if side == -1 else fb
            side = -1
        else:
            b, fb = x, fx
            fa = 0.5 * fa if side == 1 else fa
            side = 1
    return math.exp(0.5 * (a + b))
