"""Truths to screen: settings drawn from a seed, with the rule of one who knows the truth.

    x_j = null_mean se_j + b_j + null_sd se_j e_j,   b_j = 0 with probability pi0, else from the slab

The oracle's probability of the null is computed here, in closed form or by Gauss-Hermite quadrature, with no help from
finetti. Whether a test is null is drawn test by test, so that the oracle is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr

__all__ = ["SETTINGS", "Draw", "Setting"]

Floats = npt.NDArray[np.float64]

NORMAL = np.inf
HERMITE = 200  # points: t errors of 5 df under a slab of sd 3 are then exact to 1e-9
ROOT_2PI_LOG = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True)
class Draw:
    """What is observed, and what is true: effect, se, set of each test, effect behind it, the oracle's lfdr, (n,)."""

    x: Floats
    se: Floats
    group: npt.NDArray[np.int64]
    b: Floats
    lfdr: Floats


@dataclass(frozen=True)
class Setting:
    """One truth.

    pi0 : share of nulls; of several equally large sets of tests where a sequence
    slab : "normal" (sd `sd`), "half" (|N(0, sd^2)|) or "t3" (`sd` times a t with 3 df)
    se_spread : sd of log se; df : of the errors; n : tests, where not as asked for
    """

    name: str
    words: str
    pi0: float | Sequence[float]
    sd: float = 3.0
    slab: str = "normal"
    null_mean: float = 0.0
    null_sd: float = 1.0
    se_spread: float = 0.0
    df: float = NORMAL
    n: int | None = None

    @property
    def null(self) -> bool:
        """Whether there is nothing to find."""
        return not isinstance(self.pi0, Sequence) and self.pi0 == 1.0

    @property
    def standard(self) -> bool:
        """Whether the null is N(0, 1), or the t with known df."""
        return self.null_mean == 0.0 and self.null_sd == 1.0

    def draw(self, run: int, n: int) -> Draw:
        """Data set number `run`, which depends on nothing but the setting's name, the number and n."""
        n = self.n or n
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), run])
        pi0 = np.atleast_1d(np.asarray(self.pi0, dtype=float))
        group = np.arange(n) % pi0.size
        share = pi0[group]
        se = np.exp(self.se_spread * rng.normal(size=n)) if self.se_spread else np.ones(n)
        alive = rng.random(n) >= share
        size = rng.standard_t(3, n) if self.slab == "t3" else rng.normal(size=n)
        b = np.where(alive, self.sd * (np.abs(size) if self.slab == "half" else size), 0.0)
        errors = rng.normal(size=n) if np.isinf(self.df) else rng.standard_t(self.df, n)
        x = self.null_mean * se + b + self.null_sd * se * errors
        return Draw(x, se, group, b, self.lfdr(x, se, share))

    def lfdr(self, x: Floats, se: Floats, share: Floats) -> Floats:
        """Probability that each test is null, all else known."""
        e, unit = x - self.null_mean * se, self.null_sd * se
        log_f0 = _log_normal(e, unit) if np.isinf(self.df) else _log_t(e / unit, self.df) - np.log(unit)
        with np.errstate(divide="ignore", over="ignore"):
            odds = (1.0 - share) / share * np.exp(self.log_slab(e, unit) - log_f0)
        return 1.0 / (1.0 + odds)

    def log_slab(self, e: Floats, unit: Floats) -> Floats:
        """Log density of what is observed of an effect that is not null."""
        total = np.sqrt(unit**2 + self.sd**2)
        if self.slab in ("normal", "half") and np.isinf(self.df):
            plain = _log_normal(e, total)
            return plain if self.slab == "normal" else plain + np.log(2.0) + log_ndtr(e * self.sd / (unit * total))
        y, w = np.polynomial.hermite_e.hermegauss(HERMITE)
        if np.isinf(self.df):  # heavy slab, normal errors
            values = np.exp(_log_t((e[:, None] - unit[:, None] * y) / self.sd, 3.0)) @ w / self.sd
        else:  # normal slab, t errors
            values = np.exp(_log_t((e[:, None] - self.sd * y) / unit[:, None], self.df)) @ w / unit
        return np.log(values / w.sum())


def _log_normal(e: Floats, sd: Floats) -> Floats:
    return -0.5 * (e / sd) ** 2 - np.log(sd) - ROOT_2PI_LOG


def _log_t(t: Floats, df: float) -> Floats:
    constant = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * np.log(np.pi * df)
    return constant - 0.5 * (df + 1.0) * np.log1p(t * t / df)


SETS = tuple(float(p) for p in np.round(np.linspace(0.5, 0.99, 10), 4))

SETTINGS = (
    Setting("sparse", "pi0 0.98, slab sd 3", 0.98),
    Setting("moderate", "pi0 0.9, slab sd 3", 0.9),
    Setting("dense", "pi0 0.5, slab sd 3", 0.5),
    Setting("dense and weak", "pi0 0.5, slab sd 2", 0.5, sd=2.0),
    Setting("asymmetric", "pi0 0.9, effects abs(N(0, 3²)), all positive", 0.9, slab="half"),
    Setting("heavy slab", "pi0 0.9, effects 2 t with 3 df", 0.9, sd=2.0, slab="t3"),
    Setting("unequal se", "pi0 0.9, slab sd 3, log se of sd 0.5", 0.9, se_spread=0.5),
    Setting("t errors", "pi0 0.8, slab sd 5, errors t with 5 df, which all methods are told", 0.8, sd=5.0, df=5.0),
    Setting("inflated null", "pi0 0.95, slab sd 4, null sd 1.4", 0.95, sd=4.0, null_sd=1.4),
    Setting("shifted and inflated", "pi0 0.95, slab sd 4, null mean 0.2, null sd 1.4", 0.95, sd=4.0, null_mean=0.2,
            null_sd=1.4),
    Setting("mildly inflated", "pi0 0.9, slab sd 3, null sd 1.15", 0.9, null_sd=1.15),
    Setting("narrow null", "pi0 0.95, slab sd 3, null sd 0.75", 0.95, null_sd=0.75),
    Setting("informative sets", "10 sets of pi0 from 0.5 to 0.99, slab sd 3", SETS),
    Setting("few tests", "200 tests, pi0 0.95, slab sd 3", 0.95, n=200),
    Setting("all null", "nothing to find, null N(0, 1)", 1.0),
    Setting("all null, inflated", "nothing to find, null sd 1.4", 1.0, null_sd=1.4),
)  # fmt: skip
