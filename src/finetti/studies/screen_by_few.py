"""At most 32 nodes of which every group has its own pi0, slab scale and weights; the null is shared.

Joint draws (theta, and every group's logit pi0 and log tau) are sorted into cells of equal weight whose nulls are
alike; a cell is a row of the nodes. In each cell a group takes one of its draws, near a point of a set that is spread
evenly, and then weights that meet, by non-negative least squares, the posterior means of its logit pi0, log tau and
null, their squares and products, and mean and mean square of `prob_null` of four tests of the group.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.special import expit, ndtri

from finetti.inference.spike_slab import Nodes, Observed, Slab

__all__ = ["Drawn", "few_by_group"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLITS = 5
ROWS = 2**SPLITS
SOME_TESTS = 4
# moments of the group's own prior are met before those that involve the null, these before those of tests
URGENCY = (30.0, 10.0, 3.0)
# draws at which tests are looked at
LOOKED_AT = 512


class Drawn:
    """Joint draws: a, t (M, K, G) at M thetas of weight (M,), with K draws each; mu, kappa (M,)."""

    def __init__(self, a: Floats, t: Floats, mu: Floats, kappa: Floats, weight: Floats) -> None:
        self.a, self.t, self.mu, self.kappa, self.weight = a, t, mu, kappa, weight

    def flat(self, x: Floats) -> Floats:
        """(M K, G) of (M, K, G)."""
        return x.reshape(-1, x.shape[2])

    @property
    def flat_weight(self) -> Floats:
        K = self.a.shape[1]
        return np.repeat(self.weight / K, K)


def _cells(columns: Floats, weight: Floats) -> Ints:
    """The cell of each row: halves of equal weight, along the columns in turn."""
    cell = np.zeros(weight.size, dtype=np.int64)
    for k in range(SPLITS):
        x = columns[:, k % columns.shape[1]]
        new = 2 * cell
        for c in range(2**k):
            mine = np.flatnonzero(cell == c)
            order = mine[np.argsort(x[mine], kind="stable")]
            total = np.cumsum(weight[order])
            upper = order[total - 0.5 * weight[order] > 0.5 * total[-1]] if order.size else order
            new[upper] += 1
        cell = new
    return cell


def _spread() -> Floats:
    """`ROWS` points spread evenly under a standard normal in the plane."""
    i = np.arange(ROWS)
    reverse = np.array([int(f"{k:0{SPLITS}b}"[::-1], 2) for k in i])
    # cells are sorted by the null: a permutation of their own for each coordinate
    first, second = (reverse + 0.5) / ROWS, ((i * 13 + 5) % ROWS + 0.5) / ROWS
    return np.column_stack([ndtri(first), ndtri(second)])


def few_by_group(tests: Observed, ptr: Ints, slab: Slab, drawn: Drawn) -> tuple[Nodes, Floats]:
    """Nodes (`ROWS`, G) and weights (`ROWS`, G); `tests` sorted by group."""
    G, K = drawn.a.shape[2], drawn.a.shape[1]
    weight = drawn.flat_weight
    null = np.column_stack([drawn.mu, np.log(drawn.kappa)])
    centre = drawn.weight @ null
    sd = np.sqrt(drawn.weight @ (null - centre) ** 2)
    white = (null - centre) / np.where(sd > 1e-9 * (1.0 + np.abs(centre)), sd, 1.0)
    if drawn.weight.size >= 2 * ROWS:
        cell = np.repeat(_cells(white, drawn.weight), K)
    else:  # few thetas: the draws given each serve any row
        cell = np.full(weight.size, -1)
    wide = np.repeat(white, K, axis=0)
    rows_null = np.zeros((ROWS, 2))
    members = []
    for c in range(ROWS):
        mine = np.flatnonzero(cell == c) if cell[0] >= 0 else np.arange(c % weight.size, weight.size, 1)
        mine = mine[weight[mine] > 0.0]
        if not mine.size:
            mine = np.flatnonzero(weight > 0.0)
        members.append(mine)
        rows_null[c] = weight[mine] @ wide[mine] / weight[mine].sum()
    # what differs within cells is given back by stretching what differs between them
    between, all_of = np.sqrt(np.mean((rows_null - rows_null.mean(axis=0)) ** 2, axis=0)), np.sqrt(weight @ wide**2)
    rows_null = np.where(between > 1e-12, rows_null * all_of / np.maximum(between, 1e-12), rows_null)
    real = rows_null * np.where(sd > 1e-9 * (1.0 + np.abs(centre)), sd, 0.0) + centre
    mu, kappa = real[:, 0].copy(), np.exp(real[:, 1])
    a, t = drawn.flat(drawn.a), drawn.flat(drawn.t)
    goals = _spread()
    out_a, out_t, out_w = np.empty((ROWS, G)), np.empty((ROWS, G)), np.empty((ROWS, G))
    looked = np.unique(np.linspace(0, weight.size - 1, LOOKED_AT).astype(np.int64))
    looked = looked[weight[looked] > 0.0]
    flat_mu, flat_kappa = np.repeat(drawn.mu, K), np.repeat(drawn.kappa, K)
    for g in range(G):
        own = np.column_stack([a[:, g], t[:, g]])
        middle = weight @ own
        covariance = ((own - middle).T * weight) @ (own - middle) + 1e-14 * np.eye(2)
        covariance += 1e-9 * np.trace(covariance) * np.eye(2)
        root = np.linalg.cholesky(covariance)
        x = np.linalg.solve(root, (own - middle).T).T
        picked = np.array(
            [m[np.argmin(np.sum((x[m] - goal) ** 2, axis=1))] for m, goal in zip(members, goals, strict=True)]
        )
        some = _some(tests, int(ptr[g]), int(ptr[g + 1]))
        full = _tests(some, slab, a[looked, g], t[looked, g], flat_mu[looked], flat_kappa[looked])
        here = _tests(some, slab, a[picked, g], t[picked, g], mu, kappa)
        w_looked = weight[looked] / weight[looked].sum()
        f_mean = w_looked @ full
        f_sd = np.maximum(np.sqrt(w_looked @ (full - f_mean) ** 2), 1e-9)
        at_rows = _features(x[picked], rows_null, (here - f_mean) / f_sd)
        at_all = _features(x, wide, None)
        goal = np.concatenate([weight @ at_all, np.zeros(full.shape[1]), np.ones(full.shape[1])])
        urgency = np.concatenate(
            [np.full(6, URGENCY[0]), np.full(at_all.shape[1] - 6, URGENCY[1]), np.full(2 * full.shape[1], URGENCY[2])]
        )
        found, _ = nnls((at_rows * urgency).T, goal * urgency, maxiter=100 * ROWS)
        out_a[:, g], out_t[:, g], out_w[:, g] = a[picked, g], t[picked, g], found / found.sum()
    return Nodes(expit(out_a), expit(-out_a), np.exp(out_t), mu, kappa), out_w


def _features(x: Floats, null: Floats, f: Floats | None) -> Floats:
    parts = [
        np.ones(len(x)), x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2,
        null[:, 0], null[:, 1], null[:, 0] ** 2, null[:, 1] ** 2, null[:, 0] * null[:, 1],
        x[:, 0] * null[:, 0], x[:, 0] * null[:, 1], x[:, 1] * null[:, 0], x[:, 1] * null[:, 1],
    ]  # fmt: skip
    return np.column_stack(parts if f is None else [*parts, f, f * f])


def _some(tests: Observed, first: int, last: int) -> Observed:
    """A few tests of a group, from its middle to its most extreme."""
    order = first + np.argsort(np.abs(tests.z[first:last]), kind="stable")
    n = last - first
    at = np.unique(np.clip(((1.0 - np.geomspace(1.0, 1.0 / n, SOME_TESTS)) * n).astype(np.int64), 0, n - 1))
    return tests.take(order[at])


def _tests(some: Observed, slab: Slab, a: Floats, t: Floats, mu: Floats, kappa: Floats) -> Floats:
    """`prob_null` (S, tests) at every draw."""
    log_ratio, _ = some.log_ratio(slab, np.exp(t), np.ascontiguousarray(mu), np.ascontiguousarray(kappa))
    return np.asarray(expit(a[:, None] - log_ratio))
