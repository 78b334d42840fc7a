"""Densities of dear slabs looked up: log f1 as a smooth function of two numbers, whatever the node.

At every node a test asks for the same function of its deviation e and of the slab's relative width rho, in units of
the null's scale: the convolution of the errors with the slab, a sum of 30 to 2,000 components where errors or slab are
t. For tests that share a df it is tabulated once over (asinh(e / 4), log rho) and interpolated by tensor-product cubic
splines, even in e (Unser 1999, IEEE Signal Process. Mag. 16(6):22). The derivatives are those of the interpolant, so
that a climb is consistent. Of 999 tests in 1,000 log f1 is right to 1e-5; it is off by up to 0.02 for one 40 standard
errors out, at the width where the slab takes over from the tail of t errors, which is nearly a kink. Whoever asks
beyond the table's edges gets the sum itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetti.linalg.jit import inner

__all__ = ["EDGE", "MOST_TABLES", "TESTS", "Lookup", "coefficients", "layout", "look_up", "no_lookup", "worth_a_table"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# e where the grid of e turns from even to geometric; steps there and in log rho, the range of log rho, and cells beyond
# the edges, where a spline is worse
TURN, STEP_E, STEP_RHO, LOG_RHO, EDGE = 4.0, 0.05, 0.05, (-7.0, 9.0), 8
# tests for each df from which a table pays: it costs as much as this many hundreds of nodes cost directly
TESTS = 1000
MOST_TABLES = 12


@dataclass(frozen=True)
class Lookup:
    """Spline coefficients (B, nx, ns) of log f1 for B values of df, and where the grid begins in log rho.

    index : (n,) the table of each test, -1 for the sum itself
    """

    coefficients: Floats
    index: Ints
    start: float

    @property
    def packed(self) -> tuple[Floats, Ints, float]:
        return self.coefficients, self.index, self.start


def no_lookup(n: int) -> Lookup:
    """No table: every test by its sum."""
    return Lookup(np.zeros((1, 1, 1)), np.full(n, -1, dtype=np.int64), 0.0)


def worth_a_table(n: int, kinds: int) -> bool:
    """Whether n tests with so many different df are looked up."""
    return kinds <= MOST_TABLES and n >= TESTS * kinds


def layout(largest: float) -> tuple[Floats, Floats]:
    """Deviations e (nx,) from 0 to beyond `largest`, and rho (ns,), at which a table is made.

    Examples
    --------
    >>> e, rho = layout(10.0)
    >>> float(e[0]), bool(e[-1] > 10.0), e.size, rho.size
    (0.0, True, 141, 337)
    """
    x = np.arange(math.ceil(TURN * math.asinh(largest / TURN) / STEP_E) + EDGE + 1) * STEP_E
    s = LOG_RHO[0] + np.arange(-EDGE, round((LOG_RHO[1] - LOG_RHO[0]) / STEP_RHO) + EDGE + 1) * STEP_RHO
    return TURN * np.sinh(x / TURN), np.exp(s)


def coefficients(values: Floats) -> Floats:
    """Spline coefficients of values (nx, ns) on a `layout`."""
    from scipy.ndimage import spline_filter

    return np.ascontiguousarray(spline_filter(values, order=3, mode="mirror"))


@inner()
def look_up(e, rho, table, start):  # type: ignore[no-untyped-def]
    """Log f1 and its derivatives by e and log rho; NaN beyond the edges."""
    nx, ns = table.shape
    size = abs(e)
    x = TURN * math.asinh(size / TURN) / STEP_E
    y = (math.log(rho) - start) / STEP_RHO
    i, j = math.floor(x), math.floor(y)
    if i + EDGE >= nx or j < EDGE or j + EDGE >= ns:
        return math.nan, math.nan, math.nan
    u, v = x - i, y - j
    a0, a1, a2, a3 = (1.0 - u) ** 3 / 6.0, 2.0 / 3.0 - u * u * (1.0 - 0.5 * u), 0.0, u**3 / 6.0
    a2 = 1.0 - a0 - a1 - a3
    d0, d1, d3 = -0.5 * (1.0 - u) ** 2, u * (1.5 * u - 2.0), 0.5 * u * u
    d2 = -d0 - d1 - d3
    b0, b1, b3 = (1.0 - v) ** 3 / 6.0, 2.0 / 3.0 - v * v * (1.0 - 0.5 * v), v**3 / 6.0
    b2 = 1.0 - b0 - b1 - b3
    c0, c1, c3 = -0.5 * (1.0 - v) ** 2, v * (1.5 * v - 2.0), 0.5 * v * v
    c2 = -c0 - c1 - c3
    left = i - 1 if i > 0 else 1  # even in e
    value, by_x, by_y = 0.0, 0.0, 0.0
    for k in range(4):
        if k == 0:
            row, a, d = left, a0, d0
        elif k == 1:
            row, a, d = i, a1, d1
        elif k == 2:
            row, a, d = i + 1, a2, d2
        else:
            row, a, d = i + 2, a3, d3
        t0, t1, t2, t3 = table[row, j - 1], table[row, j], table[row, j + 1], table[row, j + 2]
        along = b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
        value += a * along
        by_x += d * along
        by_y += a * (c0 * t0 + c1 * t1 + c2 * t2 + c3 * t3)
    slope = by_x / (STEP_E * math.sqrt(1.0 + (size / TURN) ** 2))
    return value, slope if e >= 0.0 else -slope, by_y / STEP_RHO
