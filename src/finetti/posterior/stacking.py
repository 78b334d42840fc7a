"""Stacking: the mixture of predictive distributions that predicts best what no model has seen.

With l_ik the log predictive density of part i by model k, Yao, Vehtari, Simpson and Gelman (2018) ask for

    maximise  (1/m) sum_i log sum_k w_k exp(l_ik)   over   w_k >= 0, sum_k w_k = 1,

a concave problem, solved here by Newton's method on a shrinking log barrier. As the objective is homogeneous up to a
constant, sum_k w_k may be subtracted in place of the constraint; and with

    g_k = (1/m) sum_i exp(l_ik) / sum_j w_j exp(l_ij)

no other weights gain more than max_k g_k - 1 per part, which is the gap that stops the search.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["stacking_weights"]

Floats = npt.NDArray[np.float64]

# what the mixture could still gain, all parts together in natural-log units, when the search stops
STACKING_GAP = 1e-7


def stacking_weights(log_p: npt.ArrayLike) -> Floats:
    """Weights of the mixture of models that predicts best.

    Parameters
    ----------
    log_p : (m, K)
        Log predictive density of every part by every model that has not seen it; -inf is allowed, if some model
        predicts the part.

    Returns
    -------
    ndarray of shape (K,)
        Not negative, summing to one; no other weights gain more than 1e-7 in the sum over parts.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13, 917-1007.

    Examples
    --------
    >>> stacking_weights([[-1.0, -2.0], [-2.0, -1.0], [-1.0, -3.0]]).round(2).tolist()
    [0.94, 0.06]
    """
    values = np.asarray(log_p, dtype=np.float64)
    P = np.exp(values - values.max(axis=1, keepdims=True))
    m, K = P.shape
    w = np.full(K, 1.0 / K)
    barrier = 1.0 / K
    while True:
        for _ in range(100):
            R = P / (P @ w)[:, None]
            slope = R.mean(axis=0) - 1.0 + barrier / w
            bend = R.T @ R / m + np.diag(barrier / w**2)
            step = np.linalg.solve(bend, slope)
            gain = float(slope @ step)
            # at most most of the way to an edge, and no further than the barrier function rises
            shrinking = step < 0.0
            size = min(1.0, 0.95 * float(np.min(-w[shrinking] / step[shrinking], initial=np.inf)))
            before = _barrier_value(P, w, barrier)
            while size > 1e-10 and _barrier_value(P, w + size * step, barrier) < before + 1e-4 * size * gain:
                size *= 0.5
            if size <= 1e-10:
                break
            w = w + size * step
            if gain < 1e-4 * barrier:
                break
        share = w / w.sum()
        gap = m * (float((P / (P @ share)[:, None]).mean(axis=0).max()) - 1.0)
        if gap < STACKING_GAP or barrier < 1e-16:
            return share
        barrier *= 0.1


def _barrier_value(P: Floats, w: Floats, barrier: float) -> float:
    return float(np.mean(np.log(P @ w)) - w.sum() + barrier * np.log(w).sum())
