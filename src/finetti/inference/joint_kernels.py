"""The joint density p(y, b, u, theta) and its gradient by hand, in one kernel that nutpie calls as C.

    x = c + W z                          z is what is sampled: theta and b, a small dense triangle W; v = z beyond
    L = D C                              standard deviations times the Cholesky factor of the correlations
    u_j = L s_j, s_j ~ N(0, I)           the deviations of level j; coefficient k of it, with t = L_kk,
    s_jk = a t (h - sum_{i<k} L_ki s_ji) / (1 + a t^2) + v_jk / sqrt(1 + a t^2),    h = h_0 + G (b, u before it)
    e = y - offset - X b - Z u           kept relative to a reference, so that offsets cost no digits

The third line is the distribution of s_jk if the data, given all coefficients before it, knew u_jk as h with
precision a. a, h_0 and G are constants (see `precondition`). With a = 0 the coefficient is non-centred; with much
information (a t^2 >> 1) it is centred, u = h + v / sqrt(a); between them v keeps about the same distribution whatever
t is, so that there is no funnel on either side. With any constants the density is exact: log p -= log(1 + a t^2) / 2.

Everything the kernel reads lies on one *tape* of 8-byte words: a table of offsets, then integers and floats, each
array where the table says (`N[role + k]` of integers, `F[X + i]` of floats). The same function serves Python (through
ctypes) and nutpie (through its address), so that there is one thing to compile. Reverse mode through the lines above,
last to first, gives the gradient at the cost of a few evaluations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray, cfunc, types

from finetti.linalg.jit import inner

__all__ = ["ARRAYS", "EXOTIC", "SHELF", "compiled", "compiled_store"]

# the tape's table: where each array begins, in words; one entry more is the tape's length
ARRAYS = (
    # n, d, p, columns of X, factors, kind of errors, sigma's place in theta, coefficients u, columns of Z
    "sizes",
    "sigma", "e0", "X", "role", "weight", "se2",
    "map", "low", "high", "code", "par", "prior_mean", "prior_precision",
    "q", "levels", "index", "Z", "sd_at", "sd_value", "cor_at", "cor_value", "held", "held_L",
    "kind", "information", "estimate", "near_start", "near_at", "near",
    "centre", "W",
)  # fmt: skip
N_ARRAYS = len(ARRAYS)

# how a coordinate of theta becomes its natural value
LINE, LOG, LOGIT, TANH = 0, 1, 2, 3
# log density of the natural value (of a standard deviation, whatever scale the prior speaks of), up to constants;
# of an exotic one Python takes care, Jacobian included
FLAT, NORMAL, STUDENT, GAMMA, INVERSE_GAMMA, PARTIAL, EXOTIC = 0, 1, 2, 3, 4, 5, 6
# error variance of a row: sigma^2 / w, s^2, s^2 + sigma^2
ERRORS_SIGMA, ERRORS_KNOWN, ERRORS_BOTH = 0, 1, 2
# what a coordinate v is: of a deviation from the parent, an unpenalised deviation, or nothing at all
# (a coefficient that is not identified)
PARENT, FREE, UNUSED = 0, 1, 2
# words before the draws: number of the call, draws to skip, every how many-th to keep, room for so many
SHELF = 4


@inner()
def _theta(x, N, F, at, natural, slope, g, g_nat):  # type: ignore[no-untyped-def]
    """Natural values of theta and their slopes; log prior with Jacobian, its gradient in g and g_nat."""
    coordinate, low, high, code, par = at[7], at[8], at[9], at[10], at[11]
    lp = 0.0
    for k in range(natural.shape[0]):
        t = x[k]
        lo, hi = F[low + k], F[high + k]
        log_slope, bend = 0.0, 0.0  # log d natural / d theta, and its derivative
        small = np.exp(-abs(t))
        if N[coordinate + k] == LINE:
            natural[k] = lo + hi * t
            slope[k] = hi
        elif N[coordinate + k] == LOG:
            slope[k] = np.exp(t)
            natural[k] = lo + slope[k]
            log_slope, bend = t, 1.0
        elif N[coordinate + k] == LOGIT:
            share = (1.0 if t >= 0.0 else small) / (1.0 + small)
            natural[k] = lo + (hi - lo) * share
            slope[k] = (hi - lo) * small / (1.0 + small) ** 2
            log_slope = -abs(t) - 2.0 * np.log1p(small)
            bend = 1.0 - 2.0 * share
        else:
            natural[k] = np.tanh(t)
            square = small * small
            slope[k] = 4.0 * square / (1.0 + square) ** 2  # 1 - tanh^2 without cancellation
            log_slope = -2.0 * abs(t) - 2.0 * np.log1p(square)
            bend = -2.0 * natural[k]
        prior = N[code + k]
        if prior == EXOTIC:
            continue
        lp += log_slope
        g[k] += bend
        s, a, b, c = natural[k], F[par + 3 * k], F[par + 3 * k + 1], F[par + 3 * k + 2]
        if prior == NORMAL:
            r = (s - a) / b
            lp -= 0.5 * r * r
            g_nat[k] -= r / b
        elif prior == STUDENT:
            r = (s - b) / c
            lp -= 0.5 * (a + 1.0) * np.log1p(r * r / a)
            g_nat[k] -= (a + 1.0) * r / (a + r * r) / c
        elif prior == GAMMA:
            lp += (a - 1.0) * np.log(s) - b * s
            g_nat[k] += (a - 1.0) / s - b
        elif prior == INVERSE_GAMMA:  # on s^2: d(s^2) = 2 s ds
            lp += -(2.0 * a + 1.0) * np.log(s) - b / (s * s)
            g_nat[k] += (2.0 * b / (s * s) - 2.0 * a - 1.0) / s
        elif prior == PARTIAL:  # (1 - t^2)^a
            lp += a * log_slope
            g[k] += a * bend
    return lp


@inner()
def _factor(f, first_sd, first_L, q, natural, slope, N, F, at, C, L):  # type: ignore[no-untyped-def]
    """C and L of one factor."""
    sd_at, sd_value, cor_at, cor_value, held, held_L = at[18], at[19], at[20], at[21], at[22], at[23]
    for i in range(q):
        where = N[sd_at + first_sd + i]
        sd = natural[where] if where >= 0 else F[sd_value + first_sd + i]
        left = 1.0
        for j in range(i):
            ij = first_L + i * q + j
            where = N[cor_at + ij]
            t = natural[where] if where >= 0 else F[cor_value + ij]
            gap = slope[where] if where >= 0 else (1.0 - t) * (1.0 + t)
            C[ij] = t * left
            L[ij] = sd * C[ij]
            left *= np.sqrt(gap)
        C[first_L + i * q + i] = left
        L[first_L + i * q + i] = sd * left
    if N[held + f]:
        for i in range(q * q):
            L[first_L + i] = F[held_L + first_L + i]


@inner()
def _factor_back(f, first_sd, first_L, q, natural, slope, N, F, at, C, g_L, g, g_nat):  # type: ignore[no-untyped-def]
    """Back through L = D C and the partial correlations of one factor."""
    sd_at, sd_value, cor_at, cor_value, held = at[18], at[19], at[20], at[21], at[22]
    if N[held + f]:
        return
    for i in range(q):
        where = N[sd_at + first_sd + i]
        sd = natural[where] if where >= 0 else F[sd_value + first_sd + i]
        if where >= 0:
            for j in range(i + 1):
                g_nat[where] += g_L[first_L + i * q + j] * C[first_L + i * q + j]
        left = C[first_L + i * q + i]
        g_left = g_L[first_L + i * q + i] * sd
        for back in range(i):
            ij = first_L + i * q + i - 1 - back
            where = N[cor_at + ij]
            t = natural[where] if where >= 0 else F[cor_value + ij]
            gap = slope[where] if where >= 0 else (1.0 - t) * (1.0 + t)
            root = np.sqrt(gap)
            left = left / root if root > 0.0 else 0.0  # what was left before this column
            if where >= 0:  # d/d theta = (1 - t^2) d/dt, which takes the root out of the denominator
                g[where] += g_L[ij] * sd * left * gap - g_left * left * t * root
            g_left = g_L[ij] * sd * t + g_left * root


@inner()
def _deviations(x, v, natural, slope, N, F, at, C, L, score, rest, bu):  # type: ignore[no-untyped-def]
    """All covariance factors, scores s and coefficients (b relative to the reference, u); log of their density.

    `rest` keeps h - sum L s for the way back.
    """
    q_of, J_of, kind, information, estimate = at[14], at[15], at[24], at[25], at[26]
    near_start, near_at, near, held = at[27], at[28], at[29], at[22]
    p = N[at[0] + 2]
    lp = 0.0
    first_sd, first_L, o = 0, 0, 0
    for f in range(N[at[0] + 4]):
        q = N[q_of + f]
        _factor(f, first_sd, first_L, q, natural, slope, N, F, at, C, L)
        for _ in range(N[J_of + f]):
            for k in range(q):
                a, h = F[information + o + k], F[estimate + o + k]
                for i in range(N[near_start + o + k], N[near_start + o + k + 1]):
                    h += F[near + i] * bu[N[near_at + i]]
                row = first_L + k * q
                if N[kind + o + k] == FREE:
                    bu[p + o + k] = h + v[o + k] / np.sqrt(a)
                    continue
                if a > 0.0:
                    t = L[row + k]
                    for i in range(k):
                        h -= L[row + i] * score[o + i]
                    spread = 1.0 + a * t * t
                    score[o + k] = a * t * h / spread + v[o + k] / np.sqrt(spread)
                    lp -= 0.5 * np.log(spread)
                else:
                    score[o + k] = v[o + k]
                rest[o + k] = h
                lp -= 0.5 * score[o + k] * score[o + k]
                total = 0.0
                for i in range(k + 1):
                    total += L[row + i] * score[o + i]
                bu[p + o + k] = total if N[kind + o + k] == PARENT else 0.0
            if N[held + f]:  # a held factor need not be triangular
                for k in range(q):
                    total = 0.0
                    for i in range(q):
                        total += L[first_L + k * q + i] * score[o + i]
                    bu[p + o + k] = total
            o += q
        first_sd += q
        first_L += q * q
    return lp


@inner()
def _deviations_back(v, natural, slope, N, F, at, C, L, score, rest, g_bu, g_v, g_score, g_L, g, g_nat):  # type: ignore[no-untyped-def]
    """From g_bu, complete but for what later coefficients add, to g_v, and to theta through L."""
    q_of, J_of, kind, information = at[14], at[15], at[24], at[25]
    near_start, near_at, near, held = at[27], at[28], at[29], at[22]
    p = N[at[0] + 2]
    o = score.shape[0]
    first_sd, first_L = N[at[0] + 8], g_L.shape[0]
    for f_back in range(N[at[0] + 4]):
        f = N[at[0] + 4] - 1 - f_back
        q = N[q_of + f]
        first_sd -= q
        first_L -= q * q
        for _ in range(N[J_of + f]):
            o -= q
            for k in range(q):
                g_score[k] = -score[o + k]
            if N[held + f]:
                for k in range(q):
                    for i in range(q):
                        g_score[i] += g_bu[p + o + k] * L[first_L + k * q + i]
            for back in range(q):
                k = q - 1 - back
                row = first_L + k * q
                a = F[information + o + k]
                g_h = 0.0
                if N[kind + o + k] == FREE:
                    g_v[o + k] = g_bu[p + o + k] / np.sqrt(a)
                    g_h = g_bu[p + o + k]
                else:
                    if N[kind + o + k] == PARENT and not N[held + f]:
                        for i in range(k + 1):
                            g_score[i] += g_bu[p + o + k] * L[row + i]
                            g_L[row + i] += g_bu[p + o + k] * score[o + i]
                    if a > 0.0:
                        t, h = L[row + k], rest[o + k]
                        spread = 1.0 + a * t * t
                        root = np.sqrt(spread)
                        g_v[o + k] = g_score[k] / root
                        slope_t = a * h * (1.0 - a * t * t) / (spread * spread) - v[o + k] * a * t / (spread * root)
                        g_L[row + k] += g_score[k] * slope_t - a * t / spread
                        g_h = g_score[k] * a * t / spread
                        for i in range(k):
                            g_score[i] -= g_h * L[row + i]
                            g_L[row + i] -= g_h * score[o + i]
                    else:
                        g_v[o + k] = g_score[k]
                for i in range(N[near_start + o + k], N[near_start + o + k + 1]):
                    g_bu[N[near_at + i]] += g_h * F[near + i]
        _factor_back(f, first_sd, first_L, q, natural, slope, N, F, at, C, g_L, g, g_nat)


@inner()
def _rows(natural, N, F, at, bu, g_bu, g_nat):  # type: ignore[no-untyped-def]
    """Log likelihood; each row adds to the gradients what its residual e says."""
    sizes = at[0]
    n, d, p, K, n_factors = N[sizes], N[sizes + 1], N[sizes + 2], N[sizes + 3], N[sizes + 4]
    errors, sigma_at, Q = N[sizes + 5], N[sizes + 6], N[sizes + 8]
    X, role, low, weight, se2, q_of, J_of, index, Z = at[3], at[4], at[8], at[5], at[6], at[14], at[15], at[16], at[17]
    sigma = natural[sigma_at] if sigma_at >= 0 else F[at[1]]
    lp, g_sigma = 0.0, 0.0
    if errors == ERRORS_SIGMA:
        lp -= n * np.log(sigma)
        g_sigma -= n / sigma
    for i in range(n):
        e = F[at[2] + i]
        for k in range(K):
            where = N[role + k]
            e -= F[X + i * K + k] * (natural[where] - F[low + where] if where < d else bu[where - d])
        o, z = p, Z + i * Q
        for f in range(n_factors):
            q = N[q_of + f]
            mine = o + N[index + i * n_factors + f] * q
            for k in range(q):
                e -= F[z + k] * bu[mine + k]
            o += q * N[J_of + f]
            z += q
        if errors == ERRORS_SIGMA:
            h = e * F[weight + i] / (sigma * sigma)
            g_sigma += e * h / sigma
        elif errors == ERRORS_KNOWN:
            h = e / F[se2 + i]
        else:
            r = F[se2 + i] + sigma * sigma
            h = e / r
            lp -= 0.5 * np.log(r)
            g_sigma += (h * h - 1.0 / r) * sigma
        lp -= 0.5 * e * h
        for k in range(K):
            where = N[role + k]
            if where < d:
                g_nat[where] += F[X + i * K + k] * h
            else:
                g_bu[where - d] += F[X + i * K + k] * h
        o, z = p, Z + i * Q
        for f in range(n_factors):
            q = N[q_of + f]
            mine = o + N[index + i * n_factors + f] * q
            for k in range(q):
                g_bu[mine + k] += F[z + k] * h
            o += q * N[J_of + f]
            z += q
    if sigma_at >= 0:
        g_nat[sigma_at] += g_sigma
    return lp


@inner()
def _unwhiten(z, m, F, at, x, delta):  # type: ignore[no-untyped-def]
    for i in range(m):
        total = 0.0
        for k in range(i + 1):
            total += F[at[31] + i * m + k] * z[k]
        delta[i] = total
        x[i] = F[at[30] + i] + total


def _evaluate(dim, z_, grad_, value_, tape):  # type: ignore[no-untyped-def]
    """The C function: log density and gradient at z; a code other than 0 marks a point without density."""
    at = carray(tape, (N_ARRAYS + 1,), np.int64)
    N, F = carray(tape, (at[N_ARRAYS],), np.int64), carray(tape, (at[N_ARRAYS],), np.float64)
    D = int(dim)
    z, grad, value = carray(z_, (D,)), carray(grad_, (D,)), carray(value_, (1,))
    sizes = at[0]
    d, p, size = N[sizes + 1], N[sizes + 2], N[sizes + 7]
    m = d + p
    x, delta, g, natural, slope = np.empty(m), np.empty(m), np.zeros(m), np.empty(d), np.empty(d)
    g_nat, bu, g_bu = np.zeros(d), np.empty(p + size), np.zeros(p + size)
    v, score, rest, g_v = np.empty(size), np.zeros(size), np.zeros(size), np.empty(size)
    n_L = at[24] - at[23]
    C, L, g_L, g_score = np.zeros(n_L), np.zeros(n_L), np.zeros(n_L), np.empty(n_L)
    _unwhiten(z, m, F, at, x, delta)
    for i in range(size):
        v[i] = z[m + i] + F[at[30] + m + i]
    lp = _theta(x, N, F, at, natural, slope, g, g_nat)
    for k in range(p):
        gap = x[d + k] - F[at[12] + k]
        lp -= 0.5 * F[at[13] + k] * gap * gap
        g[d + k] -= F[at[13] + k] * gap
        bu[k] = delta[d + k]
    lp += _deviations(x, v, natural, slope, N, F, at, C, L, score, rest, bu)
    lp += _rows(natural, N, F, at, bu, g_bu, g_nat)
    _deviations_back(v, natural, slope, N, F, at, C, L, score, rest, g_bu, g_v, g_score, g_L, g, g_nat)
    value[0] = lp
    good = np.isfinite(lp)
    for k in range(d):
        g[k] += g_nat[k] * slope[k]
    for k in range(p):
        g[d + k] += g_bu[k]
    for i in range(m):
        grad[i] = 0.0
    for i in range(m):
        for k in range(i + 1):
            grad[k] += F[at[31] + i * m + k] * g[i]
    for i in range(size):
        grad[m + i] = g_v[i]
    for i in range(D):
        good = good and np.isfinite(grad[i])
    return 0 if good else 1


def _store(dim, n_out, z_, out_, tape):  # type: ignore[no-untyped-def]
    """Keep theta, b (relative to the reference) and u of every `thin`-th draw on the shelf behind the tape."""
    at = carray(tape, (N_ARRAYS + 1,), np.int64)
    length, D = at[N_ARRAYS], int(dim)
    head = carray(tape, (length + SHELF,), np.int64)
    call, skip, thin, room = head[length], head[length + 1], head[length + 2], head[length + 3]
    z, out = carray(z_, (D,)), carray(out_, (1,))
    out[0] = call
    head[length] = call + 1
    place = (call - skip) // thin
    if call >= skip and (call - skip) % thin == 0 and place < room:
        N, F = carray(tape, (length,), np.int64), carray(tape, (length,), np.float64)
        draws = carray(tape, (length + SHELF + room * D,), np.float64)
        d, p, size = N[at[0] + 1], N[at[0] + 2], N[at[0] + 7]
        m = d + p
        x, delta, g, natural, slope = np.empty(m), np.empty(m), np.zeros(m), np.empty(d), np.empty(d)
        g_nat, bu, v, score, rest = np.zeros(d), np.empty(p + size), np.empty(size), np.zeros(size), np.zeros(size)
        C, L = np.zeros(at[24] - at[23]), np.zeros(at[24] - at[23])
        _unwhiten(z, m, F, at, x, delta)
        for i in range(size):
            v[i] = z[m + i] + F[at[30] + m + i]
        _theta(x, N, F, at, natural, slope, g, g_nat)
        for k in range(p):
            bu[k] = delta[d + k]
        _deviations(x, v, natural, slope, N, F, at, C, L, score, rest, bu)
        first = length + SHELF + place * D
        for k in range(d):
            draws[first + k] = x[k]
        for k in range(p + size):
            draws[first + d + k] = bu[k]
    return 0


_double = types.CPointer(types.double)
_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy"}


@lru_cache(maxsize=1)
def compiled() -> Any:
    """The density as a C function (dim, z, gradient, value, tape) -> code."""
    return cfunc(types.int64(types.uint64, _double, _double, _double, types.voidptr), **_OPTIONS)(_evaluate)


@lru_cache(maxsize=1)
def compiled_store() -> Any:
    """What nutpie calls with every draw: (dim, 1, z, number of the call, tape and shelf) -> code."""
    return cfunc(types.int64(types.uint64, types.uint64, _double, _double, types.voidptr), **_OPTIONS)(_store)
