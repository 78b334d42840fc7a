"""numba kernels of the downward pass: solutions, selected inverse, leverages and draws.

After the root is solved, each leading level follows from its panel: with its factor C, its
scaled panel G = C^-T (panel over later columns) and the joint covariance V of those columns,

    v = C^-T (panel_y) - G x,      Cov(v) = (C C')^-1 + G V G',      Cov(v, later) = -G V.

Only covariances among columns that share a panel are formed: the *selected inverse* of
Takahashi, Fagan and Chin (1973), all that marginal variances, gradients and leverages need.
"""

from __future__ import annotations

import numpy as np

from finetti.linalg.jit import kernel
from finetti.linalg.kernels import columns_times, max_coefficients, rows_times


@kernel()
def unwhiten_root(pat, lam, k, x, V):  # type: ignore[no-untyped-def]
    """Turn solution x (k,) and covariance V (k, k) of the dense factors from v to u = L v, in place."""
    scale = np.ones(x.shape[0])
    for f in range(pat.dq.shape[0]):
        if pat.dq[f] == 1:
            for r in range(pat.droot[f], pat.droot[f + 1]):
                scale[r] = lam[pat.dlam_off[f]]
                x[r] *= scale[r]
    for r in range(V.shape[0]):  # scalar factors, row by row as memory lies
        for c in range(V.shape[0]):
            V[r, c] *= scale[r] * scale[c]
    t = np.zeros(max_coefficients(pat))
    for f in range(pat.dq.shape[0]):
        q = pat.dq[f]
        lo = pat.dlam_off[f]
        if q > 1:
            for r in range(pat.droot[f], pat.droot[f + 1], q):
                none = q - q
                rows_times(lam, lo, q, q < 0, x.reshape(-1, 1), r, none, none + 1, t)
                rows_times(lam, lo, q, q < 0, V, r, none, V.shape[0], t)
                columns_times(lam, lo, q, q < 0, V, r, none, V.shape[0], t)


@kernel()
def root_sums(pat, x, V, pen, s1, s2):  # type: ignore[no-untyped-def]
    """Add sum Cov(v_j) and sum v_j v_j' over the levels of each dense factor (whitened) to s1, s2."""
    for f in range(pat.dq.shape[0]):
        q = pat.dq[f]
        lo = pat.dlam_off[f]
        for r in range(pat.droot[f], pat.droot[f + 1], q):
            for a in range(q):
                for c in range(q):
                    if pen[r + a] > 0.0 and pen[r + c] > 0.0:
                        s1[lo + a * q + c] += V[r + a, r + c]
                        s2[lo + a * q + c] += x[r + a] * x[r + c]


@kernel()
def descend(  # type: ignore[no-untyped-def]
    pat, lam, pen, fixed, p, x_root, V_root, panel, Zl, Zd, X,
    want_cov, want_rows, u, cov, ux, s1, s2, fit, lev,
):  # fmt: skip
    """Go down the leading blocks with the unwhitened root solution and covariance.

    Parameters
    ----------
    fixed : (F,)
        Given coefficients of the last columns of X.
    p : int
        How many columns of X (the first) are integrated.
    want_cov, want_rows : bool
        Fill `cov` and `ux`; fill `fit` and `lev`.
    u : (C,) out
        Means of the leading coefficients.
    cov : (C q,) out
        Row a of a level's q x q covariance at its coefficient, packed.
    ux : (C, p) out
        Covariance of each leading coefficient with the integrated coefficients of X.
    s1, s2 : out
        Sums over levels of Cov(v_j) and v_j v_j', packed like `lam`; added to.
    fit, lev : (n,) out
        Sum over Z u and integrated X b, and its variance, per row in solver order.
    """
    p_all = p + fixed.shape[0]
    depth = pat.q.shape[0]
    n_cross = pat.dq.shape[0]
    nd = pat.droot[n_cross]
    n_blocks = pat.parent.shape[0]
    q_sum = 0
    for d in range(depth):
        q_sum += pat.q[d]
    t = np.zeros(max_coefficients(pat))
    longest = 0
    for b in range(n_blocks):
        longest = max(longest, pat.dense_ptr[b + 1] - pat.dense_ptr[b])
    size = q_sum + longest + p
    # full covariance of a block's own and later columns, kept for the blocks with children
    keep_ptr = np.zeros(n_blocks + 1, dtype=np.int64)
    first_kept = pat.first[1] if depth > 1 else n_blocks
    for d in range(1, depth):
        q_here = pat.q[d] + pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            w = q_here + pat.dense_ptr[b + 1] - pat.dense_ptr[b] + p
            keep_ptr[b + 1] = w * w
    for b in range(first_kept, n_blocks):
        keep_ptr[b + 1] += keep_ptr[b]
    kept = np.zeros(keep_ptr[n_blocks])
    V = np.zeros((size, size))
    G = np.zeros((max(q_sum, 1), size))
    xs = np.zeros(size)
    col = np.zeros(size, dtype=np.int64)
    v = np.zeros(max(q_sum, 1))
    for d in range(depth - 1, -1, -1):
        q = pat.q[d]
        lo = pat.lam_off[d]
        n_anc = pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            base = pat.panel_ptr[b]
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            m = n_anc + n_list + p
            width = q + n_anc + n_list + p_all + 1
            coef = pat.coef_off[d] + (b - pat.first[d]) * q
            # solution and covariance of the later columns
            up = pat.parent[b]
            at, below = 0, up
            for e in range(d + 1, depth):
                start = pat.coef_off[e] + (below - pat.first[e]) * pat.q[e]
                for a in range(pat.q[e]):
                    xs[q + at + a] = u[start + a]
                at += pat.q[e]
                below = pat.parent[below]
            for c in range(n_list):
                xs[q + n_anc + c] = x_root[pat.dense_idx[pat.dense_ptr[b] + c]]
            for c in range(p):
                xs[q + n_anc + n_list + c] = x_root[nd + c]
            if up >= 0:
                up_list = pat.dense_ptr[up + 1] - pat.dense_ptr[up]
                w = n_anc + up_list + p
                for c in range(n_anc):
                    col[c] = c
                for c in range(n_list):
                    col[n_anc + c] = n_anc + pat.dense_rel[pat.dense_ptr[b] + c]
                for c in range(p):
                    col[n_anc + n_list + c] = n_anc + up_list + c
                for a in range(m):
                    row = keep_ptr[up] + col[a] * w
                    for c in range(m):
                        V[q + a, q + c] = kept[row + col[c]]
            else:
                for c in range(n_list):
                    col[c] = pat.dense_idx[pat.dense_ptr[b] + c]
                for c in range(p):
                    col[n_list + c] = nd + c
                for a in range(m):
                    for c in range(m):
                        V[q + a, q + c] = V_root[col[a], col[c]]
            # G = C^-T panel, v = C^-T panel_y - G x
            for c in range(m + 1):
                src = base + q + c if c < m else base + width - 1
                for a in range(q - 1, -1, -1):
                    s = panel[src + a * width]
                    if c == m:
                        for k in range(fixed.shape[0]):
                            s -= fixed[k] * panel[src + a * width - fixed.shape[0] + k]
                    for k in range(a + 1, q):
                        s -= panel[base + k * width + a] * (G[k, c] if c < m else v[k])
                    s /= panel[base + a * width + a]
                    if c < m:
                        G[a, c] = s
                    else:
                        v[a] = s
            for a in range(q):
                s = 0.0
                for c in range(m):
                    s += G[a, c] * xs[q + c]
                v[a] -= s
            # Cov(v, later) and Cov(v), whitened, in the upper left of V
            for a in range(q):
                for c in range(m):
                    s = 0.0
                    for k in range(m):
                        s += G[a, k] * V[q + k, q + c]
                    V[a, q + c] = -s
            for a in range(q):
                for c in range(a, q):
                    s = 0.0
                    for k in range(m):
                        s -= V[a, q + k] * G[c, k]
                    V[a, c] = s
                    V[c, a] = s
            for c in range(q):  # add (C C')^-1 column by column, with G's first column as scratch
                for a in range(q):
                    s = 1.0 if a == c else 0.0
                    for k in range(a):
                        s -= panel[base + a * width + k] * G[k, 0]
                    G[a, 0] = s / panel[base + a * width + a]
                for a in range(q - 1, -1, -1):
                    s = G[a, 0]
                    for k in range(a + 1, q):
                        s -= panel[base + k * width + a] * G[k, 0]
                    G[a, 0] = s / panel[base + a * width + a]
                for a in range(q):
                    V[a, c] += G[a, 0]
            for a in range(q):
                for c in range(q):
                    if pen[coef + a] > 0.0 and pen[coef + c] > 0.0:
                        s1[lo + a * q + c] += V[a, c]
                        s2[lo + a * q + c] += v[a] * v[c]
            # unwhiten: u = L v, on rows and then on columns
            for a in range(q):
                s = 0.0
                for k in range(q):
                    s += lam[lo + a * q + k] * v[k]
                u[coef + a] = s
                xs[a] = s
            if q == 1:  # the common case, without calls
                scale = lam[lo]
                V[0, 0] *= scale * scale
                for c in range(1, 1 + m):
                    V[0, c] *= scale
            else:
                rows_times(lam, lo, q, q < 0, V, q - q, q - q, q + m, t)
                columns_times(lam, lo, q, q < 0, V, q - q, q - q, q, t)
            for a in range(q):
                for c in range(m):
                    V[q + c, a] = V[a, q + c]
            if want_cov:
                for a in range(q):
                    for c in range(q):
                        cov[pat.cov_off[d] + ((b - pat.first[d]) * q + a) * q + c] = V[a, c]
                    for c in range(p):
                        ux[coef + a, c] = V[a, q + n_anc + n_list + c]
            if d > 0:
                w = q + m
                for a in range(w):
                    for c in range(w):
                        kept[keep_ptr[b] + a * w + c] = V[a, c]
            elif want_rows:
                row_moments(pat, b, q, n_anc, n_list, p, Zl, Zd, X, xs, V, fit, lev)


@kernel()
def row_moments(pat, b, q, n_anc, n_list, p, Zl, Zd, X, xs, V, fit, lev):  # type: ignore[no-untyped-def]
    """Mean and variance of the linear predictor in the rows of first-factor block b."""
    n_cross = pat.dq.shape[0]
    n_own = q + n_anc
    n_dz = Zd.shape[1]
    m = n_own + n_dz + p
    at = np.zeros(m, dtype=np.int64)
    val = np.zeros(m)
    for i in range(pat.row_ptr[b], pat.row_ptr[b + 1]):
        for a in range(n_own):
            at[a] = a
            val[a] = Zl[i, a]
        j = n_own
        for f in range(n_cross):
            for a in range(pat.dq[f]):
                at[j] = n_own + pat.row_dense[i, f] + a
                val[j] = Zd[i, pat.dz_off[f] + a]
                j += 1
        for a in range(p):
            at[j] = n_own + n_list + a
            val[j] = X[i, a]
            j += 1
        mean = 0.0
        var = 0.0
        for a in range(m):
            mean += val[a] * xs[at[a]]
            s = 0.5 * val[a] * V[at[a], at[a]]
            for c in range(a):
                s += val[c] * V[at[a], at[c]]
            var += 2.0 * val[a] * s
        fit[i] = mean
        lev[i] = var


@kernel()
def draw_leading(pat, lam, fixed, p, x_root, panel, z, u):  # type: ignore[no-untyped-def]
    """Draw the leading coefficients u (C,) given the root draw; z (C,) standard normal or zero.

    With z = 0 and the root's mean this is the plain back-substitution for the means.
    """
    p_all = p + fixed.shape[0]
    depth = pat.q.shape[0]
    nd = pat.droot[pat.dq.shape[0]]
    v = np.zeros(max_coefficients(pat))
    for d in range(depth - 1, -1, -1):
        q = pat.q[d]
        lo = pat.lam_off[d]
        n_anc = pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            base = pat.panel_ptr[b]
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            width = q + n_anc + n_list + p_all + 1
            coef = pat.coef_off[d] + (b - pat.first[d]) * q
            for a in range(q):
                row = base + a * width + q
                s = panel[base + a * width + width - 1] + z[coef + a]
                below = b
                at = row
                for e in range(d + 1, depth):
                    below = pat.parent[below]
                    start = pat.coef_off[e] + (below - pat.first[e]) * pat.q[e]
                    for c in range(pat.q[e]):
                        s -= panel[at + c] * u[start + c]
                    at += pat.q[e]
                for c in range(n_list):
                    s -= panel[at + c] * x_root[pat.dense_idx[pat.dense_ptr[b] + c]]
                at += n_list
                for c in range(p):
                    s -= panel[at + c] * x_root[nd + c]
                for c in range(fixed.shape[0]):
                    s -= panel[at + p + c] * fixed[c]
                v[a] = s
            for a in range(q - 1, -1, -1):
                s = v[a]
                for k in range(a + 1, q):
                    s -= panel[base + k * width + a] * v[k]
                v[a] = s / panel[base + a * width + a]
            for a in range(q):
                s = 0.0
                for k in range(q):
                    s += lam[lo + a * q + k] * v[k]
                u[coef + a] = s
