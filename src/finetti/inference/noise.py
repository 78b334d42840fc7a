"""Known correlated errors as one more group of coefficients, so that the solver sees independent rows.

In a block B of the known covariance V, with S the diagonal of standard errors and C = S^-1 V S^-1 their correlations,
take lambda, the smallest eigenvalue of C, and write C - lambda I = F F'. Then

    e_B = S F z + sqrt(lambda) S w,   z ~ Normal(0, I) (one per column of F),  w ~ Normal(0, I),

has covariance V exactly: a hidden term with one level per block, columns S F and sd 1 for every coefficient, beside
independent errors of variance lambda s^2. Blocks with one common correlation need one column, others at most one
column fewer than rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from finetti.errors import DataError
from finetti.linalg.layout import Grouping

__all__ = ["CorrelatedErrors", "correlated_errors"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Blocks = tuple[tuple[Ints, Floats], ...]

# columns of the hidden term: its work per block grows with their cube
MOST_COLUMNS = 60
# eigenvalues of a correlation matrix this close to the smallest are equal to it but for rounding
_EQUAL = 1e-12


@dataclass(frozen=True)
class CorrelatedErrors:
    """The hidden term (`grouping`, rows in the data's order) and the independent errors beside it (`se`, (n,))."""

    grouping: Grouping
    se: Floats
    blocks: Blocks
    marginal: Floats  # (n,) standard errors that the user knows: the diagonal of V

    @property
    def q(self) -> int:
        return self.grouping.Z.shape[1]

    def part(self, coefficients: Floats) -> Floats:
        """The hidden part of every row, (S, n), from the term's coefficients (S, levels, q)."""
        g = self.grouping
        return np.einsum("nq,snq->sn", g.Z, coefficients[:, g.index])

    def beside(self, groupings: Sequence[Grouping], m: int) -> Grouping:
        """The term when m new rows have joined the `groupings`: they have no part in the errors of the old ones.

        Columns are zero there; the level is that of a row of the same group, so that nested terms stay nested.
        """
        g, index = self.grouping, np.zeros(m, dtype=np.int64)
        if groupings:
            finest = max(groupings, key=lambda other: other.n_levels)
            old, new = np.split(finest.index, [g.index.size])
            level = np.zeros(finest.n_levels, dtype=np.int64)
            level[old] = g.index
            index = level[new]
        Z = np.concatenate([g.Z, np.zeros((m, self.q))])
        return Grouping(np.concatenate([g.index, index]), g.n_levels, Z)

    def own_precision(self, index: Ints) -> csr_array:
        """(n, n) inverse of V among the rows of each level alone: what a level's own rows say about it."""
        n = self.se.size
        single = np.ones(n, dtype=bool)
        i, j, value = [], [], []
        for rows, cov in self.blocks:
            single[rows] = False
            for level in np.unique(index[rows]):
                at = np.flatnonzero(index[rows] == level)
                i.append(np.repeat(rows[at], at.size))
                j.append(np.tile(rows[at], at.size))
                value.append(np.linalg.inv(cov[np.ix_(at, at)]).ravel())
        alone = np.flatnonzero(single)
        i.append(alone)
        j.append(alone)
        value.append(self.marginal[alone] ** -2.0)
        return csr_array(coo_array((np.concatenate(value), (np.concatenate(i), np.concatenate(j))), shape=(n, n)))


def correlated_errors(se: Floats, blocks: Blocks | None) -> CorrelatedErrors | None:
    """Split known correlated errors; None where there are none.

    Raises
    ------
    DataError
        If a block needs more columns than can be afforded.
    """
    if not blocks:
        return None
    n = se.size
    own, factors = np.array(se, dtype=np.float64), []
    for rows, cov in blocks:
        sd = np.sqrt(np.diag(cov))
        value, vector = np.linalg.eigh(cov / np.outer(sd, sd))
        keep = value - value[0] > _EQUAL * value[-1]
        factors.append(sd[:, None] * vector[:, keep] * np.sqrt(value[keep] - value[0]))
        own[rows] = sd * np.sqrt(value[0])
    q = max(1, *(f.shape[1] for f in factors))
    if q > MOST_COLUMNS:
        worst = max(range(len(blocks)), key=lambda b: factors[b].shape[1])
        raise DataError(
            f"V has a block of {len(blocks[worst][0])} rows (from row {blocks[worst][0][0]}, counting from 0) whose "
            f"correlations have {q} different directions; at most {MOST_COLUMNS} can be computed with. Blocks of up to "
            f"{MOST_COLUMNS + 1} rows are always possible, larger ones with one common correlation."
        )
    # a row outside all blocks is a level of its own with columns of zero, so that nested terms stay nested
    index, Z = np.full(n, -1, dtype=np.int64), np.zeros((n, q))
    for b, ((rows, _), F) in enumerate(zip(blocks, factors, strict=True)):
        index[rows] = b
        Z[rows, : F.shape[1]] = F
    alone = np.flatnonzero(index < 0)
    index[alone] = len(blocks) + np.arange(alone.size)
    return CorrelatedErrors(Grouping(index, len(blocks) + alone.size, Z), own, blocks, np.asarray(se))
