"""Least squares of many rows on one design: the same X for every gene, less the samples where a gene is missing.

    y_j = X_o beta_j + e_j,   e_j ~ Normal(0, sigma_j^2)      o: the samples where gene j was observed

In an orthonormal basis Q of X the cross-products Q_o'Q_o of every pattern of missing values come from one matrix
product, (patterns x samples) times (samples x p^2), and their eigenvalues lie between 0 and 1: those that vanish are
the directions that a pattern has lost. So twenty thousand genes with as many patterns cost little more than one.

A contrast c'beta_j is estimable if c has no part in the lost directions; its variance is sigma_j^2 times the square of
its unscaled standard error, sqrt(c'(X_o'X_o)^- c).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RowFits", "fit_rows"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# eigenvalue of Q_o'Q_o (1 where nothing is missing) below which a direction is lost
LOST = 1e-9
# part of a contrast in lost directions, relative to its length, beyond which it is not estimable
OUTSIDE = 1e-6
# rows, or entries of p x p matrices, worked on at a time: they stay in the cache
ROWS, ENTRIES = 1024, 2_000_000
# residuals below this share of the largest value of their row are rounding: the row's variance is zero
ROUNDING = 1e-13


@dataclass(frozen=True)
class RowFits:
    """What every row says of every contrast.

    Attributes
    ----------
    effect, unscaled : (G, C) estimates and unscaled standard errors, NaN where not estimable
    variance : (G,) residual variances, exactly zero where residuals are rounding, NaN without residual df
    df : (G,) residual degrees of freedom
    n : (G,) observed samples; mean : (G,) mean of the observed values
    n_patterns : different sets of observed samples
    """

    effect: Floats
    unscaled: Floats
    variance: Floats
    df: Floats
    n: Ints
    mean: Floats
    n_patterns: int


@dataclass(frozen=True)
class _Pattern:
    """Per pattern of observed samples: generalised inverse, rank, unscaled standard errors of contrasts."""

    inverse: Floats  # (P, p, p) of Q_o'Q_o
    rank: Ints  # (P,)
    unscaled: Floats  # (P, C), NaN where not estimable


def fit_rows(Y: Floats, X: Floats, contrasts: Floats) -> RowFits:
    """Fit every row of Y on X.

    Parameters
    ----------
    Y : (G, n), NaN where missing; every row has a value
    X : (n, p) of full rank
    contrasts : (p, C) one column for each combination of coefficients

    Examples
    --------
    >>> fits = fit_rows(np.array([[1.0, 3.0, 5.0, np.nan]]), np.ones((4, 1)), np.ones((1, 1)))
    >>> float(fits.effect[0, 0]), float(fits.variance[0]), float(fits.df[0])
    (3.0, 4.0, 2.0)
    """
    G, n = Y.shape
    # columns of a similar length first: an age in days beside a dummy would cost digits in R
    length = np.sqrt(np.sum(X**2, axis=0))
    Q, R = np.linalg.qr(X / length)
    V = np.linalg.solve(R.T, contrasts / length[:, None])  # contrasts of the coefficients of Q
    seen = ~np.isnan(Y)
    whole = np.asarray(seen.all(axis=1))
    patterns, which = _patterns(seen, whole)
    solved = _solve_patterns(patterns, Q, V)
    count = patterns.sum(axis=1)
    # a constant row has no residual where the design holds the constant: rows are centred, digits are kept
    constant = Q.T @ np.ones(n)
    holds = bool(np.max(np.abs(Q @ constant - 1.0)) < 1e-10)
    level = constant @ V  # what the constant 1 adds to each contrast: nothing, to most
    level[np.abs(level) < 1e-12 * np.sqrt(np.sum(V**2, axis=0) * n)] = 0.0

    effect, rss, mean, peak = np.empty((G, V.shape[1])), np.empty(G), np.empty(G), np.empty(G)
    for start in range(0, G, ROWS):
        part = slice(start, min(start + ROWS, G))
        y, p = Y[part], which[part]
        gaps = not whole[part].all()
        o = seen[part].astype(np.float64) if gaps else None
        y = y if o is None else np.where(seen[part], y, 0.0)
        mean[part] = y.sum(axis=1) / count[p]
        peak[part] = np.maximum(y.max(axis=1), -y.min(axis=1))
        y = y - mean[part, None] if holds else y
        y = y if o is None else y * o
        if o is None:
            b = y @ Q
            r = y - b @ Q.T
            more = r @ Q  # one step of refinement
            b, r = b + more, r - more @ Q.T
        else:
            inverse = solved.inverse[p]
            b = np.einsum("gij,gj->gi", inverse, y @ Q)
            r = (y - b @ Q.T) * o
            more = np.einsum("gij,gj->gi", inverse, r @ Q)
            b, r = b + more, r - (more @ Q.T) * o
        rss[part] = np.einsum("gi,gi->g", r, r)
        effect[part] = b @ V + (mean[part, None] * level if holds else 0.0)
    df = (count - solved.rank)[which].astype(np.float64)
    unscaled = solved.unscaled[which]
    rss[rss <= count[which] * (ROUNDING * peak) ** 2] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(df > 0, rss / df, np.nan)
    effect[np.isnan(unscaled)] = np.nan
    return RowFits(effect, unscaled, variance, df, count[which], mean, patterns.shape[0])


def _patterns(seen: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], Ints]:
    """The different sets of observed samples (P, n), and which of them each row has."""
    which = np.zeros(seen.shape[0], dtype=np.int64)
    gaps = np.flatnonzero(~whole)
    every = np.ones((1, seen.shape[1]), dtype=bool)
    if not gaps.size:
        return every, which
    packed = np.ascontiguousarray(np.packbits(seen[gaps], axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    which[gaps] = inverse + 1
    return np.concatenate([every, seen[gaps[first]]]), which


def _solve_patterns(patterns: npt.NDArray[np.bool_], Q: Floats, V: Floats) -> _Pattern:
    """Generalised inverses of Q_o'Q_o for every pattern, and what it leaves of every contrast."""
    P, (n, p) = patterns.shape[0], Q.shape
    inverse, rank, unscaled = np.empty((P, p, p)), np.empty(P, dtype=np.int64), np.empty((P, V.shape[1]))
    products = (Q[:, :, None] * Q[:, None, :]).reshape(n, p * p)
    length = np.sqrt(np.sum(V**2, axis=0))
    step = max(1, ENTRIES // (p * p))
    for start in range(0, P, step):
        part = slice(start, min(start + step, P))
        values, vectors = np.linalg.eigh((patterns[part] @ products).reshape(-1, p, p))
        kept = values > LOST
        rank[part] = kept.sum(axis=1)
        shrunk = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
        inverse[part] = np.einsum("sik,sk,sjk->sij", vectors, shrunk, vectors, optimize=True)
        along = np.swapaxes(vectors, 1, 2) @ V  # (s, p, C): every contrast in the directions of the pattern
        lost = np.sqrt(np.sum(np.where(kept[:, :, None], 0.0, along) ** 2, axis=1))
        size = np.sqrt(np.sum(along**2 * shrunk[:, :, None], axis=1))
        unscaled[part] = np.where(lost > OUTSIDE * length, np.nan, size)
    return _Pattern(inverse, rank, unscaled)
