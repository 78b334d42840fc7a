"""How much of the spread between studies is real, and what each study weighs in the overall estimate.

With Sigma = V + tau_c^2 Z Z' + tau_s^2 I the covariance of the effects at a node (V of the errors), X the population
columns and x the row at which the overall effect stands (the mean row of X):

    overall(beta) = x beta,  least squares given theta:  a' y  with  a = Sigma^-1 X (X' Sigma^-1 X)^-1 x.

The share of a study is its a_i, averaged over nodes: with an intercept alone 1 / (se_i^2 + tau^2), scaled to sum to 1.
It leaves the prior of the coefficients out, and with moderators may be negative (a study far from the mean row).

I^2 = tau^2 / (tau^2 + s^2) compares with the typical error variance s^2 (Higgins and Thompson 2002, Stat. Med. 21,
1539-1558), with moderators and V through the projection (Jackson, White and Riley 2012, Stat. Med. 31, 3805-3820):

    s^2 = (k - p) / tr(P),   P = W - W X (X' W X)^-1 X' W,   W = V^-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.data.covariance import connected_parts

if TYPE_CHECKING:
    from finetti.data.bound import Bound

__all__ = ["shares", "squares", "typical_variance"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# values held at a time: nodes x rows of a block x rows of a block
_AT_ONCE = 5_000_000


def typical_variance(bound: Bound) -> float:
    """The typical error variance s^2 of the studies, in units of the effect squared.

    With as many coefficients as studies the projection leaves nothing, and s^2 = k / tr(W).
    """
    X = bound.design.X
    k, p = X.shape
    WX = np.empty_like(X)
    trace, done = 0.0, np.zeros(k, dtype=bool)
    for rows, cov in bound.error_covariance or ():
        W = np.linalg.inv(cov)
        WX[rows], done[rows] = W @ X[rows], True
        trace += float(np.trace(W))
    assert bound.design.se is not None
    w = bound.design.se**-2.0
    WX[~done] = w[~done, None] * X[~done]
    trace += float(w[~done].sum())
    if k == p:
        return k / trace
    # through the QR of X, so that a distant origin of a moderator costs no digits
    Q, R = np.linalg.qr(X)
    WQ = np.linalg.solve(R.T, WX.T).T
    return (k - p) / (trace - float(np.trace(np.linalg.solve(Q.T @ WQ, WQ.T @ WQ))))


def squares(sds: Mapping[str, Floats], s2: float) -> dict[str, Floats]:
    """I^2 of every sd (`tau`, or `tau_cluster` and `tau_study`) by name, and `I2` of all together.

    >>> {k: float(v[0]) for k, v in squares({"tau": np.array([2.0])}, 4.0).items()}
    {'I2': 0.5}
    """
    variances = {name: sd**2 for name, sd in sds.items()}
    total = np.sum(list(variances.values()), axis=0)

    def part(v: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(v), 1.0, v / (total + s2))

    return {name.replace("tau", "I2"): part(v) for name, v in variances.items()} | {"I2": part(total)}


def shares(bound: Bound, sds: Mapping[str, Floats], weights: Floats, row: Floats) -> Floats:
    """Share (k,) of every study in the overall effect at the row x (p,), averaged over nodes.

    sds : `cluster` (where there are clusters) and `study`, (S,) each; weights : (S,) of the nodes
    """
    design = bound.design
    k, p = design.X.shape
    assert design.se is not None
    Q, R = np.linalg.qr(design.X)
    target = np.linalg.solve(R.T, row)
    cluster = next((f.index for f in design.factors if f.name == "cluster"), None)
    S = weights.size
    tau2 = sds["study"] ** 2
    SQ = np.empty((S, k, p))  # Sigma^-1 Q
    for rows in _components(bound, cluster):
        error = _error(bound, rows)
        step = max(1, _AT_ONCE // max(rows.size**2, 1))
        for start in range(0, S, step):
            part = slice(start, start + step)
            if rows.size == 1:
                extra = sds["cluster"][part] ** 2 if cluster is not None else 0.0
                SQ[part, rows[0]] = Q[rows[0]] / (error[0, 0] + tau2[part] + extra)[:, None]
                continue
            Sigma = error + tau2[part, None, None] * np.eye(rows.size)
            if cluster is not None:
                same = cluster[rows][:, None] == cluster[rows]
                Sigma = Sigma + sds["cluster"][part, None, None] ** 2 * same
            SQ[part, rows] = np.linalg.solve(Sigma, np.broadcast_to(Q[rows], (Sigma.shape[0], rows.size, p)))
    gram = np.einsum("kp,skr->spr", Q, SQ)
    direction = np.linalg.solve(gram, np.broadcast_to(target[:, None], (S, p, 1)))[:, :, 0]
    return np.asarray(weights @ np.einsum("skp,sp->sk", SQ, direction))


def _error(bound: Bound, rows: Ints) -> Floats:
    """V of some rows."""
    assert bound.design.se is not None
    out = np.diag(bound.design.se[rows] ** 2)
    for members, cov in bound.error_covariance or ():
        at = np.searchsorted(rows, members)
        if at[0] < rows.size and rows[at[0]] == members[0]:
            out[np.ix_(at, at)] = cov
    return out


def _components(bound: Bound, cluster: Ints | None) -> list[Ints]:
    """Rows (sorted) that are correlated with each other, given theta and beta."""
    from scipy.sparse import coo_array

    k = bound.design.y.size
    edges = [np.stack([np.full(rows.size, rows[0]), rows]) for rows, _ in bound.error_covariance or ()]
    if cluster is not None:
        first = np.zeros(int(cluster.max()) + 1, dtype=np.int64)
        first[cluster[::-1]] = np.arange(k)[::-1]
        edges.append(np.stack([first[cluster], np.arange(k)]))
    if not edges:
        return [np.array([i]) for i in range(k)]
    i, j = np.concatenate(edges, axis=1)
    return connected_parts(coo_array((np.ones(i.size), (i, j)), shape=(k, k)))
