"""Sums over genes of log(1 + u), the only part of the density of the variances that grows with the genes.

u = a r / (b s0^2) with a = d_j / 2, b = d0 / 2. A product of eight factors 1 + u costs one logarithm instead of eight,
which is exact enough unless the sum is to be multiplied by a huge b: then u is small, and log1p is used.
"""

from __future__ import annotations

import math

import numpy as np

from finetti.linalg.jit import kernel

__all__ = ["common_scale", "scale_by_row"]

# u below which 1 + u loses digits that matter, and above which eight factors could overflow
SMALL, HUGE = 1e-3, 1e35


@kernel()
def common_scale(r, start, scale, total, share):  # type: ignore[no-untyped-def]
    """total[s, g] = sum of log1p(u), share[s, g] = sum of u / (1 + u), u = r_j scale_s, j in start[g]:start[g + 1]."""
    S, g_n = total.shape
    for s in range(S):
        c = scale[s]
        for g in range(g_n):
            low, high = start[g], start[g + 1]
            top = 0.0
            for j in range(low, high):
                top = max(top, r[j])
            logs, shares = 0.0, 0.0
            if share.shape[0] > 0:
                for j in range(low, high):
                    u = r[j] * c
                    shares += u / (1.0 + u)
                share[s, g] = shares
            j = low
            if SMALL < top * c < HUGE:
                while j + 8 <= high:
                    product = 1.0
                    for i in range(8):
                        product *= 1.0 + r[j + i] * c
                    logs += math.log(product)
                    j += 8
            while j < high:
                logs += math.log1p(r[j] * c)
                j += 1
            total[s, g] = logs


@kernel()
def scale_by_row(r, start, basis, coefficients, half0, half, total, slope):  # type: ignore[no-untyped-def]
    """The same where log s0^2 of row j is basis[j] @ coefficients[s]: u = r_j exp(-log s0^2) / half0_s.

    slope[s, k] = sum_j (half_g(j) + half0_s) u / (1 + u) basis[j, k], if slope has rows.
    """
    S, g_n = total.shape
    k_n = basis.shape[1]
    u8 = np.empty(8)
    for s in range(S):
        inverse = 1.0 / half0[s]
        if slope.shape[0] > 0:
            for k in range(k_n):
                slope[s, k] = 0.0
        for g in range(g_n):
            low, high = start[g], start[g + 1]
            logs = 0.0
            j = low
            while j < high:
                m = min(8, high - j)
                product, top = 1.0, 0.0
                for i in range(m):
                    eta = 0.0
                    for k in range(k_n):
                        eta += basis[j + i, k] * coefficients[s, k]
                    u = r[j + i] * math.exp(-eta) * inverse
                    u8[i] = u
                    product *= 1.0 + u
                    top = max(top, u)
                if SMALL < top < HUGE:
                    logs += math.log(product)
                else:
                    for i in range(m):
                        logs += math.log1p(u8[i])
                if slope.shape[0] > 0:
                    weight = half[g] + half0[s]
                    for i in range(m):
                        v = weight * u8[i] / (1.0 + u8[i])
                        for k in range(k_n):
                            slope[s, k] += v * basis[j + i, k]
                j += m
            total[s, g] = logs
