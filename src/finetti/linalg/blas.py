"""LAPACK for roots too large for the in-kernel loops, on the root's own memory."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.linalg import blas, lapack
from threadpoolctl import ThreadpoolController

__all__ = ["cholesky_root", "invert_factor", "single_threaded", "solve_factor"]

Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def single_threaded():  # type: ignore[no-untyped-def]
    """One BLAS thread while our own threads run over nodes; finding the libraries is cached."""
    return _controller().limit(limits=1, user_api="blas")


def cholesky_root(root: Floats, k: int) -> tuple[Floats, bool]:
    """Factor the augmented root (C order, upper triangle); return L (k+1, k+1) in Fortran order.

    The transpose of a C-ordered upper triangle is a Fortran-ordered lower one, so that LAPACK
    works in place when nothing was folded away. L[k, k] is the root of the quadratic form.
    """
    whole = root.T if root.shape[0] == k + 1 else np.asfortranarray(root.T[: k + 1, : k + 1])
    factor, info = lapack.dpotrf(whole, lower=1, clean=0, overwrite_a=1)
    return factor, info == 0


def solve_factor(factor: Floats, k: int, z: Floats | None = None) -> Floats:
    """Solution L' x = l (+ z), l the last row of the augmented factor."""
    rhs = factor[k, :k].copy() if z is None else factor[k, :k] + z
    return blas.dtrsv(factor[:k, :k], rhs, lower=1, trans=1)


@njit(cache=True, nogil=True)
def _mirror(V):  # type: ignore[no-untyped-def]
    block = 64  # transposing in tiles keeps both sides in cache
    n = V.shape[0]
    for i0 in range(0, n, block):
        for j0 in range(0, i0 + 1, block):
            for i in range(i0, min(i0 + block, n)):
                for j in range(j0, min(j0 + block, i)):
                    V[i, j] = V[j, i]


def invert_factor(factor: Floats, k: int) -> Floats:
    """(L L')^-1, full symmetric, C order."""
    inverse, info = lapack.dpotri(np.asfortranarray(factor[:k, :k]), lower=1, overwrite_c=1)
    if info != 0:
        return np.full((k, k), np.nan)
    V = inverse.T  # lower in Fortran order is upper in C order
    _mirror(V)
    return V
