"""What is known about the groups beside their data: their sizes, their order, and columns that a user names.

A column of the groups has one value per level. It may come from the table that the fit was made from, from another
table with a row per row or a row per level, or from a Series indexed by level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.data.columns import factorise, kind_of, missing_mask, numbers
from finetti.data.frames import Table, read
from finetti.data.groups import code_columns
from finetti.errors import DataError, FinettiError, available

if TYPE_CHECKING:
    from finetti.data.newdata import FactorRecipe
    from finetti.posterior.fit import Fit

__all__ = ["ERROR", "ORDER", "SIZE", "GroupColumn", "group_columns"]

# names of the columns that every fit has
SIZE, ERROR, ORDER = "log2(n)", "standard error", "order of appearance"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupColumn:
    """One value per level: numbers (J,), or categories as text with their order.

    built_in : whether it was made from the design and not given
    """

    name: str
    values: npt.NDArray[Any]
    categories: tuple[str, ...] | None = None
    built_in: bool = False

    @property
    def kind(self) -> str:
        return "numeric" if self.categories is None else "category"


def group_columns(fit: Fit, group: str, by: Any = None) -> list[GroupColumn]:
    """Return the built-in columns of a grouping term, then those asked for; see `Fit.exchangeability`.

    Raises
    ------
    DataError
        Where a column is not there, varies within a level, has no value for a level, or where the table has changed
        since the fit.
    """
    found = _built_in(fit, group)
    if by is not None:
        given = _given(fit, group, by)
        taken = {c.name for c in given}
        found = [c for c in found if c.name not in taken] + given
    return found


def _built_in(fit: Fit, group: str) -> list[GroupColumn]:
    design = fit.model.design
    factor = next(f for f in design.factors if f.name == group)
    J = len(factor.levels)
    n = np.bincount(factor.index, minlength=J)
    out = []
    if np.ptp(n):
        out.append(GroupColumn(SIZE, np.log2(n), built_in=True))
    if design.se is not None:
        own = np.bincount(factor.index, weights=design.se**-2.0, minlength=J) ** -0.5
        if np.ptp(own) > 1e-9 * own.max():
            out.append(GroupColumn(ERROR, own, built_in=True))
    first = np.full(J, len(design.y), dtype=np.int64)
    np.minimum.at(first, factor.index, np.arange(len(design.y)))
    order = np.empty(J)
    order[np.argsort(first, kind="stable")] = np.arange(1.0, J + 1.0)
    out.append(GroupColumn(ORDER, order, built_in=True))
    return out


def _given(fit: Fit, group: str, by: Any) -> list[GroupColumn]:
    design = fit.model.design
    recipe = next(r for r in design.recipe.factors if r.name == group)
    factor = next(f for f in design.factors if f.name == group)
    levels = tuple(factor.levels)
    if isinstance(by, str) or (isinstance(by, (list, tuple, set)) and all(isinstance(b, str) for b in by)):
        names = [by] if isinstance(by, str) else list(dict.fromkeys(by))
        table = _own_table(fit, recipe, names)
        return [_column(table.column(name).take(design.rows), name, factor.index, levels, recipe) for name in names]
    if isinstance(by, Mapping) and by and all(np.ndim(v) == 0 for v in by.values()):
        by = pd.Series(dict(by))
    if isinstance(by, pd.Series):
        return [_of_series(fit, by, factor.index, levels, recipe)]
    if not isinstance(by, (Mapping, PathLike, pd.DataFrame)) and not hasattr(by, "columns"):
        raise FinettiError(
            f"by={by!r} is not understood; give the name of a column of the data or a list of them, a table with one "
            f"row per row of the data or per level of {group!r}, or a pandas Series indexed by level"
        )
    if isinstance(by, pd.DataFrame) and set(by.index.names) & set(recipe.grouping.columns):
        by = by.reset_index()
    table = read(by)
    return _of_table(fit, table, factor.index, levels, recipe)


def _own_table(fit: Fit, recipe: FactorRecipe, names: Iterable[str]) -> Table:
    """The table that the fit was made from, if it is still there and the same."""
    design = fit.model.design
    asked = ", ".join(map(repr, names))
    if design.table is None:
        raise DataError(
            "This fit no longer has the table it was made from (a loaded fit keeps only the columns of its formula), "
            f"so {asked} cannot be looked up; pass the table: "
            f"by=data[[{', '.join(map(repr, recipe.grouping.columns))}, {asked}]]"
        )
    table = design.table
    same = len(table.frame) == table.n
    for column in recipe.grouping.columns if same else ():
        same = column in table.frame.columns
        if same and column in design.used:
            now = table.column(column).take(design.rows).reset_index(drop=True)
            then = design.used[column].reset_index(drop=True)
            same = bool(((now == then) | (now.isna() & then.isna())).all()) if len(now) == len(then) else False
        if not same:
            break
    if not same:
        raise DataError(
            f"The table has changed since the fit: its rows no longer belong to the same levels of {recipe.name!r}. "
            "Fit again, or pass the columns as a table: "
            f"by=data[[{', '.join(map(repr, recipe.grouping.columns))}, {asked}]]"
        )
    return table


def _of_series(fit: Fit, series: pd.Series, index: Ints, levels: tuple[str, ...], recipe: FactorRecipe) -> GroupColumn:
    name = str(series.name) if series.name is not None else "by"
    if isinstance(series.index, pd.MultiIndex):
        keys = [":".join(str(part) for part in key) for key in series.index]
    else:
        codes, texts = factorise(pd.Series(series.index), "the index of by")
        keys = [texts[c] for c in codes]
    place = {level: j for j, level in enumerate(levels)}
    at = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    plain = series.reset_index(drop=True)
    missing = sorted(set(range(len(levels))) - set(at.tolist()))
    if not missing:
        inside = np.flatnonzero(at >= 0)
        return _column(plain.take(inside), name, at[inside], levels, recipe)
    design = fit.model.design
    if len(series) == len(design.rows) + design.n_dropped and len(missing) == len(levels):
        return _column(plain.take(design.rows), name, index, levels, recipe)
    raise DataError(
        f"by has no value for level {levels[missing[0]]!r} of {recipe.name!r}; its index must hold the levels, such as "
        f"{', '.join(map(repr, levels[:3]))}. It starts with {', '.join(map(repr, keys[:3]))}."
    )


def _of_table(fit: Fit, table: Table, index: Ints, levels: tuple[str, ...], recipe: FactorRecipe) -> list[GroupColumn]:
    design, ids = fit.model.design, recipe.grouping.columns
    others = [name for name in table.names if name not in ids]
    if not others:
        raise DataError(
            f"by has only the column {', '.join(map(repr, ids))}; add the columns that describe the groups."
        )
    if all(column in table.names for column in ids):
        raw = {column: table.column(column) for column in ids}
        whole = np.flatnonzero(~np.any([missing_mask(s) for s in raw.values()], axis=0))
        at = recipe.grouping.encode(code_columns({c: s.take(whole).reset_index(drop=True) for c, s in raw.items()}))
        rows = whole[at >= 0]
        at = at[at >= 0]
        absent = np.flatnonzero(np.bincount(at, minlength=len(levels)) == 0)
        if absent.size:
            raise DataError(
                f"by has no row for level {levels[int(absent[0])]!r} of {recipe.name!r}"
                + (f" and {absent.size - 1} others." if absent.size > 1 else ".")
            )
        return [_column(table.column(name).take(rows), name, at, levels, recipe) for name in others]
    n = len(design.rows) + design.n_dropped
    if table.n == n:
        return [_column(table.column(name).take(design.rows), name, index, levels, recipe) for name in others]
    raise DataError(
        f"by has {table.n} rows and no column {', '.join(map(repr, ids))}; give one row per level with that column in "
        f"it, or one row for each of the {n} rows of the data. {available(ids[0], table.names)}"
    )


def _column(series: pd.Series, name: str, index: Ints, levels: tuple[str, ...], recipe: FactorRecipe) -> GroupColumn:
    """One value per level of a column with one per row, level `index` (rows,) of each."""
    if name in recipe.grouping.columns:
        raise DataError(
            f"{name!r} is the group itself; by takes columns that say something of the levels of {recipe.name!r}."
        )
    series = series.reset_index(drop=True)
    present = np.flatnonzero(~missing_mask(series))
    absent = np.flatnonzero(np.bincount(index[present], minlength=len(levels)) == 0)
    if absent.size:
        raise DataError(f"Column {name!r} has no value for level {levels[int(absent[0])]!r} of {recipe.name!r}.")
    series, index = series.take(present).reset_index(drop=True), index[present]
    kind = kind_of(series)
    categories = None
    if kind in ("number", "integer", "decimal"):
        rows = numbers(series, name, "column")
        if not np.all(np.isfinite(rows)):
            raise DataError(f"Column {name!r} holds infinite values; correct or leave out those rows.")
    elif kind == "boolean":
        rows = series.to_numpy(dtype=float)
    elif kind == "date":
        rows = _days(series, name)
    else:
        codes, categories = factorise(series, name)
        rows = codes.astype(float)
    first = np.zeros(len(levels), dtype=np.int64)
    first[index[::-1]] = np.arange(index.size)[::-1]
    values = rows[first]
    odd = np.flatnonzero(np.abs(rows - values[index]) > 1e-12 * (np.abs(rows) + np.ptp(rows)))
    if odd.size:
        i, level = int(odd[0]), levels[int(index[odd[0]])]
        a, b = series.iloc[int(first[index[i]])], series.iloc[i]
        raise DataError(
            f"Column {name!r} is not the same in all rows of level {level!r} of {recipe.name!r}: it is {_shown(a)} and "
            f"{_shown(b)}. A column of groups has one value per level, for example the level's mean: "
            f"data.groupby({recipe.grouping.columns[0]!r})[{name!r}].mean()"
        )
    if categories is None:
        return GroupColumn(name, values)
    return GroupColumn(name, np.array([categories[int(c)] for c in values], dtype=object), categories)


def _days(series: pd.Series, name: str) -> npt.NDArray[np.float64]:
    """Dates as days since the first."""
    try:
        stamps = pd.to_datetime(series)
    except (ValueError, TypeError) as error:
        raise DataError(f"The dates in column {name!r} cannot be read ({error}); convert them to numbers.") from None
    return np.asarray((stamps - stamps.min()).dt.total_seconds().to_numpy(dtype=float) / 86400.0)


def _shown(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
