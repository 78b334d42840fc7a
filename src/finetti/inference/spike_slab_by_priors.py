"""Hyperparameters of a screen whose pi0 and slab scale vary with a covariate.

    logit pi0_g = m_pi + sd_pi0 u_g,   log tau_g = m_tau + sd_slab_sd v_g

theta is that of `Hyper`, for the group at u = v = 0, then log sd_pi0 and log sd_slab_sd where they are free. Both are
half-normal a priori, of scales `SD_PI0` and `SD_SLAB_SD`: logits that differ by 1 turn a share of effects of 5 %
into one of 12 %, and slabs seldom differ by more than a factor of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.errors import PriorError
from finetti.inference.coordinates import Coordinate
from finetti.inference.spike_slab_priors import Hyper
from finetti.model.densities import Fixed, HalfNormal
from finetti.model.distribution import Prior

__all__ = ["BY_NAMES", "SPREADS", "ByHyper", "Unsheared", "spread_priors"]

Floats = npt.NDArray[np.float64]

SPREADS = ("sd_pi0", "sd_slab_sd")
BY_NAMES = ("pi0", "slab_sd", "null_mean", "null_sd", *SPREADS)
SD_PI0, SD_SLAB_SD = 1.0, 0.5
# Maximum likelihood does not look below the least: nothing changes there any more. Nor above the most.
LEAST, MOST = 1e-3, 20.0


def spread_priors(given: Mapping[str, Prior] | None) -> tuple[dict[str, Prior], dict[str, Prior] | None]:
    """The priors of both spreads, checked, and what is left of `given` for the other hyperparameters.

    Raises
    ------
    PriorError
        For priors that are improper or reach below 0.

    Examples
    --------
    >>> {name: str(p) for name, p in spread_priors(None)[0].items()}
    {'sd_pi0': 'half_normal(1)', 'sd_slab_sd': 'half_normal(0.5)'}
    """
    out: dict[str, Prior] = {"sd_pi0": HalfNormal(SD_PI0), "sd_slab_sd": HalfNormal(SD_SLAB_SD)}
    if not isinstance(given, Mapping):
        return out, given
    for name in SPREADS:
        if name not in given:
            continue
        prior = given[name]
        if not isinstance(prior, Prior):
            raise PriorError(f"priors[{name!r}] = {prior!r} is not a prior; give one such as fi.half_normal(1).")
        if isinstance(prior, Fixed):
            if not 0.0 <= prior.value < np.inf:
                raise PriorError(f"priors[{name!r}] = {prior}: a standard deviation of at least 0 is needed.")
        elif prior.name in ("lkj", "flat") or not prior.proper or prior.support[0] < 0.0:
            raise PriorError(
                f"priors[{name!r}] = {prior}: a proper prior of positive values is needed, such as fi.half_normal(1); "
                "of few groups the tests say little about how much groups differ."
            )
        out[name] = prior
    return out, {name: prior for name, prior in given.items() if name not in SPREADS}


@dataclass(frozen=True)
class Unsheared(Hyper):
    """`Hyper` with log null_sd itself as a coordinate: the slab of a typical group is not what widens the bulk."""

    def _bulk(self, rest: Floats, tau: Floats) -> tuple[Floats, Floats, Floats]:
        none = np.zeros_like(rest)
        return none, none, none


@dataclass(frozen=True)
class ByHyper:
    """theta: the free hyperparameters of `base`, then the logs of the free spreads.

    base : of the group at u = v = 0
    spreads : priors of sd_pi0 and sd_slab_sd
    """

    base: Hyper
    spreads: Mapping[str, Prior]

    @property
    def names(self) -> tuple[str, ...]:
        return self.base.names + tuple(self._free)

    @cached_property
    def _free(self) -> dict[str, Coordinate]:
        return {
            name: Coordinate(name, self.spreads[name]) for name in SPREADS if not isinstance(self.spreads[name], Fixed)
        }

    @property
    def d_base(self) -> int:
        return len(self.base.names)

    def spread(self, theta: Floats, name: str) -> Floats:
        """One of both standard deviations, (S,)."""
        if name not in self._free:
            return np.full(theta.shape[0], self.spreads[name].value)  # type: ignore[attr-defined]
        with np.errstate(over="ignore"):
            return self._free[name].natural(theta[:, self.names.index(name)])

    def natural(self, theta: Floats) -> dict[str, Floats]:
        """All six by name, (S,) each."""
        out = self.base.natural(theta[:, : self.d_base])
        return out | {name: self.spread(theta, name) for name in SPREADS}

    def coordinate(self, name: str) -> Coordinate:
        """The map of a free hyperparameter."""
        return self._free[name] if name in self._free else self.base.coordinates[name]

    def plain(self, theta: Floats) -> Floats:
        """Coordinates (S, d) each of which is a function of one hyperparameter."""
        return np.concatenate([self.base.plain(theta[:, : self.d_base]), theta[:, self.d_base :]], axis=1)

    def six(self, theta: Floats) -> Floats:
        """(S, 6): logit pi0, its sd, log tau, its sd, null mean, null sd; as `integrate` takes them."""
        nodes = self.base.nodes(theta[:, : self.d_base])
        with np.errstate(all="ignore"):
            m_pi, m_tau = np.log(nodes.pi0[:, 0]) - np.log(nodes.rest[:, 0]), np.log(nodes.tau[:, 0])
        return np.column_stack(
            [m_pi, self.spread(theta, "sd_pi0"), m_tau, self.spread(theta, "sd_slab_sd"), nodes.mu, nodes.kappa]
        )

    def theta(self, values: Mapping[str, npt.ArrayLike]) -> Floats:
        """Theta (S, d) of natural values by name."""
        base = self.base.theta(*(values[name] for name in BY_NAMES[:4]))
        more = [np.log(np.atleast_1d(np.asarray(values[name], dtype=float))) for name in self._free]
        S = max([base.shape[0], *(m.size for m in more)])
        return np.column_stack([np.broadcast_to(base, (S, base.shape[1])), *(np.broadcast_to(m, S) for m in more)])

    def log_prior(self, theta: Floats) -> Floats:
        """Log prior density of theta, with the Jacobians; (S,)."""
        total = self.base.log_prior(theta[:, : self.d_base])
        for k, (name, c) in enumerate(self._free.items(), self.d_base):
            if self.base.use_priors:
                total = total + c.log_density(theta[:, k])
            else:
                sd = self.spread(theta, name)
                total = np.where((sd < LEAST) | (sd > MOST), -np.inf, total)
        return total

    def gradient(
        self, theta: Floats, mu: Floats, kappa: Floats, a: Floats, t: Floats, spreads: dict[str, Floats]
    ) -> Floats:
        """Gradient (S, d) of log-likelihood and log prior.

        Of the likelihood the derivatives by null_mean, log null_sd, m_pi, m_tau and log of each spread are given.
        """
        out = np.empty_like(theta)
        out[:, : self.d_base] = self.base.gradient(theta[:, : self.d_base], mu, kappa, a, t)
        for k, (name, c) in enumerate(self._free.items(), self.d_base):
            low = c.support[0]  # the natural value is low + exp(theta)
            sd = c.natural(theta[:, k])
            out[:, k] = (
                spreads[name] * np.exp(c.log_slope(theta[:, k])) / sd
                if low or np.isfinite(c.support[1])
                else spreads[name]
            )
            if self.base.use_priors:
                out[:, k] += c.gradient(theta[:, k])
        return out
