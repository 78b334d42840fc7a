"""Priors of a heterogeneity sd tau that are made from the known error variances v_1..v_k of the levels.

    jeffreys            p(tau) proportional to sqrt(sum_i (tau / (v_i + tau^2))^2)            improper
    dumouchel           p(tau) = s0 / (s0 + tau)^2                                            median s0
    uniform_shrinkage   p(tau) = 2 tau s0^2 / (s0^2 + tau^2)^2                                median s0

with s0^2 = k / sum_i 1 / v_i. Sources: Rover (2020), J. Stat. Softw. 93(6), section 2.3; DuMouchel and Normand (2000),
in Stangl and Berry, Meta-Analysis in Medicine and Health Policy, 127-144; Daniels (1999), Canad. J. Statist. 27,
567-578, who takes the shrinkage s0^2 / (s0^2 + tau^2) as uniform. Jeffreys' rule is the root of the information in
tau; where the errors have a known covariance, the v_i are its eigenvalues.

As the user writes them they have no numbers; `with_errors` fills them in when data are bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isfinite, log
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from finetti.errors import PriorError
from finetti.model.distribution import Array, OnTheHalfLine, check_number, exact

__all__ = ["DuMouchel", "Jeffreys", "UniformShrinkage", "typical_error"]

# levels x values that are worked on at a time
_AT_ONCE = 2_000_000


def typical_error(variances: tuple[float, ...]) -> float:
    """The root of the harmonic mean of the error variances, s0.

    >>> typical_error((1.0, 1.0, float("inf")))
    1.224744871391589
    """
    return float(np.sqrt(len(variances) / np.sum(1.0 / np.asarray(variances))))


@dataclass(frozen=True, repr=False)
class _OfS0(OnTheHalfLine):
    """A density with the one scale s0, None until data are bound."""

    s0: float | None = None

    def __post_init__(self) -> None:
        if self.s0 is not None:
            check_number(self, "s0", above=0.0)

    @property
    def from_errors(self) -> bool:
        return self.s0 is None

    def with_errors(self, variances: tuple[float, ...]) -> _OfS0:
        """The same with s0 from the error variances."""
        return replace(self, s0=typical_error(variances))

    @property
    def _scale(self) -> float:
        if self.s0 is None:
            raise _not_bound(self.name)
        return self.s0

    def _arguments(self) -> tuple[float, ...]:
        return () if self.s0 is None else (self.s0,)


@dataclass(frozen=True, repr=False)
class DuMouchel(_OfS0):
    """Log-logistic with shape 1 and median `s0`: p = s0 / (s0 + tau)^2."""

    name: ClassVar[str] = "dumouchel"

    def tail_index(self) -> float:
        return 1.0

    def _log_density(self, x: Array) -> Array:
        return -log(self._scale) - 2.0 * np.log1p(x / self._scale)

    def _slope(self, x: Array) -> Array:
        return -2.0 / (self._scale + x)


@dataclass(frozen=True, repr=False)
class UniformShrinkage(_OfS0):
    """The shrinkage s0^2 / (s0^2 + tau^2) is uniform: p = 2 tau s0^2 / (s0^2 + tau^2)^2, with median `s0`."""

    name: ClassVar[str] = "uniform_shrinkage"

    def tail_index(self) -> float:
        return 2.0

    def _log_density(self, x: Array) -> Array:
        z = x / self._scale
        return np.log(2.0 * z) - log(self._scale) - 2.0 * np.log1p(z * z)

    def _slope(self, x: Array) -> Array:
        z = x / self._scale
        return (1.0 / z - 4.0 * z / (1.0 + z * z)) / self._scale


@dataclass(frozen=True, repr=False)
class Jeffreys(OnTheHalfLine):
    """Square root of the information in tau, up to a constant; improper, its tail falls as 1 / tau.

    `variances` are the error variances of the levels, None until data are bound.
    """

    name: ClassVar[str] = "jeffreys"
    variances: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.variances is None:
            return
        given: Any = self.variances
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise PriorError(f"jeffreys: variances={given!r} must be a sequence of error variances, or left out.")
        values = tuple(given)
        for v in values:
            number = isinstance(v, Real) and not isinstance(v, bool)
            if not number or not float(v) > 0.0:
                raise PriorError(f"jeffreys: variances holds {v!r}; every error variance must be a number above 0.")
        if not any(isfinite(v) for v in values):
            raise PriorError("jeffreys: variances must hold at least one finite error variance.")
        object.__setattr__(self, "variances", tuple(float(v) for v in values))

    @property
    def from_errors(self) -> bool:
        return self.variances is None

    def with_errors(self, variances: tuple[float, ...]) -> Jeffreys:
        """The same with the error variances of the levels."""
        return Jeffreys(variances)

    @property
    def proper(self) -> bool:
        return False

    def tail_index(self) -> float:
        return 0.0

    def _sums(self, x: Array, *powers: int) -> list[Array]:
        """Sums over levels of (v + x^2)^-p; equal variances are counted, not repeated."""
        if self.variances is None:
            raise _not_bound(self.name)
        v, count = np.unique(np.asarray(self.variances), return_counts=True)
        flat, out = x.ravel(), [np.empty(x.size) for _ in powers]
        step = max(1, _AT_ONCE // v.size)
        for start in range(0, flat.size, step):
            part = slice(start, start + step)
            inverse = 1.0 / (v + (flat[part] ** 2)[:, None])
            for total, p in zip(out, powers, strict=True):
                total[part] = inverse**p @ count
        return [total.reshape(x.shape) for total in out]

    def _log_density(self, x: Array) -> Array:
        (second,) = self._sums(x, 2)
        return np.log(x) + 0.5 * np.log(second)

    def _slope(self, x: Array) -> Array:
        second, third = self._sums(x, 2, 3)
        return 1.0 / x - 2.0 * x * third / second

    def _arguments(self) -> tuple[float, ...]:
        return ()

    def __repr__(self) -> str:
        if self.variances is None:
            return "jeffreys()"
        return f"jeffreys(({', '.join(exact(v) for v in self.variances)},))"


def _not_bound(name: str) -> PriorError:
    return PriorError(
        f"{name}() has no density before it has met data: it is made from their known standard errors. Bind the model "
        "to data (fi.fit, fi.meta, Model.bind), or give its numbers yourself."
    )
