"""The known covariance V of the errors of several effects, taken apart into its blocks.

Effects that share participants (two outcomes of a trial, two treatments against one control) have correlated errors.
V is block-diagonal: only effects that are linked by a nonzero covariance, directly or through others, form a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from finetti.data.covariance import Covariance, check_block, connected_parts
from finetti.errors import DataError

__all__ = ["read_covariance"]

_ASYMMETRY = 1e-8  # of the standard deviations: what rounding in a file may leave


def read_covariance(V: Any, k: int) -> Covariance:
    """Return the blocks of V as (rows, covariance), every row in exactly one of them.

    Parameters
    ----------
    V : (k, k) array or data frame, or a sequence of square blocks
        In the order of the rows, units of effect squared. A sequence holds the blocks one after the other, each a
        square array or a single variance.
    k : int
        Number of effects.

    Raises
    ------
    DataError
        If V is not square, not symmetric, not positive definite, not finite, or of another size than the effects.

    Examples
    --------
    >>> [rows.tolist() for rows, _ in read_covariance([[[0.2, 0.1], [0.1, 0.3]], [[0.5]]], 3)]
    [[0, 1], [2]]
    >>> [rows.tolist() for rows, _ in read_covariance([[0.2, 0, 0.1], [0, 0.5, 0], [0.1, 0, 0.3]], 3)]
    [[0, 2], [1]]
    """
    from scipy.sparse import coo_array

    pieces = _pieces(V, k)
    n = sum(piece.shape[0] for piece in pieces)
    if n != k:
        raise DataError(
            f"V describes {n} effects ({_sizes(pieces)}), but there are {k}; its rows and columns must be those of the "
            "effects, in the same order."
        )
    blocks, start = [], 0
    for piece in pieces:
        _check_finite(piece, start)
        piece = _symmetric(piece, start)
        where = np.nonzero(piece)
        graph = coo_array((np.ones(where[0].size), where), shape=piece.shape)
        for rows in connected_parts(graph):
            blocks.append(check_block(rows + start, piece[np.ix_(rows, rows)]))
        start += piece.shape[0]
    return tuple(sorted(blocks, key=lambda block: int(block[0][0])))


def _pieces(V: Any, k: int) -> list[np.ndarray]:
    """V as a list of square arrays."""
    if hasattr(V, "to_numpy"):
        V = V.to_numpy()
    if isinstance(V, np.ndarray) and V.ndim == 3:
        V = list(V)
    if isinstance(V, (list, tuple)) and len(V) and any(np.ndim(_plain(block)) == 2 for block in V):
        return [_square(np.atleast_2d(_plain(block)), f"block {i} of V") for i, block in enumerate(V)]
    return [_square(_plain(V), "V")]


def _plain(block: Any) -> Any:
    if hasattr(block, "to_numpy"):
        return block.to_numpy()
    try:
        return np.asarray(block)
    except ValueError:  # rows of different length
        return np.empty(0)


def _square(array: Any, what: str) -> np.ndarray:
    try:
        values = np.array(array, dtype=np.float64, order="C", copy=True)
    except (TypeError, ValueError):
        raise DataError(f"{what} must hold numbers only, in units of the effect squared.") from None
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise DataError(
            f"{what} must be a square matrix (one row and one column per effect) or a list of square blocks, but its "
            f"shape is {values.shape}."
        )
    return values


def _sizes(pieces: list[np.ndarray]) -> str:
    if len(pieces) == 1:
        return f"a {pieces[0].shape[0]} x {pieces[0].shape[0]} matrix"
    return f"{len(pieces)} blocks of {', '.join(str(p.shape[0]) for p in pieces[:8])}{', ...' * (len(pieces) > 8)} rows"


def _check_finite(piece: np.ndarray, start: int) -> None:
    bad = np.argwhere(~np.isfinite(piece))
    if bad.size:
        i, j = bad[0]
        raise DataError(
            f"V is {piece[i, j]:g} in row {i + start}, column {j + start} (counting from 0); every value must be "
            "finite."
        )


def _symmetric(piece: np.ndarray, start: int) -> np.ndarray:
    size = np.sqrt(np.abs(np.diag(piece)))
    off = np.abs(piece - piece.T) > _ASYMMETRY * np.maximum(np.outer(size, size), 1e-300)
    if off.any():
        i, j = np.argwhere(off)[0]
        raise DataError(
            f"V is not symmetric: {piece[i, j]:.6g} in row {i + start}, column {j + start} (counting from 0), but "
            f"{piece[j, i]:.6g} the other way round. A covariance matrix has both equal."
        )
    return 0.5 * (piece + piece.T)
