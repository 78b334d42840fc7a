"""How kernels are compiled: cached on disk, without the interpreter lock, and without what they do not need.

`error_model="numpy"` leaves out a Python exception for every division, and no C callback is made; both
would be compiled at the first call of a new user.
"""

from __future__ import annotations

from functools import partial

from numba import njit

__all__ = ["inner", "kernel"]

OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

kernel = partial(njit, **OPTIONS)
# for kernels that only other kernels call: no way in from Python either
inner = partial(njit, no_cpython_wrapper=True, **OPTIONS)
