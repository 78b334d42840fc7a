"""What a replication of every test would measure, and whether it would agree in sign.

    x' = null_mean se' + b + null_sd se' error

A replication shares the empirical null with the screen: its shift and width are taken for features of how the
experiment is done, which repeat. What does not repeat is the error; b and the hyperparameters are averaged over. With
node weights w_s, and m_s and v_s the mean and variance of x' at node s,

    E x' = sum_s w_s m_s,   Var x' = sum_s w_s v_s + sum_s w_s (m_s - E x')^2,   v_s = Var_s b + (null_sd_s se')^2 V,

V = df / (df - 2) the variance of the errors: infinite for df at most 2, and without a mean for df at most 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.errors import PredictionError
from finetti.inference.spike_slab_replicate import replicate
from finetti.inference.spike_slab_tests import at_nodes, pieces
from finetti.posterior.summary import check_probs, quantile_names

if TYPE_CHECKING:
    from finetti.studies.screen import Screen

__all__ = ["predict"]

Floats = npt.NDArray[np.float64]


def predict(screen: Screen, se: Any = None, probs: npt.ArrayLike = (0.05, 0.5, 0.95)) -> pd.DataFrame:
    """Predict a replication of every test; see `Screen.predict`."""
    p = check_probs(probs)
    tests, (nodes, weights) = screen.tests, screen.nodes
    n, effect = screen.n_tests, screen.screened.effect
    new = _standard_errors(screen, se)
    df = tests.df[None] if tests.sets is None else tests.sets[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        error_variance = np.where(np.isinf(df), 1.0, np.where(df > 2.0, df / (df - 2.0), np.inf))
    which = nodes.layered[-1]
    mean, variance, agree = np.empty(n), np.empty(n), np.empty(n)
    for rows in pieces(n, nodes.n):
        found = at_nodes(tests, screen.slab, nodes, rows=rows)
        w = tests.node_weights(weights, rows)
        layer = which[:, None]
        scale = new[layer if new.shape[0] > 1 else np.zeros_like(layer), rows]
        centre = nodes.mu[:, None] * scale + found.mean
        spread = found.within + found.null_or_not + (nodes.kappa[:, None] * scale) ** 2 * error_variance[layer, rows]
        mean[rows] = np.sum(w * centre, axis=0)
        variance[rows] = np.sum(w * (spread + (centre - mean[rows]) ** 2), axis=0)
        agree[rows] = np.sum(w * np.where(effect[rows] > 0.0, found.above, found.below), axis=0)
    exists = np.all(df > 1.0, axis=0)
    above, *quantiles = replicate(tests, screen.slab, nodes, weights, new, p).T
    columns = {
        "mean": np.where(exists, mean, np.nan),
        "sd": np.where(exists, np.sqrt(variance), np.nan),
        **dict(zip(quantile_names(p), quantiles, strict=True)),
        "prob_same_sign": np.where(effect > 0.0, above, np.where(effect < 0.0, 1.0 - above, np.nan)),
        "prob_true_same_sign": np.where(effect == 0.0, np.nan, agree),
    }
    return pd.DataFrame(columns, index=screen.screened.labels)


def _standard_errors(screen: Screen, se: Any) -> Floats:
    """Standard errors of the replication: (1, n), or (K, n) where the tests have K sets and keep theirs."""
    tests, n = screen.tests, screen.n_tests
    if se is None:
        return tests.se[None] if tests.sets is None else tests.sets[0]
    try:
        given = np.asarray(se, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.zeros((0, 0))
    if given.ndim > 1 or (given.ndim == 1 and given.size != n):
        raise PredictionError(
            f"se must be the standard error of the replication, a number or one for each of the {n} tests in their "
            f"order; given {type(se).__name__} of shape {np.shape(se)}"
        )
    out = np.broadcast_to(given, (n,))
    bad = np.flatnonzero(~(np.isfinite(out) & (out > 0.0)))
    if bad.size:
        raise PredictionError(
            f"se must be finite and above zero, but it is {out[bad[0]]:g}"
            + (f" in row {bad[0]} (counting from 0; {bad.size} such rows in all)" if given.ndim else "")
        )
    return np.array(out)[None]
