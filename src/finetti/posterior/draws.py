"""Joint posterior draws, lazy and reproducible: nodes and a seed determine every value.

Hyperparameters are drawn from the weighted nodes (from the smooth surrogate where it is good);
coefficients are drawn given them. Where a node costs over a millisecond, coefficients are drawn
at the node nearest to the drawn hyperparameters instead of at a fresh factorisation of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetti.inference.infer import Inference

__all__ = ["CHAINS", "LARGE", "Draws"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHAINS = 4
# a grouping factor with more values than this is left out of `posterior`
LARGE = 2_000_000
# how far, in log weight, the surrogate may be off and still serve for draws
GOOD_SURROGATE = 0.3
BATCH_VALUES = 2e7


@dataclass(frozen=True)
class Draws:
    """Draws of one fit; `n` of them in four chains, made when first asked for.

    Where NUTS sampled the posterior they are its own chains, `n` of them at even distances or all if there are fewer.
    """

    inference: Inference
    n: int
    seed: int
    _cache: dict[str, Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.inference.sampled is not None:
            object.__setattr__(self, "n", min(self.n, self.inference.hyper.n_nodes))

    @cached_property
    def _kept(self) -> Ints:
        """Which of NUTS's draws these are, chain after chain."""
        per_chain = self.inference.hyper.n_nodes // CHAINS
        ticks = (np.arange(self.n // CHAINS) + 0.5) * per_chain / (self.n // CHAINS)
        return (np.arange(CHAINS)[:, None] * per_chain + ticks.astype(np.int64)).ravel()

    @property
    def theta(self) -> Floats:
        """(n, d), chain after chain."""
        if "theta" not in self._cache:
            self._cache["theta"] = self._draw_theta()
        return self._cache["theta"]

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, 1, stream]))

    def _draw_theta(self) -> Floats:
        hyper = self.inference.hyper
        per_chain = self.n // CHAINS
        if hyper.n_nodes == 1:
            return np.repeat(hyper.theta, self.n, axis=0)
        if self.inference.sampled is not None:
            return hyper.theta[self._kept]
        rng, out = self._rng(0), []
        surrogate = hyper.surrogate
        per_replicate = 0 if surrogate is None else surrogate.dense.size // surrogate.n_replicates
        smooth = surrogate is not None and surrogate.residual_sd < GOOD_SURROGATE
        for chain in range(CHAINS):
            # a chain sees the replicates r with r mod 4 = chain only
            if smooth and surrogate is not None:
                mine = (np.arange(surrogate.dense.size) // per_replicate) % CHAINS == chain
                pool, w = surrogate.theta[mine], surrogate.dense[mine]
            else:
                mine = hyper.replicate % CHAINS == chain
                pool, w = hyper.theta[mine], hyper.weights[mine]
            ticks = (np.arange(per_chain) + rng.random()) / per_chain
            at = np.searchsorted(np.cumsum(w) / w.sum(), ticks)
            out.append(pool[rng.permutation(np.minimum(at, w.size - 1))])
        return np.concatenate(out)

    def hyper(self) -> dict[str, Floats]:
        """Every hyperparameter by label, (n,) each."""
        return self.inference.coordinates.natural(self.theta)

    def _plan(self) -> tuple[Floats, Ints]:
        """Distinct nodes, and the node of every draw."""
        inference, theta = self.inference, self.theta
        if inference.hyper.n_nodes == 1:
            return inference.hyper.theta, np.zeros(self.n, dtype=np.int64)
        if not inference.dear:
            nodes, node_of = np.unique(theta, axis=0, return_inverse=True)
            return nodes, node_of.ravel().astype(np.int64)
        nodes = inference.hyper.theta
        w = inference.hyper.weights
        scale = np.sqrt(w @ (nodes - w @ nodes) ** 2)  # of theta itself: `hyper.sd` is of the warped coordinates
        unit = np.where(scale > 0, scale, 1.0)
        node_of = np.empty(self.n, dtype=np.int64)
        for start in range(0, self.n, 512):
            gap = (theta[start : start + 512, None] - nodes[None]) / unit
            node_of[start : start + 512] = np.argmin(np.sum(gap**2, axis=2), axis=1)
        return nodes, node_of

    def _pieces(self, factors: tuple[str, ...]) -> Iterator[tuple[Ints, Floats, dict[str, Floats]]]:
        """Positions, beta (N, p) and u (N, J, q) of the draws, in pieces of bounded size."""
        sampled = self.inference.sampled
        if sampled is not None and sampled.beta is not None and sampled.u is not None:
            for at in np.array_split(np.arange(self.n), -(-self.n * self._size // int(BATCH_VALUES))):
                mine = self._kept[at]
                yield at, sampled.beta[mine], {name: sampled.u[name][mine] for name in factors}
            return
        for theta, counts, at, rng in self._batches():
            yield at, *self.inference.conditional.draw(theta, counts, rng, factors)

    @property
    def _size(self) -> int:
        """Values of one draw, about."""
        return sum(f.Z.shape[1] * len(f.levels) for f in self.inference.bound.design.factors) + 10

    def _batches(self) -> Iterator[tuple[Floats, Ints, Ints, np.random.Generator]]:
        """Nodes, counts, positions of the draws and a generator, in pieces of bounded size."""
        nodes, node_of = self._plan()
        order = np.argsort(node_of, kind="stable")
        most = max(1, int(BATCH_VALUES // (2 * self._size)))
        done, piece = 0, 0
        while done < self.n:
            mine = order[done : done + most]
            used, local = np.unique(node_of[mine], return_inverse=True)
            size = np.bincount(local.ravel(), minlength=used.size).astype(np.int64)
            yield nodes[used], size, mine, self._rng(1 + piece)
            done += mine.size
            piece += 1

    def small_factors(self) -> tuple[str, ...]:
        """Grouping factors whose draws are kept in memory."""
        return tuple(
            f.name for f in self.inference.bound.design.factors if len(f.levels) * len(f.coefficients) * self.n <= LARGE
        )

    def _fill(self) -> None:
        if "beta" in self._cache:
            return
        design = self.inference.bound.design
        kept = self.small_factors()
        sizes = {f.name: (len(f.levels), len(f.coefficients)) for f in design.factors}
        beta = np.empty((self.n, len(design.columns)))
        u = {name: np.empty((self.n, *sizes[name])) for name in kept}
        for at, b, values in self._pieces(kept):
            beta[at] = b
            for name in kept:
                u[name][at] = values[name]
        self._cache.update({f"u_{name}": value for name, value in u.items()})
        self._cache["beta"] = beta

    def beta(self) -> Floats:
        """(n, p)."""
        self._fill()
        return self._cache["beta"]

    def u(self, name: str) -> Floats:
        """Deviations (n, J, q) of a factor that is kept."""
        self._fill()
        return self._cache[f"u_{name}"]

    def one_u(self, name: str, level: int, coefficient: int) -> Floats:
        """Deviations (n,) of one level and coefficient, whatever the factor's size."""
        if name in self.small_factors():
            return self.u(name)[:, level, coefficient]
        key = f"u_{name}[{level},{coefficient}]"
        if key not in self._cache:
            out = np.empty(self.n)
            for at, _, values in self._pieces((name,)):
                out[at] = values[name][:, level, coefficient]
            self._cache[key] = out
        return self._cache[key]

    def log_likelihood(self) -> Floats:
        """Pointwise log density of each observation given each draw, (n draws, n rows)."""
        design = self.inference.bound.design
        sigma = self.inference.coordinates.sigma(self.theta)
        out = np.empty((self.n, design.y.size))
        for at, beta, values in self._pieces(tuple(f.name for f in design.factors)):
            # columns that an unpooled term makes unidentifiable have no coefficient of their own
            eta = design.offset + np.nan_to_num(beta) @ design.X.T
            for f in design.factors:
                for k in range(f.Z.shape[1]):
                    eta += np.nan_to_num(values[f.name][:, f.index, k]) * f.Z[:, k]
            s2 = sigma[at][:, None] ** 2
            if design.se is not None:
                variance = design.se**2 + (s2 if design.se_sigma else 0.0)
            elif design.weights is not None:
                variance = s2 / design.weights
            else:
                variance = s2
            out[at] = -0.5 * (np.log(2.0 * np.pi * variance) + (design.y - eta) ** 2 / variance)
        return out
