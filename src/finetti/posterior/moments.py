"""One grouping factor at the hyperparameter nodes: the arrays that several tables read, computed once per fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.inference.conditional import GaussianConditional
from finetti.posterior.companions import memory
from finetti.posterior.groups import factor_index, node_quantiles, representative_nodes, whole_replicates
from finetti.posterior.summary import check_probs, summarise

if TYPE_CHECKING:
    from finetti.inference.infer import Inference
    from finetti.posterior.fit import Fit

__all__ = ["GroupNodes", "group_nodes", "group_quantiles", "summary_table"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# nodes that do for a table of many values: what they leave open is a hundredth of a posterior sd
ENOUGH, MANY_VALUES = 512, 5e4
# and where a node costs a millisecond and more
DEAR_NODES = 64
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

    Where a node is dear, one solution at each serves all factors.

    Raises
    ------
    FinettiError
        If there is no such term.
    """
    kept, key = memory(fit), ("group_nodes", name)
    if key in kept:
        return kept[key]  # type: ignore[return-value]
    inference = fit.inference
    factor_index(inference, name)
    sizes = {f.name: len(f.levels) * len(f.coefficients) for f in inference.bound.design.factors}
    together = [name]
    if inference.dear and isinstance(inference.conditional, GaussianConditional):
        together += [other for other in sizes if other != name and sizes[other] * DEAR_NODES <= MOST_KEPT]
    made = _group_nodes(inference, together, sum(sizes[g] for g in together))
    for other, found in made.items():
        if found.mean.size <= MOST_KEPT:
            kept["group_nodes", other] = found
    return made[name]


def group_quantiles(fit: Fit, name: str, probs: npt.ArrayLike) -> Floats:
    """Quantiles (J, q, P) of a factor's coefficients; each is found once and remembered with the moments."""
    at, p = group_nodes(fit, name), np.atleast_1d(np.asarray(probs, dtype=float))
    found: dict[float, Floats] = {}
    if ("group_nodes", name) in (kept := memory(fit)):
        found = kept.setdefault(("group_quantiles", name), found)  # type: ignore[assignment]
    new = np.array([x for x in dict.fromkeys(p.tolist()) if x not in found])
    if new.size:
        values = node_quantiles(fit.inference, at.w, at.mean, at.variance, new)
        found.update({x: values[..., i] for i, x in enumerate(new.tolist())})
    return np.stack([found[x] for x in p.tolist()], axis=-1)


def summary_table(fit: Fit, probs: npt.ArrayLike) -> pd.DataFrame:
    """Return the summary of a fit, computed once for the same probabilities."""
    kept = memory(fit)
    key = ("summary", tuple(check_probs(probs).tolist()))
    if key not in kept:
        kept[key] = summarise(fit.inference, probs)
    return kept[key].copy()  # type: ignore[attr-defined]


def _group_nodes(inference: Inference, names: list[str], size: int) -> dict[str, GroupNodes]:
    """All `names` from the same nodes; `size` : levels x coefficients of all of them."""
    hyper = inference.hyper
    points = inference.sampled is not None and inference.sampled.u is not None
    rows = 0 if points else inference.bound.design.y.size
    nodes, w = representative_nodes(hyper.weights, size + rows, hyper.n_nodes if points else None)
    enough = DEAR_NODES if inference.dear else ENOUGH
    if not points and nodes.size > enough and (inference.dear or nodes.size * size > MANY_VALUES):
        nodes, w = whole_replicates(hyper, enough)
    factors = {f.name: f for f in inference.bound.design.factors if f.name in names}
    made = {g: _empty(nodes, w, len(f.levels), len(f.coefficients)) for g, f in factors.items()}
    conditional, theta = inference.conditional, hyper.theta[nodes]
    if isinstance(conditional, GaussianConditional):
        stream = conditional.groups_of(names, theta)
    else:
        stream = ({names[0]: batch} for batch in conditional.groups(names[0], theta))
    for batches in stream:
        for g, batch in batches.items():
            part, wb, out = batch.nodes, w[batch.nodes], made[g]
            out.mean[part] = batch.mean
            out.variance[part] = np.diagonal(batch.cov, axis1=2, axis2=3)
            np.add(out.raw, np.tensordot(wb, batch.raw, axes=1), out=out.raw)
            np.add(out.raw_se, np.tensordot(wb, batch.raw_se, axes=1), out=out.raw_se)
            np.add(out.weight, np.tensordot(wb, batch.weight, axes=1), out=out.weight)
            np.add(out.population, wb @ batch.population, out=out.population)
    return made


def _empty(nodes: Ints, w: Floats, J: int, q: int) -> GroupNodes:
    shape = (nodes.size, J, q)
    return GroupNodes(
        nodes, w, np.empty(shape), np.empty(shape), np.zeros((J, q)), np.zeros((J, q)), np.zeros((J, q, q)), np.zeros(q)
    )
