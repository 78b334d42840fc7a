"""A screen whose standard errors are uncertain themselves: K weighted sets of them, averaged over exactly.

Moderated variances depend on hyperparameters phi of their own, known through the residual variances s^2 of all genes
and, a little, through the effects x. With nodes phi_k of weights w_k from p(phi | s^2)

    p(theta | x, s^2) ~ p(theta) sum_k w_k p(x | theta, phi_k),     p(k | theta, x, s^2) ~ w_k p(x | theta, phi_k),

so that the density is a mixture, and a node theta of the result goes with a set k by the second formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_target import ScreenTarget

__all__ = ["SetsTarget", "assign_sets"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SetsTarget:
    """`ScreenTarget` averaged over sets of standard errors.

    base : the target at the one set that stands for all; finds the starts
    weights : (K,) of the sets in `base.tests.sets`
    """

    base: ScreenTarget
    weights: Floats

    @property
    def names(self) -> tuple[str, ...]:
        return self.base.names

    @property
    def cost(self) -> float:
        return self.base.cost * self.weights.size

    @cached_property
    def each(self) -> tuple[ScreenTarget, ...]:
        """The target at every set."""
        b = self.base
        return tuple(ScreenTarget(b.tests.of_set(k), b.slab, b.hyper) for k in range(self.weights.size))

    def _mixed(self, values: Floats) -> tuple[Floats, Floats]:
        """Log of the weighted mean of exp(values (K, S)), and what each set has in it."""
        with np.errstate(all="ignore"):
            terms = values + np.log(self.weights)[:, None]
            top = np.max(terms, axis=0)
            shares = np.exp(terms - top)
            total = shares.sum(axis=0)
            return top + np.log(total), shares / total

    def log_density(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        value, _ = self._mixed(np.stack([t.log_density(theta)[0] for t in self.each]))
        return value, ()

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        values, slopes = zip(*(t.gradient(theta) for t in self.each), strict=True)
        value, shares = self._mixed(np.stack(values))
        return value, np.einsum("ks,ksd->sd", shares, np.stack(slopes))

    def starts(self) -> Floats:
        return self.base.starts()

    def curvature(self) -> Floats:
        return self.base.curvature()


def assign_sets(tests: Observed, slab: Slab, nodes: Nodes, weights: Floats, prior: Floats) -> Ints:
    """Give each weighted node (S,) a set, so that all nodes together have each set by its probability.

    Node by node the set is taken that the nodes so far owe most (error diffusion), which leaves a smaller error than
    chance would.

    Parameters
    ----------
    prior : (K,) weights of the sets before the effects are seen
    """
    with np.errstate(all="ignore"):
        log_p = np.stack([tests.of_set(k).log_likelihood(slab, nodes) for k in range(prior.size)], axis=1)
        log_p += np.log(prior)
        share = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    owed, out = np.zeros(prior.size), np.empty(nodes.n, dtype=np.int64)
    for s in np.argsort(-weights, kind="stable"):
        owed += weights[s] * share[s]
        out[s] = np.argmax(np.where(share[s] > 0.0, owed, -np.inf))
        owed[out[s]] -= weights[s]
    return out
