"""LAPACK for roots too large for the in-kernel loops, on the root's own memory.

scipy's Python wrappers of dpotrf and dpotri hold the interpreter lock, so that two threads
take turns; the same routines called through scipy's published C pointers do not.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.extending import get_cython_function_address
from scipy.linalg import blas
from threadpoolctl import ThreadpoolController

from finetti.linalg.jit import kernel

__all__ = ["cholesky_root", "invert_factor", "single_threaded", "solve_factor"]

Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def single_threaded():  # type: ignore[no-untyped-def]
    """One BLAS thread while our own threads run over nodes; finding the libraries is cached."""
    return _controller().limit(limits=1, user_api="blas")


@lru_cache(maxsize=2)
def _lapack(name: str) -> Any:
    """(uplo, n, a, lda, info) -> None, all by reference, as dpotrf and dpotri have it."""
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)
    return kind(get_cython_function_address("scipy.linalg.cython_lapack", name))


def _call(name: str, a: Floats, n: int) -> bool:
    """Run on the lower triangle of the Fortran-ordered n x n part of `a`; True if it succeeded."""
    uplo, order, lda, info = ctypes.c_char(b"L"), ctypes.c_int(n), ctypes.c_int(a.shape[0]), ctypes.c_int(0)
    ref = ctypes.addressof
    _lapack(name)(ref(uplo), ref(order), a.ctypes.data, ref(lda), ref(info))
    return info.value == 0


def cholesky_root(root: Floats, k: int) -> tuple[Floats, bool]:
    """Factor the augmented root (C order, upper triangle); return L (k+1, k+1) in Fortran order.

    The transpose of a C-ordered upper triangle is a Fortran-ordered lower one, so that LAPACK
    works in place when nothing was folded away. L[k, k] is the root of the quadratic form.
    """
    whole = root.T if root.shape[0] == k + 1 else np.asfortranarray(root.T[: k + 1, : k + 1])
    return whole, _call("dpotrf", whole, k + 1)


def solve_factor(factor: Floats, k: int, z: Floats | None = None) -> Floats:
    """Solution L' x = l (+ z), l the last row of the augmented factor."""
    rhs = factor[k, :k].copy() if z is None else factor[k, :k] + z
    return blas.dtrsv(factor[:k, :k], rhs, lower=1, trans=1)


@kernel()
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
    inverse = np.array(factor[:k, :k], order="F")
    if not _call("dpotri", inverse, k):
        return np.full((k, k), np.nan)
    V = inverse.T  # lower in Fortran order is upper in C order
    _mirror(V)
    return V
