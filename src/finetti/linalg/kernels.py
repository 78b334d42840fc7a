"""numba kernels of the block elimination: assemble, eliminate upward, solve and invert downward.

With relative covariance factors L_f (u = L_f v per level), row weights w and d = 1 for
penalised coefficients, the whitened system of one leading level j is

    M_j = L' (Z_j' W Z_j - fill) L + diag(d) = C C',      panel_j <- C^-1 L' (panel_j),

and its Schur complement panel_j' panel_j is subtracted from the ancestors' panels and from
the root. Columns to the right stay unwhitened until their own turn, so that a standard
deviation of exactly zero and a correlation of exactly one are ordinary values.
All covariances here are relative to sigma^2.

Kernels are serial and release the GIL: threads run over nodes (see `solve.py`). There is no
numpy.linalg inside; it would take longer to compile than everything else together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from finetti.linalg.jit import inner, kernel

# numba's compiled functions and their NamedTuple of arrays are outside what mypy can follow
Array = Any


@kernel()
def assemble(pat, w, Zl, Zd, X, y, panel, root):  # type: ignore[no-untyped-def]
    """Add the cross-products of the rows, with weights w, to `panel` and `root` (upper triangle).

    Rows come in solver order; adding over chunks of rows gives the same sums, so the result is
    a sufficient statistic. Cost: O(rows x (columns per row)^2).
    """
    depth = pat.q.shape[0]
    n_cross = pat.dq.shape[0]
    p = X.shape[1]
    nd = pat.droot[n_cross]
    n_lists = pat.row_dense.shape[1]
    row_pos = np.zeros(max(n_lists, 1), dtype=np.int64)
    own = 0
    for i in range(w.shape[0]):
        wi = w[i]
        if depth > 0:
            while pat.row_ptr[own + 1] <= i:  # rows are sorted by their first-factor block
                own += 1
            b = own
            for f in range(n_cross):
                row_pos[f] = pat.row_dense[i, f]
            for d in range(depth):
                q = pat.q[d]
                n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
                n_anc = pat.q_above[d]
                width = q + n_anc + n_list + p + 1
                base = pat.panel_ptr[b]
                z0 = pat.z_off[d]
                for a in range(q):
                    t = wi * Zl[i, z0 + a]
                    row = base + a * width
                    for c in range(a, q + n_anc):  # later leading columns follow in Zl
                        panel[row + c] += t * Zl[i, z0 + c]
                    row += q + n_anc
                    for f in range(n_cross):
                        for c in range(pat.dq[f]):
                            panel[row + row_pos[f] + c] += t * Zd[i, pat.dz_off[f] + c]
                    row += n_list
                    for c in range(p):
                        panel[row + c] += t * X[i, c]
                    panel[row + p] += t * y[i]
                if d + 1 < depth:
                    for f in range(n_cross):
                        row_pos[f] = pat.dense_rel[pat.dense_ptr[b] + row_pos[f]]
                    b = pat.parent[b]
        for f in range(n_cross):
            for a in range(pat.dq[f]):
                t = wi * Zd[i, pat.dz_off[f] + a]
                ra = pat.row_root[i, f] + a
                for g in range(f, n_cross):
                    start = a if g == f else 0
                    for c in range(start, pat.dq[g]):
                        root[ra, pat.row_root[i, g] + c] += t * Zd[i, pat.dz_off[g] + c]
                for c in range(p):
                    root[ra, nd + c] += t * X[i, c]
                root[ra, nd + p] += t * y[i]
        for a in range(p):
            t = wi * X[i, a]
            for c in range(a, p):
                root[nd + a, nd + c] += t * X[i, c]
            root[nd + a, nd + p] += t * y[i]
        root[nd + p, nd + p] += wi * y[i] * y[i]


@kernel()
def eliminate(pat, lam, pen, p, panel, root):  # type: ignore[no-untyped-def]
    """Factor all leading blocks in place and subtract their fill from `root`; return log|M|.

    `lam` is the packed vector of relative factors (row-major q x q each), `pen` the penalty of
    every leading coefficient (1, or 0 where a term is not pooled), `p` the columns of X.
    NaN if a pivot is not positive.
    """
    depth = pat.q.shape[0]
    nd = pat.droot[pat.dq.shape[0]]
    longest = 1
    for b in range(pat.parent.shape[0]):
        longest = max(longest, pat.dense_ptr[b + 1] - pat.dense_ptr[b])
    pos = np.zeros(longest, dtype=np.int64)
    q_max = max_coefficients(pat)
    M = np.zeros((q_max, q_max))
    T = np.zeros((q_max, q_max))
    t = np.zeros(q_max)
    inverse = np.zeros(q_max)
    # the logarithm of a product, taken before it can overflow: one per level would be a third of all the work
    logdet, product = 0.0, 1.0
    for d in range(depth):
        q = pat.q[d]
        lo = pat.lam_off[d]
        n_anc = pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            if product > 1e100 or product < 1e-100:
                logdet += np.log(product)
                product = 1.0
            base = pat.panel_ptr[b]
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            m = n_anc + n_list + p + 1
            width = q + m
            coef = pat.coef_off[d] + (b - pat.first[d]) * q
            if q == 1:  # the common case, without temporaries
                scale = lam[lo]
                pivot = panel[base] * scale * scale + pen[coef]
                if not pivot > 0.0:
                    return np.nan
                product *= pivot
                pivot = np.sqrt(pivot)
                panel[base] = pivot
                scale /= pivot
                for c in range(1, width):
                    panel[base + c] *= scale
            else:
                for a in range(q):
                    for c in range(q):
                        s = 0.0
                        for k in range(q):
                            x = panel[base + a * width + k] if k >= a else panel[base + k * width + a]
                            s += x * lam[lo + k * q + c]
                        T[a, c] = s
                for a in range(q):
                    for c in range(a + 1):
                        s = 0.0
                        for k in range(q):
                            s += lam[lo + k * q + a] * T[k, c]
                        M[a, c] = s
                    M[a, a] += pen[coef + a]
                for a in range(q):
                    for c in range(a + 1):
                        s = M[a, c]
                        for k in range(c):
                            s -= M[a, k] * M[c, k]
                        if a == c:
                            if not s > 0.0:
                                return np.nan
                            product *= s
                            M[a, a] = np.sqrt(s)
                            inverse[a] = 1.0 / M[a, a]
                        else:
                            M[a, c] = s * inverse[c]
                for c in range(q, width):
                    for a in range(q):
                        s = 0.0
                        for k in range(q):
                            s += lam[lo + k * q + a] * panel[base + k * width + c]
                        for k in range(a):
                            s -= M[a, k] * t[k]
                        t[a] = s * inverse[a]
                    for a in range(q):
                        panel[base + a * width + c] = t[a]
                for a in range(q):
                    for c in range(a + 1):
                        panel[base + a * width + c] = M[a, c]
            for k in range(q):
                row = base + k * width + q
                for c in range(n_list):
                    pos[c] = c
                below, at = b, row
                list_start = row + n_anc
                tail = list_start + n_list
                for e in range(d + 1, depth):
                    for c in range(n_list):
                        pos[c] = pat.dense_rel[pat.dense_ptr[below] + pos[c]]
                    below = pat.parent[below]
                    q_e = pat.q[e]
                    n_lead = row + n_anc - at  # this ancestor's and all later leading columns
                    e_list = pat.dense_ptr[below + 1] - pat.dense_ptr[below]
                    e_width = n_lead + e_list + p + 1
                    for a in range(q_e):
                        x = panel[at + a]
                        to = pat.panel_ptr[below] + a * e_width
                        for c in range(a, n_lead):
                            panel[to + c] -= x * panel[at + c]
                        to += n_lead
                        for c in range(n_list):
                            panel[to + pos[c]] -= x * panel[list_start + c]
                        to += e_list
                        for c in range(p + 1):
                            panel[to + c] -= x * panel[tail + c]
                    at += q_e
                ptr = pat.dense_ptr[b]
                for a in range(n_list):
                    x = panel[list_start + a]
                    ra = pat.dense_idx[ptr + a]
                    for c in range(a, n_list):
                        root[ra, pat.dense_idx[ptr + c]] -= x * panel[list_start + c]
                    for c in range(p + 1):
                        root[ra, nd + c] -= x * panel[tail + c]
                for a in range(p + 1):
                    x = panel[tail + a]
                    for c in range(a, p + 1):
                        root[nd + a, nd + c] -= x * panel[tail + c]
    return logdet + np.log(product)


@inner()
def max_coefficients(pat):  # type: ignore[no-untyped-def]
    """Largest number of coefficients per level, at least 1."""
    most = 1
    for d in range(pat.q.shape[0]):
        most = max(most, pat.q[d])
    for f in range(pat.dq.shape[0]):
        most = max(most, pat.dq[f])
    return most


@inner()
def rows_times(lam, lo, q, transposed, A, row, first, last, t):  # type: ignore[no-untyped-def]
    """Rows row..row+q of columns first..last of A times L (or L') from the left, in place."""
    for c in range(first, last):
        for a in range(q):
            s = 0.0
            for k in range(q):
                s += (lam[lo + k * q + a] if transposed else lam[lo + a * q + k]) * A[row + k, c]
            t[a] = s
        for a in range(q):
            A[row + a, c] = t[a]


@inner()
def columns_times(lam, lo, q, transposed, A, column, first, last, t):  # type: ignore[no-untyped-def]
    """Columns column..column+q of rows first..last of A times L' (or L) from the right, in place."""
    for r in range(first, last):
        for a in range(q):
            s = 0.0
            for k in range(q):
                s += (lam[lo + k * q + a] if transposed else lam[lo + a * q + k]) * A[r, column + k]
            t[a] = s
        for a in range(q):
            A[r, column + a] = t[a]


@kernel()
def whiten_root(pat, lam, pen, prior, sigma2, fixed, root):  # type: ignore[no-untyped-def]
    """Turn the Schur complement into the whitened root system, in place.

    Dense factors become L' S L + diag(pen); X gains sigma^2 times the prior precision, y the
    prior's right-hand side (`prior` is the (p+1, p+1) upper triangle of [P, Pm; m'Pm]); the
    trailing columns of X whose coefficients are given (`fixed`) are folded into y, whose
    column then moves left. Returns the order of the system without y.
    """
    n_cross = pat.dq.shape[0]
    nd = pat.droot[n_cross]
    size = root.shape[0]
    scale = np.ones(size)
    for f in range(n_cross):
        if pat.dq[f] == 1:
            for r in range(pat.droot[f], pat.droot[f + 1]):
                scale[r] = lam[pat.dlam_off[f]]
    for r in range(nd):  # scalar factors, row by row as memory lies
        x = scale[r]
        for c in range(r, size):
            root[r, c] *= x * scale[c]
    t = np.zeros(max_coefficients(pat))
    for f in range(n_cross):
        q = pat.dq[f]
        lo = pat.dlam_off[f]
        for r in range(pat.droot[f], pat.droot[f + 1], q):
            if q > 1:
                for a in range(q):
                    for c in range(a):
                        root[r + a, r + c] = root[r + c, r + a]
                # (no literals among the arguments: numba would compile the helper once for each)
                rows_times(lam, lo, q, q > 0, root, r, r, size, t)
                columns_times(lam, lo, q, q > 0, root, r, q - q, r + q, t)
            for a in range(q):
                root[r + a, r + a] += pen[r + a]
    n_fixed = fixed.shape[0]
    y = size - 1
    k0 = y - n_fixed
    for a in range(n_fixed):
        x = fixed[a]
        for r in range(k0):
            root[r, y] -= x * root[r, k0 + a]
        root[y, y] -= 2.0 * x * root[k0 + a, y]
        root[y, y] += x * x * root[k0 + a, k0 + a]
        for c in range(a + 1, n_fixed):
            root[y, y] += 2.0 * x * fixed[c] * root[k0 + a, k0 + c]
    if n_fixed > 0:
        for r in range(k0):
            root[r, k0] = root[r, y]
        root[k0, k0] = root[y, y]
    for a in range(prior.shape[0]):
        for c in range(a, prior.shape[0]):
            root[nd + a, nd + c] += sigma2 * prior[a, c]
    return k0


@inner()
def factor_root(k, root):  # type: ignore[no-untyped-def]
    """Upper Cholesky of the leading (k+1, k+1) part in place; the last pivot is left unrooted.

    For small roots, where a LAPACK call from Python would cost more than the work. On return
    row k holds the quadratic form at [k, k]. False if a pivot is not positive.
    """
    for a in range(k):
        pivot = root[a, a]
        if not pivot > 0.0:
            return False
        pivot = np.sqrt(pivot)
        root[a, a] = pivot
        for c in range(a + 1, k + 1):
            root[a, c] /= pivot
        for r in range(a + 1, k + 1):
            x = root[a, r]
            if x != 0.0:
                for c in range(r, k + 1):
                    root[r, c] -= x * root[a, c]
    return True


@inner()
def back_solve(k, root, z, x):  # type: ignore[no-untyped-def]
    """x = U^-1 (root[:k, k] + z): the solution if z = 0, a draw of it if z is standard normal."""
    for a in range(k - 1, -1, -1):
        s = root[a, k] + z[a]
        for c in range(a + 1, k):
            s -= root[a, c] * x[c]
        x[a] = s / root[a, a]


@inner()
def invert_root(k, root, V):  # type: ignore[no-untyped-def]
    """V = (U'U)^-1 of the factored root, full symmetric (k, k)."""
    for c in range(k):  # columns of U^-1 in the upper triangle of V
        V[c, c] = 1.0 / root[c, c]
        for a in range(c - 1, -1, -1):
            s = 0.0
            for j in range(a + 1, c + 1):
                s -= root[a, j] * V[j, c]
            V[a, c] = s / root[a, a]
    for a in range(k):
        for c in range(a, k):
            s = 0.0
            for j in range(c, k):
                s += V[a, j] * V[c, j]
            V[a, c] = s
    for a in range(k):
        for c in range(a):
            V[a, c] = V[c, a]
