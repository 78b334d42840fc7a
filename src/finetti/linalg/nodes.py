"""The numba driver: whole evaluations of many hyperparameter nodes in one call, for small roots.

One kernel serves values, gradients and conditional moments: compiled separately, each would spend the
compile time of the elimination again. Draws, which a first fit does not need, have their own.
"""

from __future__ import annotations

import numpy as np

from finetti.linalg.downward import descend, draw_leading, root_sums, row_moments, unwhiten_root
from finetti.linalg.jit import kernel
from finetti.linalg.kernels import assemble, back_solve, eliminate, factor_root, invert_root, whiten_root

__all__ = ["CONDITION", "GRADIENT", "VALUE", "draw_nodes", "prepare", "run_nodes"]

VALUE, GRADIENT, CONDITION = 0, 1, 2


@kernel()
def prepare(pat, se2, s2_row, w, Zl, Zd, X, y, panel0, root0, panel, root):  # type: ignore[no-untyped-def]
    """Fill `panel` and `root` with the cross-products of one node; return sum log R.

    With known standard errors and an unknown sigma the weights change from node to node, so the
    cross-products are formed anew; otherwise the stored ones are copied and 0 is returned (the
    constant is the caller's).
    """
    # plain loops: assigning slices would make numba compile its broadcasting errors for seconds
    for i in range(panel.shape[0]):
        panel[i] = panel0[i]
    for a in range(root.shape[0]):
        for c in range(root.shape[1]):
            root[a, c] = root0[a, c]
    logdet = 0.0
    if se2.shape[0] > 0:
        for i in range(se2.shape[0]):
            r = se2[i] + s2_row
            w[i] = 1.0 / r
            logdet += np.log(r)
        assemble(pat, w, Zl, Zd, X, y, panel, root)
    return logdet


@kernel()
def run_nodes(  # type: ignore[no-untyped-def]
    pat, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, w0, Zl, Zd, X, y, panel0, root0,
    mode, want_rows, value, x_mean, x_chol, s1, s2, row_terms,
    u, cov, ux, x_root, V_root, fit, lev,
):  # fmt: skip
    """Evaluate nodes; everything is relative to sigma2 (S,).

    VALUE fills `value` (S, 4): log|M| of the group coefficients, log-determinant of X's part, quadratic
    form, sum log R where it varies; `x_mean` (S, p) and `x_chol` (S, p, p).
    GRADIENT also fills `s1`, `s2` (S, L) and `row_terms` (S, 1 + F): sum (1/r - h/r^2 - e^2/r^2), and
    x_k' R^-1 e for the given columns; u to lev have one row, as scratch.
    CONDITION fills u (S, C), cov, ux as in `descend`, x_root (S, k), V_root (S, k, k), and per row fit, lev.
    """
    n_fixed = fixed.shape[1]
    k = root0.shape[0] - 1 - n_fixed
    p = X.shape[1] - n_fixed
    nd = k - p
    depth = pat.q.shape[0]
    n = y.shape[0]
    panel = np.empty_like(panel0)
    root = np.empty_like(root0)
    w = np.empty(se2.shape[0])
    zero = np.zeros(k)
    for s in range(lam.shape[0]):
        value[s, 3] = prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        logdet = eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root)
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        t = s if mode == 2 else 0
        if np.isnan(logdet) or not factor_root(k, root):
            value[s, 2] = np.nan
            if mode == 2:
                for a in range(u.shape[1]):
                    u[s, a] = np.nan
                for a in range(k):
                    x_root[s, a] = np.nan
            continue
        x = x_root[t]
        back_solve(k, root, zero, x)
        if mode < 2:
            logdet_x = 0.0
            for a in range(k):
                if a < nd:
                    logdet += 2.0 * np.log(root[a, a])
                else:
                    logdet_x += 2.0 * np.log(root[a, a])
            value[s, 0] = logdet
            value[s, 1] = logdet_x
            value[s, 2] = root[k, k]
            for a in range(p):
                x_mean[s, a] = x[nd + a]
                for c in range(a, p):
                    x_chol[s, a, c] = root[nd + a, nd + c]
            if mode == 0:
                continue
        V = V_root[t]
        invert_root(k, root, V)
        if mode == 1:
            root_sums(pat, x, V, pen_root, s1[s], s2[s])
        unwhiten_root(pat, lam[s], k, x, V)
        if depth > 0:
            descend(
                pat, lam[s], pen_lead, fixed[s], p, x, V, panel, Zl, Zd, X,
                mode == 2, want_rows, u[t], cov[t], ux[t], s1[s], s2[s], fit[t], lev[t],
            )  # fmt: skip
        elif want_rows:
            row_moments(pat, depth, depth, depth, depth, p, Zl, Zd, X, x, V, fit[t], lev[t])
        if mode == 1 and want_rows:
            for i in range(n):
                e = y[i] - fit[t, i]
                for c in range(n_fixed):
                    e -= X[i, p + c] * fixed[s, c]
                weight = w0[i]
                if se2.shape[0] > 0:
                    weight = w[i]
                    row_terms[s, 0] += weight - (lev[t, i] * sigma2[s] + e * e) * weight * weight
                for c in range(n_fixed):
                    row_terms[s, 1 + c] += X[i, p + c] * e * weight


@kernel()
def draw_nodes(  # type: ignore[no-untyped-def]
    pat, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, Zl, Zd, X, y, panel0, root0,
    start, z_lead, z_root, u, x_root,
):  # fmt: skip
    """Draw coefficients u (N, C) and x_root (N, k): draws start[s]:start[s+1] come from node s.

    z_lead (N, C) and z_root (N, k) are standard normals. NaN where a node's system is not positive definite.
    """
    n_fixed = fixed.shape[1]
    k = root0.shape[0] - 1 - n_fixed
    p = X.shape[1] - n_fixed
    panel = np.empty_like(panel0)
    root = np.empty_like(root0)
    w = np.empty(se2.shape[0])
    nothing = np.zeros((0, 0))
    scaled = np.empty(k)
    scaled_lead = np.empty(z_lead.shape[1])
    for s in range(lam.shape[0]):
        if start[s] == start[s + 1]:
            continue
        prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        logdet = eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root)
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        good = factor_root(k, root) and not np.isnan(logdet)
        sd = np.sqrt(sigma2[s]) if good else np.nan
        for r in range(start[s], start[s + 1]):
            for a in range(k):
                scaled[a] = z_root[r, a] * sd
            for a in range(scaled_lead.shape[0]):
                scaled_lead[a] = z_lead[r, a] * sd
            back_solve(k, root, scaled, x_root[r])
            unwhiten_root(pat, lam[s], k, x_root[r], nothing)
            draw_leading(pat, lam[s], fixed[s], p, x_root[r], panel, scaled_lead, u[r])
