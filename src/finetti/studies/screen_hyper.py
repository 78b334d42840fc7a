"""What a screen has learned of its hyperparameters, in the three forms that its tables need.

rows    the table `Screen.hyper`, parameter by parameter
few     at most 32 weighted nodes, for tables of all tests
joint   equally weighted joint draws, for what depends on many tests at once

One prior for all tests (`Common`), or an estimate of it (`Estimated`); with covariates see `screen_by`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finetti.inference.coordinates import Coordinate
from finetti.inference.hyper import HyperPosterior
from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_empirical import Estimate
from finetti.inference.spike_slab_priors import NAMES, Hyper
from finetti.inference.spike_slab_sets import assign_sets
from finetti.studies.screen_nodes import few_nodes, null_probabilities, representative_tests

__all__ = ["Common", "Estimated", "Learned", "explored_rows", "held", "resample"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


# nodes from which draws are taken without a surrogate
ENOUGH_NODES = 1024


class Learned(Protocol):
    """What is known of the hyperparameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Index of `Screen.hyper`."""
        ...

    def rows(self, p: Floats) -> Mapping[str, list[float]]:
        """Mean, sd, quantiles at `p`, ess and mcse of every name."""
        ...

    @property
    def few(self) -> tuple[Nodes, Floats]:
        """At most 32 nodes and their weights: (S,), or (S, G) where every group of tests has its own."""
        ...

    def joint(self, n: int, seed: int) -> tuple[Nodes, Mapping[str, Floats]]:
        """`n` equally weighted draws in random order: as nodes, and as values (n,) of every name."""
        ...


def held(value: float, p: Floats) -> list[float]:
    """Return the row of a hyperparameter that is held or estimated at one value."""
    return [value, 0.0, *([value] * p.size), np.nan, 0.0]


class Explored(Protocol):
    """Coordinates of hyperparameters that were explored on nodes."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def natural(self, theta: Floats) -> Mapping[str, Floats]: ...

    def plain(self, theta: Floats) -> Floats: ...

    def coordinate(self, name: str) -> Coordinate: ...


def explored_rows(
    posterior: HyperPosterior, hyper: Explored, names: Sequence[str], p: Floats, estimated: bool = False
) -> dict[str, list[float]]:
    """Mean, sd, quantiles at `p`, ess and mcse of hyperparameters; of those held or `estimated`, their value."""
    natural, plain = hyper.natural(posterior.theta), hyper.plain(posterior.theta)
    dense = None if posterior.surrogate is None else posterior.surrogate.theta
    natural_dense = None if dense is None else hyper.natural(dense)
    plain_dense = None if dense is None else hyper.plain(dense)
    rows = {}
    for name in names:
        if name not in hyper.names or estimated:
            rows[name] = held(float(natural[name][0]), p)
            continue
        k = hyper.names.index(name)
        more = None if natural_dense is None else natural_dense[name][:, None]
        mean, sd, error, _ = (float(x[0]) for x in posterior.weighted.moments(natural[name][:, None], more))
        # quantiles in the unconstrained coordinate, where a correction cannot leave the parameter's range
        far = None if plain_dense is None else plain_dense[:, [k]]
        q = posterior.weighted.quantiles(plain[:, [k]], far, p)[0][:, 0]
        order = np.argsort(p)
        q[order] = np.maximum.accumulate(q[order])
        ess = (sd / error) ** 2 if error > 1e-8 * sd else np.nan
        rows[name] = [mean, sd, *hyper.coordinate(name).natural(q), ess, error]
    return rows


def resample(weights: Floats, n: int, rng: np.random.Generator) -> Ints:
    """Positions of `n` systematic draws by weight, in random order.

    Examples
    --------
    >>> np.bincount(resample(np.array([0.25, 0.75]), 8, np.random.default_rng(0))).tolist()
    [2, 6]
    """
    ticks = (np.arange(n) + rng.random()) / n
    order = rng.permutation(weights.size)
    total = np.cumsum(weights[order])
    picked = order[np.minimum(np.searchsorted(total / total[-1], ticks), weights.size - 1)]
    return rng.permutation(picked).astype(np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class Estimated:
    """One value of everything, of maximum likelihood."""

    estimate: Estimate

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES

    def rows(self, p: Floats) -> dict[str, list[float]]:
        return {name: held(value, p) for name, value in self.estimate.values.items()}

    @property
    def few(self) -> tuple[Nodes, Floats]:
        return self.estimate.nodes, np.ones(1)

    def joint(self, n: int, seed: int) -> tuple[Nodes, dict[str, Floats]]:
        values = {name: np.full(n, value) for name, value in self.estimate.values.items()}
        return self.estimate.nodes.take(np.zeros(n, dtype=np.int64)), values


@dataclass(frozen=True, eq=False, repr=False)
class Common:
    """One spike and slab for all tests, with the posterior of its hyperparameters.

    sets : (K,) weights of the sets of standard errors in `tests`, where there are several
    """

    tests: Observed
    slab: Slab
    posterior: HyperPosterior
    hyper: Hyper
    sets: Floats | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES

    def rows(self, p: Floats) -> dict[str, list[float]]:
        return explored_rows(self.posterior, self.hyper, NAMES, p)

    @cached_property
    def few(self) -> tuple[Nodes, Floats]:
        some = representative_tests(self.tests, len(self.hyper.names))

        def nulls(theta: Floats) -> Floats:
            return null_probabilities(some, self.slab, self.hyper.nodes(theta))

        theta, weights = few_nodes(self.posterior, nulls, some.n)
        return self._nodes(theta, weights), weights

    def joint(self, n: int, seed: int) -> tuple[Nodes, dict[str, Floats]]:
        rng = np.random.default_rng([seed, 4])
        # many nodes speak for themselves; the surrogate's points stand in for few, uncorrected
        dense = None if self.posterior.n_nodes >= ENOUGH_NODES else self.posterior.surrogate
        at, w = (self.posterior.theta, self.posterior.weights) if dense is None else (dense.theta, dense.weights)
        theta = at[resample(w, n, rng)]
        if self.sets is None:
            return self.hyper.nodes(theta), self.hyper.natural(theta)
        # a likelihood at every set for each of thousands of draws would be dear, and the few nodes have been given
        # theirs: a draw goes with the set of a few node chosen by weight
        nodes, weights = self.few
        assert nodes.which is not None
        which = nodes.which[resample(weights, n, rng)]
        return replace(self.hyper.nodes(theta), which=which), self.hyper.natural(theta)

    def _nodes(self, theta: Floats, weights: Floats) -> Nodes:
        nodes = self.hyper.nodes(theta)
        if self.sets is None:
            return nodes
        return replace(nodes, which=assign_sets(self.tests, self.slab, nodes, weights, self.sets))
