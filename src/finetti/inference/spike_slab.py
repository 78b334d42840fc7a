"""Spike and slab for many tests: the sampling model, and its marginal likelihood with the effects integrated out.

    x_j | b_j ~ Normal(null_mean se_j + b_j, (null_sd se_j)^2)       or a t with df_j degrees of freedom, that scale
    b_j = 0 with probability pi0, else b_j ~ slab

The slab is centred at 0 with standard deviation tau = `slab_sd` (of the effects that are not null): normal; Laplace,
of scale tau / sqrt(2); a t of 4 degrees of freedom, of scale tau / sqrt(2); or any finite mixture of normals. Given
theta = (pi0, tau, null_mean, null_sd) tests are independent, and each integral is a closed form or a quadrature good
to 1e-9 (see `spike_slab_kernels`); of many tests, quadratures are looked up (`spike_slab_lookup`).

Tests may belong to groups, each with a pi0 and a tau of its own at every node: one group here, more with covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.inference.spike_slab_grids import ErrorGrids, error_grids, t_slab
from finetti.inference.spike_slab_kernels import (
    BLOCK,
    densities,
    gradients,
    normal_gradients,
    normal_values,
    tabulate,
    values,
)
from finetti.inference.spike_slab_lookup import Lookup, coefficients, layout, no_lookup, worth_a_table
from finetti.linalg.system import over_chunks

__all__ = ["NORMAL_ERRORS", "Nodes", "Observed", "Slab", "make_slab", "mixture_slab"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NORMAL_ERRORS = np.inf
# heavy tails that still have a standard deviation, so that `slab_sd` is one whatever the slab
T_SLAB_DF = 4.0
# counted seconds: of a test with one normal component, and of each further component; of a Laplace side; of a lookup
ONE, COMPONENT, LAPLACE, LOOKED_UP = 1.2e-8, 1.2e-8, 9e-8, 9e-8
# components from which a table is worth its memory traffic
FEW_COMPONENTS = 8
# z up to which a sum of z^2 / 2 may be taken out of a log-likelihood without leaving its rounding behind
FAST = 1e4
# t errors are exact for deviations up to this many times the largest z
REACH = 2.0
# tables of densities reach this many times the largest z: a null as narrow as null_sd may be
LOOKED_UP_REACH = 5.0


@dataclass(frozen=True, eq=False)
class Slab:
    """A slab of unit standard deviation. kind: 0 for a mixture of normals, 1 for Laplace.

    weight, variance : (K,) of the normal components, ascending variances
    """

    name: str
    kind: int
    weight: Floats
    variance: Floats

    @property
    def packed(self) -> tuple[int, Floats, Floats]:
        return self.kind, self.weight, self.variance


def make_slab(name: str) -> Slab:
    """The slab by its name: "normal", "laplace" or "student_t".

    Examples
    --------
    >>> make_slab("normal").weight.tolist()
    [1.0]
    """
    if name == "student_t":
        log_c, w = t_slab(T_SLAB_DF)
        return Slab(name, 0, np.exp(log_c), w)
    return Slab(name, {"normal": 0, "laplace": 1}[name], np.ones(1), np.ones(1))


def mixture_slab(weight: Floats, sd: Floats) -> tuple[Slab, float]:
    """A mixture of normals as a slab of unit sd, and its sd; components without weight are left out."""
    keep = weight > 0.0
    share, variance = weight[keep] / weight[keep].sum(), sd[keep] ** 2
    order = np.argsort(variance)
    total = float(share @ variance)
    return Slab("mixture", 0, share[order], variance[order] / total), float(np.sqrt(total))


@dataclass(frozen=True, eq=False)
class Nodes:
    """Hyperparameters at S nodes for G groups: pi0, 1 - pi0, tau (S, G); null mean and sd in units of se (S,).

    which : (S,) the set of standard errors that each node goes with, where there are several; else None
    """

    pi0: Floats
    rest: Floats
    tau: Floats
    mu: Floats
    kappa: Floats
    which: Ints | None = None

    @property
    def packed(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        return self.pi0, self.rest, self.tau, self.mu, self.kappa

    @property
    def layered(self) -> tuple[Floats, Floats, Floats, Floats, Floats, Ints]:
        return *self.packed, np.zeros(self.n, np.int64) if self.which is None else self.which

    @property
    def n(self) -> int:
        return int(self.mu.size)

    @property
    def n_groups(self) -> int:
        return int(self.pi0.shape[1])

    def by_group(self, weights: Floats) -> Floats:
        """Weights (S, G) of the nodes, given such or (S,)."""
        return weights if weights.ndim == 2 else np.repeat(weights[:, None], self.n_groups, axis=1)

    def take(self, rows: npt.NDArray[Any]) -> Nodes:
        """Some of the nodes."""
        pi0, rest, tau, mu, kappa = (np.ascontiguousarray(a[rows]) for a in self.packed)
        return Nodes(pi0, rest, tau, mu, kappa, None if self.which is None else self.which[rows])

    @classmethod
    def of(cls, pi0: npt.ArrayLike, tau: npt.ArrayLike, mu: npt.ArrayLike, kappa: npt.ArrayLike) -> Nodes:
        """One group: all arguments scalars or (S,)."""
        p, t, m, k = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, dtype=float)) for a in (pi0, tau, mu, kappa)))
        return cls(p[:, None].copy(), 1.0 - p[:, None], t[:, None].copy(), m.copy(), k.copy())


@dataclass(frozen=True, eq=False)
class Observed:
    """What was observed: z = x / se and se, df (infinite for normal errors), groups, counts of equal tests, (n,).

    sets : se and df (K, n), where standard errors are uncertain and K sets stand for what is believed of them. A node
        names its set (`Nodes.which`); `log_likelihood` and all that leads to the nodes see se and df alone.
    """

    z: Floats
    se: Floats
    df: Floats
    group: Ints
    count: Floats
    sets: tuple[Floats, Floats] | None = None
    _lookups: dict[str, Lookup] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, x: Floats, se: Floats, df: Floats | None = None) -> Observed:
        n = x.size
        return cls(x / se, se, np.full(n, NORMAL_ERRORS) if df is None else df, np.zeros(n, np.int64), np.ones(n))

    @property
    def n(self) -> int:
        return int(self.z.size)

    @cached_property
    def normal(self) -> bool:
        """Whether all errors are normal."""
        return bool(np.all(np.isinf(self.df)))

    @cached_property
    def grids(self) -> ErrorGrids:
        return error_grids(self.df, REACH * float(np.max(np.abs(self.z))) + 5.0)

    @cached_property
    def constant(self) -> float:
        """What the log-likelihood has beyond the kernels' sums: logs of se and of 2 pi."""
        return -float(self.count @ np.log(self.se)) - 0.5 * np.log(2.0 * np.pi) * float(self.count.sum())

    @cached_property
    def inv_se(self) -> Floats:
        return 1.0 / self.se

    @cached_property
    def _powers(self) -> tuple[float, float, float]:
        """Number, mean, and sum of squares around the mean, of z."""
        mean = float(self.z.mean())
        return float(self.n), mean, float(np.sum((self.z - mean) ** 2))

    @cached_property
    def _near(self) -> bool:
        return bool(np.max(np.abs(self.z)) <= FAST)

    @cached_property
    def single(self) -> bool:
        """Whether every test counts once."""
        return bool(np.all(self.count == 1.0))

    @cached_property
    def packed(self) -> tuple[Floats, Floats, Ints, Floats, Ints, Floats, Floats, Floats]:
        g = self.grids
        return self.z, self.inv_se, self.group, self.count, g.band, g.half_df, g.log_weight, g.log_null

    @cached_property
    def layers(self) -> tuple[Any, tuple[Ints, Floats, Floats]]:
        """Arrays (K, n) of every set of standard errors, K = 1 where there is one; and the grids of all.

        z, se, group (n,), band, half_df, log_weight, log_null, as the kernels of `spike_slab_posterior` unpack them.
        """
        if self.sets is None:
            se, df, g = self.se[None], self.df[None], self.grids
        else:
            se, df = self.sets
            g = error_grids(df.ravel(), REACH * float(np.max(np.abs(self.z * self.se / se))) + 5.0)
        z = self.z * self.se / se
        each = (a.reshape(df.shape) for a in (g.band, g.half_df, g.log_weight, g.log_null))
        return (z, se, self.group, *each), (g.ptr, g.v, g.fall)

    def of_set(self, k: int) -> Observed:
        """The same tests with the k-th set of standard errors alone."""
        if self.sets is None:
            return self
        se, df = (np.ascontiguousarray(a[k]) for a in self.sets)
        return Observed(self.z * self.se / se, se, df, self.group, self.count)

    def take(self, rows: npt.NDArray[Any]) -> Observed:
        """Some of the tests."""
        sets = None if self.sets is None else tuple(np.ascontiguousarray(a[:, rows]) for a in self.sets)
        return Observed(self.z[rows], self.se[rows], self.df[rows], self.group[rows], self.count[rows], sets)  # type: ignore[arg-type]

    def node_weights(self, weights: Floats, rows: Any) -> Floats:
        """Weights of nodes for some tests, each summing to one: (S, 1), or (S, m) of groups with their own, (S, G)."""
        w = weights[:, None] if weights.ndim == 1 else weights[:, self.group[rows]]
        return np.asarray(w / w.sum(axis=0))

    @property
    def packed_grids(self) -> tuple[Ints, Floats, Floats]:
        return self.grids.ptr, self.grids.v, self.grids.fall

    def lookup(self, slab: Slab) -> Lookup:
        """Tables of log f1 with this slab, made when they are first asked for; none where the sum is cheap."""
        if slab.name not in self._lookups:
            self._lookups[slab.name] = self._tabulated(slab)
        return self._lookups[slab.name]

    def _tabulated(self, slab: Slab) -> Lookup:
        g = self.grids
        kinds, first, index = np.unique(self.df, return_index=True, return_inverse=True)
        components = g.most * slab.weight.size if slab.kind == 0 else 8 * g.most
        if slab.name == "mixture" or components < FEW_COMPONENTS or not worth_a_table(self.n, kinds.size):
            return no_lookup(self.n)
        e, rho = layout(LOOKED_UP_REACH * float(np.max(np.abs(self.z))) + 5.0)
        tables = np.empty((kinds.size, e.size, rho.size))
        for k, j in enumerate(first):
            part = slice(g.ptr[g.band[j]], g.ptr[g.band[j] + 1])
            v, fall, half, weight = g.v[part], g.fall[part], g.half_df[j], g.log_weight[j]
            raw = np.empty((e.size, rho.size))
            over_chunks(
                lambda p, v=v, fall=fall, half=half, weight=weight, raw=raw: tabulate(  # type: ignore[misc]
                    e, rho, slab.packed, v, fall, half, weight, p.start, p.stop, raw
                ),
                e.size,
            )
            tables[k] = coefficients(raw)
        return Lookup(tables, np.ascontiguousarray(index.astype(np.int64)), float(np.log(rho[0])))

    def _simple(self, slab: Slab) -> bool:
        """Whether one normal component is all there is, every test counts once, and none is absurdly far out."""
        return self.normal and self.single and self._near and slab.kind == 0 and slab.weight.size == 1

    def _squares(self, nodes: Nodes) -> Floats:
        """Sum of e^2 over tests at every node."""
        number, mean, spread = self._powers
        return (spread + number * (mean - nodes.mu) ** 2) / nodes.kappa**2

    def cost(self, slab: Slab) -> float:
        """Nominal seconds of the marginal likelihood at one node, from counted components."""
        if not self._simple(slab) and self.lookup(slab).index[0] >= 0:
            return self.n * LOOKED_UP
        some = self.grids.most if not self.normal else 1
        if slab.kind == 1:
            return self.n * LAPLACE * some
        return self.n * (ONE + COMPONENT * (some * slab.weight.size - 1))

    def log_likelihood(self, slab: Slab, nodes: Nodes) -> Floats:
        """Log p(x | theta) at every node, (S,)."""
        if self._simple(slab):

            def fast(first: int, last: int, begin: int, end: int, out: Floats) -> None:
                normal_values(self.z, self.inv_se, self.group, *nodes.packed, first, last, begin, end, out)

            total = self._sums(fast, nodes.n, ()) - 0.5 * self._squares(nodes)
        else:
            tests, grids, lookup = self.packed, self.packed_grids, self.lookup(slab).packed

            def work(first: int, last: int, begin: int, end: int, out: Floats) -> None:
                values(tests, grids, slab.packed, lookup, nodes.packed, first, last, begin, end, out)

            total = self._sums(work, nodes.n, ())
        return total + self.constant - float(self.count.sum()) * np.log(nodes.kappa)

    def gradient(self, slab: Slab, nodes: Nodes) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Log-likelihood (S,), its derivatives by mu, log kappa (S,), and by logit pi0, log tau of groups (S, G)."""
        G = nodes.pi0.shape[1]
        if self._simple(slab):

            def fast(first: int, last: int, begin: int, end: int, out: Floats) -> None:
                normal_gradients(self.z, self.inv_se, self.group, *nodes.packed, first, last, begin, end, out)

            total = self._sums(fast, nodes.n, (3 + 2 * G,))
            number, mean, _ = self._powers
            squares = self._squares(nodes)
            total[:, 0] -= 0.5 * squares
            total[:, 1] += number * (mean - nodes.mu) / nodes.kappa**2
            total[:, 2] += squares - number
        else:
            tests, grids, lookup = self.packed, self.packed_grids, self.lookup(slab).packed

            def work(first: int, last: int, begin: int, end: int, out: Floats) -> None:
                gradients(tests, grids, slab.packed, lookup, nodes.packed, first, last, begin, end, out)

            total = self._sums(work, nodes.n, (3 + 2 * G,))
        value = total[:, 0] + self.constant - float(self.count.sum()) * np.log(nodes.kappa)
        return value, total[:, 1], total[:, 2], total[:, 3 : 3 + G], total[:, 3 + G :]

    def log_ratio(self, slab: Slab, tau: Floats, mu: Floats, kappa: Floats) -> tuple[Floats, Floats]:
        """Log f1 / f0 and log f0 (S, n) at every (tau, mu, kappa), f0 with its constants."""
        out = np.empty((tau.size, self.n, 2))
        tests, grids, lookup = self.packed, self.packed_grids, self.lookup(slab).packed
        over_chunks(
            lambda part: densities(tests, grids, slab.packed, lookup, tau, mu, kappa, part.start, part.stop, out),
            tau.size,
        )
        return out[:, :, 0], out[:, :, 1] - np.log(kappa)[:, None] - np.log(self.se) - 0.5 * np.log(2.0 * np.pi)

    def _sums(self, work, n_nodes: int, shape: tuple[int, ...]) -> Floats:  # type: ignore[no-untyped-def]
        """Sums over blocks of tests: threads share blocks where there are many, nodes otherwise."""
        blocks = -(-self.n // BLOCK)
        out = np.empty((blocks, n_nodes, *shape))
        if blocks >= 16:
            over_chunks(lambda part: work(part.start, part.stop, 0, n_nodes, out), blocks)
        else:
            over_chunks(lambda part: work(0, blocks, part.start, part.stop, out), n_nodes, grain=2)
        return out.sum(axis=0)
