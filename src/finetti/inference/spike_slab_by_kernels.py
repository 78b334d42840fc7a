"""One group of tests with the group's own pi0 and slab scale integrated out: a lattice in two dimensions.

Given theta, a group with standard normal (u, v) has

    a = logit pi0 = m_a + s_a u,   t = log tau = m_t + s_t v,   L = int phi(u) phi(v) prod_j p(x_j | a, t) du dv.

Trapezoidal rules converge exponentially on such integrands (Trefethen and Weideman 2014, SIAM Review 56). Rows of
constant v, `STEP` posterior standard deviations apart, are laid around the mode, in each row points of u, `FINE` of the
row's own apart. Both go outward until what they add is below exp(`CUT`) of the largest term. A row costs an exponential
of each test, its points only products: log(f1 / f0) does not depend on pi0.

A lattice shifted at random, of which one point is drawn by its term, is a draw of (u, v) given theta.
"""

from __future__ import annotations

import math

import numpy as np

from finetti.inference.spike_slab_by_densities import LANES, fast_exp, fill, look, products, shares
from finetti.linalg.jit import inner, kernel

__all__ = ["OUT", "curvatures", "integrate"]

# of the lattice: distances of rows and of their points in standard deviations, and the log of the terms that end it
STEP, FINE, CUT = 1.05, 0.8, -11.5
# half the points that are looked at together, most points of one group, how close to the mode the lattice is centred
HALF, MOST, NEAR = LANES // 2, 8000, 0.3
# Longest distances in logit pi0 and log tau, and the shortest of u and v. p(x | a, t) has its singularities at
# Im a = pi and Im t = pi / 2: errors of exp(-2 pi^2 / h) and exp(-pi^2 / h), and more where many tests meet there.
WIDE_A, WIDE_T, SHORTEST = 1.0, 0.6, 1e-5
# what `integrate` returns of a group: log L, E u, E u^2, E v, E v^2, E pi0, E pi0^2, E of the derivatives of the
# log-likelihood by mu, log kappa, a, t, then the centre of the lattice and the precision of (u, v) there, and points
OUT = 17


@inner()
def _bounded(uu, uv, vv):  # type: ignore[no-untyped-def]
    """A symmetric matrix with its eigenvalues raised to one, the prior's, where they are smaller."""
    if not (math.isfinite(uu) and math.isfinite(uv) and math.isfinite(vv)):
        return 1.0, 0.0, 1.0
    half, gap = 0.5 * (uu + vv), math.hypot(0.5 * (uu - vv), uv)
    low, high = half - gap, half + gap
    if low >= 1.0:
        return uu, uv, vv
    if gap < 1e-12:
        return 1.0, 0.0, 1.0
    # P = low + (high - low) Q, Q the projection on the first eigenvector
    q_uu, q_uv, q_vv = (uu - low) / (high - low), uv / (high - low), (vv - low) / (high - low)
    high = max(high, 1.0)
    return 1.0 + (high - 1.0) * q_uu, (high - 1.0) * q_uv, 1.0 + (high - 1.0) * q_vv


@inner()
def _centre(tests, grids, slab, first, last, theta, simple, u, v, buf, lanes):  # type: ignore[no-untyped-def]
    """Near the mode: u, v, and a positive precision there."""
    value, gu, gv, uu, uv, vv = look(tests, grids, slab, first, last, theta, simple, u, v, buf, lanes)
    for _ in range(30):
        uu, uv, vv = _bounded(uu, uv, vv)
        det = uu * vv - uv * uv
        du, dv = (vv * gu - uv * gv) / det, (uu * gv - uv * gu) / det
        rise = gu * du + gv * dv
        if not math.isfinite(rise):
            return 0.0, 0.0, 1.0, 0.0, 1.0
        if rise < NEAR * NEAR:
            return u + du, v + dv, uu, uv, vv
        longest = max(abs(du), abs(dv))
        share = min(1.0, 2.0 / longest)
        moved = False
        for _ in range(12):
            new = look(tests, grids, slab, first, last, theta, simple, u + share * du, v + share * dv, buf, lanes)
            if new[0] > value:
                moved = True
                break
            share *= 0.35
        if not moved:
            break
        u, v = u + share * du, v + share * dv
        value, gu, gv, uu, uv, vv = new
    uu, uv, vv = _bounded(uu, uv, vv)
    return u, v, uu, uv, vv


@inner()
def _slopes(buf, n, kappa, pairs, weight, begin, end, sums):  # type: ignore[no-untyped-def]
    """Add to sums[7:11] the sums over points of a row of weight times derivatives by mu, log kappa, a and t."""
    A, B, Q = buf[0], buf[1], buf[6]
    Q[:n] = 0.0
    W = rest = 0.0
    for i in range(begin, end):
        nul, alt, w = pairs[i, 0], pairs[i, 1], weight[i]
        if w < 1e-9:
            continue
        W += w
        rest += w * alt
        for j in range(n):
            f = alt * B[j]
            Q[j] += w * f / (nul * A[j] + f)
    by_mu = by_kappa = by_t = total = 0.0
    for j in range(n):
        slope = buf[2, j] * (W - Q[j]) + buf[3, j] * Q[j]
        by_mu -= slope
        by_kappa -= W + ((buf[2, j] * (W - Q[j]) + buf[3, j] * Q[j]) * buf[5, j] + Q[j] * buf[4, j])
        total += Q[j]
        by_t += Q[j] * buf[4, j]
    sums[7] += by_mu / kappa
    sums[8] += by_kappa
    sums[9] += n * rest - total
    sums[10] += by_t


@kernel()
def integrate(tests, grids, slab, ptr, thetas, starts, simple, slopes, shift, uniform, begin, end, out, drawn):  # type: ignore[no-untyped-def]
    """For items s * G + g in [begin, end): out[s, g] as `OUT` says, and draws of (u, v) by drawn[s, g, k].

    thetas : (S, 6) m_a, s_a, m_t, s_t, mu, kappa; starts : (S, G, 2) of (u, v)
    shift : (S, G, 2) of the lattice, in its own steps; uniform : (S, G, K), which point is drawn
    """
    G = ptr.shape[0] - 1
    largest = 1
    for g in range(G):
        largest = max(largest, ptr[g + 1] - ptr[g])
    buf = np.empty((8, largest))
    lanes = (np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES))
    at_u, at_v, term = np.empty(MOST), np.empty(MOST), np.empty(MOST)
    pairs, weight = np.empty((MOST, 2)), np.empty(MOST)
    K = uniform.shape[2]
    for item in range(begin, end):
        s, g = item // G, item % G
        first, last = ptr[g], ptr[g + 1]
        n = last - first
        theta = (thetas[s, 0], thetas[s, 1], thetas[s, 2], thetas[s, 3], thetas[s, 4], thetas[s, 5])
        m_a, s_a, m_t, s_t, mu, kappa = theta
        u0, v0, uu, uv, vv = _centre(
            tests, grids, slab, first, last, theta, simple, starts[s, g, 0], starts[s, g, 1], buf, lanes
        )
        det = uu * vv - uv * uv
        sd_v, slope, sd_u0 = math.sqrt(uu / det), -uv / uu, math.sqrt(1.0 / uu)
        h_v = max(min(STEP * sd_v, WIDE_T / max(s_t, SHORTEST)), SHORTEST)
        count, top = 0, -np.inf
        sums = out[s, g]
        sums[:] = 0.0
        middle, spread = u0, sd_u0
        for side in range(2):
            centre, sd_u = (u0 + slope * shift[s, g, 1] * h_v, sd_u0) if side == 0 else (middle - slope * h_v, spread)
            row = 0 if side == 0 else -1
            while count + 400 < MOST:
                v = v0 + (row + shift[s, g, 1]) * h_v
                tau = math.exp(m_t + s_t * v)
                base = fill(tests, grids, slab, first, last, tau, mu, kappa, simple, slopes, buf)
                base -= 0.5 * v * v
                h_u = max(min(FINE * sd_u, WIDE_A / max(s_a, SHORTEST)), SHORTEST)
                log_h = math.log(h_u)
                begun, row_top = count, -np.inf
                # points [-half, half) of this row, then more on the sides that need them
                low, high, at = -HALF, HALF, -HALF
                left = right = True
                while True:
                    for i in range(LANES):
                        u = centre + (at + i + 0.5 + shift[s, g, 0]) * h_u
                        at_u[count + i] = u
                        lanes[0][i], lanes[1][i] = shares(m_a + s_a * u)
                        pairs[count + i, 0], pairs[count + i, 1] = lanes[0][i], lanes[1][i]
                    products(buf[0], buf[1], n, lanes[0], lanes[1], lanes[2], lanes[3])
                    for i in range(LANES):
                        u = at_u[count + i]
                        at_v[count + i] = v
                        one = base + lanes[3][i] - 0.5 * u * u
                        term[count + i] = one if math.isfinite(one) else -np.inf
                        row_top = max(row_top, term[count + i])
                    least = max(top - log_h, row_top) + CUT
                    if at <= -HALF:
                        left = term[count] > least
                    if at >= -HALF:
                        right = term[count + LANES - 1] > least
                    count += LANES
                    if count + 2 * LANES > MOST or not (left or right):
                        break
                    if left:
                        low -= LANES
                        at = low
                    else:
                        at = high
                        high += LANES
                # moments of the row, for the next one and for the derivatives
                total = mean = square = 0.0
                if row_top > -np.inf:
                    for i in range(begun, count):
                        weight[i] = fast_exp(term[i] - row_top)
                        total += weight[i]
                        mean += weight[i] * at_u[i]
                    mean /= total
                    for i in range(begun, count):
                        square += weight[i] * (at_u[i] - mean) ** 2
                    square /= total
                else:
                    mean, square, total = centre, sd_u * sd_u, 1.0
                    weight[begun:count] = 0.0
                row_top += log_h
                peak = max(top, row_top)
                if row_top > -np.inf:
                    if row_top > top > -np.inf:
                        sums *= math.exp(top - row_top)
                        weight[:begun] *= math.exp(top - row_top)
                    rise = math.exp(row_top - peak)
                    for i in range(begun, count):
                        weight[i] *= rise
                        w, u = weight[i], at_u[i]
                        sums[0] += w
                        sums[1] += w * u
                        sums[2] += w * u * u
                        sums[3] += w * v
                        sums[4] += w * v * v
                        sums[5] += w * pairs[i, 0]
                        sums[6] += w * pairs[i, 0] ** 2
                    if slopes:
                        _slopes(buf, n, kappa, pairs, weight, begun, count, sums)
                top = peak
                sd_u = min(max(math.sqrt(square), 0.6 * sd_u), 1.6 * sd_u, 1.0)
                if side == 0 and row == 0:
                    middle, spread = mean, sd_u
                if row_top + math.log(total) < top + CUT or not row_top > -np.inf:
                    break
                centre = mean + (slope * h_v if side == 0 else -slope * h_v)
                row += 1 if side == 0 else -1
        whole = sums[0]
        sums[1:11] /= whole
        sums[0] = top + math.log(whole * h_v / (2.0 * math.pi))
        sums[11], sums[12], sums[13], sums[14], sums[15], sums[16] = u0, v0, uu, uv, vv, count
        for k in range(K):
            goal, i = uniform[s, g, k] * whole, 0
            while i < count - 1 and goal > weight[i]:
                goal -= weight[i]
                i += 1
            drawn[s, g, k, 0], drawn[s, g, k, 1] = at_u[i], at_v[i]


@kernel()
def curvatures(tests, grids, slab, ptr, a, t, mu, kappa, simple, begin, end, out):  # type: ignore[no-untyped-def]
    """out[s, g]: a group's log-likelihood at logit pi0 a[s, g] and log tau t[s, g], slopes by a, t, and aa, at, tt."""
    G = ptr.shape[0] - 1
    largest = 1
    for g in range(G):
        largest = max(largest, ptr[g + 1] - ptr[g])
    buf = np.empty((8, largest))
    lanes = (np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES))
    for item in range(begin, end):
        s, g = item // G, item % G
        u, v = a[s, g], t[s, g]
        value, by_a, by_t, aa, at, tt = look(
            tests, grids, slab, ptr[g], ptr[g + 1], (0.0, 1.0, 0.0, 1.0, mu[s], kappa[s]), simple, u, v, buf, lanes
        )
        row = out[s, g]  # without the standard normal prior that `look` includes
        row[0] = value + 0.5 * (u * u + v * v)
        row[1], row[2] = by_a + u, by_t + v
        row[3], row[4], row[5] = 1.0 - aa, -at, 1.0 - tt
