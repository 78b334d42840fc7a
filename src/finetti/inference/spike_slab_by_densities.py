"""Densities of a group's tests under spike and slab, as the lattice over its pi0 and slab scale wants them.

Of a row of the lattice, tau fixed, each test needs f0 and f1 up to a common factor (`fill`); of each point, pi0, only

    sum_j log(pi0 f0_j + (1 - pi0) f1_j),

running products with few logarithms (`products`). `look` has slopes and curvatures, for Newton's method.
"""

from __future__ import annotations

import math

import numpy as np

from finetti.inference.spike_slab_kernels import _log_slab, log_null
from finetti.inference.spike_slab_lookup import look_up
from finetti.linalg.jit import inner

__all__ = ["LANES", "fast_exp", "fill", "look", "products", "shares"]

# points whose products go side by side; a compiler does so with 16
LANES = 16
# a difference in log tau
DELTA = 1e-4


@inner()
def fast_exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0 to 1e-14, in steps that a compiler lays side by side (1 ns against 4)."""
    x = max(x, -700.0)
    y = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 2^52: the last bits of y are the nearest integer
    n = y - 6755399441055744.0
    r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10
    p = 1.0 / 3628800.0 + r / 39916800.0
    p = 1.0 / 5040.0 + r * (1.0 / 40320.0 + r * (1.0 / 362880.0 + r * p))
    p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * p))))))
    return np.int64(np.float64(p).view(np.int64) + (np.float64(y).view(np.int64) << 52)).view(np.float64)


@inner()
def fill(tests, grids, slab, first, last, tau, mu, kappa, simple, slopes, buf):  # type: ignore[no-untyped-def]
    """buf[0], buf[1]: f0 and f1 of the tests, with a common factor left out, the sum of whose logs is returned.

    With `slopes` also buf[2], buf[3], buf[4], buf[5]: derivatives of log f0 and log f1 by e, of log f1 by log tau, e.
    """
    z, inv_se, band, half_df, log_weight, null_constant = tests
    n = last - first
    base = 0.0
    if simple:
        scale, shift, width = 1.0 / kappa, -mu / kappa, tau / kappa
        A, B = buf[0], buf[1]
        for j in range(n):
            e = z[first + j] * scale + shift
            rho = width * inv_se[first + j]
            r = 1.0 / (1.0 + rho * rho)
            half = 0.5 * e * e
            B[j] = math.sqrt(r)
            A[j] = fast_exp(-half * (1.0 - r))
            base -= half * r
        if slopes:
            for j in range(n):
                e = z[first + j] * scale + shift
                rho = width * inv_se[first + j]
                r = 1.0 / (1.0 + rho * rho)
                buf[2, j], buf[3, j], buf[4, j] = -e, -e * r, (1.0 - r) * (e * e * r - 1.0)
                buf[5, j] = e
        return base
    ptr, v, fall, tables, index, start = grids
    kind, c, w = slab
    for j in range(n):
        i = first + j
        e = (z[i] - mu) / kappa
        rho = tau * inv_se[i] / kappa
        l0, slope0 = log_null(e, half_df[i], null_constant[i])
        l1 = slope1 = stretch = math.nan
        if index[i] >= 0 and rho > 0.0:
            l1, slope1, stretch = look_up(e, rho, tables[index[i]], start)
        if math.isnan(l1):
            low, high = ptr[band[i]], ptr[band[i] + 1]
            l1, slope1, stretch = _log_slab(e, rho, kind, c, w, v[low:high], fall[low:high], half_df[i], log_weight[i])
        top = max(l0, l1)
        buf[0, j], buf[1, j] = math.exp(l0 - top), math.exp(l1 - top)
        base += top
        if slopes:
            buf[2, j], buf[3, j], buf[4, j], buf[5, j] = slope0, slope1, stretch, e
    return base


@inner()
def shares(a):  # type: ignore[no-untyped-def]
    """pi0 and 1 - pi0 of a logit."""
    if a > 0.0:
        x = math.exp(-a)
        return 1.0 / (1.0 + x), x / (1.0 + x)
    x = math.exp(a)
    return x / (1.0 + x), 1.0 / (1.0 + x)


@inner()
def products(A, B, n, p0, p1, product, out):  # type: ignore[no-untyped-def]
    """out[i]: sum of log(p0[i] A + p1[i] B) of the first n tests, for `LANES` pairs."""
    whole = n - n % 8
    for i in range(LANES):
        out[i], product[i] = 0.0, 1.0
    for j in range(0, whole, 8):
        for i in range(LANES):
            a, b = p0[i], p1[i]
            f = (a * A[j] + b * B[j]) * (a * A[j + 1] + b * B[j + 1])
            f *= (a * A[j + 2] + b * B[j + 2]) * (a * A[j + 3] + b * B[j + 3])
            g = (a * A[j + 4] + b * B[j + 4]) * (a * A[j + 5] + b * B[j + 5])
            g *= (a * A[j + 6] + b * B[j + 6]) * (a * A[j + 7] + b * B[j + 7])
            product[i] *= f * g
        least = 1.0
        for i in range(LANES):
            least = min(least, product[i])
        if least < 1e-140:
            for i in range(LANES):
                out[i] += math.log(product[i])
                product[i] = 1.0
    for j in range(whole, n):
        for i in range(LANES):
            product[i] *= p0[i] * A[j] + p1[i] * B[j]
    for i in range(LANES):
        out[i] += math.log(product[i])


@inner()
def look(tests, grids, slab, first, last, theta, simple, u, v, buf, lanes):  # type: ignore[no-untyped-def]
    """Log of the integrand at (u, v), its gradient, and the negative Hessian (uu, uv, vv)."""
    m_a, s_a, m_t, s_t, mu, kappa = theta
    n = last - first
    tau = math.exp(m_t + s_t * v)
    if not simple:  # the second derivative by log tau as a difference
        fill(tests, grids, slab, first, last, tau * math.exp(DELTA), mu, kappa, simple, True, buf)
        for j in range(n):
            buf[7, j] = buf[4, j]
    base = fill(tests, grids, slab, first, last, tau, mu, kappa, simple, True, buf)
    nul, alt = shares(m_a + s_a * u)
    A, B, stretch, q = buf[0], buf[1], buf[4], buf[6]
    lanes[0][:], lanes[1][:] = nul, alt
    products(A, B, n, lanes[0], lanes[1], lanes[2], lanes[3])
    total = by_t = aa = at = tt = 0.0
    for j in range(n):
        q[j] = alt * B[j] / (nul * A[j] + alt * B[j])
    for j in range(n):
        x, s = q[j], stretch[j]
        both = x * (1.0 - x)
        total += x
        by_t += x * s
        aa += both
        at += both * s
        if simple:
            r = B[j] * B[j]
            ee = buf[2, j] * buf[2, j]
            bend = 2.0 * (1.0 - r) * r * (ee * (2.0 * r - 1.0) - 1.0)
        else:
            bend = (buf[7, j] - s) / DELTA
        tt += x * bend + both * s * s
    value = base + lanes[3][0] - 0.5 * (u * u + v * v)
    by_u, by_v = s_a * (n * alt - total) - u, s_t * by_t - v
    return value, by_u, by_v, 1.0 - s_a * s_a * (aa - n * nul * alt), s_a * s_t * at, 1.0 - s_t * s_t * tt
