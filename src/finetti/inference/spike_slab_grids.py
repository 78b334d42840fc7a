"""Student t distributions as finite mixtures of normals: quadrature that becomes part of the model.

With v ~ inverse-gamma(df / 2, df / 2) and u = log v,

    t_df(x) = int N(x; 0, e^u) p(u) du,   log p(u) = const - (df / 2) (u + e^-u - 1).

The trapezoidal rule converges exponentially here. A shift of u by i y multiplies the integrand's mass by at most
cos(y)^-a, a = (df + 1) / 2, so that a step h leaves the relative error

    2 exp(-2 pi y / h) cos(y)^-a,   at its best where tan(y) = 2 pi / (h a)

(Trefethen and Weideman 2014, SIAM Review 56, theorem 5.1). Convolved with a normal slab, or as the slab of normal
errors, the variances of the components add, nothing else changes: every density of a screen with t errors or a t slab
is a finite sum of normal ones, and so are its posterior moments and probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln

__all__ = ["ErrorGrids", "error_grids", "log_normaliser", "t_slab"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# relative errors aimed at: of each part of the truncation and of the step
ERRORS, SLAB = 1e-10, 1e-9
# tests with more than this many different df share grids: of bands, each this much wider than its lower end
OWN_GRIDS, BAND = 8, 1.5
# df from which t errors are normal ones: log densities differ by z^4 / (4 df) at most
NEARLY_NORMAL = 1e10
# the t slab is exact to SLAB for effects up to this many of its scales, to 1e-6 for ten times as many
SLAB_REACH = 100.0


def _fall(x: float) -> float:
    """x + e^-x - 1 without cancellation."""
    return x * x / 2.0 - x**3 / 6.0 + x**4 / 24.0 if abs(x) < 1e-3 else float(x + np.expm1(-x))


def _step(a: float, error: float) -> float:
    """The longest step of the trapezoidal rule for an integrand that falls as a (u + e^-u - 1)."""

    def gain(log_h: float) -> float:
        h = np.exp(log_h)
        y = np.arctan2(2.0 * np.pi, h * a)
        return float(2.0 * np.pi * y / h + a * np.log(np.cos(y)) + np.log(error / 2.0))

    return float(np.exp(brentq(gain, np.log(1e-7), np.log(3.0))))


def _ends(low: float, reach: float, error: float) -> tuple[float, float]:
    """Where the integrand of df = `low` has fallen to `error` of its top: at 0 on the left, at `reach` on the right."""
    drop = -np.log(error)
    left = brentq(lambda x: _fall(-x) - 2.0 * drop / low, 0.0, 20.0)
    right = brentq(lambda x: _fall(x) - 2.0 * drop / (low + 1.0), 0.0, 4.0 * drop + 10.0)
    return -float(left), float(np.log((low + reach**2) / (low + 1.0)) + right)


def _points(low: float, high: float, reach: float, error: float) -> tuple[Floats, float]:
    """Points u and their distance, for all df in [low, high] and deviations up to `reach`."""
    h = _step(0.5 * (high + 1.0), error)
    left, right = _ends(low, reach, error)
    return np.arange(np.floor(left / h), np.ceil(right / h) + 1.0) * h, h


def log_normaliser(df: Floats) -> Floats:
    """Log of (df / 2)^(df / 2) e^(-df / 2) / Gamma(df / 2), by Stirling's series where the terms would cancel."""
    a = 0.5 * np.asarray(df, dtype=np.float64)
    with np.errstate(all="ignore"):
        r = 1.0 / a
        stirling = 0.5 * np.log(a / (2.0 * np.pi)) - r / 12.0 + r**3 / 360.0 - r**5 / 1260.0 + r**7 / 1680.0
        return np.where(a > 15.0, stirling, a * np.log(a) - a - gammaln(a))


def _log_t_constant(df: Floats) -> Floats:
    """Log of the density at 0 of a t with df degrees of freedom, without -log(2 pi) / 2; 0 for infinite df.

    N(0; 0, e^u) integrates to exp(log_normaliser(df)) times the integral of exp(-(df + 1) / 2 u - df / 2 e^-u).
    """
    with np.errstate(all="ignore"):
        a, b = 0.5 * df, 0.5 * (df + 1.0)
        back = log_normaliser(df) - log_normaliser(df + 1.0)
        # both normalisers stripped to Gamma(b) / (Gamma(a) sqrt(a)), with (a / b)^b e^(b - a) left over
        ratio = back + b * np.log1p(0.5 / a) - 0.5
    return np.where(np.isinf(df), 0.0, ratio)


@dataclass(frozen=True)
class ErrorGrids:
    """Normal components of every test's errors, in units of their scale.

    ptr : (B + 1,) first component of each band; v, fall : variances and u + e^-u - 1 of all components
    band, half_df, log_weight, log_null : (n,) band of each test, df / 2 (0 for normal errors), the part of the log
        weights that all its components share, and the log density of its t at 0 times sqrt(2 pi)
    """

    ptr: Ints
    v: Floats
    fall: Floats
    band: Ints
    half_df: Floats
    log_weight: Floats
    log_null: Floats

    @property
    def most(self) -> int:
        """The largest number of components of any test."""
        return int(np.diff(self.ptr).max())


def error_grids(df: Floats, reach: float) -> ErrorGrids:
    """Components of t errors of `df` (n,), infinite for normal ones, for deviations up to `reach` scales.

    Examples
    --------
    >>> error_grids(np.array([np.inf, 5.0]), 10.0).band.tolist()
    [0, 1]
    """
    n, df = df.size, np.where(df > NEARLY_NORMAL, np.inf, df)
    band, ptr = np.zeros(n, dtype=np.int64), [0, 1]
    v, fall, steps = [np.ones(1)], [np.zeros(1)], [1.0]
    finite = np.isfinite(df)
    values = np.unique(df[finite])
    if values.size > OWN_GRIDS:
        number = np.floor(np.log(values / values[0] * (1.0 + 1e-12)) / np.log(BAND)).astype(np.int64)
        groups = [values[number == k] for k in np.unique(number)]
    else:
        groups = [values[i : i + 1] for i in range(values.size)]
    firsts = np.array([g[0] for g in groups])
    band[finite] = np.searchsorted(firsts, df[finite], side="right") if groups else 0
    for g in groups:
        u, h = _points(float(g[0]), float(g[-1]), reach, ERRORS)
        v.append(np.exp(u))
        fall.append(np.array([_fall(x) for x in u]))
        ptr.append(ptr[-1] + u.size)
        steps.append(h)
    half = np.where(finite, 0.5 * df, 0.0)
    constant = np.where(finite, log_normaliser(df), 0.0) + np.log(np.array(steps))[band]
    return ErrorGrids(
        np.array(ptr), np.concatenate(v), np.concatenate(fall), band, half, constant, _log_t_constant(df)
    )  # fmt: skip


@lru_cache(maxsize=8)
def t_slab(df: float) -> tuple[Floats, Floats]:
    """Log weights and variances, relative to that of the t itself, of the components of a t slab; df > 2."""
    u, h = _points(df, df, SLAB_REACH, SLAB)
    log_c = float(log_normaliser(np.array(df))) + np.log(h) - 0.5 * df * np.array([_fall(x) for x in u])
    return log_c, np.exp(u) * (df - 2.0) / df
