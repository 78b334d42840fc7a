"""`BlockSystem`: the whole linear algebra of a Gaussian mixed model behind a small contract."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from finetti.linalg import blas, nodes
from finetti.linalg.downward import descend, draw_leading, root_sums, row_moments, unwhiten_root
from finetti.linalg.kernels import assemble, eliminate, whiten_root
from finetti.linalg.layout import Grouping, Layout, analyse

__all__ = ["BlockSystem", "Conditioned", "Evaluated", "Points", "n_threads", "one_thread", "over_chunks"]

Floats = npt.NDArray[np.float64]

# Below this order the in-kernel loops beat a LAPACK call from Python (measured: equal at 60-90).
SMALL_ROOT = 72


_one: list[bool] = []  # not empty where a process is one of many on this machine


def n_threads() -> int:
    """Cores this process may use."""
    if _one:
        return 1
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one core inside a `with` block, as a worker among others does."""
    _one.append(True)
    try:
        yield
    finally:
        _one.pop()


_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):  # threads do not survive a fork, and a pool without them would wait for ever
    os.register_at_fork(after_in_child=_pools.clear)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: starting them would cost more than a small model's nodes."""
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="finetti")
    return _pools[threads]


def over_chunks(work: Callable[[slice], None], n: int, grain: int = 1) -> None:
    """Run `work` on slices of range(n) in threads, this one included. Results may not depend on the slicing."""
    threads = min(n_threads(), max(1, n // max(grain, 1)))
    if threads == 1:
        work(slice(0, n))
        return
    # more chunks than threads, so that an unlucky thread does not hold up the others
    edges = np.linspace(0, n, min(n, threads * 4) + 1).astype(int)
    todo = deque(slice(int(a), int(b)) for a, b in pairwise(edges))

    def pull() -> None:
        while todo:
            try:
                part = todo.popleft()
            except IndexError:  # another thread was quicker
                return
            work(part)

    helpers = [_pool(threads - 1).submit(pull) for _ in range(threads - 1)]
    try:
        pull()
    finally:
        todo.clear()  # after an error nobody starts another piece
        for helper in helpers:
            if not helper.cancel():  # one that never started has nothing left to do
                helper.result()


@dataclass(frozen=True)
class Points:
    """Hyperparameter nodes in the solver's terms.

    lam : (S, L) packed relative factors, q x q row-major per factor, in the order of the groupings
    sigma2 : (S,) residual variance multiplying 1/w (1 where the errors are known)
    row_s2 : (S,) variance added to known squared errors (ignored elsewhere)
    fixed : (S, F) given coefficients of the last F columns of X
    """

    lam: Floats
    sigma2: Floats
    row_s2: Floats
    fixed: Floats

    def __len__(self) -> int:
        return int(self.sigma2.size)

    def __getitem__(self, part: slice) -> Points:
        return Points(*(np.ascontiguousarray(a[part]) for a in (self.lam, self.sigma2, self.row_s2, self.fixed)))


@dataclass(frozen=True)
class Evaluated:
    """Scalars and sums of each node, all relative to sigma2 (see `nodes.evaluate_nodes`)."""

    logdet_groups: Floats  # (S,)
    logdet_x: Floats  # (S,)
    quadratic: Floats  # (S,)
    logdet_rows: Floats  # (S,) sum log R where it varies, else 0
    x_mean: Floats  # (S, p)
    x_chol: Floats  # (S, p, p) upper U with Cov = sigma2 (U'U)^-1
    cov_sum: Floats  # (S, L) sums over levels of Cov(v) / sigma2
    square_sum: Floats  # (S, L) sums over levels of v v'
    row_terms: Floats  # (S, 1 + F)


@dataclass(frozen=True)
class Conditioned:
    """Means and covariance blocks at each node; covariances still to be multiplied by sigma2.

    leading coefficients: u (S, C), cov (S, C q) packed blocks, ux (S, C, p); root (dense factors,
    then X): x (S, k), V (S, k, k); rows in the data's order: fit (S, n), lev (S, n).
    """

    u: Floats
    cov: Floats
    ux: Floats
    x: Floats
    V: Floats
    fit: Floats
    lev: Floats


@dataclass(frozen=True)
class BlockSystem:
    """Data, layout and cross-products, ready to be evaluated at many nodes.

    Build with `BlockSystem.build`. All arrays are in solver order of the rows.
    """

    layout: Layout
    Zl: Floats
    Zd: Floats
    X: Floats
    y: Floats
    weights: Floats
    se2: Floats  # (n,) or (0,)
    pen_lead: Floats
    pen_root: Floats
    prior: Floats
    panel0: Floats
    root0: Floats
    n_fixed: int
    # made anew by `dataclasses.replace`: work arrays of another size would be written past their end
    _local: threading.local = field(init=False, default_factory=threading.local, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:  # so that fits can be copied and sent to other processes
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())

    @classmethod
    def build(
        cls,
        groupings: Sequence[Grouping],
        X: Floats,
        y: Floats,
        *,
        weights: Floats | None = None,
        se2: Floats | None = None,
        penalty: Sequence[Floats] | None = None,
        prior: Floats | None = None,
        n_fixed: int = 0,
    ) -> BlockSystem:
        """Analyse, order and sum up.

        Parameters
        ----------
        groupings : sequence of Grouping
        X : (n, p + F)
            Integrated columns first, then the F whose coefficients are given at every node.
        y : (n,)
        weights : (n,), optional
            R = sigma2 / weights. Default 1.
        se2 : (n,), optional
            R = se2 + row_s2 with a row_s2 that varies by node; excludes `weights`.
        penalty : sequence of (J, q), optional
            1 per penalised coefficient (default), 0 for a free one.
        prior : (p + 1, p + 1), optional
            Upper triangle of [P, Pm; m'Pm] for the integrated coefficients. Default flat.
        """
        n = y.size
        layout = analyse(groupings, n, X.shape[1])
        order = layout.order

        def stack(which: Sequence[int]) -> Floats:
            parts = [groupings[i].Z[order] for i in which]
            return np.ascontiguousarray(np.concatenate(parts, axis=1) if parts else np.zeros((n, 0)))

        def stack_penalty(which: Sequence[int], extra: int) -> Floats:
            parts = [np.ones(groupings[i].n_levels * groupings[i].Z.shape[1]) for i in which]
            if penalty is not None:
                parts = [np.asarray(penalty[i], dtype=float).ravel() for i in which]
            return np.concatenate([*parts, np.zeros(extra)])

        Zl, Zd = stack(layout.leading), stack(layout.dense)
        Xs, ys = np.ascontiguousarray(X[order]), np.ascontiguousarray(y[order])
        ws = np.ones(n) if weights is None else np.ascontiguousarray(weights[order])
        p = X.shape[1] - n_fixed
        panel0 = np.zeros(int(layout.pattern.panel_ptr[-1]))
        root0 = np.zeros((layout.n_root, layout.n_root))
        if se2 is None:
            assemble(layout.pattern, ws, Zl, Zd, Xs, ys, panel0, root0)
        return cls(
            layout, Zl, Zd, Xs, ys, ws,
            np.zeros(0) if se2 is None else np.ascontiguousarray(se2[order]),
            stack_penalty(layout.leading, 0), stack_penalty(layout.dense, layout.n_x + 1),
            np.zeros((p + 1, p + 1)) if prior is None else np.ascontiguousarray(prior),
            panel0, root0, n_fixed,
        )  # fmt: skip

    @property
    def p(self) -> int:
        """Integrated columns of X."""
        return self.X.shape[1] - self.n_fixed

    @property
    def k(self) -> int:
        """Order of the root system without y."""
        return self.layout.n_root - 1 - self.n_fixed

    @property
    def n_dense(self) -> int:
        """Dense (crossed) coefficients, the first columns of the root."""
        return self.k - self.p

    @property
    def small(self) -> bool:
        """Whether whole evaluations run inside one kernel."""
        return self.k <= SMALL_ROOT

    @property
    def _varies(self) -> bool:
        """Whether a gradient needs a pass over the rows."""
        return self.se2.size > 0 or self.n_fixed > 0

    def _kernel(self, at: Points, mode: int, want_rows: bool, values, conditionals) -> None:  # type: ignore[no-untyped-def]
        """Call the driver kernel, with empty or scratch arrays for what a mode does not fill."""
        S, C, p, k = len(at), int(self.layout.pattern.coef_off[-1]), self.p, self.k
        n_lam, n_rows = self.layout.n_lambda, self.y.size if want_rows else 0
        if values is None:
            values = (
                np.zeros((S, 4)), np.zeros((0, p)), np.zeros((0, p, p)), np.zeros((S, n_lam)), np.zeros((S, n_lam)),
                np.zeros((0, 1)),
            )  # fmt: skip
        if conditionals is None:
            conditionals = (
                np.zeros((1, C)), np.zeros((1, 0)), np.zeros((1, 0, p)), np.zeros((1, k)), np.zeros((1, k, k)),
                np.zeros((1, n_rows)), np.zeros((1, n_rows)),
            )  # fmt: skip
        nodes.run_nodes(
            self.layout.pattern, at.lam, at.sigma2, at.row_s2, at.fixed,
            self.pen_lead, self.pen_root, self.prior, self.se2, self.weights,
            self.Zl, self.Zd, self.X, self.y, self.panel0, self.root0,
            mode, want_rows, *values, *conditionals,
        )  # fmt: skip

    def evaluate(self, points: Points, *, gradient: bool = False) -> Evaluated:
        """Evaluate all nodes, threads over nodes."""
        S, p, n_lam = len(points), self.p, self.layout.n_lambda
        value, x_mean, x_chol = np.zeros((S, 4)), np.zeros((S, p)), np.zeros((S, p, p))
        s1, s2, rows = np.zeros((S, n_lam)), np.zeros((S, n_lam)), np.zeros((S, 1 + self.n_fixed))

        def work(part: slice) -> None:
            at = points[part]
            out = (value[part], x_mean[part], x_chol[part], s1[part], s2[part], rows[part])
            if self.small:
                self._kernel(at, nodes.GRADIENT if gradient else nodes.VALUE, gradient and self._varies, out, None)
            else:
                for s in range(len(at)):
                    self._evaluate_large(at[s : s + 1], gradient, *(o[s] for o in out))

        self._run(work, S)
        return Evaluated(value[:, 0], value[:, 1], value[:, 2], value[:, 3], x_mean, x_chol, s1, s2, rows)

    def condition(self, points: Points, *, rows: bool = False) -> Conditioned:
        """Conditional means and covariance blocks at all nodes, threads over nodes."""
        S, k, p, n = len(points), self.k, self.p, self.y.size
        pat = self.layout.pattern
        C, n_cov = int(pat.coef_off[-1]), int(pat.cov_off[-1])
        n_rows = n if rows else 0
        out = (
            np.zeros((S, C)), np.zeros((S, n_cov)), np.zeros((S, C, p)), np.zeros((S, k)), np.zeros((S, k, k)),
            np.zeros((S, n_rows)), np.zeros((S, n_rows)),
        )  # fmt: skip

        def work(part: slice) -> None:
            at = points[part]
            mine = tuple(o[part] for o in out)
            if self.small:
                self._kernel(at, nodes.CONDITION, rows, None, mine)
            else:
                for s in range(len(at)):
                    self._condition_large(at[s : s + 1], rows, *(o[s] for o in mine))

        self._run(work, S)
        fit, lev = out[5], out[6]
        if rows:  # back to the data's order
            fit, lev = np.empty_like(fit), np.empty_like(lev)
            fit[:, self.layout.order], lev[:, self.layout.order] = out[5], out[6]
        return Conditioned(*out[:5], fit, lev)

    def draw(self, points: Points, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw coefficients, `counts[s]` of them at node s: leading (N, C) and root (N, k)."""
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        n, C = int(start[-1]), int(self.layout.pattern.coef_off[-1])
        z_lead, z_root = rng.standard_normal((n, C)), rng.standard_normal((n, self.k))
        u, x = np.zeros((n, C)), np.zeros((n, self.k))

        def work(part: slice) -> None:
            at, mine = points[part], start[part.start : part.stop + 1]
            if self.small:
                nodes.draw_nodes(
                    self.layout.pattern, at.lam, at.sigma2, at.row_s2, at.fixed,
                    self.pen_lead, self.pen_root, self.prior, self.se2,
                    self.Zl, self.Zd, self.X, self.y, self.panel0, self.root0,
                    mine, z_lead, z_root, u, x,
                )  # fmt: skip
            else:
                for s in range(len(at)):
                    one = slice(int(mine[s]), int(mine[s + 1]))
                    self._draw_large(at[s : s + 1], z_lead[one], z_root[one], u[one], x[one])

        self._run(work, len(points))
        return u, x

    def _run(self, work: Callable[[slice], None], n: int) -> None:
        if self.small or n == 1:
            over_chunks(work, n, grain=16 if self.small and self.y.size < 100_000 else 1)
        else:
            with blas.single_threaded():
                over_chunks(work, n)

    # --- roots for LAPACK -------------------------------------------------------------------

    def _factor(self, at: Points) -> tuple[float, float, Floats, Floats, bool]:
        """Panel and factored root of one node: (log|M| so far, sum log R, panel, factor, ok)."""
        local = self._local
        if not hasattr(local, "panel"):  # one set of work arrays per thread
            local.panel, local.root = np.zeros_like(self.panel0), np.zeros_like(self.root0)
            local.w = np.zeros(self.se2.size)
        pat = self.layout.pattern
        logdet_rows = nodes.prepare(pat, self.se2, at.row_s2[0], local.w, self.Zl, self.Zd, self.X, self.y,
            self.panel0, self.root0, local.panel, local.root,
        )  # fmt: skip
        logdet = eliminate(pat, at.lam[0], self.pen_lead, self.X.shape[1], local.panel, local.root)
        whiten_root(pat, at.lam[0], self.pen_root, self.prior, at.sigma2[0], at.fixed[0], local.root)
        factor, ok = blas.cholesky_root(local.root, self.k)
        return logdet, logdet_rows, local.panel, factor, ok and not np.isnan(logdet)

    def _evaluate_large(self, at, gradient, value, x_mean, x_chol, s1, s2, rows):  # type: ignore[no-untyped-def]
        logdet, value[3], panel, factor, ok = self._factor(at)
        if not ok:
            value[2] = np.nan
            return
        k, nd = self.k, self.n_dense
        diagonal = np.log(np.diagonal(factor))
        value[0] = logdet + 2.0 * diagonal[:nd].sum()
        value[1] = 2.0 * diagonal[nd:k].sum()
        value[2] = factor[k, k] ** 2
        U = np.triu(factor[nd:k, nd:k].T)
        x_chol[:] = U
        x_mean[:] = np.linalg.solve(U, factor[k, nd:k]) if self.p else 0.0
        if not gradient:
            return
        need_rows = self._varies
        n = self.y.size if need_rows else 0
        u, fit, lev = np.zeros(int(self.layout.pattern.coef_off[-1])), np.zeros(n), np.zeros(n)
        self._descend(at, panel, factor, False, need_rows, u, np.zeros(0), np.zeros((0, 0)), fit, lev, s1, s2)
        if need_rows:
            w = 1.0 / (self.se2 + at.row_s2[0]) if self.se2.size else self.weights
            e = self.y - fit - self.X[:, self.p :] @ at.fixed[0]
            rows[0] = np.sum(w - (lev * at.sigma2[0] + e * e) * w * w) if self.se2.size else 0.0
            rows[1:] = self.X[:, self.p :].T @ (w * e)

    def _descend(self, at, panel, factor, want_cov, want_rows, u, cov, ux, fit, lev, s1, s2):  # type: ignore[no-untyped-def]
        pat, k = self.layout.pattern, self.k
        x, V = solve_root_large(factor, k)
        root_sums(pat, x, V, self.pen_root, s1, s2)
        unwhiten_root(pat, at.lam[0], k, x, V)
        if pat.q.size:
            descend(pat, at.lam[0], self.pen_lead, at.fixed[0], self.p, x, V, panel, self.Zl, self.Zd, self.X,
                want_cov, want_rows, u, cov, ux, s1, s2, fit, lev,
            )  # fmt: skip
        elif want_rows:
            row_moments(pat, 0, 0, 0, 0, self.p, self.Zl, self.Zd, self.X, x, V, fit, lev)
        return x, V

    def _condition_large(self, at, want_rows, u, cov, ux, x, V, fit, lev):  # type: ignore[no-untyped-def]
        _, _, panel, factor, ok = self._factor(at)
        if not ok:
            for out in (u, cov, ux, x, V):
                out[:] = np.nan
            return
        scratch = np.zeros(self.layout.n_lambda)
        x[:], V[:] = self._descend(at, panel, factor, True, want_rows, u, cov, ux, fit, lev, scratch, scratch.copy())

    def _draw_large(self, at, z_lead, z_root, u, x):  # type: ignore[no-untyped-def]
        if not len(u):
            return
        _, _, panel, factor, ok = self._factor(at)
        if not ok:
            u[:], x[:] = np.nan, np.nan
            return
        sd, pat = np.sqrt(at.sigma2[0]), self.layout.pattern
        square = np.asfortranarray(factor[: self.k, : self.k])
        full = np.asfortranarray(np.vstack([square, factor[self.k, : self.k]]))
        for r in range(len(u)):
            x[r] = blas.solve_factor(full, self.k, z_root[r] * sd)
            unwhiten_root(pat, at.lam[0], self.k, x[r], np.zeros((0, 0)))
            draw_leading(pat, at.lam[0], at.fixed[0], self.p, x[r], panel, z_lead[r] * sd, u[r])


def solve_root_large(factor: Floats, k: int) -> tuple[Floats, Floats]:
    """Solution and inverse of a LAPACK-factored root."""
    return blas.solve_factor(factor, k), blas.invert_factor(factor, k)
