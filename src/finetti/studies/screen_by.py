"""A screen whose pi0 and slab scale vary with a covariate: what is learned, and the table of the groups.

    logit pi0_g = m_pi + sd_pi0 u_g,   log slab_sd_g = m_tau + sd_slab_sd v_g

with standard normal u_g, v_g for the levels of a category (`ByGroup`); for a number u and v are smooth curves of it,
constant within bins (`ByCurve`). Small groups borrow from the others, as much as the data make groups alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from finetti.errors import FinettiError
from finetti.inference.hyper import HyperPosterior
from finetti.inference.spike_slab import Nodes, Slab
from finetti.inference.spike_slab_by import CategoryTarget, Grouped
from finetti.inference.spike_slab_by_priors import BY_NAMES, ByHyper
from finetti.inference.spike_slab_posterior import effects
from finetti.inference.weights import weighted_quantiles
from finetti.posterior.groups import representative_nodes
from finetti.posterior.summary import check_probs, quantile_names
from finetti.studies.screen_by_few import Drawn, few_by_group
from finetti.studies.screen_by_input import Covariate
from finetti.studies.screen_hyper import explored_rows, held, resample

if TYPE_CHECKING:
    from finetti.studies.screen import Screen

__all__ = ["ByCurve", "ByGroup", "groups"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# thetas at which groups are drawn, at most and at least, draws in all, and numbers of one batch
THETAS, FEWEST, DRAWS, BATCH = 1024, 256, 4096, 4e6


@dataclass(frozen=True, eq=False, repr=False)
class _By:
    """A prior for every group of tests, with the posterior of what they have in common.

    covariate : of the tests; posterior : of theta, whose nodes yield mean and variance of the share of nulls
    hyper : its coordinates; grouped, slab : the tests and their likelihood
    estimated : whether theta is one estimate of maximum likelihood
    """

    covariate: Covariate
    posterior: HyperPosterior
    hyper: ByHyper
    grouped: Grouped
    slab: Slab
    seed: int
    estimated: bool

    @property
    def names(self) -> tuple[str, ...]:
        return BY_NAMES

    @property
    def n_groups(self) -> int:
        return self.covariate.n_groups

    @property
    def share(self) -> Floats:
        """(G,) of all tests."""
        return np.asarray(self.grouped.sizes / self.grouped.tests.n)

    @cached_property
    def drawn(self) -> Drawn:
        """Joint draws of theta and all groups, for tables."""
        raise NotImplementedError

    def rows(self, p: Floats) -> dict[str, list[float]]:
        others = explored_rows(self.posterior, self.hyper, BY_NAMES[1:], p, self.estimated)
        return {"pi0": self._share_row(p), **others}

    def _share_row(self, p: Floats) -> list[float]:
        """Of the share of nulls among all tests."""
        posterior = self.posterior
        means, variances = posterior.payload[:2]
        if self.estimated or posterior.n_nodes == 1:
            return held(float(means[0]), p)
        mean, between, error, _ = (float(x[0]) for x in posterior.weighted.moments(means[:, None], None))
        sd = float(np.sqrt(between**2 + posterior.weights @ variances))
        drawn = self.drawn
        q = weighted_quantiles(drawn.flat(expit(drawn.a)) @ self.share, drawn.flat_weight, p)
        return [mean, sd, *q, (sd / error) ** 2 if error > 1e-8 * sd else np.nan, error]

    @cached_property
    def few(self) -> tuple[Nodes, Floats]:
        return few_by_group(self.grouped.tests, self.grouped.ptr, self.slab, self.drawn)

    def _joint(self, theta: Floats, position: Ints, a: Floats, t: Floats) -> tuple[Nodes, dict[str, Floats]]:
        """Draws at theta[position] with a, t (n, G) of their own."""
        six = self.hyper.six(theta)
        values = {name: v[position] for name, v in self.hyper.natural(theta).items()}
        values["pi0"] = expit(a) @ self.share
        return Nodes(expit(a), expit(-a), np.exp(t), six[position, 4].copy(), six[position, 5].copy()), values

    def group_draws(self) -> tuple[Floats, Floats, Floats]:
        """Draws of pi0 and slab_sd (M, G), and their weights (M,)."""
        drawn = self.drawn
        return expit(drawn.flat(drawn.a)), np.exp(drawn.flat(drawn.t)), drawn.flat_weight


@dataclass(frozen=True, eq=False, repr=False)
class ByGroup(_By):
    """Of a category, whose levels are drawn given theta; target : their likelihood, groups integrated out."""

    target: CategoryTarget

    @cached_property
    def _thetas(self) -> tuple[Floats, Floats]:
        """Up to 1,024 thetas and their weights; each several times where there are few, for lattices of their own."""
        picked, weight = representative_nodes(self.posterior.weights, 1, THETAS)
        times = max(1, FEWEST // picked.size)
        return self.posterior.theta[np.repeat(picked, times)], np.repeat(weight / times, times)

    @cached_property
    def drawn(self) -> Drawn:
        theta, weight = self._thetas
        a, t = self._draw(theta, max(1, DRAWS // len(theta)), self.seed)
        six = self.hyper.six(theta)
        return Drawn(a, t, six[:, 4], six[:, 5], weight)

    def _draw(self, theta: Floats, each: int, seed: int) -> tuple[Floats, Floats]:
        """Logit pi0 and log tau (S, each, G)."""
        S, G = theta.shape[0], self.n_groups
        a, t = np.empty((S, each, G)), np.empty((S, each, G))
        step = max(1, int(BATCH / (G * (each + 20))))
        for k, i in enumerate(range(0, S, step)):
            some = self.target.draw(theta[i : i + step], each, np.array([seed, k]))
            a[i : i + step], t[i : i + step] = (np.moveaxis(x, 1, 2) for x in some)
        return a, t

    def joint(self, n: int, seed: int) -> tuple[Nodes, dict[str, Floats]]:
        thetas, weight = self._thetas
        used, position = np.unique(resample(weight, n, np.random.default_rng([seed, 4])), return_inverse=True)
        counts = np.bincount(position)
        turn = np.empty(n, dtype=np.int64)  # which draw of its theta each one is
        turn[np.argsort(position, kind="stable")] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
        a, t = np.empty((n, self.n_groups)), np.empty((n, self.n_groups))
        each, theta = int(counts.max()), thetas[used]
        step = max(1, int(BATCH / (self.n_groups * (each + 20))))
        for k, i in enumerate(range(0, len(theta), step)):
            mine = np.flatnonzero((position >= i) & (position < i + step))
            some = self.target.draw(theta[i : i + step], each, np.array([seed, k, 6]))
            a[mine], t[mine] = (x[position[mine] - i, :, turn[mine]] for x in some)
        return self._joint(theta, position, a, t)


@dataclass(frozen=True, eq=False, repr=False)
class ByCurve(_By):
    """Of a number: the curves' values at the bins, logit pi0 and log tau (S, G), are part of what nodes yield."""

    @cached_property
    def drawn(self) -> Drawn:
        picked, weight = representative_nodes(self.posterior.weights, 1, DRAWS)
        a, t = (x[picked][:, None] for x in self.posterior.payload[2:])
        six = self.hyper.six(self.posterior.theta[picked])
        return Drawn(a, t, six[:, 4], six[:, 5], weight)

    def joint(self, n: int, seed: int) -> tuple[Nodes, dict[str, Floats]]:
        rows = resample(self.posterior.weights, n, np.random.default_rng([seed, 4]))
        a, t = (x[rows] for x in self.posterior.payload[2:])
        return self._joint(self.posterior.theta[rows], np.arange(n), a, t)


class Grouping(Protocol):
    """What `groups` asks of what was learned."""

    covariate: Covariate

    def group_draws(self) -> tuple[Floats, Floats, Floats]: ...


def groups(screen: Screen, probs: npt.ArrayLike) -> pd.DataFrame:
    """One row per level or bin of the covariate; see `Screen.groups`.

    Raises
    ------
    FinettiError
        For a screen without `by`.
    """
    p = check_probs(probs)
    if not hasattr(screen.learned, "group_draws"):
        raise FinettiError(
            "this screen has one pi0 and one slab for all tests; give by= (a column) to let them vary with it"
        )
    learned = cast(Grouping, screen.learned)
    covariate = learned.covariate
    columns: dict[str, npt.ArrayLike] = {"n": covariate.sizes}
    if covariate.low is not None and covariate.high is not None:
        columns |= {"low": covariate.low, "high": covariate.high}
    pi0, tau, weight = learned.group_draws()
    for name, values in (("pi0", pi0), ("slab_sd", tau)):
        mean = weight @ values
        columns[f"{name}_mean"] = mean
        columns[f"{name}_sd"] = np.sqrt(weight @ (values - mean) ** 2)
        q = np.array([weighted_quantiles(values[:, g], weight, p) for g in range(values.shape[1])])
        columns |= {f"{name}_{label}": q[:, k] for k, label in enumerate(quantile_names(p))}
    nodes, node_weight = screen.nodes
    null = effects(screen.tests, screen.slab, nodes, node_weight, np.zeros(0))[:, 2]
    columns["expected_nonnull"] = np.bincount(screen.tests.group, weights=1.0 - null, minlength=covariate.n_groups)
    return pd.DataFrame(columns, index=covariate.labels)
