"""A few nodes that stand for the whole posterior of the hyperparameters.

The table of a screen is a mixture over nodes, and a thousand of them times a million tests would take hours. A positive
quadrature rule on at most K of the nodes themselves that meets K expectations exactly always exists (Tchakaloff; Davis
1967, Math. Comp. 21), and non-negative least squares finds it: its solution has no more positive weights than there are
equations (Piazzon, Sommariva and Vianello 2017, Dolomites Res. Notes Approx. 10).

The 32 expectations here are the constant, means and covariances of theta, and mean and mean square of `prob_null`
itself for some tests from the bulk to the most extreme (8 where theta has four coordinates, 13 where it has two).
Functions of theta like these are what the table shows: what is left out is their part that none of them explains.
Against all nodes, `prob_null` of any test was off by at most 0.005 and usually by 0.001, with 30 tests as with 5,000;
by 0.01 against a dense grid for 40 tests whose standard errors differ by factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from finetti.inference.hyper import HyperPosterior
from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.posterior.groups import representative_nodes

__all__ = ["MOST", "few_nodes", "null_probabilities", "representative_tests"]

Floats = npt.NDArray[np.float64]

MOST = 32
# nodes among which the few are chosen
CANDIDATES = 1024
# moments of theta are met before those of the functions are
FIRST = 10.0


def few_nodes(
    hyper: HyperPosterior, functions: Callable[[Floats], Floats], n_functions: int, most: int = MOST
) -> tuple[Floats, Floats]:
    """Nodes theta (K, d), K <= `most`, and weights (K,) that sum to one.

    Parameters
    ----------
    hyper : expectations to be met are those of its weighted nodes, with the surrogate's help where there is one
    functions : theta (S, d) -> (S, n_functions), whose means and mean squares are to be met, too
    """
    theta, w = hyper.theta, hyper.weights
    if np.count_nonzero(w > 0.0) <= most:
        return theta[w > 0.0], w[w > 0.0] / w[w > 0.0].sum()
    dense = hyper.surrogate
    pool, pool_weight = (theta, w) if dense is None else (dense.theta, dense.weights)
    centre = w @ theta
    try:
        root = np.linalg.cholesky(((theta - centre).T * w) @ (theta - centre))
    except np.linalg.LinAlgError:  # all weight on a few nodes: the check of the weights has failed, and says so
        picked, share = representative_nodes(w, 1, most)
        return theta[picked], share
    f_nodes = functions(theta)
    f_centre = w @ f_nodes
    f_sd = np.maximum(np.sqrt(w @ (f_nodes - f_centre) ** 2), 1e-9)

    def features(t: Floats, f: Floats) -> Floats:
        white = np.linalg.solve(root, (t - centre).T).T
        pairs = [white[:, i] * white[:, j] for i, j in combinations_with_replacement(range(t.shape[1]), 2)]
        g = (f - f_centre) / f_sd
        return np.column_stack([np.ones(len(t)), white, *pairs, g, g * g])

    picked, _ = representative_nodes(pool_weight, 1, CANDIDATES)
    at_nodes = features(theta, f_nodes)
    if dense is None:
        at_pool = at_nodes[picked]
        goal = w @ at_nodes
    else:
        everywhere = features(pool, functions(pool))
        at_pool = everywhere[picked]
        with np.errstate(all="ignore"):  # of a probability that is 0 at every node the sd and its error are nothing
            goal, *_ = hyper.weighted.moments(at_nodes, everywhere)
    urgency = np.ones(at_pool.shape[1])
    urgency[: at_pool.shape[1] - 2 * n_functions] = FIRST
    if not np.all(np.isfinite(goal)):  # the check of the weights has failed, and says so
        picked, share = representative_nodes(w, 1, most)
        return theta[picked], share
    found, _ = nnls((at_pool * urgency).T, goal * urgency, maxiter=100 * most)
    keep = np.argsort(-found, kind="stable")[:most]
    keep = np.sort(keep[found[keep] > 0.0])
    return pool[picked[keep]], found[keep] / found[keep].sum()


def representative_tests(tests: Observed, d: int, most: int = MOST) -> Observed:
    """As many tests as leave room for the moments of d coordinates: from the bulk to the most extreme."""
    room = (most - 1 - d - d * (d + 1) // 2) // 2
    order = np.argsort(np.abs(tests.z), kind="stable")
    tail = np.geomspace(1.0, 1.0 / tests.n, room)
    at = order[np.unique(np.clip(((1.0 - tail) * tests.n).astype(np.int64), 0, tests.n - 1))]
    return replace(tests.take(at), count=np.ones(at.size))


def null_probabilities(tests: Observed, slab: Slab, nodes: Nodes) -> Floats:
    """Posterior probability of the null, (S, n), at every node; of one group of tests."""
    log_ratio, _ = tests.log_ratio(slab, nodes.tau[:, 0].copy(), nodes.mu, nodes.kappa)
    return np.asarray(nodes.pi0 / (nodes.pi0 + nodes.rest * np.exp(np.minimum(log_ratio, 700.0))))
