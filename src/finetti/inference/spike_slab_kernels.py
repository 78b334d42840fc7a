"""Densities of one test under spike and slab, and their sums over tests at many hyperparameter nodes.

In units of its null scale test j has the deviation e = (z_j - mu) / kappa, z_j = x_j / se_j, and the slab the sd
rho = tau / (kappa se_j). With null density f0 and slab density f1 of e, all logs here without -log(2 pi) / 2,

    log p(x_j | theta) = log(pi0 f0(e) + (1 - pi0) f1(e, rho)) - log kappa - log se_j.

A slab is a finite mixture of normals (kind 0), f1 = sum_lk a_l c_k N(e; 0, v_l + rho^2 w_k), or Laplace (kind 1),

    f1 = (lambda / 2) sum_+- exp((y^2 - e^2) / 2) Phi(y),   y = +-e - lambda,   lambda = sqrt(2) / rho,

for normal errors, summed over l with e / sqrt(v_l), rho / sqrt(v_l) for t errors. Components a_l, v_l of the errors are
those of `spike_slab_grids`.
"""

from __future__ import annotations

import math

import numpy as np

from finetti.inference.spike_slab_lookup import look_up
from finetti.linalg.jit import inner, kernel

__all__ = [
    "BLOCK",
    "densities",
    "gradients",
    "half_erfcx",
    "laplace_side",
    "log_null",
    "mixed",
    "normal_gradients",
    "normal_values",
    "tabulate",
    "values",
]

# tests in a block, whose sums are added up in an order that no number of threads changes
BLOCK = 4096
ROOT_HALF = math.sqrt(0.5)
ROOT_PI = math.sqrt(math.pi)
ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
# where the series of a truncated normal's moments takes over from differences
FAR = 60.0


@inner()
def half_erfcx(y):  # type: ignore[no-untyped-def]
    """Phi(-y) exp(y^2 / 2) for y >= 0."""
    x = y * ROOT_HALF
    if x < 20.0:
        return 0.5 * math.exp(x * x) * math.erfc(x)
    r = 0.5 / (x * x)
    return 0.5 * (1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r * (1.0 - 9.0 * r))))) / (x * ROOT_PI)


@inner()
def laplace_side(y, e):  # type: ignore[no-untyped-def]
    """log(exp((y^2 - e^2) / 2) Phi(y)), and mean and mean square of N(y, 1) given that it is positive."""
    if y < 0.0:
        h = half_erfcx(-y)
        log_mass = math.log(h) - 0.5 * e * e
        if y < -FAR:
            r = 1.0 / (y * y)
            first = -(1.0 - r * (2.0 - r * (10.0 - r * (74.0 - 706.0 * r)))) / y
            return log_mass, first, r * (2.0 - r * (10.0 - r * (74.0 - 706.0 * r)))
        hazard = 0.5 * ROOT_2_OVER_PI / h
    else:
        below = 0.5 * math.erfc(y * ROOT_HALF)
        log_mass = 0.5 * (y - e) * (y + e) + math.log1p(-below)
        hazard = 0.5 * ROOT_2_OVER_PI * math.exp(-0.5 * y * y) / (1.0 - below)
    first = y + hazard
    return log_mass, first, 1.0 + y * first


@inner()
def log_null(e, half_df, constant):  # type: ignore[no-untyped-def]
    """Log density of the errors, and its derivative; half_df is 0 for normal ones."""
    if half_df == 0.0:
        return -0.5 * e * e, -e
    return (
        constant - (half_df + 0.5) * math.log1p(0.5 * e * e / half_df),
        -(2.0 * half_df + 1.0) * e / (2.0 * half_df + e * e),
    )


@inner()
def _log_slab(e, rho, kind, c, w, v, fall, half_df, log_weight):  # type: ignore[no-untyped-def]
    """Log f1, and its derivatives with respect to e and to log rho."""
    rho2 = rho * rho
    if kind == 1:
        top, total, by_e, by_rho = -np.inf, 0.0, 0.0, 0.0
        for k in range(v.shape[0]):
            root = math.sqrt(v[k])
            x, lam = e / root, 1.4142135623730951 * root / rho
            log_right, right, _ = laplace_side(x - lam, x)
            log_left, left, _ = laplace_side(-x - lam, x)
            both = max(log_right, log_left)
            share = math.exp(log_right - both)
            rest = math.exp(log_left - both)
            log_f = log_weight - half_df * fall[k] + both + math.log(0.5 * lam * (share + rest) / root)
            share /= share + rest
            # Tweedie: the score is the posterior mean of b less e
            slope = (share * right - (1.0 - share) * left - x) / root
            stretch = lam * (share * right + (1.0 - share) * left) - 1.0
            if log_f > top:
                scale = math.exp(top - log_f)
                total, by_e, by_rho, top = total * scale, by_e * scale, by_rho * scale, log_f
            term = math.exp(log_f - top)
            total += term
            by_e += term * slope
            by_rho += term * stretch
        # the density of the Laplace sides is that of Phi: sqrt(2 pi) too large for this file's convention
        return top + math.log(total) + 0.9189385332046728, by_e / total, by_rho / total
    half = 0.5 * e * e
    if v.shape[0] == 1 and w.shape[0] == 1:
        r = 1.0 / (1.0 + rho2 * w[0])
        return -half * r + 0.5 * math.log(r), -e * r, rho2 * w[0] * r * (e * e * r - 1.0)
    widest = rho2 * w[w.shape[0] - 1]
    top = -np.inf
    for i in range(v.shape[0]):
        top = max(top, -half_df * fall[i] - half / (v[i] + widest))
    total, by_e, by_rho = 0.0, 0.0, 0.0
    for i in range(v.shape[0]):
        shift = -half_df * fall[i] - top
        for k in range(w.shape[0]):
            r = 1.0 / (v[i] + rho2 * w[k])
            term = c[k] * math.sqrt(r) * math.exp(shift - half * r)
            total += term
            by_e += term * r
            by_rho += term * rho2 * w[k] * r * (e * e * r - 1.0)
    return log_weight + top + math.log(total), -e * by_e / total, by_rho / total


@inner()
def _slab(j, e, rho, tests, grids, slab, lookup):  # type: ignore[no-untyped-def]
    """Log f1 of test j, and its derivatives by e and log rho: looked up, or summed."""
    _, _, _, _, band, half_df, log_weight, _ = tests
    ptr, v, fall = grids
    kind, c, w = slab
    tables, index, start = lookup
    if index[j] >= 0 and rho > 0.0:
        value, by_e, by_rho = look_up(e, rho, tables[index[j]], start)
        if value == value:
            return value, by_e, by_rho
    low, high = ptr[band[j]], ptr[band[j] + 1]
    return _log_slab(e, rho, kind, c, w, v[low:high], fall[low:high], half_df[j], log_weight[j])


@inner()
def mixed(p0, l0, p1, l1):  # type: ignore[no-untyped-def]
    """log(p0 exp(l0) + p1 exp(l1)), and both terms relative to the larger one that has a share."""
    top = l0 if p1 == 0.0 or (p0 > 0.0 and l0 > l1) else l1
    null = p0 * math.exp(l0 - top) if p0 > 0.0 else 0.0
    not_null = p1 * math.exp(l1 - top) if p1 > 0.0 else 0.0
    return top + math.log(null + not_null), null, not_null


@kernel()
def normal_values(z, inv_se, group, p0, p1, tau, mu, kappa, first, last, begin, end, out):  # type: ignore[no-untyped-def]
    """out[b, s]: sum over block b of log(pi0 + (1 - pi0) f1 / f0), normal errors and normal slab.

    Products of several ratios share one logarithm. What is left, the sum of -e^2 / 2, follows from moments of z.
    """
    n = z.shape[0]
    for b in range(first, last):
        for s in range(begin, end):
            total, product = 0.0, 1.0
            for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
                g = group[j]
                e = (z[j] - mu[s]) / kappa[s]
                rho = tau[s, g] * inv_se[j] / kappa[s]
                r = 1.0 / (1.0 + rho * rho)
                rise = 0.5 * e * e * (1.0 - r)
                if rise > 200.0 and p1[s, g] > 0.0:
                    total += rise
                    product *= p1[s, g] * math.sqrt(r) + p0[s, g] * math.exp(-rise)
                elif p1[s, g] > 0.0:
                    product *= p0[s, g] + p1[s, g] * math.sqrt(r) * math.exp(rise)
                if not (product < 1e200 and product > 1e-200):
                    total += math.log(product)
                    product = 1.0
            out[b, s] = total + math.log(product)


@kernel()
def normal_gradients(z, inv_se, group, p0, p1, tau, mu, kappa, first, last, begin, end, out):  # type: ignore[no-untyped-def]
    """`gradients` for normal errors and a normal slab, with the sums of -e^2 / 2 and -1 left out as in `normal_values`.

    What is left out of the derivatives by mu and log kappa: sum of e / kappa, and of e^2 - 1.
    """
    n, G = z.shape[0], p0.shape[1]
    for b in range(first, last):
        for s in range(begin, end):
            row = out[b, s]
            row[:] = 0.0
            total, product = 0.0, 1.0
            for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
                g = group[j]
                e = (z[j] - mu[s]) / kappa[s]
                rho = tau[s, g] * inv_se[j] / kappa[s]
                r = 1.0 / (1.0 + rho * rho)
                rise = 0.5 * e * e * (1.0 - r)
                if p1[s, g] == 0.0:
                    null, not_null = 1.0, 0.0
                elif rise > 200.0:
                    total += rise
                    null, not_null = p0[s, g] * math.exp(-rise), p1[s, g] * math.sqrt(r)
                else:
                    null, not_null = p0[s, g], p1[s, g] * math.sqrt(r) * math.exp(rise)
                both = null + not_null
                product *= both
                if not (product < 1e200 and product > 1e-200):
                    total += math.log(product)
                    product = 1.0
                null /= both
                not_null /= both
                kept = not_null * (1.0 - r)  # expected share of e that is effect
                stretch = not_null * (1.0 - r) * (e * e * r - 1.0)
                row[1] -= kept * e / kappa[s]
                row[2] -= kept * e * e + stretch
                row[3 + g] += null * p1[s, g] - not_null * p0[s, g]
                row[3 + G + g] += stretch
            row[0] = total + math.log(product)


@kernel()
def values(tests, grids, slab, lookup, nodes, first, last, begin, end, out):  # type: ignore[no-untyped-def]
    """out[b, s]: sum over block b of log(pi0 f0 + (1 - pi0) f1) at node s, any errors and any slab."""
    z, inv_se, group, count, _, half_df, _, null_constant = tests
    p0, p1, tau, mu, kappa = nodes
    n = z.shape[0]
    for b in range(first, last):
        for s in range(begin, end):
            total = 0.0
            for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
                g = group[j]
                e = (z[j] - mu[s]) / kappa[s]
                l0, _ = log_null(e, half_df[j], null_constant[j])
                l1, _, _ = _slab(j, e, tau[s, g] * inv_se[j] / kappa[s], tests, grids, slab, lookup)
                both, _, _ = mixed(p0[s, g], l0, p1[s, g], l1)
                total += count[j] * both
            out[b, s] = total


@kernel()
def gradients(tests, grids, slab, lookup, nodes, first, last, begin, end, out):  # type: ignore[no-untyped-def]
    """out[b, s]: the same sums, then derivatives by mu, log kappa, and by logit pi0 and log tau of every group."""
    z, inv_se, group, count, _, half_df, _, null_constant = tests
    p0, p1, tau, mu, kappa = nodes
    n, G = z.shape[0], p0.shape[1]
    for b in range(first, last):
        for s in range(begin, end):
            row = out[b, s]
            row[:] = 0.0
            for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
                g = group[j]
                e = (z[j] - mu[s]) / kappa[s]
                l0, slope0 = log_null(e, half_df[j], null_constant[j])
                l1, slope1, stretch = _slab(j, e, tau[s, g] * inv_se[j] / kappa[s], tests, grids, slab, lookup)
                both, null, not_null = mixed(p0[s, g], l0, p1[s, g], l1)
                total = null + not_null
                null /= total
                not_null /= total
                slope = null * slope0 + not_null * slope1
                row[0] += count[j] * both
                row[1] -= count[j] * slope / kappa[s]
                row[2] -= count[j] * (1.0 + e * slope + not_null * stretch)
                row[3 + g] += count[j] * (null * p1[s, g] - not_null * p0[s, g])
                row[3 + G + g] += count[j] * not_null * stretch


@kernel()
def tabulate(e, rho, slab, v, fall, half_df, log_weight, begin, end, out):  # type: ignore[no-untyped-def]
    """out[i, k]: log f1 at deviation e[i] and relative width rho[k]."""
    kind, c, w = slab
    for i in range(begin, end):
        for k in range(rho.shape[0]):
            out[i, k], _, _ = _log_slab(e[i], rho[k], kind, c, w, v, fall, half_df, log_weight)


@kernel()
def densities(tests, grids, slab, lookup, tau, mu, kappa, begin, end, out):  # type: ignore[no-untyped-def]
    """out[s, j]: log f1 - log f0, and log f0, of every test at every (tau, mu, kappa)."""
    z, inv_se, _, _, _, half_df, _, null_constant = tests
    for s in range(begin, end):
        for j in range(z.shape[0]):
            e = (z[j] - mu[s]) / kappa[s]
            l0, _ = log_null(e, half_df[j], null_constant[j])
            l1, _, _ = _slab(j, e, tau[s] * inv_se[j] / kappa[s], tests, grids, slab, lookup)
            out[s, j, 0] = l1 - l0
            out[s, j, 1] = l0
