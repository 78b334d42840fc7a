"""Differences between two levels of a grouping factor, given the hyperparameters: exactly normal, and not independent.

u_a - u_b | theta, y ~ N(d, v). The marginal covariances of the levels do not give v: all levels share what is unsure
about the population, and in crossed and nested designs more than that. With x the coefficients that are not
eliminated first (crossed factors and population) and V their covariance,

    u_a | x ~ N(m_a - G_a x, D_a), independent over levels,
    D_a = (Z_a'R^-1 Z_a + Sigma^-1)^-1,   G_a = D_a Z_a'R^-1 W_x,
    v = D_a + D_b + (G_a - G_b) V (G_a - G_b)'.

A crossed factor is part of x itself: v is read off V. In a nested chain the levels of u share ancestors that are
eliminated too; there v = c' H^-1 c, with H^-1 c found by the same elimination from c in place of W'R^-1 y.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.inference.conditional import BATCH_FLOATS, GaussianConditional
from finetti.linalg.kernels import assemble
from finetti.linalg.system import BlockSystem, Conditioned, Points

__all__ = ["level_differences", "level_mean_variance"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# stands where y'R^-1 y would: any number larger than c'H^-1 c, so that the last pivot is positive
LARGE = 1e200


def level_differences(
    conditional: Any, name: str, coefficient: int, first: Ints, second: Ints, theta: Floats
) -> tuple[Floats, Floats]:
    """Mean and variance of u[first] - u[second] at every node.

    Parameters
    ----------
    conditional : GaussianConditional, or whatever answers `groups` with point masses
    name : str
        The grouping factor.
    coefficient : int
        Which of its coefficients.
    first, second : (P,) int
        Levels.
    theta : (S, d)
        Nodes.

    Returns
    -------
    mean, variance : (S, P)
        NaN where a coefficient is not identified (`pooling="none"`).
    """
    S, P = theta.shape[0], first.size
    mean, variance = np.empty((S, P)), np.empty((S, P))
    if not isinstance(conditional, GaussianConditional):  # draws: every node is a point
        for batch in conditional.groups(name, theta):
            mean[batch.nodes] = batch.mean[:, first, coefficient] - batch.mean[:, second, coefficient]
            variance[batch.nodes] = 0.0
        return mean, variance
    inner, system = conditional.inner, conditional.inner.system
    f = [s.name for s in inner.hyper.factors].index(name)
    t = np.asarray(np.linalg.inv(inner.transforms[f]), dtype=np.float64)[coefficient]
    leading, where = system.layout.coefficient_slice(f)
    points = inner.points(theta)
    for part in _batches(system, S, P, t.size):
        at = points[part]
        c = system.condition(at)
        u = (c.u if leading else c.x)[:, where].reshape(len(at), -1, t.size) @ t
        mean[part] = u[:, first] - u[:, second]
        if not leading:
            v = _crossed(c.V[:, where, where], t, first, second)
        elif len(system.layout.leading) == 1:
            v = _eliminated(system, at, c, t, first, second)
        else:
            v = _nested(system, at, f, t, first, second)
        variance[part] = np.maximum(v, 0.0) * at.sigma2[:, None]
    mask = inner.free[f]
    if mask is not None:
        known = mask[first, coefficient] & mask[second, coefficient]
        mean[:, ~known], variance[:, ~known] = np.nan, np.nan
    return mean, variance


def level_mean_variance(conditional: GaussianConditional, name: str, theta: Floats) -> Floats:
    """Variance given theta of the average over levels of a factor's coefficients, population value included.

    Levels share what is not known of the population, so that this is not the average variance divided by J.

    Parameters
    ----------
    conditional : GaussianConditional
    name : str
        The grouping factor.
    theta : (S, d)
        Nodes.

    Returns
    -------
    (S, q)
        NaN for an unpooled term.
    """
    inner, system = conditional.inner, conditional.inner.system
    f = [s.name for s in inner.hyper.factors].index(name)
    S, J, q = theta.shape[0], inner.groupings[f].n_levels, inner.hyper.factors[f].q
    out = np.full((S, q), np.nan)
    if inner.free[f] is not None:
        return out
    Ti = np.asarray(np.linalg.inv(inner.transforms[f]), dtype=np.float64)
    population = conditional.population_maps[f] @ inner.basis.T  # (q, p) of the solver's columns
    leading, where = system.layout.coefficient_slice(f)
    points = inner.points(theta)
    for part in _batches(system, S, J if leading else 1, q):
        at = points[part]
        if not leading:
            V, c = system.condition(at).V, np.zeros((q, system.k))
            c[:, where] = np.tile(Ti / J, (1, J))
            c[:, system.n_dense :] = population
            out[part] = np.einsum("ki,sij,kj->sk", c, V, c, optimize=True) * at.sigma2[:, None]
            continue
        everywhere = [tuple((j, 1.0 / J) for j in range(J))] * q
        for some, one in _constant_weights(system, at):
            clean = replace(at[some], fixed=np.zeros_like(at.fixed[some]))
            for k, contrast in enumerate(everywhere):
                solved = _with_right_side(one, f, Ti[k], contrast, population[k]).condition(clean)
                mean = (solved.u[:, where].reshape(len(clean), J, q) @ Ti[k]).mean(axis=1)
                at_node = mean + solved.x[:, system.n_dense :] @ population[k]
                out[np.arange(S)[part][some], k] = at_node * clean.sigma2
    return np.maximum(out, 0.0)


def _batches(system: BlockSystem, n: int, pairs: int, q: int) -> Iterator[slice]:
    """Slices of the nodes for which everything fits in memory."""
    pat = system.layout.pattern
    C = int(pat.coef_off[-1])
    size = C * (system.p + 1) + int(pat.cov_off[-1]) + 2 * system.k**2 + 3 * pairs * (system.k + q * q) + 1
    step = int(max(1, BATCH_FLOATS // size))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _crossed(V: Floats, t: Floats, first: Ints, second: Ints) -> Floats:
    """A factor that is part of the root: its covariance (S, J q, J q) is there."""
    a = first[:, None] * t.size + np.arange(t.size)
    b = second[:, None] * t.size + np.arange(t.size)

    def between(i: Ints, j: Ints) -> Floats:
        return np.asarray(np.einsum("k,spkl,l->sp", t, V[:, i[:, :, None], j[:, None, :]], t))

    return between(a, a) + between(b, b) - 2.0 * between(a, b)


def _eliminated(system: BlockSystem, at: Points, c: Conditioned, t: Floats, first: Ints, second: Ints) -> Floats:
    """The one factor that is eliminated first, its levels independent given the root."""
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    S, q, k = len(at), t.size, system.k
    D, G = np.empty((S, used.size)), np.empty((S, used.size, k))
    lo = int(system.layout.pattern.lam_off[0])
    L = at.lam[:, lo : lo + q * q].reshape(S, q, q)
    for i, level in enumerate(used.tolist()):
        M, N = _cross_products(system, at, level)
        whitened = np.swapaxes(L, 1, 2) @ M @ L + np.diag(system.pen_lead[level * q : (level + 1) * q])
        tL = np.einsum("k,skl->sl", t, L)
        half = np.linalg.solve(whitened, tL[:, :, None])[:, :, 0]
        D[:, i] = np.sum(half * tL, axis=1)
        tD = np.einsum("skl,sl->sk", L, half)
        G[:, i] = np.einsum("sk,skj->sj", tD, np.broadcast_to(N, (S, q, k)))
    a, b = place[: first.size], place[first.size :]
    g = G[:, a] - G[:, b]
    return D[:, a] + D[:, b] + np.sum((g @ c.V) * g, axis=2)


def _cross_products(system: BlockSystem, at: Points, level: int) -> tuple[Floats, Floats]:
    """Z'R^-1 Z (S or 1, q, q) and Z'R^-1 W (S or 1, q, k) over the rows of a level; W the root's columns."""
    pat = system.layout.pattern
    rows = slice(int(pat.row_ptr[level]), int(pat.row_ptr[level + 1]))
    Z = system.Zl[rows]
    W = np.zeros((Z.shape[0], system.k))
    for f in range(pat.dq.size):
        columns = pat.row_root[rows, f][:, None] + np.arange(pat.dq[f])
        z = system.Zd[rows, pat.dz_off[f] : pat.dz_off[f] + pat.dq[f]]
        W[np.arange(Z.shape[0])[:, None], columns] = z
    W[:, system.n_dense :] = system.X[rows, : system.p]
    if system.se2.size:
        w = 1.0 / (system.se2[rows] + at.row_s2[:, None])
    else:
        w = system.weights[None, rows]
    return np.einsum("sn,nk,nl->skl", w, Z, Z, optimize=True), np.einsum("sn,nk,nj->skj", w, Z, W, optimize=True)


def _nested(system: BlockSystem, at: Points, f: int, t: Floats, first: Ints, second: Ints) -> Floats:
    """A factor of a nested chain: c'H^-1 c by the elimination itself, with c in place of W'R^-1 y."""
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = place[: first.size], place[first.size :]
    by_level = used.size <= first.size
    contrasts: list[tuple[tuple[int, float], ...]] = [((int(j), 1.0),) for j in used]
    if not by_level:
        contrasts = [((int(i), 1.0), (int(j), -1.0)) for i, j in zip(first, second, strict=True)]
    _, where = system.layout.coefficient_slice(f)
    solved = np.empty((len(at), len(contrasts), used.size))  # t u[used] of H^-1 c
    for part, one in _constant_weights(system, at):
        clean = replace(at[part], fixed=np.zeros_like(at.fixed[part]))
        for i, contrast in enumerate(contrasts):
            u = _with_right_side(one, f, t, contrast).condition(clean).u[:, where]
            solved[part, i] = u.reshape(len(clean), -1, t.size)[:, used] @ t
    if by_level:
        return solved[:, a, a] + solved[:, b, b] - 2.0 * solved[:, a, b]
    pair = np.arange(first.size)
    return solved[:, pair, a] - solved[:, pair, b]


def _constant_weights(system: BlockSystem, at: Points) -> Iterator[tuple[slice, BlockSystem]]:
    """The system with cross-products that hold for a slice of nodes: all, or one where R varies by node."""
    if not system.se2.size:
        yield slice(0, len(at)), system
        return
    for s in range(len(at)):
        w = 1.0 / (system.se2 + at.row_s2[s])
        panel, root = np.zeros_like(system.panel0), np.zeros_like(system.root0)
        assemble(system.layout.pattern, w, system.Zl, system.Zd, system.X, system.y, panel, root)
        yield slice(s, s + 1), replace(system, weights=w, se2=np.zeros(0), panel0=panel, root0=root)


def _with_right_side(
    system: BlockSystem, f: int, t: Floats, contrast: tuple[tuple[int, float], ...], population: Floats | None = None
) -> BlockSystem:
    """The same left side; on the right `t` at each level of the contrast, times its sign, and no prior mean.

    population (p,) : what stands there for the columns of the population, nothing by default
    """
    pat = system.layout.pattern
    panel, root, prior = system.panel0.copy(), system.root0.copy(), system.prior.copy()
    prior[:, -1] = 0.0
    root[:-1, -1] = 0.0
    if population is not None:
        root[system.n_dense : system.k, -1] = population
    root[-1, -1] = LARGE
    own = system.layout.leading.index(f)
    for d in range(pat.q.size):
        q = int(pat.q[d])
        blocks = np.arange(pat.first[d], pat.first[d + 1])
        width = (pat.panel_ptr[blocks + 1] - pat.panel_ptr[blocks]) // q
        last = pat.panel_ptr[blocks][:, None] + width[:, None] * np.arange(1, q + 1) - 1  # (J, q), the column of y
        panel[last] = 0.0
        if d == own:
            for level, sign in contrast:
                panel[last[level]] = sign * t
    return replace(system, panel0=panel, root0=root, prior=prior)
