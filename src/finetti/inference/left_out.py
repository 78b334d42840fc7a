"""Leave one row or one group out, given the hyperparameters: exact, from one solution for all data.

    log p(y_I | y_-I, theta),   all coefficients integrated out, those that only I has included.

With Q the inverse of the marginal covariance of y (flat directions projected out), y_I | y_-I is normal with
precision Q_II and deviates from its mean by Q_II^-1 (Q y)_I. For single rows Q_ii follows from leverages; for levels
of a factor that is eliminated it is found among the level's own few columns, however many rows it has; for crossed
factors among its rows; and where none of these serves, the system is solved again without the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.errors import ModelError
from finetti.inference.basis import free_columns, prior_key, project_out, unidentified_columns
from finetti.inference.conditional import GaussianConditional
from finetti.inference.gaussian import GaussianInner
from finetti.inference.sampled import SampledConditional
from finetti.inference.target import SCATTER, GaussianTarget
from finetti.linalg import leave_out
from finetti.linalg.blas import single_threaded
from finetti.linalg.downward import unwhiten_root
from finetti.linalg.kernels import assemble
from finetti.linalg.leave_crossed import leave_crossed
from finetti.linalg.system import BlockSystem, Points, over_chunks, solve_root_large
from finetti.model.priors import Flat

__all__ = ["exact_conditional", "groups_left_out", "nominal_cost", "rows_given_others", "rows_left_out"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LOG_2PI = float(np.log(2.0 * np.pi))
# share of a row's precision that must come from elsewhere, to be told from rounding
LEAST_LEFT = 1e-11
# share of a row's own precision below which its score has lost its digits: sigma far below what the row's group varies
LEAST_SHARE = 1e-8
# a row whose leverage among columns without a prior is nearer to one than this determines a direction alone
ALONE = 1e-9
# multiplications per second along rows of a dense matrix; nominal, it only chooses between two ways
AMONG_ROWS = 4e9
# rows of a level up to which they are taken together as one dense matrix: 3 GB
MOST_ROWS = 20_000
# values of all blocks' cross-products that are kept: 400 MB
MOST_GRAM = 5e7


def exact_conditional(conditional: GaussianConditional | SampledConditional) -> GaussianConditional:
    """Return b | theta, y as exact normals, also where the nodes are draws."""
    return conditional.exact if isinstance(conditional, SampledConditional) else conditional


# --- rows ----------------------------------------------------------------------------------------


def rows_left_out(conditional: Any, theta: Floats) -> Floats:
    """Log density of every row given all other rows and theta.

    Parameters
    ----------
    conditional : GaussianConditional or SampledConditional
    theta : (S, d)
        In the coordinates of `conditional.inner.hyper`.

    Returns
    -------
    ndarray of shape (S, n)
        NaN where the other rows cannot say, because a flat coefficient has no other row.
    """
    exact = exact_conditional(conditional)
    out = np.empty((theta.shape[0], exact.inner.system.y.size))
    for part, deviation, precision, _ in rows_given_others(exact, theta):
        out[part] = 0.5 * (np.log(precision) - LOG_2PI - precision * deviation**2)
    return out


def rows_given_others(exact: GaussianConditional, theta: Floats) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
    """Nodes, and (nodes, n) each: a row's deviation from its mean given all others, its precision, and 1 - leverage."""
    inner, system = exact.inner, exact.inner.system
    points, alone = inner.points(theta), _open_rows(inner)
    for part in exact._batches(system, len(points), system.y.size):
        at = points[part]
        c = system.condition(at, rows=True)
        w = exact._precisions(at)
        e = inner.basis.y - c.fit - at.fixed @ exact._given.T
        share = 1.0 - w * c.lev * at.sigma2[:, None]
        share = np.where((share > LEAST_SHARE) & ~alone, share, np.nan)
        yield part, e / share, w * share, share


# --- groups ---------------------------------------------------------------------------------------


def groups_left_out(conditional: Any, name: str, theta: Floats, levels: Ints | None = None) -> Floats:
    """Log density of the rows of every level of a factor, jointly, given all other rows and theta.

    Parameters
    ----------
    conditional : GaussianConditional or SampledConditional
    name : str
        The grouping factor.
    theta : (S, d)
    levels : (L,), optional
        Only these levels.

    Returns
    -------
    ndarray of shape (S, L), L being all J levels by default
        -inf for a factor that is not pooled: nothing is said of a group that was not seen. NaN where the other rows
        cannot say.
    """
    inner = exact_conditional(conditional).inner
    f = [spec.name for spec in inner.hyper.factors].index(name)
    g = inner.groupings[f]
    wanted = np.arange(g.n_levels) if levels is None else np.asarray(levels, dtype=np.int64)
    if inner.hyper.factors[f].pooling == "none":
        return np.full((theta.shape[0], wanted.size), -np.inf)
    points = inner.points(theta)
    system = inner.system
    level = g.index[system.layout.order]  # rows in the solver's order
    with np.errstate(all="ignore"), single_threaded():
        if system.layout.coefficient_slice(f)[0]:
            out = _leading(inner, f, level, points)[:, wanted]
            if inner.n_free:  # coefficients that only the level's rows touch were eliminated, free ones too
                out[:, _open_levels(inner, f)[wanted]] = np.nan
            return out
        rows, ptr = _rows_of(level, wanted)
        among, again = _crossed_costs(system, ptr, GaussianTarget(inner).cost)
        first, second = (_among_rows, _solve_again) if among < again else (_solve_again, _among_rows)
        out = first(inner, points, rows, ptr)
        # what is left may be too little to be told from rounding in one way and not in the other
        unsure = np.isnan(out).any(axis=0)
        if unsure.any() and np.isfinite(among):
            some, at = _rows_of(level, wanted[unsure])
            shut = [not _leaves_open(inner, system.layout.order[some[a:b]]) for a, b in pairwise(at)]
            if any(shut):
                some, at = _rows_of(level, wanted[unsure][shut])
                out[:, np.flatnonzero(unsure)[shut]] = second(inner, points, some, at)
        return out


def _finish(points: Points, n: Ints, rows_logdet: Floats, logdet: Floats, quad: Floats) -> Floats:
    """-1/2 [n log 2 pi sigma^2 + logs of determinants + quadratic form / sigma^2]."""
    s2 = points.sigma2[:, None]
    return np.asarray(-0.5 * (n * (LOG_2PI + np.log(s2)) + rows_logdet + logdet + quad / s2), dtype=np.float64)


def _error_logdets(system: BlockSystem, points: Points, level: Ints, n_levels: int) -> Floats:
    """Sum of log R / sigma^2 over the rows of each level, (S or 1, J)."""
    if not system.se2.size:
        return np.asarray(-np.bincount(level, np.log(system.weights), minlength=n_levels)[None], dtype=np.float64)
    out = np.empty((len(points), n_levels))
    for s, extra in enumerate(points.row_s2):
        out[s] = np.bincount(level, np.log(system.se2 + extra), minlength=n_levels)
    return out


def _leading(inner: GaussianInner, f: int, level: Ints, points: Points) -> Floats:
    system = inner.system
    depth, J = system.layout.leading.index(f), inner.groupings[f].n_levels
    logdet, quad = np.full((len(points), J), np.nan), np.full((len(points), J), np.nan)
    pat = system.layout.pattern
    # formed once where the weights do not change from node to node and they fit in memory
    ptr, gram = np.zeros(0, dtype=np.int64), np.zeros(0)
    sizes = leave_out.gram_sizes(pat, system.X.shape[1])
    if not system.se2.size and sizes[-1] <= MOST_GRAM:
        ptr, gram = sizes, np.zeros(int(sizes[-1]))
        leave_out.grams(pat, ptr, system.weights, system.Zl, system.Zd, system.X, system.y, gram)

    def work(part: slice) -> None:
        at = points[part]
        if system.small:
            leave_out.leave_nodes(
                pat, depth, at.lam, at.sigma2, at.row_s2, at.fixed, system.pen_lead, system.pen_root, system.prior,
                system.se2, system.weights, system.Zl, system.Zd, system.X, system.y, system.panel0, system.root0,
                ptr, gram, logdet[part], quad[part],
            )  # fmt: skip
            return
        for s in range(len(at)):
            one, i = at[s : s + 1], part.start + s
            solved = _solved(system, one)
            if solved is not None:
                x, V, panel, w = solved
                leave_out.leave_levels(
                    pat, depth, one.lam[0], one.fixed[0], x, V, panel, ptr, gram, w, system.Zl, system.Zd, system.X,
                    system.y, logdet[i], quad[i],
                )  # fmt: skip

    system._run(work, len(points))
    n = np.bincount(level, minlength=J)
    return _finish(points, n, _error_logdets(system, points, level, J), logdet, quad)


def _solved(system: BlockSystem, at: Points) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Root solution and covariance, factored panel (a work array of this thread) and weights of one node."""
    _, _, panel, factor, ok = system._factor(at)
    if not ok:
        return None
    x, V = solve_root_large(factor, system.k)
    unwhiten_root(system.layout.pattern, at.lam[0], system.k, x, V)
    w = 1.0 / (system.se2 + at.row_s2[0]) if system.se2.size else system.weights
    return x, V, panel, w


def _rows_of(level: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Rows of the wanted levels, level after level, and where each begins."""
    order = np.argsort(level, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(level))])
    parts = [order[ptr[j] : ptr[j + 1]] for j in wanted]
    return np.concatenate(parts).astype(np.int64), np.concatenate([[0], np.cumsum([p.size for p in parts])])


def nominal_cost(conditional: Any, name: str | None) -> float:
    """Nominal seconds of one core to leave every level of a factor (or every row) out at one node."""
    inner = exact_conditional(conditional).inner
    system, node = inner.system, GaussianTarget(inner).cost
    if name is None:
        columns = system.Zl.shape[1] + system.Zd.shape[1] + system.X.shape[1]
        return 2.0 * node + system.y.size * 0.5 * columns**2 / SCATTER
    f = [spec.name for spec in inner.hyper.factors].index(name)
    g = inner.groupings[f]
    if system.layout.coefficient_slice(f)[0]:
        later = system.Zl.shape[1] + float(np.mean(np.diff(system.layout.pattern.dense_ptr))) + system.X.shape[1]
        return 2.0 * node + g.n_levels * (later**3 + 3.0 * later**2 + 50.0) / SCATTER
    _, ptr = _rows_of(g.index, np.arange(g.n_levels))
    return 2.0 * node + min(_crossed_costs(system, ptr, node))


def _crossed_costs(system: BlockSystem, ptr: Ints, node: float) -> tuple[float, float]:
    """Nominal seconds of the two ways: among the rows of the levels, and solving again without each."""
    pat = system.layout.pattern
    again = (ptr.size - 1) * node
    n = np.diff(ptr).astype(float)
    if pat.q.size != 1 or system.k == 0 or n.max() > MOST_ROWS:
        return np.inf, again
    listed = float(np.mean(np.diff(pat.dense_ptr))) + system.p
    rows = n.sum() * listed * system.k + np.sum(0.5 * n**2 * listed + n**3 / 6.0)
    return rows / AMONG_ROWS, again


def _among_rows(inner: GaussianInner, points: Points, rows: Ints, ptr: Ints) -> Floats:
    system = inner.system
    pat = system.layout.pattern
    block = np.repeat(np.arange(pat.row_ptr.size - 1), np.diff(pat.row_ptr))
    logdet, quad = np.full((len(points), ptr.size - 1), np.nan), np.full((len(points), ptr.size - 1), np.nan)

    def work(part: slice) -> None:
        for s in range(part.start, part.stop):
            at = points[s : s + 1]
            solved = _solved(system, at)
            if solved is not None:
                x, V, panel, w = solved
                leave_crossed(
                    pat, rows, ptr, block, at.lam[0], at.fixed[0], x, V, panel, w,
                    system.Zl, system.Zd, system.X, system.y, logdet[s], quad[s],
                )  # fmt: skip

    over_chunks(work, len(points))
    return _finish(points, np.diff(ptr), np.zeros((1, 1)), logdet, quad)


def _solve_again(inner: GaussianInner, points: Points, rows: Ints, ptr: Ints) -> Floats:
    """Once more without the rows of each level, weights of zero in their place."""
    system = inner.system
    full = system.evaluate(points)
    out = np.empty((len(points), ptr.size - 1))
    s2 = points.sigma2
    for j in range(ptr.size - 1):
        gone = rows[ptr[j] : ptr[j + 1]]
        if _leaves_open(inner, system.layout.order[gone]):
            out[:, j] = np.nan
            continue
        less, rows_logdet = _without(system, points, gone)
        ev = less.evaluate(points)
        logdet = full.logdet_groups - ev.logdet_groups + full.logdet_x - ev.logdet_x + rows_logdet
        out[:, j] = -0.5 * (gone.size * (LOG_2PI + np.log(s2)) + logdet + (full.quadratic - ev.quadratic) / s2)
    return out


def _leaves_open(inner: GaussianInner, gone: Ints) -> bool:
    """Whether an unpenalised coefficient is not determined without these rows; pivots would only show rounding."""
    design, flat = inner.bound.design, _flat_columns(inner)
    if not flat.shape[1] and not inner.n_free:
        return False
    keep = np.ones(design.y.size, dtype=bool)
    keep[gone] = False
    flat, terms = flat[keep], []
    for factor, g, free in zip(design.factors, inner.groupings, inner.free, strict=True):
        if free is not None:
            left = free_columns(g.index[keep], g.n_levels, factor.Z[keep])
            if np.any(left != free):
                return True
            terms.append((factor.name, g.index[keep], g.n_levels, factor.Z[keep], free))
    if _dependent(flat):
        return True
    try:
        return bool(unidentified_columns(flat, terms, tuple(map(str, range(flat.shape[1])))))
    except ModelError:  # two unpooled terms that overlap now
        return True


def _dependent(X: Floats) -> bool:
    """Whether the remaining rows of orthonormal columns have lost a direction."""
    return bool(X.shape[1]) and float(np.linalg.eigvalsh(X.T @ X)[0]) < LEAST_LEFT


def _flat_columns(inner: GaussianInner) -> Floats:
    """Orthonormal columns (n, k), rows in the data's order, of the population's directions that no prior holds."""
    basis, system, priors = inner.basis, inner.system, inner.bound.priors
    held = []
    for j, k in enumerate(basis.integrated):
        key = prior_key(basis.columns[k], priors)
        if not isinstance(priors[key], Flat):
            row = basis.T[0] if key == "beta[Intercept]" else basis.Rinv[j]
            held.append(row / np.linalg.norm(row))
    Q = basis.X[:, : system.p]
    if not held:
        return Q
    return np.asarray(Q @ np.linalg.svd(np.array(held))[2][len(held) :].T)


def _open_rows(inner: GaussianInner) -> Bools:
    """Rows (n,) that alone determine a direction without a prior, remembered: their shares would be rounding alone.

    Leverages among the columns without a prior do not depend on theta and lose no digits to those with one. Several
    unpooled terms are taken one by one.
    """
    kept = inner.__dict__.setdefault("_open", {})
    if None in kept:
        return np.asarray(kept[None])
    flat, own = _flat_columns(inner), np.zeros(inner.bound.design.y.size)
    for factor, g, free in zip(inner.bound.design.factors, inner.groupings, inner.free, strict=True):
        if free is not None:
            Z = factor.Z / np.maximum(np.sqrt(np.mean(factor.Z**2, axis=0)), 1e-300) * free[g.index]
            info = np.zeros((g.n_levels, Z.shape[1], Z.shape[1]))
            np.add.at(info, g.index, Z[:, :, None] * Z[:, None, :])
            info[:, np.arange(Z.shape[1]), np.arange(Z.shape[1])] += ~free
            own = np.maximum(own, np.einsum("na,na->n", Z, np.linalg.solve(info[g.index], Z[:, :, None])[:, :, 0]))
            flat = project_out(flat, g.index, g.n_levels, factor.Z, free)
    if flat.shape[1]:
        own = own + np.sum(np.linalg.qr(flat)[0] ** 2, axis=1)
    kept[None] = own > 1.0 - ALONE
    return np.asarray(kept[None])


def _open_levels(inner: GaussianInner, f: int) -> Bools:
    """Levels (J,) of a factor without which an unpenalised coefficient is not determined; remembered."""
    kept = inner.__dict__.setdefault("_open", {})
    if f not in kept:
        g = inner.groupings[f]
        kept[f] = np.array([_leaves_open(inner, np.flatnonzero(g.index == j)) for j in range(g.n_levels)])
    return np.asarray(kept[f])


def _without(system: BlockSystem, points: Points, gone: Ints) -> tuple[BlockSystem, Floats | float]:
    """The system without some rows (in its order), and the sum of log R / sigma^2 over them."""
    if system.se2.size:
        se2 = system.se2.copy()
        se2[gone] = np.inf
        return replace(system, se2=se2), np.log(system.se2[gone] + points.row_s2[:, None]).sum(axis=1)
    w = system.weights.copy()
    w[gone] = 0.0
    panel, root = np.zeros_like(system.panel0), np.zeros_like(system.root0)
    assemble(system.layout.pattern, w, system.Zl, system.Zd, system.X, system.y, panel, root)
    return replace(system, weights=w, panel0=panel, root0=root), -float(np.log(system.weights[gone]).sum())
