"""Table of one grouping factor: raw estimate, shrinkage weight, partially pooled estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import FinettiError, available
from finetti.inference.hyper import HyperPosterior
from finetti.inference.infer import Inference
from finetti.posterior.mixtures import mixture_quantiles
from finetti.posterior.summary import check_probs, quantile_names

if TYPE_CHECKING:
    from finetti.posterior.fit import Fit

__all__ = ["group_table", "node_quantiles", "representative_nodes", "whole_replicates"]

Floats = npt.NDArray[np.float64]

# nodes, and values (nodes x (rows + levels x coefficients)), kept for mixtures; beyond either the nodes are thinned
# to a representative set. Thinning 1 in 1,000 moves a quantile of a coefficient by less than its mcse.
MOST_NODES, FEWEST_NODES, MOST_VALUES = 2048, 64, 1e7


def representative_nodes(weights: Floats, size: int, most: int | None = None) -> tuple[npt.NDArray[np.int64], Floats]:
    """Positions and weights of the nodes for a table of `size` values.

    All that carry weight if they are few enough (at most `most`), else a systematic resample of them.
    """
    most = int(min(MOST_NODES if most is None else most, max(FEWEST_NODES, MOST_VALUES // max(size, 1))))
    alive = np.flatnonzero(weights > 1e-12)
    if alive.size <= most:
        return alive, weights[alive] / weights[alive].sum()
    # in an order of its own: nodes are Sobol points, and every 2^k-th of them shares its leading digits
    order = np.random.default_rng(0).permutation(alive)
    ticks = (np.arange(most) + 0.5) / most
    picked = order[np.searchsorted(np.cumsum(weights[order]) / weights[order].sum(), ticks)]
    unique, counts = np.unique(picked, return_counts=True)
    return unique, counts / most


def whole_replicates(hyper: HyperPosterior, most: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Positions and weights of about `most` nodes: whole replicates, at least half of `most`.

    Each replicate is a Sobol set of its own and serves better than as many nodes taken from all of them.
    """
    if hyper.n_nodes <= most:
        return representative_nodes(hyper.weights, 1, most)
    some = max(1, most // (hyper.n_nodes // hyper.n_replicates))
    mine = np.flatnonzero((hyper.replicate < some) & (hyper.weights > 1e-12))
    w = hyper.weights[mine] / max(hyper.weights[mine].sum(), 1e-300)
    if mine.size > 2 * most or not np.sum(w**2) * most < 10.0:  # too few replicates, or too few nodes that count
        return representative_nodes(hyper.weights, 1, most)
    return mine, w


def node_quantiles(inference: Inference, w: Floats, mean: Floats, variance: Floats, probs: Floats) -> Floats:
    """Quantiles (..., P) over nodes: mean and variance (S, ...); of draws where every node is a point mass."""
    if inference.sampled is not None and np.ptp(w) == 0.0 and not variance.any():
        return np.moveaxis(np.quantile(mean, probs, axis=0), 0, -1)
    return mixture_quantiles(w, mean, variance, probs)


def factor_index(inference: Inference, name: str) -> int:
    """Position of a grouping factor, or an error that lists them."""
    names = [f.name for f in inference.bound.design.factors]
    if name not in names:
        if not names:
            raise FinettiError(f"the model has no grouping terms, so there is no {name!r}; add one such as (1 | group)")
        raise FinettiError(f"{name!r} is not a grouping term of this model; {available(str(name), names)}")
    return names.index(name)


def group_table(fit: Fit, name: str, probs: npt.ArrayLike) -> pd.DataFrame:
    """One row per level and coefficient; see `Fit.groups`."""
    from finetti.posterior.moments import group_nodes, group_quantiles

    p = check_probs(probs)
    inference = fit.inference
    factor = inference.bound.design.factors[factor_index(inference, name)]
    J, q = len(factor.levels), len(factor.coefficients)
    at = group_nodes(fit, name)
    centre = np.tensordot(at.w, at.mean, axes=1)
    sd = np.sqrt(np.tensordot(at.w, at.variance + (at.mean - centre) ** 2, axes=1))
    quantiles = group_quantiles(fit, name, p)
    frame = {
        "level": np.repeat(np.array(factor.levels, dtype=object), q),
        "coefficient": np.tile(np.array(factor.coefficients, dtype=object), J),
        "n": np.repeat(np.bincount(factor.index, minlength=J), q),
        "raw": at.raw.ravel(),
        "raw_se": at.raw_se.ravel(),
        "weight": np.diagonal(at.weight, axis1=1, axis2=2).ravel(),
        "population": np.tile(at.population, J),
        "mean": centre.ravel(),
        "sd": sd.ravel(),
    }
    frame.update({c: quantiles[..., k].ravel() for k, c in enumerate(quantile_names(p))})
    return pd.DataFrame(frame)
