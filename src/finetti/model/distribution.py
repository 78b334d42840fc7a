"""What every prior distribution is: a frozen value with a normalised log density, its derivative and its tail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import astuple, dataclass
from math import inf, isfinite, nan
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetti.errors import PriorError

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Prior(ABC):
    """A distribution of one parameter, or for `Lkj` of one correlation matrix.

    Attributes
    ----------
    name : str
        The constructor's name, as the user writes it.
    on_variance : bool
        True when the density is that of a variance (`inverse_gamma`) rather than of the sd.
    support : tuple of float
        The open interval on which the density lives.
    proper : bool
        Whether the density integrates to 1. An improper one is known up to a constant (`flat`, `uniform`: 0 in logs).
    from_errors : bool
        Whether it waits for data, to be made from their known standard errors.
    """

    name: ClassVar[str]
    on_variance: ClassVar[bool] = False

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]: ...

    @property
    def proper(self) -> bool:
        return True

    @property
    def from_errors(self) -> bool:
        return False

    def with_errors(self, variances: tuple[float, ...]) -> Prior:
        """The prior made for these error variances; the prior itself where it does not depend on them."""
        return self

    @abstractmethod
    def tail_index(self) -> float:
        """The exponent a such that the density of the sd falls as x^-(1 + a); inf for light or bounded tails.

        The moment of order k exists for k < a. For `inverse_gamma`, a prior on the variance, it is the tail
        of the sd that is described.
        """

    @abstractmethod
    def _log_density(self, x: Array) -> Array: ...

    @abstractmethod
    def _slope(self, x: Array) -> Array: ...

    def _inside(self, x: Array) -> NDArray[np.bool_]:
        low, high = self.support
        return (x > low) & (x < high)

    def logpdf(self, x: ArrayLike) -> Array:
        """Natural-log density at `x`, elementwise: -inf outside the open support, NaN where `x` is NaN."""
        x = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            value = np.where(self._inside(x), self._log_density(x), -inf)
        return np.where(np.isnan(x), nan, value)

    def dlogpdf(self, x: ArrayLike) -> Array:
        """Derivative of `logpdf` with respect to `x`, elementwise: NaN outside the open support."""
        x = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            return np.where(self._inside(x), self._slope(x), nan)

    def _arguments(self) -> tuple[float, ...]:
        return astuple(self)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{v:.4g}' for v in self._arguments())})"

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(exact(v) for v in self._arguments())})"


def exact(value: float) -> str:
    """Write a number with all its digits, and a whole one without a point."""
    return repr(value).removesuffix(".0")


def check_number(prior: Prior, field: str, *, above: float | None = None, finite: bool = True) -> None:
    """Replace the field by a Python float, or refuse it: not a number, not finite, or not above a bound."""
    value: Any = getattr(prior, field)
    wanted = ("a finite number" if finite else "a number") + (f" > {above:g}" if above is not None else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise PriorError(f"{prior.name}: {field}={value!r} is not a number; give {wanted}.")
    number = float(value)
    if number != number or (finite and not isfinite(number)) or (above is not None and not number > above):
        raise PriorError(f"{prior.name}: {field}={number:g} is out of range; give {wanted}.")
    # Adding zero turns -0.0 into 0.0, so that equal priors also print alike.
    object.__setattr__(prior, field, number + 0.0)


class OnTheLine(Prior):
    """Priors of anything real."""

    @property
    def support(self) -> tuple[float, float]:
        return (-inf, inf)


class OnTheHalfLine(Prior):
    """Priors of anything positive."""

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, inf)
