"""numba drivers: whole evaluations of many hyperparameter nodes in one call, for small roots."""

from __future__ import annotations

import numpy as np
from numba import njit

from finetti.linalg.downward import _rows, descend, draw_leading, root_sums, unwhiten_root
from finetti.linalg.kernels import assemble, back_solve, eliminate, factor_root, invert_root, solve_root, whiten_root

__all__ = ["condition_nodes", "draw_nodes", "evaluate_nodes"]


@njit(cache=True, nogil=True)
def prepare(pat, se2, s2_row, w, Zl, Zd, X, y, panel0, root0, panel, root):  # type: ignore[no-untyped-def]
    """Fill `panel` and `root` with the cross-products of one node; return sum log R.

    With known standard errors and an unknown sigma the weights change from node to node, so the
    cross-products are formed anew; otherwise the stored ones are copied and 0 is returned (the
    constant is the caller's).
    """
    if se2.shape[0] == 0:
        panel[:] = panel0
        root[:, :] = root0
        return 0.0
    panel[:] = 0.0
    root[:, :] = 0.0
    logdet = 0.0
    for i in range(se2.shape[0]):
        r = se2[i] + s2_row
        w[i] = 1.0 / r
        logdet += np.log(r)
    assemble(pat, w, Zl, Zd, X, y, panel, root)
    return logdet


@njit(cache=True, nogil=True)
def evaluate_nodes(  # type: ignore[no-untyped-def]
    pat, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, w0, Zl, Zd, X, y, panel0, root0,
    gradient, value, x_mean, x_chol, s1, s2, lev_sum,
):  # fmt: skip
    """Log-determinants, quadratic form, moments of X's coefficients and gradient sums at each node.

    `value` (S, 4) receives log|M| of the group coefficients, log-determinant of X's part,
    quadratic form, sum log R (where it varies). All are relative to sigma2 (S,).
    `lev_sum` (S, 1 + F) receives sum (1/r - h/r^2 - e^2/r^2) and x_k' R^-1 e for fixed columns.
    """
    p = x_mean.shape[1]
    k = root0.shape[0] - 1 - fixed.shape[1]
    nd = k - p
    n = y.shape[0]
    panel = np.zeros_like(panel0)
    root = np.zeros_like(root0)
    w = np.zeros(se2.shape[0])
    u = np.zeros(pat.coef_off[pat.q.shape[0]])
    nothing = np.zeros(0)
    no_matrix = np.zeros((0, 0))
    x = np.zeros(k)
    V = np.zeros((k, k)) if gradient else no_matrix
    rows = gradient and (se2.shape[0] > 0 or fixed.shape[1] > 0)
    fit = np.zeros(n) if rows else nothing
    lev = np.zeros(n) if rows else nothing
    for s in range(lam.shape[0]):
        value[s, 3] = prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        logdet = eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root)
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        if np.isnan(logdet) or not factor_root(k, root):
            value[s, 2] = np.nan
            continue
        logdet_x = 0.0
        for a in range(k):
            if a < nd:
                logdet += 2.0 * np.log(root[a, a])
            else:
                logdet_x += 2.0 * np.log(root[a, a])
        value[s, 0] = logdet
        value[s, 1] = logdet_x
        value[s, 2] = root[k, k]
        solve_root(k, root, x)
        for a in range(p):
            x_mean[s, a] = x[nd + a]
            for c in range(p):
                x_chol[s, a, c] = root[nd + a, nd + c] if c >= a else 0.0
        if not gradient:
            continue
        invert_root(k, root, V)
        root_sums(pat, x, V, pen_root, s1[s], s2[s])
        unwhiten_root(pat, lam[s], k, x, V)
        if pat.q.shape[0] > 0:
            descend(
                pat, lam[s], pen_lead, fixed[s], p, x, V, panel, Zl, Zd, X,
                False, rows, u, nothing, no_matrix, s1[s], s2[s], fit, lev,
            )  # fmt: skip
        elif rows:
            _rows(pat, 0, 0, 0, 0, p, Zl, Zd, X, x, V, fit, lev)
        if rows:
            for i in range(n):
                e = y[i] - fit[i]
                for c in range(fixed.shape[1]):
                    e -= X[i, p + c] * fixed[s, c]
                if se2.shape[0] > 0:
                    lev_sum[s, 0] += w[i] - (lev[i] * sigma2[s] + e * e) * w[i] * w[i]
                fit[i] = e
            for c in range(fixed.shape[1]):
                t = 0.0
                for i in range(n):
                    # where R is sigma^2 / w0 the caller divides by sigma^2
                    t += X[i, p + c] * fit[i] * (w[i] if se2.shape[0] > 0 else w0[i])
                lev_sum[s, 1 + c] = t


@njit(cache=True, nogil=True)
def condition_nodes(  # type: ignore[no-untyped-def]
    pat, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, Zl, Zd, X, y, panel0, root0,
    want_rows, u, cov, ux, x_root, V_root, fit, lev,
):  # fmt: skip
    """Conditional means and covariance blocks at each node, relative to sigma2.

    Arrays have a leading node axis: leading coefficients `u`, `cov`, `ux` as in `descend`, the
    root's solution and covariance, and per-row `fit`, `lev` (solver order) if wanted.
    """
    k = root0.shape[0] - 1 - fixed.shape[1]
    p = ux.shape[2]
    panel = np.zeros_like(panel0)
    root = np.zeros_like(root0)
    w = np.zeros(se2.shape[0])
    scratch1 = np.zeros(lam.shape[1])
    scratch2 = np.zeros(lam.shape[1])
    for s in range(lam.shape[0]):
        prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        bad = np.isnan(eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root))
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        if bad or not factor_root(k, root):
            u[s] = np.nan
            x_root[s] = np.nan
            V_root[s] = np.nan
            cov[s] = np.nan
            continue
        solve_root(k, root, x_root[s])
        invert_root(k, root, V_root[s])
        unwhiten_root(pat, lam[s], k, x_root[s], V_root[s])
        if pat.q.shape[0] > 0:
            descend(
                pat, lam[s], pen_lead, fixed[s], p, x_root[s], V_root[s], panel, Zl, Zd, X,
                True, want_rows, u[s], cov[s], ux[s], scratch1, scratch2, fit[s], lev[s],
            )  # fmt: skip
        elif want_rows:
            _rows(pat, 0, 0, 0, 0, p, Zl, Zd, X, x_root[s], V_root[s], fit[s], lev[s])


@njit(cache=True, nogil=True)
def draw_nodes(  # type: ignore[no-untyped-def]
    pat, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, Zl, Zd, X, y, panel0, root0,
    start, z_lead, z_root, u, x_root,
):  # fmt: skip
    """Draw coefficients: draws start[s]:start[s+1] come from node s; z are standard normals."""
    n_fixed = fixed.shape[1]
    k = root0.shape[0] - 1 - n_fixed
    p = X.shape[1] - n_fixed
    panel = np.zeros_like(panel0)
    root = np.zeros_like(root0)
    w = np.zeros(se2.shape[0])
    nothing = np.zeros((0, 0))
    for s in range(lam.shape[0]):
        if start[s] == start[s + 1]:
            continue
        prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root)
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        if not factor_root(k, root):
            u[start[s] : start[s + 1]] = np.nan
            continue
        sd = np.sqrt(sigma2[s])
        for r in range(start[s], start[s + 1]):
            back_solve(k, root, z_root[r] * sd, x_root[r])
            unwhiten_root(pat, lam[s], k, x_root[r], nothing)
            draw_leading(pat, lam[s], fixed[s], p, x_root[r], panel, z_lead[r] * sd, u[r])
