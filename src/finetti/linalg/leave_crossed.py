"""numba kernel for one level of a crossed factor left out: its rows see the root through their leading blocks.

With Q the inverse of the covariance of y, y_I | y_-I has precision Q_II and deviates from its mean by Q_II^-1 (Q y)_I.
All covariances are relative to sigma^2, as in `kernels`.
"""

from __future__ import annotations

import numpy as np

from finetti.linalg.jit import kernel
from finetti.linalg.kernels import max_coefficients

__all__ = ["leave_crossed"]


@kernel()
def leave_crossed(  # type: ignore[no-untyped-def]
    pat, rows, row_ptr, block, lam, fixed, x_root, V_root, panel, w, Zl, Zd, X, y, logdet, quadratic
):  # fmt: skip
    """Fill -log|Q_II| and (Q y)_I'Q_II^-1 (Q y)_I for groups of rows `rows[row_ptr[j]:row_ptr[j + 1]]`.

    For one leading factor at most; `block` (n,) is each row's leading level. One product of V with a sparse row per
    row, then a dense factorisation of the order of the group.
    """
    p_all = X.shape[1]
    n_fixed = fixed.shape[0]
    p = p_all - n_fixed
    n_cross = pat.dq.shape[0]
    nd = pat.droot[n_cross]
    k = V_root.shape[0]
    depth = pat.q.shape[0]
    q = max_coefficients(pat) if depth == 0 else pat.q[0]
    longest, largest = 0, 1
    for b in range(pat.parent.shape[0]):
        longest = max(longest, pat.dense_ptr[b + 1] - pat.dense_ptr[b])
    for j in range(row_ptr.shape[0] - 1):
        largest = max(largest, row_ptr[j + 1] - row_ptr[j])
    most = longest + p
    col = np.zeros((largest, most), dtype=np.int64)
    val = np.zeros((largest, most))
    length = np.zeros(largest, dtype=np.int64)
    h = np.zeros((largest, q))
    r = np.zeros(largest)
    Q = np.zeros((largest, largest))
    B = np.zeros(k)
    for j in range(row_ptr.shape[0] - 1):
        n = row_ptr[j + 1] - row_ptr[j]
        for i in range(n):
            row = rows[row_ptr[j] + i]
            b = block[row]
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            base = pat.panel_ptr[b]
            width = q + n_list + p_all + 1
            length[i] = n_list + p
            for c in range(n_list):
                col[i, c] = pat.dense_idx[pat.dense_ptr[b] + c]
                val[i, c] = 0.0
            for f in range(n_cross):
                for a in range(pat.dq[f]):
                    val[i, pat.row_dense[row, f] + a] += Zd[row, pat.dz_off[f] + a]
            e = y[row]
            for c in range(p):
                col[i, n_list + c] = nd + c
                val[i, n_list + c] = X[row, c]
            for c in range(n_fixed):
                e -= X[row, p + c] * fixed[c]
            for a in range(q):  # h = C^-1 L'z
                t = 0.0
                for c in range(q):
                    t += lam[pat.lam_off[0] + c * q + a] * Zl[row, c]
                for c in range(a):
                    t -= panel[base + a * width + c] * h[i, c]
                t /= panel[base + a * width + a]
                h[i, a] = t
                at = base + a * width + q
                for c in range(n_list + p):
                    val[i, c] -= t * panel[at + c]
                e -= t * panel[base + a * width + width - 1]
                for c in range(n_fixed):
                    e += t * panel[base + a * width + width - 1 - n_fixed + c] * fixed[c]
            for c in range(n_list + p):
                e -= val[i, c] * x_root[col[i, c]]
            r[i] = w[row] * e
        for i in range(n):
            row = rows[row_ptr[j] + i]
            for c in range(k):
                B[c] = 0.0
            for a in range(length[i]):
                t = val[i, a]
                if t != 0.0:
                    at = col[i, a]
                    for c in range(k):
                        B[c] += t * V_root[at, c]
            for z in range(i + 1):
                other = rows[row_ptr[j] + z]
                t = 0.0
                for a in range(length[z]):
                    t += val[z, a] * B[col[z, a]]
                if block[row] == block[other]:
                    for a in range(q):
                        t += h[i, a] * h[z, a]
                Q[i, z] = -w[row] * w[other] * t
            Q[i, i] += w[row]
        logdet[j] = 0.0
        quadratic[j] = 0.0
        for a in range(n):  # lower Cholesky in place, the solution along
            t = Q[a, a]
            for c in range(a):
                t -= Q[a, c] * Q[a, c]
            if not t > 1e-12 * w[rows[row_ptr[j] + a]]:
                logdet[j] = np.nan
                break
            pivot = np.sqrt(t)
            Q[a, a] = pivot
            logdet[j] -= 2.0 * np.log(pivot)
            t = r[a]
            for c in range(a):
                t -= Q[a, c] * r[c]
            r[a] = t / pivot
            quadratic[j] += r[a] * r[a]
            for i in range(a + 1, n):
                t = Q[i, a]
                for c in range(a):
                    t -= Q[i, c] * Q[a, c]
                Q[i, a] = t / pivot
