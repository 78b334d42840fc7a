"""One grouping factor at the hyperparameter nodes: the arrays that several tables read, computed once per fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.posterior.companions import memory
from finetti.posterior.groups import factor_index, representative_nodes, whole_replicates

if TYPE_CHECKING:
    from finetti.inference.infer import Inference
    from finetti.posterior.fit import Fit

__all__ = ["GroupNodes", "group_nodes"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# nodes that do for a table of many values: what they leave open is a hundredth of a posterior sd
ENOUGH, MANY_VALUES = 512, 5e4
# nodes x levels x coefficients kept with a fit: 160 MB for mean and variance
MOST_KEPT = 1e7


@dataclass(frozen=True)
class GroupNodes:
    """A factor with J levels and q coefficients at S nodes, NaN where not identified.

    nodes : (S,) positions among the nodes of the posterior; w : (S,) their weights, summing to one
    mean, variance : (S, J, q) of the whole coefficient given theta: population value plus deviation
    raw, raw_se : (J, q) averages over nodes of the level's own least-squares estimate
    weight : (J, q, q) averages of the shrinkage matrices; population : (q,)
    """

    nodes: Ints
    w: Floats
    mean: Floats
    variance: Floats
    raw: Floats
    raw_se: Floats
    weight: Floats
    population: Floats


def group_nodes(fit: Fit, name: str) -> GroupNodes:
    """Return a factor's moments at the nodes, remembered by the fit if they are not too many.

    Raises
    ------
    FinettiError
        If there is no such term.
    """
    kept, key = memory(fit), ("group_nodes", name)
    if key not in kept:
        made = _group_nodes(fit.inference, name)
        if made.mean.size > MOST_KEPT:
            return made
        kept[key] = made
    return kept[key]  # type: ignore[return-value]


def _group_nodes(inference: Inference, name: str) -> GroupNodes:
    factor = inference.bound.design.factors[factor_index(inference, name)]
    J, q = len(factor.levels), len(factor.coefficients)
    hyper = inference.hyper
    points = inference.sampled is not None and inference.sampled.u is not None
    size = J * q + (0 if points else inference.bound.design.y.size)
    nodes, w = representative_nodes(hyper.weights, size, hyper.n_nodes if points else None)
    if not points and nodes.size > ENOUGH and nodes.size * J * q > MANY_VALUES:
        nodes, w = whole_replicates(hyper, ENOUGH)
    mean, variance = np.empty((nodes.size, J, q)), np.empty((nodes.size, J, q))
    raw, raw_se, weight, population = np.zeros((J, q)), np.zeros((J, q)), np.zeros((J, q, q)), np.zeros(q)
    for batch in inference.conditional.groups(name, hyper.theta[nodes]):
        part, wb = batch.nodes, w[batch.nodes]
        mean[part] = batch.mean
        variance[part] = np.diagonal(batch.cov, axis1=2, axis2=3)
        raw += np.tensordot(wb, batch.raw, axes=1)
        raw_se += np.tensordot(wb, batch.raw_se, axes=1)
        weight += np.tensordot(wb, batch.weight, axes=1)
        population += wb @ batch.population
    return GroupNodes(nodes, w, mean, variance, raw, raw_se, weight, population)
