"""Posterior expectations of functions of theta from weighted nodes, with errors from replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.inference.surrogate import Surrogate
from finetti.inference.weights import weighted_quantiles

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

    def per_replicate(self, values: Floats) -> Floats:
        """Self-normalised means (R, ...) of node values (S, ...)."""
        out = np.empty((self.n_replicates, *values.shape[1:]))
        for r in range(self.n_replicates):
            mine = self.replicate == r
            w = self.weights[mine]
            total = w.sum()
            out[r] = np.tensordot(w / total if total > 0 else np.full(w.size, 1.0 / w.size), values[mine], axes=1)
        return out

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
        sd = np.sqrt(np.maximum(self.weights @ (at_nodes - mean) ** 2, 0.0))
        root = np.sqrt(self.n_replicates)
        means = self.per_replicate(at_nodes)
        squares = self.per_replicate((at_nodes - mean) ** 2)
        sds = np.sqrt(np.maximum(squares - (means - mean) ** 2, 0.0))
        return mean, sd, means.std(axis=0, ddof=1) / root, sds.std(axis=0, ddof=1) / root

    def quantiles(self, at_nodes: Floats, at_dense: Floats | None, probs: Floats) -> tuple[Floats, Floats]:
        """Quantiles (P,) of one function, and their Monte Carlo errors; the control variate where it helps."""
        plain, error = self._plain_quantiles(at_nodes, probs)
        if self.surrogate is None or at_dense is None:
            return plain, error
        controlled, lower = self.surrogate.quantiles(at_nodes, at_dense, probs)
        return np.where(lower <= error, controlled, plain), np.minimum(lower, error)

    def _plain_quantiles(self, at_nodes: Floats, probs: Floats) -> tuple[Floats, Floats]:
        value = weighted_quantiles(at_nodes, self.weights, probs)
        each = np.array(
            [
                weighted_quantiles(at_nodes[self.replicate == r], self.weights[self.replicate == r], probs)
                for r in range(self.n_replicates)
                if self.weights[self.replicate == r].sum() > 0  # else the node count is far too small, and k says so
            ]
        )
        return value, each.std(axis=0, ddof=1) / np.sqrt(self.n_replicates)
