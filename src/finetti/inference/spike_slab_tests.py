"""Every test at every node: probabilities, moments, and draws of its effect.

Given theta the effect b of a test is 0 with probability p, else from the slab's posterior, whose components are those
of `spike_slab_posterior`. What `effects` there averages over nodes is here kept node by node, for what depends on many
tests at once (given theta they are independent), on the parts of a variance, or on joint draws.

A component of a normal slab is N(m, s^2), and with delta >= 0

    P(|b| <= delta) = Phi((delta - |m|) / s) - Phi((-delta - |m|) / s),

a difference of the smaller tails. One of a Laplace slab is N(y, 1) given that it is positive, in units of its own sd:

    P(b > d) = Phi(y - d) / Phi(y) = exp(d (y - d / 2)) h(d - y) / h(-y),   h(x) = Phi(-x) exp(x^2 / 2),

the second form for y < 0, where the first would be 0 / 0. A draw solves P(b > t) = u for t, in the far tail

    a t + t^2 / 2 - log(h(a + t) / h(a)) = -log u,   a = -y,

which is convex and increasing in t, so that Newton's steps from the right, from -log u over the hazard at 0, converge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, ndtr, ndtri

from finetti.inference.spike_slab import Nodes, Observed, Slab
from finetti.inference.spike_slab_kernels import half_erfcx, laplace_side, log_null, mixed
from finetti.inference.spike_slab_posterior import components
from finetti.linalg.jit import inner, kernel
from finetti.linalg.system import over_chunks

__all__ = [
    "AtNodes",
    "at_nodes",
    "draw_effects",
    "effects_of_uniforms",
    "nulls_at_nodes",
    "pieces",
    "positive_normal",
    "uniforms",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROOT_HALF = math.sqrt(0.5)
ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
# tests that a thread takes at a time, at least
GRAIN = 16
# tests times nodes that are held in memory at once: 16 MB each array
HELD = 2_000_000
# below this y a truncated normal is drawn by Newton's steps instead of inverting Phi; steps that suffice there
FAR, STEPS = -5.0, 8


@dataclass(frozen=True, eq=False)
class AtNodes:
    """Of every test at every node, all (S, m), in units of the effect.

    prob_null, inside, below, above : P(b = 0), P(0 < |b| <= delta), P(b < -delta), P(b > delta); they sum to one
    mean, second : E b, E b^2
    within : the variance of b given that it is not 0, times the probability of that
    """

    prob_null: Floats
    inside: Floats
    below: Floats
    above: Floats
    mean: Floats
    second: Floats
    within: Floats

    @property
    def null_or_not(self) -> Floats:
        """Variance of E[b | whether it is 0]: p (1 - p) times the squared mean of what is not 0."""
        rest = self.inside + self.below + self.above
        return np.asarray(
            np.divide(self.mean**2 * self.prob_null, rest, out=np.zeros_like(rest), where=rest > 0.0)
        )  # fmt: skip


@inner()
def _beyond(d, y):  # type: ignore[no-untyped-def]
    """P(t > d) and P(t <= d) of t ~ N(y, 1) given that it is positive; d >= 0."""
    if y >= 0.0:
        inside = 0.5 * math.erfc(-y * ROOT_HALF)
        beyond = 0.5 * math.erfc((d - y) * ROOT_HALF) / inside
        if y > d:
            return beyond, 0.5 * (math.erfc((y - d) * ROOT_HALF) - math.erfc(y * ROOT_HALF)) / inside
        return beyond, 1.0 - beyond
    beyond = math.exp(d * (y - 0.5 * d)) * half_erfcx(d - y) / half_erfcx(-y) if d > 0.0 else 1.0
    return beyond, 1.0 - beyond


@kernel()
def _at_nodes(tests, grids, slab, nodes, rows, delta, first, last, out):  # type: ignore[no-untyped-def]
    """out[:, s, i]: the fields of `AtNodes` of test rows[i] at node s; the first alone where there is room for one."""
    z, se, group, band, half_df, log_weight, null_constant = tests
    ptr, v, fall = grids
    kind, c, w = slab
    p0, p1, tau, mu, kappa, which = nodes
    most = 1
    for b in range(ptr.shape[0] - 1):
        most = max(most, ptr[b + 1] - ptr[b])
    most *= 2 * w.shape[0]
    term, shift, spread = np.empty(most), np.empty(most), np.empty(most)
    for i in range(first, last):
        j = rows[i]
        g = group[j]
        for s in range(mu.shape[0]):
            a = which[s]
            low, high = ptr[band[a, j]], ptr[band[a, j] + 1]
            unit = kappa[s] * se[a, j]
            e = (z[a, j] - mu[s]) / kappa[s]
            rho = tau[s, g] / unit
            null, inside, below, above, mean, second, within = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            if rho > 0.0 and p1[s, g] > 0.0:
                l0, _ = log_null(e, half_df[a, j], null_constant[a, j])
                n, l1 = components(
                    e, rho, kind, c, w, v[low:high], fall[low:high], half_df[a, j], log_weight[a, j], term, shift,
                    spread,
                )  # fmt: skip
                _, at_zero, not_zero = mixed(p0[s, g], l0, p1[s, g], l1)
                null, rest = at_zero / (at_zero + not_zero), not_zero / (at_zero + not_zero)
                if out.shape[0] == 1:
                    out[0, s, i] = null
                    continue
                if kind == 1:
                    for k in range(n):
                        side = 1.0 if 2 * k < n else -1.0
                        y = side * shift[k] / spread[k]
                        far, near = _beyond(delta / (unit * spread[k]), y)
                        inside += term[k] * near
                        if side > 0.0:
                            above += term[k] * far
                        else:
                            below += term[k] * far
                        _, one, two = laplace_side(y, y)
                        # from here on the mean and the variance of the component stand in its place
                        shift[k] = side * one * spread[k]
                        spread[k] = (two - one * one) * spread[k] ** 2
                        mean += term[k] * shift[k]
                else:
                    d = delta / unit
                    for k in range(n):
                        size = abs(shift[k])
                        far = 0.5 * math.erfc((size + d) / spread[k] * ROOT_HALF)
                        near = 0.5 * math.erfc((d - size) / spread[k] * ROOT_HALF)
                        if size > d:
                            inside += term[k] * (0.5 * math.erfc((size - d) / spread[k] * ROOT_HALF) - far)
                        elif d > 0.0:
                            inside += term[k] * max(1.0 - far - near, 0.0)
                        above += term[k] * (near if shift[k] > 0.0 else far)
                        below += term[k] * (far if shift[k] > 0.0 else near)
                        spread[k] *= spread[k]
                        mean += term[k] * shift[k]
                for k in range(n):
                    within += term[k] * (spread[k] + (shift[k] - mean) ** 2)
                    second += term[k] * (spread[k] + shift[k] ** 2)
                inside, below, above = rest * inside, rest * below, rest * above
                mean, second, within = rest * mean * unit, rest * second * unit**2, rest * within * unit**2
            out[0, s, i] = null
            if out.shape[0] == 1:
                continue
            out[1, s, i], out[2, s, i], out[3, s, i] = inside, below, above
            out[4, s, i], out[5, s, i], out[6, s, i] = mean, second, within


def pieces(n: int, n_nodes: int) -> Iterator[Ints]:
    """Positions of n tests in pieces that fit in memory at `n_nodes` nodes each."""
    step = max(HELD // n_nodes, GRAIN)
    for i in range(0, n, step):
        yield np.arange(i, min(i + step, n))


def at_nodes(tests: Observed, slab: Slab, nodes: Nodes, at_least: float = 0.0, rows: Ints | None = None) -> AtNodes:
    """Probabilities and moments of every effect at every node.

    Parameters
    ----------
    at_least : delta of the probabilities, in units of the effect
    rows : positions of the tests that are asked for, by default all; see `pieces` where there are many

    Examples
    --------
    >>> from finetti.inference.spike_slab import make_slab
    >>> found = at_nodes(Observed.of(np.array([0.0, 5.0]), np.ones(2)), make_slab("normal"), Nodes.of(0.9, 3, 0, 1))
    >>> found.prob_null.round(3).tolist(), found.above.round(3).tolist()
    ([[0.966, 0.0]], [[0.017, 1.0]])
    """
    return AtNodes(*_filled(7, tests, slab, nodes, at_least, rows))


def nulls_at_nodes(tests: Observed, slab: Slab, nodes: Nodes, rows: Ints | None = None) -> Floats:
    """`AtNodes.prob_null` alone, (S, m), in a third of the time."""
    return np.asarray(_filled(1, tests, slab, nodes, 0.0, rows)[0])


def _filled(fields: int, tests: Observed, slab: Slab, nodes: Nodes, delta: float, rows: Ints | None) -> Floats:
    where = np.arange(tests.n) if rows is None else rows
    out = np.empty((fields, nodes.n, where.size))
    layers, grids = tests.layers

    def work(part: slice) -> None:
        _at_nodes(layers, grids, slab.packed, nodes.layered, where, delta, part.start, part.stop, out)

    over_chunks(work, where.size, grain=GRAIN)
    return out


@kernel()
def _pick(tests, grids, slab, nodes, rows, u, first, last, out):  # type: ignore[no-untyped-def]
    """out[:, s, i]: mean, sd and side (0 where it is not cut at 0) of the component that u[s, i] picks."""
    z, se, group, band, half_df, log_weight, null_constant = tests
    ptr, v, fall = grids
    kind, c, w = slab
    p0, p1, tau, mu, kappa, which = nodes
    most = 1
    for b in range(ptr.shape[0] - 1):
        most = max(most, ptr[b + 1] - ptr[b])
    most *= 2 * w.shape[0]
    term, shift, spread = np.empty(most), np.empty(most), np.empty(most)
    for i in range(first, last):
        j = rows[i]
        g = group[j]
        for s in range(mu.shape[0]):
            out[0, s, i], out[1, s, i], out[2, s, i] = 0.0, 0.0, 0.0
            a = which[s]
            low, high = ptr[band[a, j]], ptr[band[a, j] + 1]
            unit = kappa[s] * se[a, j]
            e = (z[a, j] - mu[s]) / kappa[s]
            rho = tau[s, g] / unit
            if not (rho > 0.0 and p1[s, g] > 0.0):
                continue
            l0, _ = log_null(e, half_df[a, j], null_constant[a, j])
            n, l1 = components(
                e, rho, kind, c, w, v[low:high], fall[low:high], half_df[a, j], log_weight[a, j], term, shift, spread
            )
            _, at_zero, not_zero = mixed(p0[s, g], l0, p1[s, g], l1)
            left = (u[s, i] * (at_zero + not_zero) - at_zero) / not_zero
            if not left > 0.0:
                continue
            k = 0
            while k < n - 1 and left > term[k]:
                left -= term[k]
                k += 1
            out[0, s, i], out[1, s, i] = shift[k] * unit, spread[k] * unit
            if kind == 1:
                out[2, s, i] = 1.0 if 2 * k < n else -1.0


def positive_normal(y: Floats, u: Floats) -> Floats:
    """t > 0 that N(y, 1), given that it is positive, exceeds with probability u; exact however far y is below 0.

    Examples
    --------
    >>> bool(np.isclose(positive_normal(np.array([-1e8]), np.array([0.5]))[0] * 1e8, np.log(2.0)))
    True
    """
    out = np.empty_like(y)
    far = y < FAR
    out[~far] = y[~far] - ndtri(u[~far] * ndtr(y[~far]))
    a, goal = -y[far], -np.log(u[far])
    at_a = erfcx(a * ROOT_HALF)
    t = goal * at_a / ROOT_2_OVER_PI
    for _ in range(STEPS):
        here = erfcx((a + t) * ROOT_HALF)
        t -= (t * (a + 0.5 * t) - np.log(here / at_a) - goal) * here / ROOT_2_OVER_PI
    out[far] = t
    return np.maximum(out, 0.0)


def uniforms(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Uniform numbers that are neither 0 nor 1."""
    return np.clip(rng.random(shape), 2.0**-54, 1.0 - 2.0**-53)


def effects_of_uniforms(tests: Observed, slab: Slab, nodes: Nodes, u: Floats, rows: Ints | None = None) -> Floats:
    """One draw of every effect at every node, (S, m), from uniform numbers u (2, S, m)."""
    where = np.arange(tests.n) if rows is None else rows
    picked = np.empty((3, nodes.n, where.size))
    layers, grids = tests.layers

    def work(part: slice) -> None:
        _pick(layers, grids, slab.packed, nodes.layered, where, u[0], part.start, part.stop, picked)

    over_chunks(work, where.size, grain=GRAIN)
    mean, sd, side = picked
    out = np.zeros_like(mean)
    plain, cut = (sd > 0.0) & (side == 0.0), side != 0.0
    out[plain] = mean[plain] + sd[plain] * ndtri(u[1][plain])
    out[cut] = side[cut] * sd[cut] * positive_normal(side[cut] * mean[cut] / sd[cut], u[1][cut])
    return out


def draw_effects(tests: Observed, slab: Slab, nodes: Nodes, rng: np.random.Generator) -> Floats:
    """One draw of every test's effect at every node, (S, n): 0, or from the slab's posterior.

    Examples
    --------
    >>> from finetti.inference.spike_slab import make_slab
    >>> many = Nodes.of(np.full(2000, 0.9), 3, 0, 1)
    >>> drawn = draw_effects(
    ...     Observed.of(np.array([2.5]), np.ones(1)), make_slab("normal"), many, np.random.default_rng(0)
    ... )
    >>> bool(abs((drawn == 0.0).mean() - 0.631) < 0.04)
    True
    """
    out = np.empty((nodes.n, tests.n))
    for rows in pieces(tests.n, nodes.n):
        out[:, rows] = effects_of_uniforms(tests, slab, nodes, uniforms(rng, (2, nodes.n, rows.size)), rows)
    return out
