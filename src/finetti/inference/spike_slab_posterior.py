"""The effect of every test given the data, over nodes: a point mass at 0 and the posterior under the slab.

At a node with posterior probability p of the null, the effect b of a test is 0 with probability p, else a mixture of

    normal slabs    N(B e, B v_l),  B = rho^2 w_k / (v_l + rho^2 w_k),  one for each pair of components l, k
    Laplace slab    N(e - lambda v_l, v_l) where positive, N(e + lambda v_l, v_l) where negative

in units of the null's scale. Moments and probabilities of sign are sums of closed forms; quantiles are found by
Newton steps inside a bracket, on the side of 0 where they lie, if they are not 0 itself.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_kernels import half_erfcx, laplace_side, log_null, mixed
from finetti.linalg.jit import inner, kernel
from finetti.linalg.system import over_chunks

__all__ = ["COLUMNS", "components", "effects"]

Floats = npt.NDArray[np.float64]

COLUMNS = ("mean", "sd", "prob_null", "prob_negative", "prob_positive", "prob_null_sd", "mean_hyper_sd")
# components of less posterior weight do not move a quantile
NEGLIGIBLE = 1e-10
ROOT_HALF = math.sqrt(0.5)
INV_ROOT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
# tests that a thread takes at a time, at least
GRAIN = 64


@inner()
def _below(t, weight, mean, sd, cut):  # type: ignore[no-untyped-def]
    """Probability below t < 0 of weight N(mean, sd^2), and its density; `cut`: given that it is negative."""
    u = (t - mean) / sd
    if not cut:
        return weight * 0.5 * math.erfc(-u * ROOT_HALF), weight * INV_ROOT_2PI / sd * math.exp(-0.5 * u * u)
    edge = -mean / sd
    if edge >= 0.0:
        inside = 1.0 - 0.5 * math.erfc(edge * ROOT_HALF)
        below = 0.5 * math.erfc(-u * ROOT_HALF)
        return weight * below / inside, weight * INV_ROOT_2PI / sd * math.exp(-0.5 * u * u) / inside
    fall, inside = weight * math.exp(0.5 * (edge - u) * (edge + u)), half_erfcx(-edge)
    return fall * half_erfcx(-u) / inside, fall * INV_ROOT_2PI / (sd * inside)


@inner()
def _quantile(goal, sign, weight, mean, sd, n, cut):  # type: ignore[no-untyped-def]
    """t < 0 below which the first n components, mirrored where sign is -1, have the probability `goal`."""
    low, start, total, width = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        m = sign * mean[i]
        low = min(low, m - 14.0 * sd[i])
        start += weight[i] * m
        total += weight[i]
        width = max(width, sd[i])
    high = 0.0
    t = start / total
    if not (t > low and t < high):
        t = -0.5 * width if -0.5 * width > low else 0.5 * low
    for _ in range(200):
        cdf, pdf = 0.0, 0.0
        for i in range(n):
            below, density = _below(t, weight[i], sign * mean[i], sd[i], cut)
            cdf += below
            pdf += density
        if cdf < goal:
            low = t
        else:
            high = t
        new = t + (goal - cdf) / pdf if pdf > 0.0 else low
        newton = new > low and new < high
        if not newton:
            new = 0.5 * (low + high)
        step = abs(new - t)
        t = new
        if (newton and step < 1e-7 * width and abs(cdf - goal) < 1e-6) or high - low < 1e-11 * width:
            break
    return t


@inner()
def components(e, rho, kind, c, w, v, fall, half_df, log_weight, term, shift, spread):  # type: ignore[no-untyped-def]
    """The slab's posterior components, in units of the null's scale: their number, and the log of the slab's density.

    term, shift, spread : filled with weights that sum to one, means, sds; of a Laplace slab positive sides come first
    """
    L, K = v.shape[0], w.shape[0]
    half = 0.5 * e * e
    top, total = -np.inf, 0.0
    if kind == 1:
        for i in range(L):
            root = math.sqrt(v[i])
            x, lam = e / root, 1.4142135623730951 * root / rho
            base = log_weight - half_df * fall[i] + 0.9189385332046728 + math.log(0.5 * lam / root)
            right, _, _ = laplace_side(x - lam, x)
            left, _, _ = laplace_side(-x - lam, x)
            term[i], shift[i], spread[i] = base + right, (x - lam) * root, root
            term[L + i], shift[L + i], spread[L + i] = base + left, (x + lam) * root, root
            top = max(top, base + right, base + left)
        for i in range(2 * L):
            term[i] = math.exp(term[i] - top)
            total += term[i]
        n = 2 * L
    else:
        rho2 = rho * rho
        widest = rho2 * w[K - 1]
        for i in range(L):
            top = max(top, -half_df * fall[i] - half / (v[i] + widest))
        for i in range(L):
            base = -half_df * fall[i] - top
            for k in range(K):
                r = 1.0 / (v[i] + rho2 * w[k])
                share = rho2 * w[k] * r
                at = i * K + k
                term[at] = c[k] * math.sqrt(r) * math.exp(base - half * r)
                shift[at], spread[at] = share * e, math.sqrt(share * v[i])
                total += term[at]
        top += log_weight
        n = L * K
    for i in range(n):
        term[i] /= total
    return n, top + math.log(total)


@kernel()
def _effects(tests, grids, slab, nodes, node_weight, probs, first, last, out):  # type: ignore[no-untyped-def]
    """out[j]: the columns of `COLUMNS`, then the quantiles, in units of the effect."""
    z, se, group, band, half_df, log_weight, null_constant = tests
    ptr, v, fall = grids
    kind, c, w = slab
    p0, p1, tau, mu, kappa, which = nodes
    S, K, P = mu.shape[0], w.shape[0], probs.shape[0]
    most = 1
    for b in range(ptr.shape[0] - 1):
        most = max(most, ptr[b + 1] - ptr[b])
    most *= K
    # of the components of one node
    term, shift, spread = np.empty(2 * most), np.empty(2 * most), np.empty(2 * most)
    # of all nodes, those that count: on the negative side, and on the positive one
    below_w, below_m, below_s = np.empty(S * most), np.empty(S * most), np.empty(S * most)
    above_w, above_m, above_s = np.empty(S * most), np.empty(S * most), np.empty(S * most)
    nulls, means = np.empty(S), np.empty(S)
    for j in range(first, last):
        g = group[j]
        mean = second = null = negative = positive = 0.0
        n_below = n_above = 0
        for s in range(S):
            a = which[s]
            low, high = ptr[band[a, j]], ptr[band[a, j] + 1]
            unit = kappa[s] * se[a, j]
            e = (z[a, j] - mu[s]) / kappa[s]
            rho = tau[s, g] / unit
            l0, _ = log_null(e, half_df[a, j], null_constant[a, j])
            nulls[s], means[s] = 1.0, 0.0
            if rho > 0.0 and p1[s, g] > 0.0:
                n, l1 = components(
                    e, rho, kind, c, w, v[low:high], fall[low:high], half_df[a, j], log_weight[a, j], term, shift,
                    spread,
                )  # fmt: skip
                _, at_zero, not_zero = mixed(p0[s, g], l0, p1[s, g], l1)
                nulls[s] = at_zero / (at_zero + not_zero)
                rest = not_zero / (at_zero + not_zero) * node_weight[s, g]
                here = 0.0
                # of many components those that matter; of few all, so that a probability of 1e-30 is not shown as 0
                least = 0.0 if n == 1 else rest * NEGLIGIBLE * 1e-6
                for i in range(n):
                    weight = rest * term[i]
                    if weight <= least:
                        continue
                    if kind == 1:
                        side = 1.0 if 2 * i < n else -1.0
                        y = side * shift[i] / spread[i]
                        _, one, two = laplace_side(y, y)
                        here += weight * side * one * spread[i] * unit
                        second += weight * two * (spread[i] * unit) ** 2
                        up = weight if 2 * i < n else 0.0
                        down = 0.0 if 2 * i < n else weight
                    else:
                        here += weight * shift[i] * unit
                        second += weight * (shift[i] ** 2 + spread[i] ** 2) * unit**2
                        # the smaller side by itself: a difference would lose it
                        small = weight * 0.5 * math.erfc(abs(shift[i]) / spread[i] * ROOT_HALF)
                        up = weight - small if shift[i] > 0.0 else small
                        down = small if shift[i] > 0.0 else weight - small
                    positive += up
                    negative += down
                    if weight > NEGLIGIBLE and P > 0:
                        if kind == 0 or 2 * i >= n:
                            below_w[n_below], below_m[n_below] = weight, shift[i] * unit
                            below_s[n_below] = spread[i] * unit
                            n_below += 1
                        if kind == 1 and 2 * i < n:
                            above_w[n_above], above_m[n_above] = weight, shift[i] * unit
                            above_s[n_above] = spread[i] * unit
                            n_above += 1
                mean += here
                means[s] = here / node_weight[s, g] if node_weight[s, g] > 0.0 else 0.0
            null += node_weight[s, g] * nulls[s]
        row = out[j]
        row[0], row[1] = mean, math.sqrt(max(second - mean * mean, 0.0))
        row[2], row[3], row[4] = null, negative, positive
        null_var = mean_var = 0.0
        for s in range(S):
            null_var += node_weight[s, g] * (nulls[s] - null) ** 2
            mean_var += node_weight[s, g] * (means[s] - mean) ** 2
        row[5], row[6] = math.sqrt(null_var), math.sqrt(mean_var)
        for k in range(P):
            p = probs[k]
            if p < negative and n_below > 0:
                row[7 + k] = _quantile(p, 1.0, below_w, below_m, below_s, n_below, kind == 1)
            elif 1.0 - p < positive and (n_above if kind == 1 else n_below) > 0:
                if kind == 1:
                    row[7 + k] = -_quantile(1.0 - p, -1.0, above_w, above_m, above_s, n_above, True)
                else:
                    row[7 + k] = -_quantile(1.0 - p, -1.0, below_w, below_m, below_s, n_below, False)
            else:
                row[7 + k] = 0.0


def effects(tests: Observed, slab: Slab, nodes: Nodes, weights: Floats, probs: Floats) -> Floats:
    """Posterior of every effect over weighted nodes: (n, 7 + P), the columns of `COLUMNS`, then quantiles at `probs`.

    `weights` are (S,), or (S, G) where every group of tests has its own. `prob_negative` and `prob_positive` leave out
    the point mass at 0; `prob_null_sd` and `mean_hyper_sd` are standard deviations over the nodes.
    """
    out = np.empty((tests.n, len(COLUMNS) + probs.size))
    w = nodes.by_group(weights)
    keep = np.flatnonzero(np.any(w > 0.0, axis=1))
    some, w = nodes.take(keep), np.ascontiguousarray(w[keep] / w[keep].sum(axis=0))
    layers, grids = tests.layers

    def work(part: slice) -> None:
        _effects(layers, grids, slab.packed, some.layered, w, probs, part.start, part.stop, out)

    over_chunks(work, tests.n, grain=GRAIN)
    return out
