"""Hyperpriors of a screen: defaults, checks, and the coordinates in which its hyperparameters are explored.

pi0        share of tests without effect, explored as its logit
slab_sd    standard deviation of the effects that are not null, in units of the effect, as its log
null_mean  mean of the null, in standard errors
null_sd    standard deviation of the null, in standard errors, as its log

A null and a slab not much wider than it are told apart by their tails alone; what the bulk knows is the sd of both
together. So the last coordinate is not log null_sd itself but

    log null_sd + log(1 + (1 - pi0) r / (1 + r / 16)) / 2,   r = (slab_sd / unit)^2,

with the median standard error as unit: near log null_sd where the slab is rare, near the log of the total sd where it
is narrow and common. It is a shear, so that no Jacobian comes with it, and it spares nodes: of 5,000 tests without any
effect it took 4,096 instead of 65,536.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf, log
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, expit, log_expit, ndtr, stdtr

from finetti.errors import PriorError, available
from finetti.inference.coordinates import Coordinate
from finetti.inference.spike_slab import Nodes
from finetti.model.densities import Beta, Fixed, Normal, StudentT
from finetti.model.distribution import OnTheHalfLine, Prior

__all__ = ["NAMES", "Exp", "Hyper", "default_priors", "resolve_priors"]

Floats = npt.NDArray[np.float64]

NAMES = ("pi0", "slab_sd", "null_mean", "null_sd")
# squared slab sds, in units, beyond which the bulk is not widened further
WIDE = 16.0

# pi0 ~ beta(10, 1): that most tests are null unless they say otherwise; ashr's default, too (Stephens 2017,
# Biostatistics 18, 275-294)
NULL_SHARE = (10.0, 1.0)
# Effects worth a screen are some standard errors large: 95 % between 1.1 and 8. The density vanishes at 0, where a
# slab could not be told from the null, and pi0 would be left to its prior. On 1,000 tests of pure noise with a free
# null P(pi0 > 0.9) is 0.95 on average; with a log sd of 0.65 it would be 0.90, with 0.8 0.85, and nothing is gained
# where half of all tests are effects.
SLAB_MEDIAN, SLAB_LOG_SD = 3.0, 0.5
# A null of N(0, 1) is what theory promises; where it fails, it fails by 10 % or by 70 %. The t holds the promise as
# tightly as a normal of these scales when the bulk is silent, and lets go when it is not: at null_sd = 1.7 it costs 5
# units of log density, a normal 14, which would sooner call half of all tests effects. A scale of 0.05 has 3 points
# more power where half of 1,000 tests are effects and the null is N(0, 1) (0.31 against 0.28, the oracle 0.36, at a
# nominal rate of 0.1), but there under a null sd of 1.15 it realises 0.115 false discoveries, against 0.088.
NULL_SCALE, NULL_DF = 0.1, 3.0
# The likelihood has no upper bound where the null shrinks onto tests of the same z: an sd far from 1 is no null.
NULL_SDS = (0.2, 5.0)


@dataclass(frozen=True, repr=False)
class Exp(OnTheHalfLine):
    """The law of exp(X), X ~ `base`, given that it is in (low, high): a log-normal where the base is normal."""

    name: ClassVar[str] = "exp"
    base: Normal | StudentT
    low: float = 0.0
    high: float = inf

    def tail_index(self) -> float:
        return inf if isinstance(self.base, Normal) else 0.0

    def _log_density(self, x: Floats) -> Floats:
        u = np.log(x)
        return np.where((x > self.low) & (x < self.high), self.base._log_density(u) - u - self._log_mass, -inf)

    def _slope(self, x: Floats) -> Floats:
        return (self.base._slope(np.log(x)) - 1.0) / x

    @cached_property
    def _log_mass(self) -> float:
        with np.errstate(divide="ignore"):
            ends = np.log(np.array([self.low, self.high]))
        if isinstance(self.base, Normal):
            below = ndtr((ends - self.base.mean) / self.base.sd)
        else:
            below = stdtr(self.base.df, (ends - self.base.mean) / self.base.scale)
        return float(np.log(below[1] - below[0]))

    def __str__(self) -> str:
        return f"exp({self.base}){self._range}"

    def __repr__(self) -> str:
        return f"exp({self.base!r}){self._range}"

    @property
    def _range(self) -> str:
        return "" if (self.low, self.high) == (0.0, inf) else f" in ({self.low:g}, {self.high:g})"


def default_priors(median_se: float) -> dict[str, Prior]:
    """Priors of all four hyperparameters; `median_se` is the unit of the slab.

    Examples
    --------
    >>> [str(p) for p in default_priors(1.0).values()]
    ['beta(10, 1)', 'exp(normal(1.099, 0.5))', 'student_t(3, 0, 0.1)', 'exp(student_t(3, 0, 0.1)) in (0.2, 5)']
    """
    return {
        "pi0": Beta(*NULL_SHARE),
        "slab_sd": Exp(Normal(log(SLAB_MEDIAN * median_se), SLAB_LOG_SD)),
        "null_mean": StudentT(NULL_DF, 0.0, NULL_SCALE),
        "null_sd": Exp(StudentT(NULL_DF, 0.0, NULL_SCALE), *NULL_SDS),
    }


def resolve_priors(given: Mapping[str, Prior] | None, null: str, median_se: float) -> dict[str, Prior]:
    """The four priors in force, checked; those of a theoretical null are held at 0 and 1.

    Raises
    ------
    PriorError
        For unknown names, priors that are improper or of the wrong support, and contradictions with `null`.
    """
    out = default_priors(median_se)
    if null == "theoretical":
        out |= {"null_mean": Fixed(0.0), "null_sd": Fixed(1.0)}
    if given is not None and not isinstance(given, Mapping):
        raise PriorError(f"priors={given!r} must be a dict of priors, such as {{'pi0': fi.beta(10, 1)}}.")
    for name, prior in (given or {}).items():
        if name not in NAMES:
            raise PriorError(f"priors: a screen has no hyperparameter {name!r}; {available(str(name), NAMES)}")
        if not isinstance(prior, Prior):
            raise PriorError(
                f"priors[{name!r}] = {prior!r} is not a prior; give one such as fi.fixed(1), fi.beta(5, 1)"
            )
        if null == "theoretical" and name.startswith("null_"):
            raise PriorError(
                f"null='theoretical' holds {name} at {'0' if name == 'null_mean' else '1'}, so that a prior on it "
                "contradicts it; give null='free', or leave the prior out."
            )
        _check(name, prior)
        out[name] = prior
    return out


def _check(name: str, prior: Prior) -> None:
    if isinstance(prior, Fixed):
        low, high = {"pi0": (0.0, 1.0), "null_mean": (-inf, inf)}.get(name, (np.nextafter(0.0, 1.0), inf))
        if not low <= prior.value <= high:
            wanted = "between 0 and 1" if name == "pi0" else "above 0"
            raise PriorError(f"priors[{name!r}] = {prior}: a value {wanted} is needed.")
        return
    low, high = prior.support
    if prior.name in ("lkj", "flat") or not prior.proper:
        raise PriorError(
            f"priors[{name!r}] = {prior} is improper, and so would the posterior be: where pi0 is near 1 the tests say "
            "nothing of the slab. Give a proper prior."
        )
    if name == "pi0" and not (low >= 0.0 and high <= 1.0):
        raise PriorError(f"priors['pi0'] = {prior} reaches beyond 0 and 1; give fi.beta(a, b) or fi.uniform(0, 1).")
    if name in ("slab_sd", "null_sd") and low < 0.0:
        raise PriorError(
            f"priors[{name!r}] = {prior} reaches below 0, where a standard deviation cannot be; give a prior of "
            "positive values, such as fi.gamma(2, 1) or fi.half_normal(2)."
        )


@dataclass(frozen=True)
class _Share(Coordinate):
    """pi0 by its logit; under a beta prior exact however near to 1 it is."""

    def both(self, t: Floats) -> tuple[Floats, Floats]:
        low, high = self.support
        return low + (high - low) * expit(t), (1.0 - high) + (high - low) * expit(-t)

    def log_density(self, theta: Floats) -> Floats:
        if not isinstance(self.prior, Beta):
            return super().log_density(theta)
        a, b = self.prior.a, self.prior.b
        return a * log_expit(theta) + b * log_expit(-theta) - betaln(a, b)

    def gradient(self, theta: Floats) -> Floats:
        if not isinstance(self.prior, Beta):
            return super().gradient(theta)
        return self.prior.a * expit(-theta) - self.prior.b * expit(theta)


@dataclass(frozen=True)
class Hyper:
    """theta: the hyperparameters that are not held, and their priors.

    priors : of all four, `Fixed` where held
    unit : median standard error
    use_priors : False leaves them out of every density (maximum likelihood)
    """

    priors: Mapping[str, Prior]
    unit: float = 1.0
    use_priors: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the free ones, in the order of theta."""
        return tuple(name for name in NAMES if not isinstance(self.priors[name], Fixed))

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Maps of the free ones."""
        return {
            name: _Share(name, self.priors[name])
            if name == "pi0"
            else Coordinate(name, self.priors[name], name == "null_mean")
            for name in self.names
        }

    def coordinate(self, name: str) -> Coordinate:
        """Return the map of one that is free."""
        return self.coordinates[name]

    def _bulk(self, rest: Floats, tau: Floats) -> tuple[Floats, Floats, Floats]:
        """By how much the log sd of the bulk exceeds that of the null; its derivatives by 1 - pi0 and log slab_sd."""
        r = (np.minimum(tau / self.unit, 1e6)) ** 2
        s, slope = r / (1.0 + r / WIDE), 2.0 * r / (1.0 + r / WIDE) ** 2
        return 0.5 * np.log1p(rest * s), 0.5 * s / (1.0 + rest * s), 0.5 * rest * slope / (1.0 + rest * s)

    def plain(self, theta: Floats) -> Floats:
        """The coordinates (S, d) before the shear: each a function of one hyperparameter."""
        if "null_sd" not in self.names:
            return theta
        out = theta.copy()
        out[:, -1] -= self._bulk(*self._slab(theta))[0]
        return out

    def _slab(self, t: Floats) -> tuple[Floats, Floats]:
        """1 - pi0 and slab_sd (S,), which the shear does not touch."""
        free, names = self.coordinates, self.names
        if "pi0" in free:
            share = free["pi0"]
            assert isinstance(share, _Share)
            rest = share.both(t[:, 0])[1]
        else:
            rest = np.full(t.shape[0], 1.0 - self.priors["pi0"].value)  # type: ignore[attr-defined]
        with np.errstate(over="ignore"):
            tau = (
                free["slab_sd"].natural(t[:, names.index("slab_sd")])
                if "slab_sd" in free
                else np.full(t.shape[0], self.priors["slab_sd"].value)  # type: ignore[attr-defined]
            )
        return rest, tau

    def natural(self, theta: Floats) -> dict[str, Floats]:
        """All four by name, (S,) each."""
        theta = self.plain(theta)
        at = {name: k for k, name in enumerate(self.names)}
        free = self.coordinates
        with np.errstate(over="ignore"):
            return {
                name: free[name].natural(theta[:, at[name]])
                if name in at
                else np.full(theta.shape[0], self.priors[name].value)  # type: ignore[attr-defined]
                for name in NAMES
            }

    def theta(self, *values: npt.ArrayLike) -> Floats:
        """Theta (S, d) of natural values, in the order of `NAMES`, each (S,); held hyperparameters are passed over."""
        out = []
        for name, c in self.coordinates.items():
            v = np.atleast_1d(np.asarray(values[NAMES.index(name)], dtype=float))
            low, high = c.support
            if np.isinf(low):
                out.append((v - c.centre) / c.unit)
            elif np.isinf(high):
                out.append(np.log(np.maximum(v - low, 1e-3 * v)))
            else:
                margin = 0.0 if name == "pi0" and (low, high) == (0.0, 1.0) else 0.01
                share = np.clip((v - low) / (high - low), margin, 1.0 - margin)
                out.append(np.log(share) - np.log1p(-share))
        if not out:
            return np.zeros((1, 0))
        theta = np.stack(out, axis=1)
        if "null_sd" in self.names:
            theta[:, -1] += self._bulk(*self._slab(theta))[0]
        return theta

    def nodes(self, theta: Floats) -> Nodes:
        """What the likelihood takes."""
        by = self.natural(theta)
        rest, _ = self._slab(theta)
        return Nodes(by["pi0"][:, None].copy(), rest[:, None].copy(), by["slab_sd"][:, None].copy(),
                     by["null_mean"].copy(), by["null_sd"].copy())  # fmt: skip

    def log_prior(self, theta: Floats) -> Floats:
        """Log prior density of theta, with the Jacobians; (S,)."""
        total = np.zeros(theta.shape[0])
        theta = self.plain(theta)
        if self.use_priors:
            for k, c in enumerate(self.coordinates.values()):
                total += c.log_density(theta[:, k])
        elif "null_sd" in self.names:
            sd = self.coordinates["null_sd"].natural(theta[:, -1])
            total[(sd <= NULL_SDS[0]) | (sd >= NULL_SDS[1])] = -inf
        return total

    def gradient(self, theta: Floats, by_mu: Floats, by_kappa: Floats, by_share: Floats, by_tau: Floats) -> Floats:
        """Gradient (S, d) of log-likelihood and log prior by theta.

        Of the likelihood the derivatives by null_mean, log null_sd, logit pi0 and log slab_sd are given, (S,) each.
        """
        by = self.natural(theta)
        rest, tau = self._slab(theta)
        plain = self.plain(theta)
        out, rates = np.empty_like(theta), {}
        for k, (name, c) in enumerate(self.coordinates.items()):
            t = plain[:, k]
            rates[name] = rate = np.exp(c.log_slope(t))
            if name == "pi0":
                assert isinstance(c, _Share)
                p, rest = c.both(t)
                out[:, k] = by_share * (rate / (p * rest) if c.support != (0.0, 1.0) else 1.0)
            elif name == "null_mean":
                out[:, k] = by_mu * rate
            else:
                out[:, k] = (by_tau if name == "slab_sd" else by_kappa) * rate / by[name]
            if self.use_priors:
                out[:, k] += c.gradient(t)
        if "null_sd" in self.names:  # the shear: what moves pi0 or the slab moves null_sd, too
            _, by_rest, by_log_tau = self._bulk(rest, tau)
            if "pi0" in rates:
                out[:, 0] += out[:, -1] * by_rest * rates["pi0"]
            if "slab_sd" in rates:
                k = self.names.index("slab_sd")
                out[:, k] -= out[:, -1] * by_log_tau * rates["slab_sd"] / tau
        return out
