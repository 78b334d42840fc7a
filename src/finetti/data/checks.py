"""What cannot be modelled is refused here, with the column, the row and the way out; what is merely doubtful warns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from finetti.data.columns import missing_mask
from finetti.errors import DataError, ModelError

__all__ = [
    "as_floats",
    "check_finite",
    "check_magnitude",
    "check_positive",
    "check_rank",
    "check_spread",
    "factor_warnings",
    "observed_rows",
]

# R's lm and lme4 call a column dependent when less than 1e-7 of its length is left after the others: cross-products
# square that, and 1e-14 is about what double precision can still tell from nothing.
_DEPENDENT = 1e-7
_ROUNDING = 1e-13
_LARGEST = 1e100  # leaves room for squares, and for sums of many of them, below 1e308


class FactorLike(Protocol):
    """What the warnings read of a grouping factor."""

    @property
    def name(self) -> str: ...
    @property
    def levels(self) -> tuple[str, ...]: ...
    @property
    def index(self) -> np.ndarray: ...
    @property
    def coefficients(self) -> tuple[str, ...]: ...


def observed_rows(raw: Mapping[str, pd.Series], n: int, missing: str) -> np.ndarray | None:
    """Return the rows without missing values in any used column, or None where that is all of them.

    >>> observed_rows({"x": pd.Series([1.0, None])}, 2, "drop").tolist()
    [0]
    """
    if missing not in ("error", "drop"):
        raise DataError(f"missing={missing!r} is unknown; use 'error' (the default) or 'drop'.")
    gaps = {name: mask for name, column in raw.items() if (mask := missing_mask(column)).any()}
    if not gaps:
        return None
    counts = ", ".join(f"{name!r} {int(mask.sum())}" for name, mask in gaps.items())
    if missing == "error":
        raise DataError(
            f"There are missing values in columns that the model uses (of {n} rows: {counts}). Give missing='drop' to "
            "leave out those rows, or fill the gaps first."
        )
    kept = np.flatnonzero(~np.logical_or.reduce(list(gaps.values())))
    if len(kept) == 0:
        raise DataError(
            f"No row is complete: every one of the {n} rows has a missing value in some column that the model uses "
            f"({counts}). Drop the emptiest of these columns from the formula, or fill the gaps."
        )
    return kept


def check_finite(values: np.ndarray, what: str, rows: np.ndarray) -> None:
    """Refuse infinite or undefined values, naming the first row.

    >>> check_finite(np.array([1.0, np.inf]), "Column 'x'", np.array([0, 5]))
    Traceback (most recent call last):
    finetti.errors.DataError: Column 'x' is inf in row 5 (counting from 0); every value must be finite. ...
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{what} is {values[bad[0]]:g} in row {rows[bad[0]]} (counting from 0); every value must be finite. "
            f"Correct or leave out such rows ({len(bad)} in all)."
        )


def check_magnitude(values: np.ndarray, what: str) -> None:
    """Refuse numbers whose squares would leave the range of double precision.

    >>> check_magnitude(np.array([1e-120, 0.0]), "Column 'x'")
    Traceback (most recent call last):
    finetti.errors.DataError: Column 'x' has values of size 1e-120; change its unit, ...
    """
    size = float(np.max(np.abs(values), initial=0.0))
    if size > _LARGEST or 0 < size < 1 / _LARGEST:
        raise DataError(
            f"{what} has values of size {size:.3g}; change its unit, so that they can be squared without overflow."
        )


def check_positive(values: np.ndarray, what: str, rows: np.ndarray, advice: str) -> None:
    """Refuse values that are not above zero, naming the first row."""
    check_finite(values, what, rows)
    bad = np.flatnonzero(values <= 0)
    if len(bad):
        raise DataError(
            f"{what} must be above zero, but it is {values[bad[0]]:g} in row {rows[bad[0]]} (counting from 0; "
            f"{len(bad)} such rows in all). {advice}"
        )


def check_spread(residual: np.ndarray, name: str, known_error: bool) -> tuple[str, ...]:
    """Refuse a response that never varies, unless its standard errors are known; then warn.

    `residual` is y - offset, in units of y.
    """
    spread = float(np.std(residual))
    if spread > _ROUNDING * float(np.max(np.abs(residual))):
        return ()
    if known_error:
        if len(residual) == 1:
            return ("There is one observation: beyond it, the answer rests on the priors.",)
        return (f"The response {name!r} has the same value in every row.",)
    if len(residual) == 1:
        raise ModelError(
            "There is one row, and one row cannot tell the error from the mean; give more rows, or the known standard "
            f"error of the observation: '{name} | se(s) ~ ...'."
        )
    raise ModelError(
        f"The response {name!r} (less the offset) has the same value, {residual[0]:g}, in all {len(residual)} rows, so "
        "there is no variation to explain and no unit to measure it in; check that this is the right column."
    )


def check_rank(X: np.ndarray, columns: Sequence[str]) -> None:
    """Refuse population columns that are linear combinations of those before them, naming both.

    >>> check_rank(np.array([[1.0, 0, 0], [1, 1, 2], [1, 2, 4]]), ("Intercept", "a", "b"))
    Traceback (most recent call last):
    finetti.errors.ModelError: The data cannot tell some coefficients apart: `b` is a linear combination of `a`. ...
    """
    n, p = X.shape
    if p > n:
        raise ModelError(
            f"There are {p} population coefficients ({', '.join(map(repr, columns[:6]))}{', ...' if p > 6 else ''}) "
            f"but only {n} rows, which cannot determine them; use fewer terms, or turn a category into a group term "
            "(1 | g)."
        )
    dependent = _dependent(X, columns)
    if dependent:
        told = "; ".join(
            f"`{name}` is a linear combination of {', '.join(f'`{other}`' for other in others)}"
            if others
            else f"`{name}` is zero in every row"
            for name, others in dependent[:4]
        ) + (f"; and {len(dependent) - 4} more" if len(dependent) > 4 else "")
        spline = next((name for name, _ in dependent if name.startswith("cr(")), None)
        if spline is not None and "Intercept" in columns:
            told += " (the columns of cr() add up to the intercept: give it constraints='center', or write 0 + cr(...))"
        raise ModelError(
            f"The data cannot tell some coefficients apart: {told}. Drop one column of each combination from the "
            "formula (or, for an interaction with empty cells, use fewer categories)."
        )


def _dependent(X: np.ndarray, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Columns left with nothing after projection on the earlier ones, each with what it is made of.

    With an intercept the columns are centred first, so that a distant origin (a year, a time stamp) is not mistaken
    for collinearity. Without one, what is left is compared with the spread of the column, for the same reason.
    """
    n, p = X.shape
    start = 1 if p and columns[0] == "Intercept" else 0
    peak = np.maximum(X.max(axis=0), -X.min(axis=0))
    X = X / np.where(peak > 0, peak, 1.0)  # so that no unit is too small or too large to be squared
    mean = X.mean(axis=0)
    centred = X - mean
    products = centred.T @ centred
    spread = np.sqrt(np.diag(products))
    length = np.sqrt(spread**2 + n * mean**2)
    constant = spread <= _ROUNDING * length
    scale = np.where(constant, 1.0, spread) if start else np.where(length > 0, length, 1.0)
    if not start:
        products = products + n * np.outer(mean, mean)
    # Well-conditioned cross-products settle nearly every case at a fraction of the cost.
    correlation = (products / np.outer(scale, scale))[start:, start:]
    if p == start or (not constant[start:].any() and np.linalg.eigvalsh(correlation)[0] > 1e-6):
        return []
    S = (centred if start else X)[:, start:] / scale[start:]
    if start:
        S[:, constant[start:]] = 0.0
    threshold = _DEPENDENT * (1.0 if start else np.where(constant | (length == 0), 1.0, spread / scale)) * np.ones(p)
    kept: list[int] = []
    basis = np.empty((n, 0))
    found: list[tuple[str, list[str]]] = []
    for j in range(start, p):
        left = S[:, j - start].copy()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            left -= basis @ (basis.T @ left)
        norm = float(np.linalg.norm(left))
        if norm > threshold[j]:
            kept.append(j)
            basis = np.column_stack([basis, left / norm])
            continue
        weight = np.empty(0)
        if kept:
            weight = np.linalg.lstsq(S[:, [k - start for k in kept]], S[:, j - start], rcond=None)[0]
        made_of = [columns[k] for k, w in zip(kept, weight, strict=True) if abs(w) > 1e-6]
        if start:
            raw = weight * scale[j] / scale[kept] if kept else weight
            rest = mean[j] - float(raw @ mean[kept]) if kept else mean[j]
            if abs(rest) > 1e-6 * max(abs(mean[j]), spread[j] / np.sqrt(n)):
                made_of.append("Intercept")
        found.append((columns[j], made_of))
    return found


def factor_warnings(factors: Sequence[FactorLike], n: int, error_estimated: bool) -> tuple[str, ...]:
    """Return what the groups cannot tell from the data, in plain sentences.

    `error_estimated`: the residual sd is a parameter, and the rows differ in no known weight.
    """
    told: list[str] = []
    for i, factor in enumerate(factors):
        if len(factor.levels) == 1:
            told.append(
                f"{factor.name!r} has a single level ({factor.levels[0]!r}): the sd of its group effects is informed "
                "by its prior alone."
            )
        elif len(factor.levels) == n and error_estimated:
            told.append(
                f"{factor.name!r} has one row per level: the sd of its group effects and sigma are told apart by their "
                "priors alone."
            )
        for other in factors[:i]:
            if len(factor.levels) == len(other.levels) > 1 and _same_partition(factor.index, other.index):
                shared = [c for c in factor.coefficients if c in other.coefficients]
                if shared:
                    told.append(
                        f"{other.name!r} and {factor.name!r} group the rows identically: only their priors tell the "
                        f"variances of {', '.join(shared)} apart. Drop one of the two terms."
                    )
    return tuple(told)


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings with equally many levels differ by a renaming of levels only."""
    name = np.empty(int(a.max()) + 1, dtype=np.int64)
    name[a] = b
    return bool((name[a] == b).all())


def as_floats(value: Any, n: int) -> np.ndarray:
    """A number or a column of numbers as a fresh float64 array of n rows."""
    return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)), order="C", copy=True)
