"""numba kernels for what the data of one level say, and what the rest says of them: leave one group out.

For the rows I of a level j of a leading factor, the coefficients that only they touch are eliminated already; their
rows see the later columns T (ancestors in the chain, crossed coefficients, X) through

    y_I = W_T x_T + e,   e ~ N(0, O_j),   C = W_T'O_j^-1 W_T,   c = W_T'O_j^-1 y_I,

the Schur complement that the elimination hands on. With x_T | y ~ N(m, V) given everything, I included,

    -2 log p(y_I | y_-I) = n_I log 2 pi + log|O_j| - log|1 - V C| + r + s'(1 - V C)^-1 V s,
    s = c - C m,   r = y'O^-1 y - 2 m'c + m'C m,

so that one elimination serves all levels. Crossed factors are in `leave_crossed`.

All covariances are relative to sigma^2, as in `kernels`.
"""

from __future__ import annotations

import numpy as np

from finetti.linalg.downward import unwhiten_root
from finetti.linalg.jit import inner, kernel
from finetti.linalg.kernels import back_solve, eliminate, factor_root, invert_root, whiten_root
from finetti.linalg.nodes import prepare

__all__ = ["gram_sizes", "grams", "leave_levels", "leave_nodes"]


def gram_sizes(pat, p_all):  # type: ignore[no-untyped-def]
    """Offsets (B0 + 1,) of the cross-products of each first-factor block, as `grams` packs them."""
    lists = np.diff(pat.dense_ptr[: pat.first[1] + 1])
    sizes = (pat.q_above[0] + lists + p_all + 1) ** 2
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@kernel()
def grams(pat, ptr, w, Zl, Zd, X, y, out):  # type: ignore[no-untyped-def]
    """Cross-products of the rows of every first-factor block over [ancestors | list | X | y], full matrices."""
    p_all = X.shape[1]
    for b in range(ptr.shape[0] - 1):
        size = pat.q_above[0] + pat.dense_ptr[b + 1] - pat.dense_ptr[b] + p_all + 1
        gram(pat, b, size, w, Zl, Zd, X, y, out[ptr[b] : ptr[b + 1]].reshape(size, size))


@inner()
def gram(pat, b, size, w, Zl, Zd, X, y, S):  # type: ignore[no-untyped-def]
    """Fill S (size, size) with the cross-products of one block."""
    p_all = X.shape[1]
    q, n_anc = pat.q[0], pat.q_above[0]
    n_cross, n_dz = pat.dq.shape[0], Zd.shape[1]
    used = n_anc + n_dz + p_all + 1
    place = np.zeros(used, dtype=np.int64)
    value = np.zeros(used)
    for a in range(size):
        for c in range(size):
            S[a, c] = 0.0
    for i in range(pat.row_ptr[b], pat.row_ptr[b + 1]):
        for a in range(n_anc):
            place[a] = a
            value[a] = Zl[i, q + a]
        j = n_anc
        for f in range(n_cross):
            for a in range(pat.dq[f]):
                place[j] = n_anc + pat.row_dense[i, f] + a
                value[j] = Zd[i, pat.dz_off[f] + a]
                j += 1
        for a in range(p_all):
            place[j] = size - 1 - p_all + a
            value[j] = X[i, a]
            j += 1
        place[j] = size - 1
        value[j] = y[i]
        for a in range(used):
            t = w[i] * value[a]
            if t != 0.0:
                for c in range(a, used):
                    S[place[a], place[c]] += t * value[c]
    for a in range(size):
        for c in range(a + 1, size):  # places of crossed factors need not ascend
            t = S[a, c] + S[c, a]
            S[a, c] = t
            S[c, a] = t


@kernel()
def leave_nodes(  # type: ignore[no-untyped-def]
    pat, at_depth, lam, sigma2, row_s2, fixed, pen_lead, pen_root, prior, se2, w0, Zl, Zd, X, y, panel0, root0,
    gram_ptr, gram0, logdet, quadratic,
):  # fmt: skip
    """Run `leave_levels` at all nodes where the root is small; logdet, quadratic (S, J) out."""
    n_fixed = fixed.shape[1]
    k = root0.shape[0] - 1 - n_fixed
    panel = np.empty_like(panel0)
    root = np.empty_like(root0)
    w = w0.copy()
    zero, x, V = np.zeros(k), np.zeros(k), np.zeros((k, k))
    for s in range(lam.shape[0]):
        prepare(pat, se2, row_s2[s], w, Zl, Zd, X, y, panel0, root0, panel, root)
        fill = eliminate(pat, lam[s], pen_lead, X.shape[1], panel, root)
        whiten_root(pat, lam[s], pen_root, prior, sigma2[s], fixed[s], root)
        if np.isnan(fill) or not factor_root(k, root):
            for j in range(logdet.shape[1]):
                logdet[s, j] = np.nan
            continue
        back_solve(k, root, zero, x)
        invert_root(k, root, V)
        unwhiten_root(pat, lam[s], k, x, V)
        leave_levels(
            pat, at_depth, lam[s], fixed[s], x, V, panel, gram_ptr, gram0, w, Zl, Zd, X, y, logdet[s], quadratic[s]
        )


@kernel()
def leave_levels(  # type: ignore[no-untyped-def]
    pat, at_depth, lam, fixed, x_root, V_root, panel, gram_ptr, gram0, w, Zl, Zd, X, y, logdet, quadratic
):  # fmt: skip
    """Fill log|O| - log|1 - V C| and r + s'(1 - V C)^-1 V s for every level of the leading factor at `at_depth`.

    `gram_ptr`, `gram0`: cross-products of the blocks by `grams`, or empty: then they are formed from the rows. `panel`
    is factored; x_root, V_root are the unwhitened solution and covariance of the root. NaN where what is
    left does not determine the coefficients that the level's rows need.
    """
    p_all = X.shape[1]
    n_fixed = fixed.shape[0]
    p = p_all - n_fixed
    depth = pat.q.shape[0]
    n_cross = pat.dq.shape[0]
    nd = pat.droot[n_cross]
    n_blocks = pat.parent.shape[0]
    longest = 0
    for b in range(n_blocks):
        longest = max(longest, pat.dense_ptr[b + 1] - pat.dense_ptr[b])
    q_sum = 0
    for d in range(depth):
        q_sum += pat.q[d]
    most = q_sum + longest + p_all + 1
    # covariance of own and later columns of the blocks above, from the root downward
    cov_ptr = np.zeros(n_blocks + 1, dtype=np.int64)
    for d in range(at_depth + 1, depth):
        for b in range(pat.first[d], pat.first[d + 1]):
            size = pat.q[d] + pat.q_above[d] + pat.dense_ptr[b + 1] - pat.dense_ptr[b] + p
            cov_ptr[b + 1] = size * (size + 1)  # with the solution as last column
    # Schur complements handed to the blocks of the next factor, below `at_depth`
    sum_ptr = np.zeros(n_blocks + 1, dtype=np.int64)
    for d in range(1, at_depth + 1):
        for b in range(pat.first[d], pat.first[d + 1]):
            size = pat.q_above[d] + pat.dense_ptr[b + 1] - pat.dense_ptr[b] + p_all + 1
            sum_ptr[b + 1] = size * size
    for b in range(n_blocks):
        cov_ptr[b + 1] += cov_ptr[b]
        sum_ptr[b + 1] += sum_ptr[b]
    kept = np.zeros(cov_ptr[n_blocks])
    sums = np.zeros(sum_ptr[n_blocks])
    dets = np.zeros(n_blocks)
    V = np.zeros((most, most))
    m_T = np.zeros(most)
    col = np.zeros(most, dtype=np.int64)
    G = np.zeros((max(q_sum, 1), most))
    T = np.zeros((max(q_sum, 1), most))
    L = np.zeros((max(q_sum, 1), max(q_sum, 1)))
    v = np.zeros(max(q_sum, 1))
    for d in range(depth - 1, at_depth, -1):
        q = pat.q[d]
        n_anc = pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            m = n_anc + n_list + p
            later_moments(pat, d, b, p, nd, x_root, V_root, kept, cov_ptr, col, V, m_T)
            base = pat.panel_ptr[b]
            width = q + n_anc + n_list + p_all + 1
            # G = C^-T P and v = C^-T P_y - G x
            for c in range(m + 1):
                src = base + q + c if c < m else base + width - 1
                for a in range(q - 1, -1, -1):
                    t = panel[src + a * width]
                    if c == m:
                        for k in range(n_fixed):
                            t -= fixed[k] * panel[src + a * width - n_fixed + k]
                    for k in range(a + 1, q):
                        t -= panel[base + k * width + a] * (G[k, c] if c < m else v[k])
                    t /= panel[base + a * width + a]
                    if c < m:
                        G[a, c] = t
                    else:
                        v[a] = t
            for a in range(q):
                for c in range(m):
                    v[a] -= G[a, c] * m_T[c]
            # C^-1 into L, then u = (lam) v: rows of lam times everything
            for c in range(q):
                for a in range(q):
                    t = 1.0 if a == c else 0.0
                    for k in range(a):
                        t -= panel[base + a * width + k] * L[k, c]
                    L[a, c] = t / panel[base + a * width + a]
            size = q + m
            lo = pat.lam_off[d]
            at = cov_ptr[b]
            for a in range(q):  # T = - G V
                for c in range(m):
                    t = 0.0
                    for k in range(m):
                        t -= G[a, k] * V[k, c]
                    T[a, c] = t
            for a in range(q):
                t = 0.0
                for k in range(q):
                    t += lam[lo + a * q + k] * v[k]
                kept[at + a * (size + 1) + size] = t
                for c in range(m):
                    t = 0.0
                    for k in range(q):
                        t += lam[lo + a * q + k] * T[k, c]
                    kept[at + a * (size + 1) + q + c] = t
                    kept[at + (q + c) * (size + 1) + a] = t
                for c in range(q):
                    t = 0.0
                    for i in range(q):
                        for k in range(q):
                            own = 0.0  # Cov(v)[i, k] = (C C')^-1 + G V G'
                            for r in range(q):
                                own += L[r, i] * L[r, k]
                            for r in range(m):
                                own -= T[i, r] * G[k, r]
                            t += lam[lo + a * q + i] * own * lam[lo + c * q + k]
                    kept[at + a * (size + 1) + c] = t
            for a in range(m):
                kept[at + (q + a) * (size + 1) + size] = m_T[a]
                for c in range(m):
                    kept[at + (q + a) * (size + 1) + q + c] = V[a, c]
    # upward: what each block's rows say about the later columns
    S = np.zeros((most, most))
    place = np.zeros(most, dtype=np.int64)
    B = np.zeros((most, most + 1))
    s = np.zeros(most)
    for d in range(at_depth + 1):
        q = pat.q[d]
        n_anc = pat.q_above[d]
        for b in range(pat.first[d], pat.first[d + 1]):
            n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
            size = n_anc + n_list + p_all + 1
            if d == 0 and gram_ptr.shape[0] == 0:
                gram(pat, b, size, w, Zl, Zd, X, y, S[:size, :size])
            elif d == 0:
                at = gram_ptr[b]
                for a in range(size):
                    for c in range(size):
                        S[a, c] = gram0[at + a * size + c]
            else:
                for a in range(size):
                    for c in range(size):
                        S[a, c] = sums[sum_ptr[b] + a * size + c]
            base = pat.panel_ptr[b]
            width = q + size
            pivots = 1.0
            for k in range(q):
                row = base + k * width + q
                pivots *= panel[base + k * width + k]
                for a in range(size):
                    t = panel[row + a]
                    for c in range(a, size):
                        S[a, c] -= t * panel[row + c]
            for a in range(size):
                for c in range(a):
                    S[a, c] = S[c, a]
            if d < at_depth:
                up = pat.parent[b]
                dets[up] += dets[b] + 2.0 * np.log(pivots)
                q_up = pat.q[d + 1]
                up_anc = pat.q_above[d + 1]
                up_list = pat.dense_ptr[up + 1] - pat.dense_ptr[up]
                up_size = up_anc + up_list + p_all + 1
                for a in range(q_up, size):
                    if a < n_anc:
                        place[a] = a - q_up
                    elif a < n_anc + n_list:
                        place[a] = up_anc + pat.dense_rel[pat.dense_ptr[b] + a - n_anc]
                    else:
                        place[a] = up_anc + up_list + a - n_anc - n_list
                for a in range(q_up, size):
                    for c in range(q_up, size):
                        sums[sum_ptr[up] + place[a] * up_size + place[c]] += S[a, c]
                continue
            # given coefficients move into y
            Y = size - 1
            at = Y - n_fixed
            for a in range(at):
                for k in range(n_fixed):
                    S[a, Y] -= S[a, at + k] * fixed[k]
            for k in range(n_fixed):
                S[Y, Y] -= 2.0 * fixed[k] * S[at + k, Y]
                for c in range(n_fixed):
                    S[Y, Y] += fixed[k] * fixed[c] * S[at + k, at + c]
            m, level = at, b - pat.first[d]
            if pat.parent[b] < 0 and n_list == 0 and level > 0:
                pass  # one factor: X alone, the same for all levels
            elif pat.parent[b] < 0:  # here and not in `later_moments`: a call copies the whole pattern
                for a in range(m):
                    col[a] = pat.dense_idx[pat.dense_ptr[b] + a] if a < n_list else nd + a - n_list
                    m_T[a] = x_root[col[a]]
                for a in range(m):
                    for c in range(m):
                        V[a, c] = V_root[col[a], col[c]]
            else:
                later_moments(pat, d, b, p, nd, x_root, V_root, kept, cov_ptr, col, V, m_T)
            less, quad = cavity(m, S, Y, V, m_T, B, s, pivots * pivots)
            logdet[level] = dets[b] - less
            quadratic[level] = quad


@inner()
def later_moments(pat, d, b, p, nd, x_root, V_root, kept, cov_ptr, col, V, m_T):  # type: ignore[no-untyped-def]
    """Fill V and m_T with covariance and solution of block b's later columns [ancestors | list | X]."""
    n_anc = pat.q_above[d]
    n_list = pat.dense_ptr[b + 1] - pat.dense_ptr[b]
    m = n_anc + n_list + p
    up = pat.parent[b]
    if up < 0:
        for c in range(n_list):
            col[c] = pat.dense_idx[pat.dense_ptr[b] + c]
        for c in range(p):
            col[n_list + c] = nd + c
        for a in range(m):
            m_T[a] = x_root[col[a]]
            for c in range(m):
                V[a, c] = V_root[col[a], col[c]]
        return
    up_list = pat.dense_ptr[up + 1] - pat.dense_ptr[up]
    size = n_anc + up_list + p
    for c in range(n_anc):
        col[c] = c
    for c in range(n_list):
        col[n_anc + c] = n_anc + pat.dense_rel[pat.dense_ptr[b] + c]
    for c in range(p):
        col[n_anc + n_list + c] = n_anc + up_list + c
    for a in range(m):
        row = cov_ptr[up] + col[a] * (size + 1)
        m_T[a] = kept[row + size]
        for c in range(m):
            V[a, c] = kept[row + col[c]]


@inner()
def cavity(m, S, Y, V, m_T, B, s, over):  # type: ignore[no-untyped-def]
    """Return log|1 - V C| - log(over) and r + s'(1 - V C)^-1 V s, by elimination with row exchanges in B and s."""
    quad = S[Y, Y]
    for a in range(m):
        t = 0.0
        for c in range(m):
            t += S[a, c] * m_T[c]
        s[a] = S[a, Y] - t
        quad += m_T[a] * (t - 2.0 * S[a, Y])
    for a in range(m):
        for c in range(m):
            t = 1.0 if a == c else 0.0
            for k in range(m):
                t -= V[a, k] * S[k, c]
            B[a, c] = t
        t = 0.0
        for k in range(m):
            t += V[a, k] * s[k]
        B[a, m] = t
    det = 1.0
    logs = 0.0
    for a in range(m):
        best = a
        for r in range(a + 1, m):
            if abs(B[r, a]) > abs(B[best, a]):
                best = r
        if best != a:
            det = -det
            for c in range(a, m + 1):
                t = B[a, c]
                B[a, c] = B[best, c]
                B[best, c] = t
        pivot = B[a, a]
        # 1 - V C is singular where the rest of the data leave a direction open: rounding leaves this much
        if not abs(pivot) > 1e-11:
            return np.nan, np.nan
        det *= pivot
        if abs(det) < 1e-100:
            logs += np.log(abs(det))
            det = 1.0 if det > 0.0 else -1.0
        for r in range(a + 1, m):
            t = B[r, a] / pivot
            if t != 0.0:
                for c in range(a + 1, m + 1):
                    B[r, c] -= t * B[a, c]
    if det < 0.0:
        return np.nan, np.nan
    for a in range(m - 1, -1, -1):
        t = B[a, m]
        for c in range(a + 1, m):
            t -= B[a, c] * B[c, m]
        B[a, m] = t / B[a, a]
        quad += s[a] * B[a, m]
    return logs + np.log(det / over), quad
