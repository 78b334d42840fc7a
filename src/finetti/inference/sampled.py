"""What NUTS found, in the shape of every other posterior: nodes are its draws, each with the same weight.

With the joint density the conditional at a node is a point mass at the coefficients drawn with it, so that tables show
moments and quantiles of the draws and owe nothing to the exact inner step. The columns `raw`, `raw_se` and `weight` of
a group table are functions of theta and data, not of draws; they come from the exact conditional.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetti.inference.conditional import GaussianConditional, GroupMoments, RowMoments
from finetti.inference.convergence import Convergence, chain_errors
from finetti.inference.gaussian import GaussianInner
from finetti.inference.hyper import UPPER_90, HyperPosterior, Settings
from finetti.inference.modes import Modes

if TYPE_CHECKING:
    from finetti.data.newdata import NewDesign

__all__ = ["Sampled", "SampledConditional", "chain_posterior"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# nodes at which functions of theta alone are averaged for a table
RAW_NODES = 128
# floats made at a time while rows are predicted
BATCH_FLOATS = 2e7


@dataclass(frozen=True)
class Sampled:
    """How the chains ran; kept draws are the nodes, chain after chain.

    beta (S, p), u by factor (S, J, q) : the coefficients drawn with theta; None where only theta was sampled
    thin : every how many-th draw was kept
    divergences, gradients : after warmup, all chains
    """

    chains: int
    warmup: int
    thin: int
    divergences: int
    gradients: int
    target_accept: float
    convergence: Convergence
    beta: Floats | None = None
    u: Mapping[str, Floats] | None = None

    @property
    def ok(self) -> bool:
        return self.divergences == 0 and self.convergence.ok


def chain_posterior(
    names: tuple[str, ...], theta: Floats, payload: tuple[Floats, ...], chains: int, settings: Settings,
    modes: Modes | None, evaluations: int,
) -> HyperPosterior:  # fmt: skip
    """Draws theta (S, d), chain after chain, as equally weighted nodes; errors from the chains' autocorrelation."""
    S, d = theta.shape
    errors = [chain_errors(theta[:, j].reshape(chains, -1)) for j in range(d)]
    mean, sd = theta.mean(axis=0), theta.std(axis=0)
    mean_e, sd_e = np.array([e.mean for e in errors]), np.array([e.sd for e in errors])
    quantile_e = np.array([e.quantiles for e in errors]).reshape(d, 3).T
    met = bool(
        np.all(UPPER_90 * mean_e <= settings.mean_error * sd)
        and np.all(UPPER_90 * quantile_e <= settings.quantile_error * sd)
    )
    return HyperPosterior(
        names, theta, np.full(S, -np.log(S)), np.repeat(np.arange(chains), S // chains), payload,
        mean, sd, mean_e, sd_e, quantile_e, np.nan, np.nan, -np.inf, 0.7, met, modes=modes, evaluations=evaluations,
    )  # fmt: skip


@dataclass(frozen=True)
class SampledConditional:
    """Point masses at the coefficients drawn with each node; the face of `GaussianConditional`."""

    exact: GaussianConditional
    theta: Floats
    beta: Floats
    u: Mapping[str, Floats]

    @property
    def inner(self) -> GaussianInner:
        return self.exact.inner

    @property
    def unidentified(self) -> tuple[str, ...]:
        return self.exact.unidentified

    @property
    def population_maps(self) -> tuple[Floats, ...]:
        return self.exact.population_maps

    def explored_beta(self, theta: Floats) -> Floats:
        return self.exact.explored_beta(theta)

    @cached_property
    def _place(self) -> dict[bytes, int]:
        return {row.tobytes(): i for i, row in enumerate(self.theta)}

    def positions(self, theta: Floats) -> Ints:
        """Which draws these nodes (N, d) are. Without hyperparameters all nodes are alike: draws at even distances."""
        if theta.shape[1] == 0:
            return np.linspace(0, len(self.theta) - 1, len(theta)).round().astype(np.int64)
        return np.array([self._place[row.tobytes()] for row in np.ascontiguousarray(theta)], dtype=np.int64)

    def _batches(self, n: int, size: int) -> Iterator[slice]:
        step = int(max(1, BATCH_FLOATS // max(size, 1)))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def groups(self, name: str, theta: Floats) -> Iterator[GroupMoments]:
        """Stream the coefficients of one factor at nodes theta (N, d)."""
        f = [spec.name for spec in self.inner.hyper.factors].index(name)
        at, u = self.positions(theta), self.u[name]
        J, q = u.shape[1:]
        few = theta[np.linspace(0, len(theta) - 1, min(RAW_NODES, len(theta))).round().astype(int)]
        batches = list(self.exact.groups(name, few))
        share = np.array([len(b.raw) for b in batches]) / len(few)
        raw, raw_se = (
            np.tensordot(share, np.stack([getattr(b, key).mean(axis=0) for b in batches]), axes=1)
            for key in ("raw", "raw_se")
        )
        weight = np.tensordot(share, np.stack([b.weight.mean(axis=0) for b in batches]), axes=1)
        maps = self.population_maps[f]
        unpooled = self.inner.free[f] is not None
        for part in self._batches(len(at), J * q):
            n = part.stop - part.start
            deviation = u[at[part]]
            population = np.nan_to_num(self.beta[at[part]]) @ maps.T
            mean = population[:, None] + deviation
            if unpooled:
                population = np.full_like(population, np.nan)
            yield GroupMoments(
                part, mean, np.broadcast_to(np.zeros(1), (n, J, q, q)), deviation, population,
                np.broadcast_to(raw, (n, J, q)), np.broadcast_to(raw_se, (n, J, q)),
                np.broadcast_to(weight, (n, J, q, q)),
            )  # fmt: skip

    def rows(self, theta: Floats) -> Iterator[RowMoments]:
        """Stream the linear predictor (offset included) of the data's own rows."""
        design, at = self.inner.bound.design, self.positions(theta)
        points = self.inner.points(theta)
        for part in self._batches(len(at), design.y.size):
            mean = design.offset + np.nan_to_num(self.beta[at[part]]) @ design.X.T
            for f in design.factors:
                mean = mean + _part(self.u[f.name][at[part]], f.Z, f.index)
            noise = self.inner.noise
            errors = 1.0 / self.exact._precisions(points[part]) if noise is None else noise.marginal[None] ** 2
            yield RowMoments(part, mean, np.zeros_like(mean), errors)

    def new_rows(self, theta: Floats, new: NewDesign, kinds: dict[str, str]) -> Iterator[RowMoments]:
        """Stream the linear predictor of new rows; a new level adds the parent's variance at the node."""
        at, points, m = self.positions(theta), self.inner.points(theta), new.X.shape[0]
        for part in self._batches(len(at), m):
            mean = new.offset + np.nan_to_num(self.beta[at[part]]) @ new.X.T
            variance = np.zeros_like(mean)
            for f, (name, Z, index) in enumerate(new.factors):
                if kinds[name] == "known":
                    mean = mean + _part(self.u[name][at[part]], Z, index)
                elif kinds[name] == "new":
                    L = self.inner.hyper.covariance_factor(f, theta[part])
                    variance = variance + np.sum(np.einsum("nq,sqk->snk", Z, L) ** 2, axis=2)
            yield RowMoments(part, mean, variance, self.exact._new_noise(points[part], new, m))

    def draw(
        self, theta: Floats, counts: Ints, rng: np.random.Generator, factors: tuple[str, ...]
    ) -> tuple[Floats, dict[str, Floats]]:
        """The draws themselves: beta (N, p) and u (N, J, q) of the wanted factors, counts[s] times node s."""
        at = np.repeat(self.positions(theta), counts)
        return self.beta[at], {name: self.u[name][at] for name in factors}


def _part(u: Floats, Z: Floats, index: Ints) -> Floats:
    """Z u of every row, (S, n), of u (S, J, q)."""
    return np.sum(np.nan_to_num(u)[:, index] * Z, axis=2)
