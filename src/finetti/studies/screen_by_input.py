"""The covariate of a screen: levels of a category, or bins of a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.data.columns import factorise, kind_of, missing_mask, numbers
from finetti.data.frames import read
from finetti.errors import DataError

__all__ = ["BINS", "Covariate", "read_by"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 50


@dataclass(frozen=True, eq=False)
class Covariate:
    """What the prior varies with.

    name : of the column; group : (n,) level or bin of each test; labels : (G,) index of `Screen.groups`
    value, low, high : (G,) mean, smallest and largest value of every bin; None for a category
    """

    name: str
    group: Ints
    labels: pd.Index
    value: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None

    @property
    def n_groups(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> Ints:
        return np.bincount(self.group, minlength=self.n_groups)


def read_by(by: Any, data: Any, n: int) -> Covariate:
    """Collect and check the covariate of `n` tests: a column of `data` by name, or values.

    Text, categories and booleans are levels, in the order of the categories, of the text's first appearance, and False
    before True. Numbers, whole ones too, are cut into at most `BINS` bins of about as many tests, equal values
    together; where they stand for levels, convert them with ``.astype(str)``.

    Raises
    ------
    DataError
        For missing values, another number of values than tests, and a covariate that does not vary.

    Examples
    --------
    >>> read_by(["b", "a", "b"], None, 3).labels.tolist()
    ['b', 'a']
    >>> read_by([1.0, 2.0, 2.0, 4.0], None, 4).value.tolist()
    [1.0, 2.0, 4.0]
    """
    if isinstance(by, str):
        if data is None:
            raise DataError(f"by={by!r} names a column, but no table was given; add data=, or give the values.")
        column, name = read(data).column(by), by
    else:
        if np.ndim(by) != 1:
            raise DataError(f"by must be a column name or one value per test, but it is {by!r:.60}.")
        column = pd.Series(by).reset_index(drop=True)
        name = str(column.name) if column.name is not None else "by"
    if len(column) != n:
        raise DataError(f"One value of by per test is expected, but there are {n} effects and {len(column)} values.")
    missing = np.flatnonzero(missing_mask(column))
    if missing.size:
        raise DataError(
            f"by ({name!r}) is missing in row {missing[0]} (counting from 0; {missing.size} such rows in all). Leave "
            f"out those tests, or give them a level of their own, for example with .fillna('unknown')."
        )
    if kind_of(column) in ("number", "integer", "decimal"):
        return _binned(numbers(column, name, "covariate"), name)
    index, levels = factorise(column, name)
    if kind_of(column) == "text":  # in the order of appearance
        _, first = np.unique(index, return_index=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty(order.size, dtype=np.int64)
        rank[order] = np.arange(order.size)
        index, levels = rank[index], tuple(levels[i] for i in order)
    if len(levels) < 2:
        raise DataError(
            f"by ({name!r}) has the one level {levels[0]!r}, so that nothing can vary with it; leave it out."
        )
    return Covariate(name, index.astype(np.int64), pd.Index(list(levels), name=name))


def _binned(x: Floats, name: str) -> Covariate:
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        raise DataError(f"by ({name!r}) is {x[bad[0]]:g} in row {bad[0]} (counting from 0); finite values are needed.")
    different, index = np.unique(x, return_inverse=True)
    if different.size < 2:
        raise DataError(f"by ({name!r}) is {x[0]:g} for every test, so that nothing can vary with it; leave it out.")
    if different.size > BINS:  # the bin of a value is that of its middle rank
        count = np.bincount(index)
        middle = (np.cumsum(count) - 0.5 * count) / x.size
        _, bins = np.unique(np.floor(middle * BINS).astype(np.int64), return_inverse=True)
        index = bins[index]
    n = np.bincount(index)
    value = np.bincount(index, weights=x) / n
    low, high = np.full(n.size, np.inf), np.full(n.size, -np.inf)
    np.minimum.at(low, index, x)
    np.maximum.at(high, index, x)
    value = np.clip(value, low, high)
    return Covariate(name, index.astype(np.int64), pd.Index(value, name=name), value, low, high)
