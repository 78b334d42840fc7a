"""A known covariance V of the errors, in blocks: what is checked, and what it says about every group level.

Rows outside all blocks keep independent errors with their own standard error. For one coefficient u_j per level of a
group, with column z_j in the rows of the level, the rows determine u by least squares with covariance

    A^-1,  A = Z' V^-1 Z  (levels x levels).

The eigenvalues of A^-1 are the error variances of the levels: se_j^2 where every row is a level of its own and errors
are independent. Priors that scale with the errors (Jeffreys, DuMouchel, uniform shrinkage) are made from them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from finetti.errors import DataError

__all__ = ["Covariance", "check_block", "connected_parts", "kept_blocks", "level_variances"]

Covariance = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Blocks (rows (m,) int64, covariance (m, m)) that share no row."""

# smallest eigenvalue of an error correlation: below it, effects are the same number twice to double precision
SMALLEST = 1e-9


def check_block(rows: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the block as arrays, or refuse one that is no covariance matrix.

    >>> check_block([0, 1], [[1.0, 2.0], [2.0, 1.0]])
    Traceback (most recent call last):
    finetti.errors.DataError: V is not positive definite in its block of rows 0, 1 (counting from 0): ...
    """
    rows = np.asarray(rows, dtype=np.int64)
    cov = np.array(cov, dtype=np.float64, order="C", copy=True)
    variance = np.diag(cov)
    if not np.all(variance > 0.0):
        i = int(np.flatnonzero(~(variance > 0.0))[0])
        raise DataError(
            f"V has {variance[i]:g} on its diagonal in row {rows[i]} (counting from 0); a variance must be above zero."
        )
    sd = np.sqrt(variance)
    smallest = float(np.linalg.eigvalsh(cov / np.outer(sd, sd))[0]) if len(rows) > 1 else 1.0
    if smallest < SMALLEST:
        shown = ", ".join(map(str, rows[:6])) + (", ..." if len(rows) > 6 else "")
        raise DataError(
            f"V is not positive definite in its block of rows {shown} (counting from 0): the smallest eigenvalue of "
            f"its correlations is {smallest:.3g}. Effects of one study may be correlated, but no combination of them "
            "is known without error; correct the covariances (a correlation of 1 or more?), or leave out an effect "
            "that is a combination of the others."
        )
    return rows, cov


def kept_blocks(blocks: Covariance, rows: np.ndarray) -> Covariance:
    """Return the blocks in the numbering of the rows that were kept, (n,) positions in the original table.

    >>> blocks = ((np.array([0, 1, 2]), np.eye(3) + 0.1),)
    >>> [rows.tolist() for rows, _ in kept_blocks(blocks, np.array([0, 2, 3]))]
    [[0, 1]]
    """
    out = []
    for members, cov in blocks:
        new = np.searchsorted(rows, members)
        here = np.flatnonzero((new < len(rows)) & (rows[np.minimum(new, len(rows) - 1)] == members))
        if here.size > 1:
            out.append((new[here], np.ascontiguousarray(cov[np.ix_(here, here)])))
    return tuple(out)


def connected_parts(graph: Any) -> list[np.ndarray]:
    """Return the rows of each connected part of a sparse symmetric matrix.

    >>> from scipy.sparse import csr_array
    >>> [rows.tolist() for rows in connected_parts(csr_array([[1, 0, 2], [0, 1, 0], [2, 0, 1]]))]
    [[0, 2], [1]]
    """
    from scipy.sparse.csgraph import connected_components

    n_parts, part = connected_components(graph, directed=False)
    return np.split(np.argsort(part, kind="stable"), np.cumsum(np.bincount(part, minlength=n_parts))[:-1])


def level_variances(index: np.ndarray, n_levels: int, z: np.ndarray, se: np.ndarray, blocks: Covariance) -> np.ndarray:
    """Error variances (n_levels,) of one coefficient per level: eigenvalues of (Z'V^-1 Z)^-1, inf without information.

    Parameters
    ----------
    index, z, se : (n,) level, column and standard error of each row
    blocks : of V

    Examples
    --------
    >>> level_variances(np.array([0, 0, 1]), 2, np.ones(3), np.array([2.0, 2.0, 1.0]), ())
    array([2., 1.])
    """
    from scipy.sparse import coo_array

    single = np.ones(len(se), dtype=bool)
    for rows, _ in blocks:
        single[rows] = False
    own = np.bincount(index[single], (z[single] / se[single]) ** 2, minlength=n_levels)
    i: list[np.ndarray] = [np.arange(n_levels)]
    j: list[np.ndarray] = [np.arange(n_levels)]
    value: list[np.ndarray] = [own]
    for rows, cov in blocks:
        precision = np.linalg.inv(cov) * np.outer(z[rows], z[rows])
        i.append(np.repeat(index[rows], len(rows)))
        j.append(np.tile(index[rows], len(rows)))
        value.append(precision.ravel())
    A = coo_array((np.concatenate(value), (np.concatenate(i), np.concatenate(j))), shape=(n_levels, n_levels)).tocsr()
    A.sum_duplicates()
    parts = connected_parts(A)
    if len(parts) == n_levels:
        information = A.diagonal()
    else:
        information = np.concatenate([np.linalg.eigvalsh(A[rows][:, rows].toarray()) for rows in parts])
    with np.errstate(divide="ignore"):
        return np.where(information > 0.0, 1.0 / np.maximum(information, 1e-300), np.inf)
