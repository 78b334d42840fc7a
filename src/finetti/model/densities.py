"""The prior distributions as frozen values: normalised log densities and their derivatives.

Users write the lower-case constructors of `finetti.model.priors`; here is what they make. Everything
is plain numpy and scipy.special, vectorised, so that one call serves many hyperparameter nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log, pi
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

from finetti.errors import PriorError
from finetti.model.distribution import Array, OnTheHalfLine, OnTheLine, Prior, check_number, exact

_LOG_2 = log(2.0)
_HALF_LOG_2PI = 0.5 * log(2.0 * pi)


def _t_log_density(z: Array, df: float, scale: float) -> Array:
    # The beta function keeps its digits for a large df, where a difference of log gammas loses them.
    return -betaln(0.5 * df, 0.5) - 0.5 * log(df) - log(scale) - 0.5 * (df + 1.0) * np.log1p(z * z / df)


def _t_slope(z: Array, df: float, scale: float) -> Array:
    return -(df + 1.0) * z / (df + z * z) / scale


@dataclass(frozen=True, repr=False)
class Normal(OnTheLine):
    """Normal with `mean` and standard deviation `sd`."""

    name: ClassVar[str] = "normal"
    mean: float
    sd: float

    def __post_init__(self) -> None:
        check_number(self, "mean")
        check_number(self, "sd", above=0.0)

    def tail_index(self) -> float:
        return inf

    def _log_density(self, x: Array) -> Array:
        z = (x - self.mean) / self.sd
        return -0.5 * z * z - log(self.sd) - _HALF_LOG_2PI

    def _slope(self, x: Array) -> Array:
        return -(x - self.mean) / self.sd / self.sd


@dataclass(frozen=True, repr=False)
class StudentT(OnTheLine):
    """Student t with `df` degrees of freedom around `mean`; sd = scale sqrt(df / (df - 2)) for df > 2."""

    name: ClassVar[str] = "student_t"
    df: float
    mean: float
    scale: float

    def __post_init__(self) -> None:
        check_number(self, "df", above=0.0)
        check_number(self, "mean")
        check_number(self, "scale", above=0.0)

    def tail_index(self) -> float:
        return self.df

    def _log_density(self, x: Array) -> Array:
        return _t_log_density((x - self.mean) / self.scale, self.df, self.scale)

    def _slope(self, x: Array) -> Array:
        return _t_slope((x - self.mean) / self.scale, self.df, self.scale)


@dataclass(frozen=True, repr=False)
class HalfNormal(OnTheHalfLine):
    """Absolute value of a normal with mean 0 and sd `scale`."""

    name: ClassVar[str] = "half_normal"
    scale: float

    def __post_init__(self) -> None:
        check_number(self, "scale", above=0.0)

    def tail_index(self) -> float:
        return inf

    def _log_density(self, x: Array) -> Array:
        z = x / self.scale
        return _LOG_2 - 0.5 * z * z - log(self.scale) - _HALF_LOG_2PI

    def _slope(self, x: Array) -> Array:
        return -x / self.scale / self.scale


@dataclass(frozen=True, repr=False)
class HalfCauchy(OnTheHalfLine):
    """Absolute value of a Cauchy around 0; `scale` is its median."""

    name: ClassVar[str] = "half_cauchy"
    scale: float

    def __post_init__(self) -> None:
        check_number(self, "scale", above=0.0)

    def tail_index(self) -> float:
        return 1.0

    def _log_density(self, x: Array) -> Array:
        return _LOG_2 + _t_log_density(x / self.scale, 1.0, self.scale)

    def _slope(self, x: Array) -> Array:
        return _t_slope(x / self.scale, 1.0, self.scale)


@dataclass(frozen=True, repr=False)
class HalfT(OnTheHalfLine):
    """Absolute value of a Student t around 0."""

    name: ClassVar[str] = "half_t"
    df: float
    scale: float

    def __post_init__(self) -> None:
        check_number(self, "df", above=0.0)
        check_number(self, "scale", above=0.0)

    def tail_index(self) -> float:
        return self.df

    def _log_density(self, x: Array) -> Array:
        return _LOG_2 + _t_log_density(x / self.scale, self.df, self.scale)

    def _slope(self, x: Array) -> Array:
        return _t_slope(x / self.scale, self.df, self.scale)


@dataclass(frozen=True, repr=False)
class Exponential(OnTheHalfLine):
    """Exponential with mean 1 / `rate`."""

    name: ClassVar[str] = "exponential"
    rate: float

    def __post_init__(self) -> None:
        check_number(self, "rate", above=0.0)

    def tail_index(self) -> float:
        return inf

    def _log_density(self, x: Array) -> Array:
        return log(self.rate) - self.rate * x

    def _slope(self, x: Array) -> Array:
        return np.full_like(x, -self.rate)


@dataclass(frozen=True, repr=False)
class Gamma(OnTheHalfLine):
    """Gamma with mean `shape` / `rate`."""

    name: ClassVar[str] = "gamma"
    shape: float
    rate: float

    def __post_init__(self) -> None:
        check_number(self, "shape", above=0.0)
        check_number(self, "rate", above=0.0)

    def tail_index(self) -> float:
        return inf

    def _log_density(self, x: Array) -> Array:
        a, b = self.shape, self.rate
        return a * log(b) - gammaln(a) + (a - 1.0) * np.log(x) - b * x

    def _slope(self, x: Array) -> Array:
        return (self.shape - 1.0) / x - self.rate


@dataclass(frozen=True, repr=False)
class InverseGamma(OnTheHalfLine):
    """Inverse gamma on a VARIANCE: 1 / x is gamma with `shape` and rate `scale`."""

    name: ClassVar[str] = "inverse_gamma"
    on_variance: ClassVar[bool] = True
    shape: float
    scale: float

    def __post_init__(self) -> None:
        check_number(self, "shape", above=0.0)
        check_number(self, "scale", above=0.0)

    def tail_index(self) -> float:
        # v^-(1 + shape) dv is sd^-(1 + 2 shape) d(sd).
        return 2.0 * self.shape

    def _log_density(self, x: Array) -> Array:
        a, b = self.shape, self.scale
        return a * log(b) - gammaln(a) - (a + 1.0) * np.log(x) - b / x

    def _slope(self, x: Array) -> Array:
        return (self.scale / x - self.shape - 1.0) / x


@dataclass(frozen=True, repr=False)
class Uniform(Prior):
    """Constant between `low` and `high`; improper when `high` is infinite."""

    name: ClassVar[str] = "uniform"
    low: float = 0.0
    high: float = inf

    def __post_init__(self) -> None:
        if self.low == -inf:
            raise PriorError("uniform: low=-inf is out of range; use flat() for a constant density on the whole line.")
        check_number(self, "low")
        check_number(self, "high", finite=False)
        if not self.high > self.low:
            raise PriorError(f"uniform: low={self.low:g} is not below high={self.high:g}; give low < high.")

    @property
    def support(self) -> tuple[float, float]:
        return (self.low, self.high)

    @property
    def proper(self) -> bool:
        return isfinite(self.high)

    def tail_index(self) -> float:
        return inf if self.proper else -1.0

    def _log_density(self, x: Array) -> Array:
        return np.full_like(x, -log(self.high - self.low) if self.proper else 0.0)

    def _slope(self, x: Array) -> Array:
        return np.zeros_like(x)

    def __str__(self) -> str:
        return super().__str__() if self.proper else _half_open(f"{self.low:.4g}")

    def __repr__(self) -> str:
        return super().__repr__() if self.proper else _half_open(exact(self.low))


def _half_open(low: str) -> str:
    return "uniform()" if low == "0" else f"uniform(low={low})"


@dataclass(frozen=True, repr=False)
class Lkj(Prior):
    """Density of a q x q correlation matrix C proportional to det(C)^(eta - 1).

    `logpdf` and `dlogpdf` are those of the single correlation when q = 2; `log_normaliser` serves every q.
    """

    name: ClassVar[str] = "lkj"
    eta: float

    def __post_init__(self) -> None:
        check_number(self, "eta", above=0.0)

    @property
    def support(self) -> tuple[float, float]:
        return (-1.0, 1.0)

    def tail_index(self) -> float:
        return inf

    def log_normaliser(self, q: int) -> float:
        """Log of the integral of det(C)^(eta - 1) over q x q correlation matrices.

        The log density of C is then (eta - 1) log det C - log_normaliser(q). From the canonical partial
        correlations, which are independent: the q - k of them in level k are 2 Beta(a, a) - 1 with
        a = eta + (q - 1 - k) / 2 (Lewandowski, Kurowicka and Joe 2009, J. Multivariate Anal. 100, section 3).
        """
        total = 0.0
        for k in range(1, q):
            a = self.eta + 0.5 * (q - 1 - k)
            total += (q - k) * ((2.0 * a - 1.0) * _LOG_2 + float(betaln(a, a)))
        return total

    def _log_density(self, x: Array) -> Array:
        return (self.eta - 1.0) * np.log1p(-x * x) - self.log_normaliser(2)

    def _slope(self, x: Array) -> Array:
        return -2.0 * (self.eta - 1.0) * x / ((1.0 - x) * (1.0 + x))


@dataclass(frozen=True, repr=False)
class Beta(Prior):
    """Beta on (0, 1) with mean `a` / (`a` + `b`)."""

    name: ClassVar[str] = "beta"
    a: float
    b: float

    def __post_init__(self) -> None:
        check_number(self, "a", above=0.0)
        check_number(self, "b", above=0.0)

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def tail_index(self) -> float:
        return inf

    def _log_density(self, x: Array) -> Array:
        return (self.a - 1.0) * np.log(x) + (self.b - 1.0) * np.log1p(-x) - betaln(self.a, self.b)

    def _slope(self, x: Array) -> Array:
        return (self.a - 1.0) / x - (self.b - 1.0) / (1.0 - x)


@dataclass(frozen=True, repr=False)
class Fixed(Prior):
    """All mass at `value`: the parameter is held, not estimated, and adds nothing to the log density."""

    name: ClassVar[str] = "fixed"
    value: float

    def __post_init__(self) -> None:
        check_number(self, "value")

    @property
    def support(self) -> tuple[float, float]:
        return (self.value, self.value)

    def tail_index(self) -> float:
        return inf

    def _inside(self, x: Array) -> NDArray[np.bool_]:
        # A held value may come back through exp(log(value)), a few rounding errors away.
        return np.isclose(x, self.value, rtol=1e-12, atol=0.0)

    def _log_density(self, x: Array) -> Array:
        return np.zeros_like(x)

    def _slope(self, x: Array) -> Array:
        return np.zeros_like(x)


@dataclass(frozen=True, repr=False)
class Flat(OnTheLine):
    """Constant density on the whole line (for an sd: on its positive half); improper."""

    name: ClassVar[str] = "flat"

    @property
    def proper(self) -> bool:
        return False

    def tail_index(self) -> float:
        return -1.0

    def _log_density(self, x: Array) -> Array:
        return np.zeros_like(x)

    def _slope(self, x: Array) -> Array:
        return np.zeros_like(x)
