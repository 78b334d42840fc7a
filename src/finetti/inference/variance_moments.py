"""limma's estimate of how variances are distributed: moments of log s_j^2, and a spline in average expression.

With s_j^2 / s0_j^2 ~ F(d_j, d0) and h(d) = digamma(d / 2) - log(d / 2),

    E log s_j^2 = log s0_j^2 + h(d_j) - h(d0),   Var log s_j^2 = trigamma(d_j / 2) + trigamma(d0 / 2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, polygamma

__all__ = ["Moments", "Trend", "learn_trend", "moment_estimate"]

Floats = npt.NDArray[np.float64]

# a share of the median variance below which limma lifts variances
LIFT = 1e-5


# --- the trend -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trend:
    """Natural cubic spline of average expression: the constant, then columns of mean 0 and mean square 1."""

    low: float
    width: float
    knots: Floats
    centre: Floats
    turn: Floats

    def columns(self, x: npt.ArrayLike) -> Floats:
        """Return (G, k) values of the basis at average expressions x (G,), the constant 1 first."""
        raw = _natural(np.asarray(x, dtype=float), self)
        return np.column_stack([np.ones(raw.shape[0]), (raw - self.centre) @ self.turn])


def learn_trend(x: Floats) -> Trend | None:
    """Return the spline that limma uses: knots at quantiles, 4 coefficients in all (fewer below 30 genes).

    None where all values are the same.
    """
    different = np.unique(x).size
    size = min(1 + (x.size >= 3) + (x.size >= 6) + (x.size >= 30), different)
    if size < 2:
        return None
    low, width = float(x.min()), float(np.ptp(x))
    knots = np.unique(np.quantile((x - low) / width, np.linspace(0.0, 1.0, size)))
    bare = Trend(low, width, knots, np.zeros(knots.size - 1), np.eye(knots.size - 1))
    raw = _natural(x, bare)
    centre = raw.mean(axis=0)
    _, R = np.linalg.qr(raw - centre)
    R *= np.sign(np.diag(R))[:, None]  # else the order of the genes decides
    turn = np.linalg.inv(R) * np.sqrt(x.size)
    return Trend(low, width, knots, centre, turn)


def _natural(x: Floats, trend: Trend) -> Floats:
    """Truncated powers, linear beyond the outer knots, less the constant (Hastie et al. 2009, section 5.2.1)."""
    t, knots = (x - trend.low) / trend.width, trend.knots

    def ramp(k: int) -> Floats:
        return (np.maximum(t - knots[k], 0.0) ** 3 - np.maximum(t - knots[-1], 0.0) ** 3) / (knots[-1] - knots[k])

    last = knots.size - 2
    return np.column_stack([t, *(ramp(k) - ramp(last) for k in range(last))])


# --- limma's estimate ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Moments:
    """Estimates: d0 (may be inf), and the coefficients of log s0^2 (one, or one per column of the trend)."""

    d0: float
    coefficients: Floats
    n_lifted: int = 0


def moment_estimate(variance: Floats, df: Floats, columns: Floats | None = None) -> Moments:
    """Estimate d0 and s0^2 from mean and variance of log s_j^2, exactly as limma does.

    Parameters
    ----------
    variance, df : (G,) residual variances and degrees of freedom, df > 0
    columns : (G, k), optional
        Basis of the trend, the constant first.

    References
    ----------
    Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Stat. Appl. Genet. Mol. Biol. 3(1):3, section 6.2. The trend: Sartor et al. (2006), BMC Bioinformatics
    7:538. Variances below 1e-5 of their median are lifted to it, as in limma's fitFDist.

    Examples
    --------
    >>> moment_estimate(np.array([1.0, 1.1, 0.9, 1.0]), np.full(4, 10.0)).d0
    inf
    """
    middle = float(np.median(variance))
    floor = LIFT * (middle if middle > 0 else 1.0)
    x = np.maximum(variance, floor)
    e = np.log(x) - digamma(df / 2) + np.log(df / 2)
    if columns is None:
        coefficients, left, lost = np.array([e.mean()]), e - e.mean(), 1
    else:
        coefficients = np.linalg.lstsq(columns, e, rcond=None)[0]
        left, lost = e - columns @ coefficients, columns.shape[1]
    excess = float(left @ left / (e.size - lost) - np.mean(polygamma(1, df / 2)))
    n_lifted = int(np.sum(variance < floor))
    if excess <= 0:  # the variances differ less than chance alone would make them
        return Moments(np.inf, coefficients if columns is not None else np.array([np.log(x.mean())]), n_lifted)
    d0 = 2.0 * _trigamma_inverse(excess)
    coefficients = coefficients.copy()
    coefficients[0] += digamma(d0 / 2) - np.log(d0 / 2)
    return Moments(d0, coefficients, n_lifted)


def _trigamma_inverse(x: float) -> float:
    """Solve trigamma(y) = x: Newton on 1 / trigamma, which is convex and nearly linear (Smyth 2004, appendix)."""
    if x > 1e7:
        return 1.0 / np.sqrt(x)
    if x < 1e-6:
        return 1.0 / x
    y = 0.5 + 1.0 / x
    for _ in range(50):
        value = float(polygamma(1, y))
        step = value * (1.0 - value / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y
