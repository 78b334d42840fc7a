"""Replay: the design matrices of new rows, with everything learned on the training rows held fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.checks import as_floats, check_finite, check_positive
from finetti.data.columns import categorical, covariate, factorise, missing_mask
from finetti.data.frames import Table, read
from finetti.data.groups import Coded, Grouping
from finetti.data.matrices import Expression, Terms
from finetti.errors import DataError, ModelError, PredictionError

__all__ = ["FactorRecipe", "NewDesign", "Recipe", "replay"]

KINDS = ("known", "new", "population")


@dataclass(frozen=True, eq=False)
class FactorRecipe:
    """How to rebuild one grouping factor: its levels and its terms."""

    name: str
    grouping: Grouping
    terms: tuple[Terms, ...]

    @property
    def size(self) -> int:
        """Coefficients per level."""
        return sum(len(t.columns) for t in self.terms)

    @property
    def variables(self) -> frozenset[str]:
        """Data columns of the terms, the grouping columns not among them."""
        return frozenset().union(*(t.variables for t in self.terms))


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that new rows need: terms with their learned state, levels, categories.

    Attributes
    ----------
    population : the terms of X
    categories : the categories of each covariate that is one, None for a number
    offsets, se, weights : expressions, each with the data columns it uses
    """

    population: Terms
    factors: tuple[FactorRecipe, ...]
    categories: Mapping[str, tuple[str, ...] | None]
    offsets: tuple[tuple[Expression, frozenset[str]], ...]
    se: tuple[Expression, frozenset[str]] | None
    weights: tuple[Expression, frozenset[str]] | None


@dataclass(frozen=True, eq=False)
class NewDesign:
    """Design matrices of new rows.

    Attributes
    ----------
    X : (n, p), offset : (n,), columns as in the training design
    factors : (name, Z (n, q), index (n,)) of every grouping factor. The index is -1 throughout for factors that are
        "new" or "population"; under "population" Z is zero, since no group effect enters.
    se, weights : (n,) where the response noise was asked for and the model has them, else None
    n : number of new rows
    """

    X: np.ndarray
    offset: np.ndarray
    factors: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    se: np.ndarray | None
    weights: np.ndarray | None
    n: int


def replay(
    recipe: Recipe, newdata: Any, *, groups: Mapping[str, str] | None = None, response_noise: bool = False
) -> NewDesign:
    """Return the design of new rows.

    Parameters
    ----------
    newdata : any table that `finetti.data.frames.read` takes. The response is not needed; the column of a grouping
        factor is needed under "known" only; the columns of se() and weights() only for the response noise.
    groups : what to do for each grouping factor: "known" (the default), "new" or "population"
    response_noise : whether observations (not only their means) will be predicted

    Raises
    ------
    PredictionError
        For missing columns or values, categories or levels that were not in the training data.
    """
    kinds = _kinds(recipe, groups or {})
    try:
        return _replay(recipe, read(newdata), kinds, response_noise)
    except (DataError, ModelError) as error:
        raise PredictionError(f"The new data do not fit the model. {error}") from error


def _kinds(recipe: Recipe, groups: Mapping[str, str]) -> dict[str, str]:
    names = [f.name for f in recipe.factors]
    for name, kind in groups.items():
        if name not in names:
            raise PredictionError(f"groups names {name!r}, but the grouping factors are: {', '.join(names) or 'none'}.")
        if kind not in KINDS:
            raise PredictionError(f"groups={kind!r} for {name!r} is unknown; use 'known', 'new' or 'population'.")
    return {name: groups.get(name, "known") for name in names}


def _replay(recipe: Recipe, table: Table, kinds: dict[str, str], response_noise: bool) -> NewDesign:
    active = [f for f in recipe.factors if kinds[f.name] != "population"]
    known = [f for f in recipe.factors if kinds[f.name] == "known"]
    noise = [part for part in (recipe.se, recipe.weights) if part is not None] if response_noise else []
    used = recipe.population.variables.union(
        *(f.variables for f in active), *(names for _, names in recipe.offsets), *(names for _, names in noise)
    )
    ids = {column for f in known for column in f.grouping.columns}
    _check_columns(recipe, table, ids, noise)
    raw = {name: table.column(name) for name in sorted(used | ids)}
    for name, series in raw.items():
        gaps = missing_mask(series)
        if gaps.any():
            raise PredictionError(
                f"Column {name!r} of the new data is missing in {int(gaps.sum())} of {table.n} rows (the first is row "
                f"{int(np.argmax(gaps))}, counting from 0); fill these cells or leave out the rows."
            )
    frame = {name: _covariate(raw[name], name, recipe.categories[name]) for name in sorted(used)}
    rows = np.arange(table.n)
    X = recipe.population.replay(frame, table.n)
    offset = np.zeros(table.n)
    for expression, _ in recipe.offsets:
        offset += as_floats(expression.replay(frame, table.n), table.n)
    check_finite(offset, "The offset", rows)
    coded = {name: factorise(raw[name], name) for name in sorted(ids)}
    factors = []
    for f in recipe.factors:
        Z = (
            np.zeros((table.n, f.size))
            if kinds[f.name] == "population"
            else np.ascontiguousarray(np.hstack([t.replay(frame, table.n) for t in f.terms]))
        )
        index = _known_index(f, coded) if kinds[f.name] == "known" else np.full(table.n, -1, dtype=np.int64)
        factors.append((f.name, Z, index))
    se = weights = None
    if response_noise and recipe.se is not None:
        se = as_floats(recipe.se[0].replay(frame, table.n), table.n)
        check_positive(se, "The standard error in se()", rows, "Leave out those rows.")
    if response_noise and recipe.weights is not None:
        weights = as_floats(recipe.weights[0].replay(frame, table.n), table.n)
        check_positive(weights, "The weight in weights()", rows, "Leave out those rows.")
    return NewDesign(X, offset, tuple(factors), se, weights, table.n)


def _check_columns(recipe: Recipe, table: Table, ids: set[str], noise: list[tuple[Expression, frozenset[str]]]) -> None:
    """Name what a missing column was for, where there is a way to do without it."""
    absent = sorted(ids - set(table.names))
    if absent:
        raise PredictionError(
            f"The new data have no column {absent[0]!r}, which says to which known group a row belongs; add it, or "
            "predict with groups='new' (a group not seen before) or groups='population' (no group effect)."
        )
    for expression, names in noise:
        lacking = sorted(names - set(table.names))
        if lacking:
            what = "weights" if recipe.weights is not None and expression is recipe.weights[0] else "standard errors"
            raise PredictionError(
                f"The noise of new observations depends on their {what}, but the new data have no column "
                f"{lacking[0]!r}; add it, or predict the mean (kind='mean')."
            )


def _covariate(series: pd.Series, name: str, categories: tuple[str, ...] | None) -> pd.Series:
    if categories is None:
        column = covariate(series, name)
        if isinstance(column.dtype, pd.CategoricalDtype):
            raise PredictionError(
                f"Column {name!r} was numeric in the data that the model was fitted to, but the new data hold text "
                f"({column.iloc[0]!r}); convert it to numbers."
            )
        check_finite(column.to_numpy(), f"Column {name!r} of the new data", np.arange(len(column)))
        return column
    index, levels = factorise(series, name)
    unseen = [level for level in levels if level not in categories]
    if unseen:
        raise PredictionError(
            f"Column {name!r} of the new data has the category {unseen[0]!r}, for which there is no coefficient; the "
            f"categories in the fit are: {', '.join(map(repr, categories[:20]))}"
            f"{', ...' if len(categories) > 20 else ''}."
        )
    position = np.array([categories.index(level) for level in levels], dtype=np.int64)
    return categorical(position[index], categories, name)


def _known_index(recipe: FactorRecipe, coded: Mapping[str, Coded]) -> np.ndarray:
    index = recipe.grouping.encode(coded)
    rows = np.flatnonzero(index < 0)
    if len(rows):
        parts = [coded[column] for column in recipe.grouping.columns]
        unseen = list(dict.fromkeys(":".join(levels[codes[row]] for codes, levels in parts) for row in rows[:10_000]))
        shown = ", ".join(map(repr, unseen[:5])) + (f", ... ({len(unseen)} in all)" if len(unseen) > 5 else "")
        raise PredictionError(
            f"The new data have levels of {recipe.name!r} that were not in the fit: {shown}. Predict with groups='new' "
            "(draws an unseen group from the parent distribution) or groups='population' (no group effect)."
        )
    return index
