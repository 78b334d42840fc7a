"""A formula and a table become the arrays of the model: y, X, and one (index, Z) pair per grouping factor.

    eta_i = offset_i + X_i beta + sum_g Z_gi u_g[index_gi]

X is (n, p) and each Z_g is (n, q_g): one row per observation, q_g coefficients per level. The huge sparse matrix of
textbooks, (n, levels * q_g), is never formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.checks import (
    as_floats,
    check_finite,
    check_magnitude,
    check_positive,
    check_rank,
    check_spread,
    factor_warnings,
    observed_rows,
)
from finetti.data.columns import covariate, numbers
from finetti.data.frames import Table, read
from finetti.data.groups import Coded, code_columns, learn_grouping
from finetti.data.matrices import Expression, Terms, learn_expression, learn_terms, read_right_side
from finetti.data.newdata import FactorRecipe, NewDesign, Recipe, replay
from finetti.errors import DataError, ModelError, NotBuiltError
from finetti.model.formula import Formula, GroupTerm
from finetti.model.whitelist import check_expression

__all__ = ["Design", "Factor", "build"]


@dataclass(frozen=True, eq=False)
class Factor:
    """One grouping factor with all its terms merged.

    Attributes
    ----------
    name : "Subject", or "a:b" for pairs
    levels : text of each level, sorted (numbers as numbers, text by code point, categories by their order)
    index : (n,) int64, the level of each row
    coefficients : labels of the columns of Z
    Z : (n, q) float64, in the units of the data columns
    blocks : indices into `coefficients` of each block of correlated coefficients
    """

    name: str
    levels: tuple[str, ...]
    index: np.ndarray
    coefficients: tuple[str, ...]
    Z: np.ndarray
    blocks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Design:
    """What was observed, as arrays.

    Attributes
    ----------
    y, offset : (n,) in units of the response (offset zero where there is none)
    X : (n, p), columns : their labels, as in `beta[...]`
    intercept : whether the first column is the constant 1
    factors : the grouping factors, in the order of the formula
    se : (n,) known standard errors or None; se_sigma : whether sigma is estimated on top of them
    weights : (n,) or None; the error variance is sigma**2 / weight
    n_dropped : rows left out by missing="drop"; rows : (n,) positions of the kept rows in the original table
    warnings : what the data leave to the priors, in plain sentences
    used : the columns that the formula uses, as they came (the kept rows), from which all this can be built again
    table : the table itself, for questions about columns that the formula does not use; None in a loaded fit
    """

    y: np.ndarray
    offset: np.ndarray
    X: np.ndarray
    columns: tuple[str, ...]
    intercept: bool
    factors: tuple[Factor, ...]
    se: np.ndarray | None
    se_sigma: bool
    weights: np.ndarray | None
    n_dropped: int
    rows: np.ndarray
    warnings: tuple[str, ...]
    recipe: Recipe = field(repr=False)
    used: Mapping[str, pd.Series] = field(repr=False, default_factory=dict)
    table: Table | None = field(repr=False, default=None)

    def replay(
        self, newdata: Any, *, groups: Mapping[str, str] | None = None, response_noise: bool = False
    ) -> NewDesign:
        """Return the arrays of new rows, every transformation and category as learned here; see `newdata.replay`.

        >>> from finetti.model.formula import parse
        >>> data = {"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 5.0], "g": ["a", "b", "a"]}
        >>> design = build(parse("y ~ 1 + center(x) + (1 | g)"), data)
        >>> design.replay({"x": [3.0]}, groups={"g": "new"}).X.tolist()
        [[1.0, 1.0]]
        """
        return replay(self.recipe, newdata, groups=groups, response_noise=response_noise)

    def own_rows(self, groups: Mapping[str, str]) -> NewDesign:
        """Return the training rows themselves as rows to predict, with "new" or "population" factors in place."""
        n, factors = len(self.y), []
        for f in self.factors:
            kind = groups.get(f.name, "known")
            factors.append(
                (
                    f.name,
                    np.zeros_like(f.Z) if kind == "population" else f.Z,
                    f.index if kind == "known" else np.full(n, -1, dtype=np.int64),
                )
            )
        return NewDesign(self.X, self.offset, tuple(factors), self.se, self.weights, n)


def build(formula: Formula, data: Any, missing: str = "error") -> Design:
    """Return the design of a formula on a table.

    Parameters
    ----------
    formula : a parsed, whitelisted formula
    data : any table that `finetti.data.frames.read` takes
    missing : "error", or "drop" to leave out rows with a missing value in a column that the formula uses

    Raises
    ------
    DataError
        For columns or values that are absent, missing, infinite or of the wrong type.
    ModelError
        Where the data cannot identify the model: dependent columns, a constant response, one category.

    Examples
    --------
    >>> from finetti.model.formula import parse
    >>> design = build(parse("y ~ 1 + (1 | g)"), {"y": [1.0, 2.0, 4.0], "g": ["b", "a", "b"]})
    >>> design.factors[0].levels, design.factors[0].index.tolist()
    (('a', 'b'), [1, 0, 1])
    """
    response = formula.response
    if response.trials is not None or response.cens is not None:
        raise NotBuiltError("trials() and cens() are part of the design, but their families are not built yet.")
    table = read(data)
    sides = {text: read_right_side(text) for text in (formula.population, *(t.effects for t in formula.groups))}
    beside = (response.se, response.weights, *formula.offsets)
    parts = {
        text: check_expression(text, where="the formula") for text in (response.expression, *beside) if text is not None
    }
    response_column = response.expression.strip("`") if response.expression.strip("`") in table.names else None
    used = sorted(
        frozenset().union(
            *(side.variables for side in sides.values()),
            *(parts[text] for text in beside if text is not None),
            *((parts[response.expression],) if response_column is None else ()),
        )
    )
    ids = sorted({column for term in formula.groups for column in term.group})

    needed = dict.fromkeys([*parts[response.expression], *used, *ids])
    raw = {name: table.column(name) for name in needed}
    kept = observed_rows(raw, table.n, missing)
    if kept is not None:
        raw = {name: column.take(kept).reset_index(drop=True) for name, column in raw.items()}
    rows = np.arange(table.n, dtype=np.int64) if kept is None else kept.astype(np.int64)
    n = len(rows)
    frame = {name: _checked(raw[name], name, rows) for name in used}

    y = _response(response.expression, raw.get(response_column or ""), frame, n, rows)
    offsets, offset = [], np.zeros(n)
    for text in formula.offsets:
        expression, values = _vector(text, frame, n, rows, "The offset")
        offsets.append((expression, parts[text]))
        offset += values
    se, se_part = None, None
    if response.se is not None:
        expression, se = _vector(response.se, frame, n, rows, "The standard error in se()")
        check_positive(
            se, "The standard error in se()", rows,
            "A standard error of zero would make an observation exact; correct it or leave out those rows.",
        )  # fmt: skip
        se_part = (expression, parts[response.se])
    weights, weights_part = None, None
    if response.weights is not None:
        expression, weights = _vector(response.weights, frame, n, rows, "The weight in weights()")
        check_positive(
            weights, "The weight in weights()", rows, "A row of weight zero says nothing: leave out those rows."
        )
        weights_part = (expression, parts[response.weights])

    made = {text: learn_terms(side, frame, n) for text, side in sides.items()}
    terms, X = made[formula.population]
    for j, label in enumerate(terms.columns):
        check_magnitude(X[:, j], f"Column {label!r}")
    check_rank(X, terms.columns)
    coded = code_columns({name: raw[name] for name in ids})
    factors, recipes = _factors(formula.groups, made, coded)

    error_known = se is not None and not response.se_sigma
    check_magnitude(y - offset, f"The response {response.expression!r}")
    warned = check_spread(y - offset, response.expression, se is not None)
    warned += factor_warnings(factors, n, not error_known and (weights is None or float(np.ptp(weights)) == 0.0))
    categories = {
        name: tuple(column.cat.categories) if isinstance(column.dtype, pd.CategoricalDtype) else None
        for name, column in frame.items()
    }
    recipe = Recipe(terms, recipes, categories, tuple(offsets), se_part, weights_part)
    return Design(
        y=y,
        offset=offset,
        X=X,
        columns=terms.columns,
        intercept=bool(terms.columns) and terms.columns[0] == "Intercept",
        factors=factors,
        se=se,
        se_sigma=response.se_sigma,
        weights=weights,
        n_dropped=table.n - n,
        rows=rows,
        warnings=warned,
        recipe=recipe,
        used=raw,
        table=table,
    )


def _checked(series: pd.Series, name: str, rows: np.ndarray) -> pd.Series:
    column = covariate(series, name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        if len(column.cat.categories) < 2:
            raise ModelError(
                f"Column {name!r} has a single category ({column.cat.categories[0]!r}) in the rows used, so its effect "
                "cannot be told from the intercept; drop it from the formula."
            )
        return column
    check_finite(column.to_numpy(), f"Column {name!r}", rows)
    return column


def _response(
    expression: str, column: pd.Series | None, frame: Mapping[str, pd.Series], n: int, rows: np.ndarray
) -> np.ndarray:
    if column is not None:
        y = numbers(column, expression, "response")
    else:
        _, value = learn_expression(expression, frame)
        y = as_floats(value, n)
    check_finite(y, f"The response {expression!r}", rows)
    return y


def _vector(
    text: str, frame: Mapping[str, pd.Series], n: int, rows: np.ndarray, what: str
) -> tuple[Expression, np.ndarray]:
    expression, value = learn_expression(text, frame)
    if isinstance(getattr(value, "dtype", None), pd.CategoricalDtype):
        raise DataError(f"{what} must be numeric, but column {text!r} holds text; convert it to numbers.")
    values = as_floats(value, n)
    check_finite(values, what, rows)
    return expression, values


def _factors(
    groups: tuple[GroupTerm, ...],
    made: Mapping[str, tuple[Terms, np.ndarray]],
    coded: Mapping[str, Coded],
) -> tuple[tuple[Factor, ...], tuple[FactorRecipe, ...]]:
    """Merge the terms of each grouping factor: columns side by side, one block per correlated term."""
    merged: dict[str, list[GroupTerm]] = {}
    for term in groups:
        merged.setdefault(term.name, []).append(term)
    factors, recipes = [], []
    for name, members in merged.items():
        grouping, index = learn_grouping(members[0].group, coded)
        labels: list[str] = []
        blocks: list[tuple[int, ...]] = []
        for term in members:
            terms, Z = made[term.effects]
            if not terms.columns:
                raise ModelError(f"The group term ({term.effects} | {name}) has no coefficient; write (1 | {name}).")
            for column, label in enumerate(terms.columns):
                if label in labels:
                    raise ModelError(
                        f"{label!r} appears in two group terms of {name!r}, which would give it two variances that no "
                        f"data can tell apart; drop it from one of them, for example (0 + ... | {name})."
                    )
                check_magnitude(Z[:, column], f"Column {label!r}")
                if not Z[:, column].any():
                    raise ModelError(
                        f"{label!r} is zero in every row, so its variation over {name!r} cannot be estimated; drop it."
                    )
            places = range(len(labels), len(labels) + len(terms.columns))
            blocks += [tuple(places)] if term.correlated else [(place,) for place in places]
            labels += terms.columns
        parts = [made[term.effects] for term in members]
        Z = parts[0][1].copy() if len(parts) == 1 else np.ascontiguousarray(np.hstack([Z for _, Z in parts]))
        factors.append(Factor(name, grouping.levels, index, tuple(labels), Z, tuple(blocks)))
        recipes.append(FactorRecipe(name, grouping, tuple(terms for terms, _ in parts)))
    return tuple(factors), tuple(recipes)
