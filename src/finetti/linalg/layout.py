"""Symbolic analysis: which blocks are eliminated in which order, and where their fill goes.

The normal equations of a mixed model couple every group level with the levels that share a
row with it, with the population columns X and with the response y. Levels are eliminated
factor by factor. The first factor (most levels) has a block-diagonal matrix, q x q per level.
A later factor stays block-diagonal if every factor eliminated before it is nested in it, so
the *leading* factors form a nested chain (class within school within county). What remains,
the crossed factors, X and y, fills in and is kept as one dense *root* matrix. This is the
ordering of lme4 and MixedModels.jl (Bates et al. 2015, J. Stat. Softw. 67, section 3), with
the chain's sparsity known by construction, so that no general sparse factorisation is needed.

A leading level j owns a *panel*: q rows over the columns

    [ own q | ancestors in the chain | dense columns that share rows with j | X (p) | y ]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError

__all__ = ["MAX_ROOT", "Grouping", "Layout", "Pattern", "analyse"]

# A dense root of this order takes 1.8 GB per thread and half a minute per evaluation: beyond
# it, block elimination is the wrong tool and says so instead of running out of memory.
MAX_ROOT = 15_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grouping:
    """One grouping factor as the solver sees it: level of each row (n,), columns Z (n, q)."""

    index: Ints
    n_levels: int
    Z: Floats


class Pattern(NamedTuple):
    """Index arrays of the elimination, in the form the numba kernels take.

    Leading levels ("blocks") are numbered through, deepest factor of the chain first.
    """

    q: Ints  # (D,) coefficients per level of each leading factor
    q_above: Ints  # (D,) coefficients of all ancestors in the chain together
    z_off: Ints  # (D,) first column of each leading factor in `Zl`
    lam_off: Ints  # (D,) first entry of its q x q factor in the packed lambda vector
    first: Ints  # (D + 1,) first block of each leading factor
    coef_off: Ints  # (D + 1,) first coefficient of each leading factor in the stacked vector
    cov_off: Ints  # (D + 1,) first entry of its stacked q x q blocks
    parent: Ints  # (B,) block of the next factor in the chain, -1 at its end
    panel_ptr: Ints  # (B + 1,) start of each panel
    dense_ptr: Ints  # (B + 1,) start of each block's list of dense columns
    dense_idx: Ints  # root column of each listed dense column, ascending within a block
    dense_rel: Ints  # its position in the parent's list (0 where there is no parent)
    dq: Ints  # (F,) coefficients per level of each dense (crossed) factor
    dz_off: Ints  # (F,) first column of each dense factor in `Zd`
    dlam_off: Ints  # (F,) first entry of its q x q factor in the packed lambda vector
    droot: Ints  # (F + 1,) first root column of each dense factor
    row_ptr: Ints  # (B0 + 1,) rows of each block of the first factor, rows being sorted by it
    row_dense: Ints  # (n, F) position of the row's dense columns in its block's list
    row_root: Ints  # (n, F) root column of the row's dense columns


@dataclass(frozen=True)
class Layout:
    """The pattern with what is needed to move between the user's order and the solver's."""

    pattern: Pattern
    order: Ints  # (n,) rows in solver order
    leading: tuple[int, ...]  # positions of the leading factors in the given list, deepest first
    dense: tuple[int, ...]  # positions of the crossed factors
    n_x: int  # columns of X
    n_root: int  # dense columns + columns of X + 1
    n_lambda: int  # entries of the packed lambda vector

    def coefficient_slice(self, factor: int) -> tuple[bool, slice]:
        """Where a factor's coefficients stand: (is leading, slice of the leading or root vector)."""
        pat = self.pattern
        if factor in self.leading:
            d = self.leading.index(factor)
            return True, slice(int(pat.coef_off[d]), int(pat.coef_off[d + 1]))
        f = self.dense.index(factor)
        return False, slice(int(pat.droot[f]), int(pat.droot[f + 1]))


def _nested(inner: Grouping, outer: Grouping) -> Ints | None:
    """Return the outer level of each inner level if inner is nested in outer, else None."""
    owner = np.zeros(inner.n_levels, dtype=np.int64)
    owner[inner.index] = outer.index
    return owner if np.array_equal(owner[inner.index], outer.index) else None


def _unique_pairs(block: Ints, n_blocks: int, column: Ints, n_columns: int) -> Ints:
    """Sorted unique codes block * n_columns + column, in O(n) for the sizes that matter."""
    from scipy.sparse import csr_matrix

    seen = csr_matrix(
        (np.ones(block.size, dtype=np.int8), (block, column)), shape=(n_blocks, n_columns)
    )  # duplicates are summed and may wrap around; only the pattern is used
    seen.sum_duplicates()
    rows = np.repeat(np.arange(n_blocks, dtype=np.int64), np.diff(seen.indptr))
    return rows * n_columns + seen.indices


def analyse(groupings: Sequence[Grouping], n_rows: int, n_x: int) -> Layout:
    """Choose the elimination order and lay out panels and root.

    Parameters
    ----------
    groupings : sequence of Grouping
        The grouping factors, in any order.
    n_rows : int
        Number of rows.
    n_x : int
        Number of columns of X.

    Raises
    ------
    InferenceError
        If the crossed factors leave a root larger than `MAX_ROOT`.
    """
    sizes = [g.n_levels * g.Z.shape[1] for g in groupings]
    by_size = sorted(range(len(groupings)), key=lambda i: (-groupings[i].n_levels, i))
    leading: list[int] = []
    for i in by_size:
        if all(_nested(groupings[j], groupings[i]) is not None for j in leading):
            leading.append(i)
    dense = [i for i in by_size if i not in leading]
    n_dense = sum(sizes[i] for i in dense)
    if n_dense > MAX_ROOT:
        raise InferenceError(
            f"the crossed grouping factors leave {n_dense} coupled coefficients after elimination of "
            f"the largest one; exact elimination handles at most {MAX_ROOT}. Drop or coarsen a crossed factor"
        )
    lead = [groupings[i] for i in leading]
    cross = [groupings[i] for i in dense]
    order = np.argsort(lead[0].index, kind="stable") if lead else np.arange(n_rows)
    pattern = _pattern(lead, cross, order, n_x, sizes, leading, dense, [g.Z.shape[1] for g in groupings])
    n_lambda = sum(g.Z.shape[1] ** 2 for g in groupings)
    return Layout(pattern, order, tuple(leading), tuple(dense), n_x, n_dense + n_x + 1, n_lambda)


def _offsets(sizes: Sequence[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))]).astype(np.int64)


def _pattern(
    lead: list[Grouping],
    cross: list[Grouping],
    order: Ints,
    n_x: int,
    sizes: list[int],
    leading: list[int],
    dense: list[int],
    q_all: list[int],
) -> Pattern:
    n, depth, n_cross = order.size, len(lead), len(cross)
    lam_start = _offsets([q * q for q in q_all])
    q = np.array([g.Z.shape[1] for g in lead], dtype=np.int64)
    dq = np.array([g.Z.shape[1] for g in cross], dtype=np.int64)
    first = _offsets([g.n_levels for g in lead])
    droot = _offsets([sizes[i] for i in dense])
    n_dense = int(droot[-1])
    row_root = np.zeros((n, n_cross), dtype=np.int64)
    for f, g in enumerate(cross):
        row_root[:, f] = droot[f] + g.index[order] * dq[f]

    parent = np.full(int(first[-1]), -1, dtype=np.int64)
    codes_by_depth: list[Ints] = []
    ptrs: list[Ints] = []
    for d, g in enumerate(lead):
        if d + 1 < depth:
            owner = _nested(g, lead[d + 1])
            assert owner is not None
            parent[first[d] : first[d + 1]] = first[d + 1] + owner
        codes = _dense_codes(g, cross, droot, dq, n_dense)
        codes_by_depth.append(codes)
        counts = np.bincount(codes // max(n_dense, 1), minlength=g.n_levels) if n_dense else np.zeros(g.n_levels)
        ptrs.append(counts.astype(np.int64))
    dense_ptr = _offsets(list(np.concatenate(ptrs))) if depth else np.zeros(1, dtype=np.int64)
    dense_idx = np.concatenate([c % max(n_dense, 1) for c in codes_by_depth]) if depth else np.zeros(0, dtype=np.int64)
    dense_rel = np.zeros(dense_idx.size, dtype=np.int64)
    for d in range(depth - 1):
        if n_dense:
            codes = codes_by_depth[d]
            owner = parent[first[d] + codes // n_dense] - first[d + 1]
            wanted = owner * n_dense + codes % n_dense
            place = np.searchsorted(codes_by_depth[d + 1], wanted) + dense_ptr[first[d + 1]]
            start = int(dense_ptr[first[d]])
            dense_rel[start : start + codes.size] = place - dense_ptr[first[d + 1] + owner]

    widths: list[Ints] = []
    for d, g in enumerate(lead):
        n_listed = np.diff(dense_ptr[first[d] : first[d + 1] + 1])
        widths.append(q[d] * (int(q[d:].sum()) + n_listed + n_x + 1) if g.n_levels else n_listed)
    panel_ptr = _offsets(list(np.concatenate(widths))) if depth else np.zeros(1, dtype=np.int64)

    row_dense = np.zeros((n, n_cross), dtype=np.int64)
    row_ptr = np.array([0, n], dtype=np.int64)
    if depth:
        level = lead[0].index[order]
        row_ptr = _offsets(list(np.bincount(level, minlength=lead[0].n_levels)))
        for f in range(n_cross):
            at = np.searchsorted(codes_by_depth[0], level * n_dense + row_root[:, f])
            row_dense[:, f] = at - dense_ptr[level]
    return Pattern(
        q=q,
        q_above=(q.sum() - np.cumsum(q)).astype(np.int64),
        z_off=_offsets(list(q))[:-1],
        lam_off=np.array([lam_start[i] for i in leading], dtype=np.int64),
        first=first,
        coef_off=_offsets([sizes[i] for i in leading]),
        cov_off=_offsets([sizes[i] * q_all[i] for i in leading]),
        parent=parent,
        panel_ptr=panel_ptr,
        dense_ptr=dense_ptr,
        dense_idx=np.ascontiguousarray(dense_idx, dtype=np.int64),
        dense_rel=dense_rel,
        dq=dq,
        dz_off=_offsets(list(dq))[:-1],
        dlam_off=np.array([lam_start[i] for i in dense], dtype=np.int64),
        droot=droot,
        row_ptr=row_ptr,
        row_dense=row_dense,
        row_root=row_root,
    )


def _dense_codes(g: Grouping, cross: list[Grouping], droot: Ints, dq: Ints, n_dense: int) -> Ints:
    """Sorted codes level * n_dense + root column for every dense column sharing a row with a level."""
    found = [np.zeros(0, dtype=np.int64)]
    for f, c in enumerate(cross):
        pairs = _unique_pairs(g.index, g.n_levels, c.index, c.n_levels)
        level, other = pairs // c.n_levels, pairs % c.n_levels
        base = level * n_dense + droot[f] + other * dq[f]
        found.append((base[:, None] + np.arange(dq[f])).ravel())
    return np.sort(np.concatenate(found))
