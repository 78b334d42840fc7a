"""The effect that a replication would measure, over nodes: quantiles and the probability of its sign.

    x' = null_mean se' + b + null_sd se' error,     b from its posterior, the error normal or t with df_j

At a node the posterior of b is a mixture of normals (`spike_slab_posterior`; a Laplace slab is first written as one,
b | W ~ N(0, W), W exponential, by the trapezoidal rule in log W), and so is the error. All pairs over all nodes are the
mixture wanted. Where these are many, those that are alike are merged with their mean and variance kept: means within
0.2 of their sd, variances within 10 %; a quantile is then off by less than 0.001 sd.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_kernels import log_null, mixed
from finetti.inference.spike_slab_posterior import components
from finetti.linalg.jit import inner, kernel
from finetti.linalg.system import over_chunks

__all__ = ["as_normals", "replicate"]

Floats = npt.NDArray[np.float64]

ROOT_HALF = math.sqrt(0.5)
INV_ROOT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
GRAIN = 16
# components that are left as they are; weights that do not matter; slots for merged ones, and how many are tried
FEW, NEGLIGIBLE, SLOTS, PROBES = 128, 1e-9, 4096, 64
# widths of a bin: of means in sds, and of log variances
NEAR, ALIKE = 0.2, 0.1


@lru_cache(maxsize=1)
def _laplace_as_normals() -> Slab:
    step = 0.4
    u = np.arange(-16.0, 6.5, step)
    weight = np.exp(u - np.exp(u))
    return Slab("laplace", 0, weight / weight.sum(), np.exp(u))


def as_normals(slab: Slab) -> Slab:
    """The slab as a mixture of normals; of a Laplace slab its density is off by less than 1e-6 of its top.

    Examples
    --------
    >>> from finetti.inference.spike_slab import make_slab
    >>> found = as_normals(make_slab("laplace"))
    >>> at_one = np.sum(found.weight * np.exp(-0.5 / found.variance) / np.sqrt(2 * np.pi * found.variance))
    >>> bool(abs(at_one - np.exp(-np.sqrt(2.0)) / np.sqrt(2.0)) < 1e-6)
    True
    """
    return slab if slab.kind == 0 else _laplace_as_normals()


@inner()
def _add(weight, mean, variance, noise, sums, used, n):  # type: ignore[no-untyped-def]
    """Add a component to the bin it belongs to: sums (SLOTS, 5) of keys, weights, means, squares, noise; slots used."""
    level = math.floor(math.log(variance) / ALIKE)
    place = math.floor(mean / (NEAR * math.exp(0.5 * ALIKE * level)))
    key = place * 65536.0 + level
    first = int((31.0 * place + 17.0 * level) % SLOTS)
    slot = first
    for step in range(PROBES):
        if sums[slot, 1] == 0.0:
            sums[slot, 0] = key
            used[n] = slot
            n += 1
            break
        if sums[slot, 0] == key:
            break
        # so many bins that none is left nearby: any one
        slot = (slot + 1) % SLOTS if step < PROBES - 1 else first
    sums[slot, 1] += weight
    sums[slot, 2] += weight * mean
    sums[slot, 3] += weight * (variance + mean * mean)
    sums[slot, 4] += weight * noise
    return n


@inner()
def _quantile(p, z, weight, mean, sd, n):  # type: ignore[no-untyped-def]
    """Quantile p, whose standard normal one is z, of a mixture of n normals: Newton inside a bracket."""
    low, high = np.inf, -np.inf
    first = second = 0.0
    for i in range(n):
        at = mean[i] + z * sd[i]
        low, high = min(low, at), max(high, at)
        first += weight[i] * mean[i]
        second += weight[i] * (sd[i] * sd[i] + mean[i] * mean[i])
    width = math.sqrt(max(second - first * first, 0.0))
    t = min(max(first + z * width, low), high)
    tiny = 1e-9 * (high - low) + 1e-300
    for _ in range(200):
        cdf = pdf = 0.0
        for i in range(n):
            u = (t - mean[i]) / sd[i]
            cdf += weight[i] * 0.5 * math.erfc(-u * ROOT_HALF)
            pdf += weight[i] * INV_ROOT_2PI / sd[i] * math.exp(-0.5 * u * u)
        if cdf < p:
            low = t
        else:
            high = t
        new = t + (p - cdf) / pdf if pdf > 0.0 else low
        if not (new > low and new < high):
            new = 0.5 * (low + high)
        step = abs(new - t)
        t = new
        if step < tiny or high - low < tiny:
            break
    return t


@kernel()
def _replicate(tests, grids, slab, nodes, node_weight, new_se, probs, normal, first, last, out):  # type: ignore[no-untyped-def]
    """out[j]: P(x' > 0), then quantiles. new_se[a, j]: standard error of the replication, by set of standard errors."""
    z, se, group, band, half_df, log_weight, null_constant = tests
    ptr, v, fall = grids
    kind, c, w = slab
    p0, p1, tau, mu, kappa, which = nodes
    S, K, layers = mu.shape[0], w.shape[0], new_se.shape[0]
    most = 1
    for b in range(ptr.shape[0] - 1):
        most = max(most, ptr[b + 1] - ptr[b])
    term, shift, spread = np.empty(2 * most * K), np.empty(2 * most * K), np.empty(2 * most * K)
    # sums of bins, of effects and of replications, with the slots in use; what is left of them in the end
    sums, used = np.zeros((SLOTS, 5)), np.empty(SLOTS, np.int64)
    held, taken = np.zeros((SLOTS, 5)), np.empty(SLOTS, np.int64)
    size = max(SLOTS, FEW)
    weight, mean, sd = np.empty(size), np.empty(size), np.empty(size)
    for j in range(first, last):
        g = group[j]
        widest = 1
        for a in range(band.shape[0]):
            widest = max(widest, ptr[band[a, j] + 1] - ptr[band[a, j]])
        exact = S * (widest * K + 1) * widest <= FEW
        n = bins = 0
        for s in range(S):
            a = which[s]
            low, high = ptr[band[a, j]], ptr[band[a, j] + 1]
            unit = kappa[s] * se[a, j]
            e = (z[a, j] - mu[s]) / kappa[s]
            rho = tau[s, g] / unit
            new = new_se[a if layers > 1 else 0, j]
            noise = kappa[s] * new
            number, null, rest = 0, 1.0, 0.0
            if rho > 0.0 and p1[s, g] > 0.0:
                l0, _ = log_null(e, half_df[a, j], null_constant[a, j])
                number, l1 = components(
                    e, rho, kind, c, w, v[low:high], fall[low:high], half_df[a, j], log_weight[a, j], term, shift,
                    spread,
                )  # fmt: skip
                _, at_zero, not_zero = mixed(p0[s, g], l0, p1[s, g], l1)
                null, rest = at_zero / (at_zero + not_zero), not_zero / (at_zero + not_zero)
            for i in range(-1, number):
                share = node_weight[s, g] * (null if i < 0 else rest * term[i])
                if share <= NEGLIGIBLE:
                    continue
                centre = mu[s] * new + (0.0 if i < 0 else shift[i] * unit)
                variance = 0.0 if i < 0 else (spread[i] * unit) ** 2
                if exact:
                    for k in range(low, high):
                        weight[n] = share * math.exp(log_weight[a, j] - half_df[a, j] * fall[k])
                        mean[n], sd[n] = centre, math.sqrt(variance + noise * noise * v[k])
                        n += 1
                else:
                    # in bins of their variance with the noise, so that only what the noise hides is merged
                    bins = _add(share, centre, variance + noise * noise, noise * noise, sums, used, bins)
            if s < S - 1 and which[s + 1] == a:
                continue
            # the last node with these standard errors: now the errors of the replication
            for i in range(bins):
                share = sums[used[i], 1]
                centre, noise2 = sums[used[i], 2] / share, sums[used[i], 4] / share
                variance = max(sums[used[i], 3] / share - centre * centre - noise2, 0.0)
                for k in range(low, high):
                    part = share * math.exp(log_weight[a, j] - half_df[a, j] * fall[k])
                    if part > NEGLIGIBLE:
                        n = _add(part, centre, variance + noise2 * v[k], 0.0, held, taken, n)
                sums[used[i], :] = 0.0
            bins = 0
        if not exact:
            for i in range(n):
                slot = taken[i]
                weight[i] = held[slot, 1]
                mean[i] = held[slot, 2] / weight[i]
                sd[i] = math.sqrt(max(held[slot, 3] / weight[i] - mean[i] ** 2, 0.0))
                held[slot, :] = 0.0
        total = above = 0.0
        for i in range(n):
            total += weight[i]
        for i in range(n):
            weight[i] /= total
            above += weight[i] * 0.5 * math.erfc(-mean[i] / sd[i] * ROOT_HALF)
        out[j, 0] = above
        for k in range(probs.shape[0]):
            out[j, 1 + k] = _quantile(probs[k], normal[k], weight, mean, sd, n)


def replicate(tests: Observed, slab: Slab, nodes: Nodes, weights: Floats, new_se: Floats, probs: Floats) -> Floats:
    """P(x' > 0) and quantiles of what a replication would measure, (n, 1 + P).

    Parameters
    ----------
    weights : (S,), or (S, G) where every group of tests has its own
    new_se : (1, n) standard errors of the replication, or (K, n), one row for each set of standard errors of the tests

    Examples
    --------
    >>> from finetti.inference.spike_slab import make_slab
    >>> tests, node = Observed.of(np.array([3.0]), np.ones(1)), Nodes.of(0.0, 1.0, 0.0, 1.0)
    >>> replicate(tests, make_slab("normal"), node, np.ones(1), np.ones((1, 1)), np.array([0.5])).round(3).tolist()
    [[0.89, 1.5]]
    """
    out = np.empty((tests.n, 1 + probs.size))
    w = nodes.by_group(weights)
    w = np.ascontiguousarray(w / w.sum(axis=0))
    # nodes that share a set of standard errors stand together
    order = np.argsort(nodes.layered[-1], kind="stable")
    some, w = nodes.take(order), w[order]
    layers, grids = tests.layers
    packed, normal = as_normals(slab).packed, np.asarray(ndtri(probs))

    def work(part: slice) -> None:
        _replicate(layers, grids, packed, some.layered, w, new_se, probs, normal, part.start, part.stop, out)

    over_chunks(work, tests.n, grain=GRAIN)
    return out
