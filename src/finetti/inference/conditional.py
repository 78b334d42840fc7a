"""b | theta, y in the user's terms: groups, rows and draws at hyperparameter nodes.

This is the face of the exact Gaussian inner step that `posterior` reads. Everything comes in
batches of nodes, so that memory stays bounded however many levels there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.inference.basis import free_columns
from finetti.inference.gaussian import GaussianInner
from finetti.linalg.layout import Grouping
from finetti.linalg.system import BlockSystem, Conditioned, Points

if TYPE_CHECKING:
    from finetti.data.newdata import NewDesign

__all__ = ["GaussianConditional", "GroupMoments", "RowMoments"]

Floats = npt.NDArray[np.float64]

# floats held at a time while nodes are streamed: 400 MB
BATCH_FLOATS = 5e7


@dataclass(frozen=True)
class GroupMoments:
    """One factor at a batch of nodes; J levels, q coefficients, NaN where not identified.

    mean, cov : (S, J, q), (S, J, q, q) of the whole coefficient: population value plus deviation
    deviation : (S, J, q) mean of u
    population : (S, q)
    raw, raw_se : (S, J, q) least squares given the conditional means of everything else
    weight : (S, J, q, q) W = (Z'R^-1 Z + Sigma^-1)^-1 Z'R^-1 Z
    """

    nodes: slice
    mean: Floats
    cov: Floats
    deviation: Floats
    population: Floats
    raw: Floats
    raw_se: Floats
    weight: Floats


@dataclass(frozen=True)
class RowMoments:
    """The linear predictor of m rows at a batch of nodes: mean and variance (S, m), noise variance (S or 1, m)."""

    nodes: slice
    mean: Floats
    variance: Floats
    noise: Floats


@dataclass(frozen=True)
class GaussianConditional:
    """Conditional distributions of a Gaussian model's coefficients."""

    inner: GaussianInner

    # --- batching --------------------------------------------------------------------------

    def _batches(self, system: BlockSystem, n: int, rows: int) -> Iterator[slice]:
        pat = system.layout.pattern
        C = int(pat.coef_off[-1])
        q = max((g.Z.shape[1] for g in self.inner.groupings), default=1)
        size = C * (system.p + 8 * q + 2) + int(pat.cov_off[-1]) + 2 * system.k**2 + 6 * rows + 1
        step = int(max(1, BATCH_FLOATS // size))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    # --- population ------------------------------------------------------------------------

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Population columns that an unpooled term makes unidentifiable."""
        basis = self.inner.basis
        return tuple(basis.columns[k] for k in basis.absent)

    def explored_beta(self, theta: Floats) -> Floats:
        """Coefficients (S, p) that are functions of theta alone; the others stand at an arbitrary value."""
        inner = self.inner
        given = inner.hyper.given_values(theta) - inner.basis.given_shift
        return inner.basis.beta_mean(np.zeros((theta.shape[0], inner.system.p)), given)

    # --- groups ----------------------------------------------------------------------------

    def _factor(self, name: str) -> int:
        return [f.name for f in self.inner.hyper.factors].index(name)

    @cached_property
    def population_maps(self) -> tuple[Floats, ...]:
        """(q, p_all) per factor: the population value of each coefficient is this times beta.

        A column of X counts if it is a combination of the columns of Z, the same in all groups.
        """
        design, out = self.inner.bound.design, []
        for f in design.factors:
            coef, *_ = np.linalg.lstsq(f.Z, design.X, rcond=None)
            gap = design.X - f.Z @ coef
            size = np.sqrt(np.sum(design.X**2, axis=0))
            inside = np.sqrt(np.sum(gap**2, axis=0)) <= 1e-8 * np.maximum(size, 1e-300)
            out.append(np.where(inside, np.where(np.abs(coef) < 1e-10, 0.0, coef), 0.0))
        return tuple(out)

    def groups(self, name: str, theta: Floats) -> Iterator[GroupMoments]:
        """Stream the moments of one factor over the nodes theta (S, d)."""
        yield from (found[name] for found in self.groups_of((name,), theta))

    def groups_of(self, names: Sequence[str], theta: Floats) -> Iterator[dict[str, GroupMoments]]:
        """Stream the moments of several factors, from one solution at each node."""
        inner, system = self.inner, self.inner.system
        points = inner.points(theta)
        by_row = inner.noise is not None or system.se2.size > 0  # else cross-products serve, formed once
        for part in self._batches(system, len(points), system.y.size if by_row else 0):
            at = points[part]
            c = system.condition(at, rows=by_row)
            yield {name: self._group_moments(self._factor(name), part, theta[part], at, c) for name in names}

    def _raw_blocks(self, f: int, c: Conditioned, at: Points) -> tuple[Floats, Floats, Floats]:
        """Means (S, J, q), covariances (S, J, q, q), covariances with gamma (S, J, q, p), solver coordinates."""
        system, g = self.inner.system, self.inner.groupings[f]
        S, J, q, p = len(at), g.n_levels, g.Z.shape[1], system.p
        s2 = at.sigma2
        leading, where = system.layout.coefficient_slice(f)
        if leading:
            d = system.layout.leading.index(f)
            off = system.layout.pattern.cov_off
            cov = c.cov[:, int(off[d]) : int(off[d + 1])].reshape(S, J, q, q)
            u, ux = c.u[:, where].reshape(S, J, q), c.ux[:, where].reshape(S, J, q, p)
        else:
            u = c.x[:, where].reshape(S, J, q)
            block = c.V[:, where, where].reshape(S, J, q, J, q)
            cov = np.moveaxis(block[:, np.arange(J), :, np.arange(J), :], 0, 1)
            ux = c.V[:, where, system.n_dense :].reshape(S, J, q, p)
        return u, cov * s2[:, None, None, None], ux * s2[:, None, None, None]

    def _group_moments(self, f: int, part: slice, theta: Floats, at: Points, c: Conditioned) -> GroupMoments:
        inner, system, basis = self.inner, self.inner.system, self.inner.basis
        spec, T, g = inner.hyper.factors[f], inner.transforms[f], inner.groupings[f]
        Ti = np.asarray(np.linalg.inv(T), dtype=np.float64)
        A = self.population_maps[f]
        u, cov, ux = self._raw_blocks(f, c, at)
        u_raw = u @ Ti.T + inner.shifts[f]
        cov = Ti @ cov @ Ti.T
        x_mean = c.x[:, system.n_dense :]
        Vx = c.V[:, system.n_dense :, system.n_dense :] * at.sigma2[:, None, None]
        absent = list(basis.absent)
        beta = basis.beta_mean(x_mean, at.fixed)
        if absent:
            beta[:, absent] = 0.0
        population = beta @ A.T
        AT = A @ basis.T
        cross = Ti @ ux @ AT.T  # Cov(u, population)
        cov = cov + cross + np.swapaxes(cross, 2, 3) + (AT @ Vx @ AT.T)[:, None]
        # what the rows of a level say by themselves, given everything else
        if inner.noise is None and not system.se2.size:
            b, info = self._crossed[f].own(c, system, at)
        else:
            b, info = self._own_by_row(g, at, c)
            b = b + np.einsum("sjab,sjb->sja", info, u)
        free = free_columns(g.index, g.n_levels, g.Z)
        whole = np.asarray(free.all(axis=1))
        dev, se = _least_squares(info, b, whole, Ti)
        L = inner.relative_factors(theta, np.ones(len(at)))
        lo = sum(s.q**2 for s in inner.hyper.factors[:f])
        Lf = L[:, lo : lo + spec.q**2].reshape(-1, spec.q, spec.q)
        if spec.pooling == "none":
            weight = np.broadcast_to(np.eye(spec.q), info.shape).copy()
        else:
            weight = Ti @ _shrinkage(info, Lf) @ T
        mean = population[:, None] + u_raw
        mask = inner.free[f]
        if mask is not None:
            mean = np.where(mask, mean, np.nan)
            population = np.full_like(population, np.nan)
            raw = np.where(whole[:, None], mean, np.nan)
            return GroupMoments(part, mean, cov, u_raw, population, raw, se, weight)
        return GroupMoments(part, mean, cov, u_raw, population, population[:, None] + dev, se, weight)

    def _own_by_row(self, g: Grouping, at: Points, c: Conditioned) -> tuple[Floats, Floats]:
        """Z'R^-1 e (S, J, q), e the residuals of everything, and Z'R^-1 Z, where R changes from node to node."""
        inner, basis = self.inner, self.inner.basis
        weights = self._precisions(at)
        residual = basis.y - c.fit - at.fixed @ self._given.T
        sums = _LevelSums(g)
        if inner.noise is None:
            return sums.vector(weights * residual), sums.matrix(weights)
        # correlated errors are noise, not part of "everything else": V among the level's own rows
        own = inner.noise.own_precision(g.index)
        residual = residual + inner.noise.part(self._hidden(c))
        b = sums.vector(np.asarray((own @ residual.T).T))
        rows = [np.asarray((own @ g.Z[:, k])[None]) for k in range(g.Z.shape[1])]
        info = np.stack([sums.vector(row) for row in rows], axis=3)
        return b, np.broadcast_to(info, (len(at), *info.shape[1:]))

    @cached_property
    def _crossed(self) -> _Lazy:
        """Cross-products of each factor with everything, formed when asked for."""
        return _Lazy(lambda f: _CrossProducts.build(self, f))

    def _hidden(self, c: Conditioned) -> Floats:
        """Coefficients (S, levels, q) of the known correlated errors."""
        inner, system = self.inner, self.inner.system
        assert inner.noise is not None
        leading, where = system.layout.coefficient_slice(len(inner.groupings))
        g = inner.noise.grouping
        return (c.u if leading else c.x)[:, where].reshape(-1, g.n_levels, g.Z.shape[1])

    def _precisions(self, at: Points) -> Floats:
        """1 / R per node and row, in the data's order, (S or 1, n)."""
        if self.inner.system.se2.size:
            return 1.0 / (self._se2[None] + at.row_s2[:, None])
        return self._weights[None] / at.sigma2[:, None]

    @cached_property
    def _back(self) -> npt.NDArray[np.int64]:
        """From solver order back to the data's."""
        return np.argsort(self.inner.system.layout.order)

    @cached_property
    def _given(self) -> Floats:
        """Columns (n, F) of the coefficients that are given at every node, in the data's order."""
        return self.inner.system.X[:, self.inner.system.p :][self._back]

    @cached_property
    def _weights(self) -> Floats:
        return self.inner.system.weights[self._back]

    @cached_property
    def _se2(self) -> Floats:
        return self.inner.system.se2[self._back]

    # --- rows ------------------------------------------------------------------------------

    def rows(self, theta: Floats) -> Iterator[RowMoments]:
        """Stream the linear predictor (offset included) of the data's own rows."""
        inner, system, design = self.inner, self.inner.system, self.inner.bound.design
        if inner.noise is not None:  # as new rows of the same groups, since the fit of these holds their errors
            yield from self.new_rows(theta, design.own_rows({}), {f.name: "known" for f in design.factors})
            return
        base = design.y - inner.basis.y  # offset and least-squares fit
        points = inner.points(theta)
        for part in self._batches(system, len(points), system.y.size):
            at = points[part]
            c = system.condition(at, rows=True)
            noise = 1.0 / self._precisions(at)
            yield RowMoments(part, base + c.fit + at.fixed @ self._given.T, c.lev * at.sigma2[:, None], noise)

    def new_rows(self, theta: Floats, new: NewDesign, kinds: dict[str, str]) -> Iterator[RowMoments]:
        """Stream the linear predictor of new rows.

        Known levels keep their posterior, jointly with everything else: the new rows join the
        elimination with weight zero, so that the covariances they need are among those computed.
        `kinds` maps factors to "known", "new" (variance of the parent added) or "population".
        """
        inner, system = self.inner, self.inner.system
        X, base = inner.basis.rows(new.X)
        n, m = system.y.size, X.shape[0]
        groupings, extra = [], []
        for f, (g, T, (name, Z, index)) in enumerate(zip(inner.groupings, inner.transforms, new.factors, strict=True)):
            known = kinds[name] == "known"
            Zn = np.linalg.solve(T.T, Z.T).T if known else np.zeros((m, g.Z.shape[1]))
            mask = inner.free[f]
            if known and mask is not None:
                Zn = Zn * mask[index]
            groupings.append(
                Grouping(
                    np.concatenate([g.index, index if known else np.zeros(m, dtype=np.int64)]),
                    g.n_levels,
                    np.ascontiguousarray(np.concatenate([g.Z, Zn])),
                )
            )
            if kinds[name] == "new":
                extra.append((f, Z))
        if inner.noise is not None:
            groupings.append(inner.noise.beside(groupings, m))
        varying = system.se2.size > 0
        joint = BlockSystem.build(
            groupings,
            np.concatenate([system.X[self._back], X]),
            np.concatenate([inner.basis.y, np.zeros(m)]),
            weights=None if varying else np.concatenate([self._weights, np.zeros(m)]),
            se2=np.concatenate([self._se2, np.full(m, np.inf)]) if varying else None,
            penalty=self._penalties(),
            prior=system.prior,
            n_fixed=system.n_fixed,
        )
        points = inner.points(theta)
        for part in self._batches(joint, len(points), n + m):
            at = points[part]
            c = joint.condition(at, rows=True)
            variance = c.lev[:, n:] * at.sigma2[:, None]
            for f, Z in extra:
                ZL = np.einsum("nq,sqk->snk", Z, inner.hyper.covariance_factor(f, theta[part]))
                variance = variance + np.sum(ZL**2, axis=2)
            mean = new.offset + inner.level + base + c.fit[:, n:] + at.fixed @ X[:, system.p :].T
            yield RowMoments(part, mean, variance, self._new_noise(at, new, m))

    def _penalties(self) -> list[Floats]:
        return [
            np.ones((g.n_levels, g.Z.shape[1])) if free is None else np.where(free, 0.0, 1.0)
            for g, free in zip(self.inner.groupings, self.inner.free, strict=True)
        ] + ([np.ones((noise.grouping.n_levels, noise.q))] if (noise := self.inner.noise) is not None else [])

    def _new_noise(self, at: Points, new: NewDesign, m: int) -> Floats:
        design = self.inner.bound.design
        if design.se is not None:
            se2 = new.se**2 if new.se is not None else np.full(m, np.nan)
            return se2[None] + (at.row_s2[:, None] if design.se_sigma else 0.0)
        weights = new.weights if new.weights is not None else np.ones(m)
        return at.sigma2[:, None] / weights[None]

    # --- draws -----------------------------------------------------------------------------

    def draw(
        self, theta: Floats, counts: npt.NDArray[np.int64], rng: np.random.Generator, factors: tuple[str, ...]
    ) -> tuple[Floats, dict[str, Floats]]:
        """Joint draws: beta (N, p_all) and u (N, J, q) of the wanted factors, counts[s] at node s."""
        inner, system = self.inner, self.inner.system
        points = inner.points(theta)
        u, x = system.draw(points, counts, rng)
        node = np.repeat(np.arange(counts.size), counts)
        beta = inner.basis.beta_mean(x[:, system.n_dense :], points.fixed[node])
        out = {}
        for name in factors:
            f = self._factor(name)
            g = inner.groupings[f]
            leading, where = system.layout.coefficient_slice(f)
            values = (u if leading else x)[:, where].reshape(-1, g.n_levels, g.Z.shape[1])
            values = values @ np.linalg.inv(inner.transforms[f]).T + inner.shifts[f]
            mask = inner.free[f]
            if mask is not None:
                values = np.where(mask, values, np.nan)
            out[name] = values
        return beta, out


class _Lazy(dict[int, "_CrossProducts"]):
    """A dictionary that makes what it is asked for."""

    def __init__(self, make: Callable[[int], _CrossProducts]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: int) -> _CrossProducts:
        self[key] = self._make(key)
        return self[key]


@dataclass(frozen=True)
class _CrossProducts:
    """Z'W of one factor with itself and with everything else, W the weights without sigma^2.

    own_info : (J, q, q); y : (J q,); columns : (J q, p + F) of X
    others : for every other factor whether it leads, its slice of the solution, and the (J q, J' q') sparse matrix
    """

    own_info: Floats
    y: Floats
    columns: Floats
    others: tuple[tuple[bool, slice, Any], ...]

    @classmethod
    def build(cls, conditional: GaussianConditional, f: int) -> _CrossProducts:
        inner = conditional.inner
        system, g = inner.system, inner.groupings[f]
        J, q = g.n_levels, g.Z.shape[1]
        w = conditional._weights
        Zt = (_sparse(g).multiply(w[:, None])).T.tocsr()
        others = []
        for other, h in enumerate(inner.groupings):
            if other != f:
                others.append((*system.layout.coefficient_slice(other), (Zt @ _sparse(h)).tocsr()))
        X = system.X[conditional._back]
        info = _LevelSums(g).matrix(w[None])[0]
        return cls(info, np.asarray(Zt @ inner.basis.y), np.asarray(Zt @ X).reshape(J * q, -1), tuple(others))

    def own(self, c: Conditioned, system: BlockSystem, at: Points) -> tuple[Floats, Floats]:
        """Z'R^-1 (y - everything else) (S, J, q), and Z'R^-1 Z (S, J, q, q)."""
        b = self.y - c.x[:, system.n_dense :] @ self.columns[:, : system.p].T - at.fixed @ self.columns[:, system.p :].T
        for leading, where, cross in self.others:
            b -= np.asarray(cross @ (c.u if leading else c.x)[:, where].T).T
        J, q = self.own_info.shape[:2]
        scale = 1.0 / at.sigma2
        return b.reshape(-1, J, q) * scale[:, None, None], self.own_info * scale[:, None, None, None]


def _sparse(g: Grouping) -> Any:
    """Z as a sparse matrix (n, J q)."""
    from scipy.sparse import csr_array

    n, q = g.Z.shape
    columns = g.index[:, None] * q + np.arange(q)
    return csr_array((g.Z.ravel(), columns.ravel(), np.arange(0, n * q + 1, q)), shape=(n, g.n_levels * q))


class _LevelSums:
    """Sums of Z w and Z w Z' over the rows of each level, for many nodes at once."""

    def __init__(self, g: Grouping) -> None:
        from scipy.sparse import csr_matrix

        n = g.index.size
        self.g = g
        self._sum = csr_matrix((np.ones(n), (g.index, np.arange(n))), shape=(g.n_levels, n))

    def _add(self, values: Floats) -> Floats:
        """(S, n) -> (S, J)."""
        return np.asarray(self._sum @ values.T).T

    def vector(self, values: Floats) -> Floats:
        """(S, n) -> (S, J, q)."""
        q = self.g.Z.shape[1]
        return np.stack([self._add(values * self.g.Z[:, k]) for k in range(q)], axis=2)

    def matrix(self, weights: Floats) -> Floats:
        """(S, n) -> (S, J, q, q); weights that differ by a factor only are summed once."""
        Z, q = self.g.Z, self.g.Z.shape[1]
        factor = weights[:, :1] / weights[:1, :1]
        one = bool(np.allclose(weights, weights[:1] * factor, rtol=1e-13, atol=0.0))
        base = weights[:1] if one else weights
        out = np.empty((base.shape[0], self.g.n_levels, q, q))
        for a in range(q):
            for b in range(a, q):
                out[:, :, a, b] = out[:, :, b, a] = self._add(base * (Z[:, a] * Z[:, b]))
        return out * factor[:, :, None, None] if one else out


def _least_squares(info: Floats, b: Floats, whole: npt.NDArray[np.bool_], Ti: Floats) -> tuple[Floats, Floats]:
    """Coefficients and standard errors in the user's coordinates, NaN where singular."""
    q = info.shape[-1]
    safe = np.where(whole[:, None, None], info, np.eye(q))
    if q == 1:
        inverse = 1.0 / safe
    else:
        inverse = np.linalg.inv(safe)
    dev = np.einsum("sjab,sjb->sja", inverse, b) @ Ti.T
    se = np.sqrt(np.maximum(np.einsum("ka,sjab,kb->sjk", Ti, inverse, Ti), 0.0))
    return np.where(whole[:, None], dev, np.nan), np.where(whole[:, None], se, np.nan)


def _shrinkage(info: Floats, L: Floats) -> Floats:
    """W = L (L' A L + I)^-1 L' A: the weight matrix, right at standard deviations of zero."""
    q = info.shape[-1]
    Lb = L[:, None]
    inner = np.swapaxes(Lb, 2, 3) @ info @ Lb + np.eye(q)
    right = np.swapaxes(Lb, 2, 3) @ info
    if q == 1:
        return Lb * right / inner
    return Lb @ np.linalg.solve(inner, right)
