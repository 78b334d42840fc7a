"""Posterior expectations of functions of theta from weighted nodes, with errors from replicates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.surrogate import Surrogate
from finetti.inference.weights import quantiles_by_row, weighted_quantiles

__all__ = ["WeightedNodes"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WeightedNodes:
    """Nodes theta (S, d) with weights (S,) summing to one, replicate labels, and a surrogate if there is one."""

    theta: Floats
    weights: Floats
    replicate: Ints
    surrogate: Surrogate | None

    @property
    def n_replicates(self) -> int:
        return int(self.replicate.max()) + 1

    @cached_property
    def _average(self) -> Floats:
        """(R, S): row r averages over the nodes of replicate r with their weights."""
        mine = self.replicate == np.arange(self.n_replicates)[:, None]
        w = mine * self.weights
        total = w.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, w / total, mine / mine.sum(axis=1, keepdims=True))

    @cached_property
    def _by_replicate(self) -> Ints:
        """(R, n) positions of the nodes of each replicate, which all have as many."""
        return np.argsort(self.replicate, kind="stable").reshape(self.n_replicates, -1)

    def per_replicate(self, values: Floats) -> Floats:
        """Self-normalised means (R, ...) of node values (S, ...)."""
        out = self._average @ values.reshape(values.shape[0], -1)
        return out.reshape(-1, *values.shape[1:])

    def moments(self, at_nodes: Floats, at_dense: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, sd, and the Monte Carlo errors of both, of k functions: (S, k) at nodes, (M, k) at dense points.

        The control variate serves each moment whose error it lowers; where the polynomial misses a
        tail it would not, and the plain weighted nodes are used.
        """
        plain = self._plain_moments(at_nodes)
        if self.surrogate is None or at_dense is None:
            return plain
        controlled = self.surrogate.moments(at_nodes, at_dense)
        use_mean, use_sd = controlled[2] <= plain[2], controlled[3] <= plain[3]
        return (
            np.where(use_mean, controlled[0], plain[0]),
            np.where(use_sd, controlled[1], plain[1]),
            np.where(use_mean, controlled[2], plain[2]),
            np.where(use_sd, controlled[3], plain[3]),
        )

    def _plain_moments(self, at_nodes: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        mean = self.weights @ at_nodes
        squared = (at_nodes - mean) ** 2
        sd = np.sqrt(np.maximum(self.weights @ squared, 0.0))
        root = np.sqrt(self.n_replicates)
        means = self.per_replicate(at_nodes)
        sds = np.sqrt(np.maximum(self.per_replicate(squared) - (means - mean) ** 2, 0.0))
        return mean, sd, means.std(axis=0, ddof=1) / root, sds.std(axis=0, ddof=1) / root

    def quantiles(self, at_nodes: Floats, at_dense: Floats | None, probs: Floats) -> tuple[Floats, Floats]:
        """Quantiles (P, k) of k functions (S, k), (M, k), and their Monte Carlo errors.

        The control variate serves each quantile whose error it lowers.
        """
        plain, error = self._plain_quantiles(at_nodes, probs)
        if self.surrogate is None or at_dense is None:
            return plain, error
        controlled, lower = self.surrogate.quantiles(at_nodes, at_dense, probs)
        return np.where(lower <= error, controlled, plain), np.minimum(lower, error)

    def _plain_quantiles(self, at_nodes: Floats, probs: Floats) -> tuple[Floats, Floats]:
        by, w = self._by_replicate, self.weights[self._by_replicate]
        value = np.empty((probs.size, at_nodes.shape[1]))
        error = np.empty_like(value)
        some = w.sum(axis=1) > 0  # else the node count is far too small, and k says so
        for j in range(at_nodes.shape[1]):
            value[:, j] = weighted_quantiles(at_nodes[:, j], self.weights, probs)
            each = quantiles_by_row(at_nodes[by[some], j], w[some], probs)
            error[:, j] = each.std(axis=0, ddof=1) / np.sqrt(self.n_replicates)
        return value, error
