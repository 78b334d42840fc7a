"""The design of an expression study: which sample got what, matched with the columns of the matrix by name.

A table of samples and a matrix that list the samples in different orders are a classical mistake, which no number
betrays. So samples are matched by name wherever both sides have names, and by position only where one has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.checks import check_finite, check_magnitude, check_rank, observed_rows
from finetti.data.columns import covariate, kind_of
from finetti.data.frames import Table, read
from finetti.data.matrices import learn_terms, read_right_side
from finetti.errors import DataError, FormulaError, ModelError, available
from finetti.model.formula import parse

__all__ = ["SampleDesign", "read_samples"]

# what `parse` wants left of the right side
LEFT = "expression ~ "


@dataclass(frozen=True, eq=False)
class SampleDesign:
    """A design matrix with names.

    Attributes
    ----------
    X : (n, p) of full rank; columns : labels of the coefficients
    formula : the right side, or None where the matrix was given as numbers
    samples : names of the rows, or None
    named_by : where those names stand, for messages
    """

    X: np.ndarray
    columns: tuple[str, ...]
    formula: str | None
    samples: tuple[str, ...] | None
    named_by: str = ""

    def order(self, names: Sequence[str] | None, n: int) -> list[int]:
        """Return the position in the matrix of each row of the design, for a matrix of n samples called `names`."""
        if self.samples is None or names is None:
            if self.X.shape[0] != n:
                raise DataError(
                    f"The design has {self.X.shape[0]} samples, but the matrix has {n} columns of samples; they must "
                    "agree (genes in rows, samples in columns: is the matrix transposed, or a column not a sample?)."
                )
            return list(range(n))
        place = {name: j for j, name in enumerate(names)}
        absent = [name for name in self.samples if name not in place]
        if absent:
            raise DataError(
                f"The design names the sample {absent[0]!r} in {self.named_by}, which is not a column of the matrix "
                f"({len(absent)} of {len(self.samples)} samples are not); {available(absent[0], names, most=6)}. "
                f"Correct the names or leave those samples out; where they mean something else and the order is right, "
                f"drop {'the index: data.reset_index(drop=True)' if self.named_by == 'its index' else 'the column'}."
            )
        extra = [name for name in names if name not in set(self.samples)]
        if extra:
            raise DataError(
                f"The matrix has the sample {extra[0]!r}, which the design does not name ({len(extra)} such columns); "
                "leave it out of the matrix, or add it to the design."
            )
        return [place[name] for name in self.samples]


def read_samples(design: Any, data: Any, samples: str | None, candidates: Sequence[str] | None) -> SampleDesign:
    """Return the design of the samples.

    Parameters
    ----------
    design : str, table or (n, p) array
        The right side of a formula (with or without "~") on the columns of `data`, or the design matrix itself.
    data : table, optional
        One row for each sample.
    samples : str, optional
        The column that names the samples. By default the index of a pandas frame if it holds text, else the first
        column of text that holds names of columns of the matrix, each once (if a few are none, that is an error).
    candidates : names of the columns of the matrix, or None where they have none
    """
    if isinstance(design, str):
        if data is None:
            raise DataError(f"design={design!r} is a formula; give the table of the samples as data=.")
        return _by_formula(design, data, samples, candidates)
    if data is not None:
        raise DataError("data= goes with a formula, such as design='~ group'; a design matrix is complete by itself.")
    if isinstance(design, (list, tuple)) or (isinstance(design, np.ndarray) and design.dtype.names is None):
        return _by_array(design)
    return _by_frame(design, samples, candidates)


def _as_given(told: str, shift: int) -> str:
    """What is wrong with a formula, its characters counted in the text that was given."""
    place = re.match(r"formula, character (\d+)", told)
    return f", character {int(place[1]) + shift}{told[place.end() :]}" if place else told.removeprefix("formula")


def _by_formula(text: str, data: Any, samples: str | None, candidates: Sequence[str] | None) -> SampleDesign:
    right = text.strip().removeprefix("~").strip()
    if "~" in right or not right:
        raise FormulaError(f"design={text!r}: give the right side of a formula alone, such as '~ 0 + group'.")
    try:
        formula = parse(f"{LEFT}{right}")
    except FormulaError as error:
        raise FormulaError(f"design={text!r}{_as_given(str(error), text.index(right) - len(LEFT))}") from None
    if formula.groups or formula.offsets:
        what = f"the group term {formula.groups[0]}" if formula.groups else "an offset"
        raise FormulaError(
            f"design={text!r} has {what}, but every gene is fitted by least squares; for blocks (patients, batches) "
            "write them as a category, such as '~ treatment + patient'."
        )
    table = read(data)
    names, where = _names(table, data, samples, candidates)
    side = read_right_side(formula.population)
    raw = {name: table.column(name) for name in sorted(side.variables)}
    try:
        observed_rows(raw, table.n, "error")
    except DataError:
        gap = next(name for name in raw if raw[name].isna().any())
        raise DataError(
            f"The column {gap!r} of the samples has missing values; leave those samples out of the table and of the "
            "matrix, or fill the gaps."
        ) from None
    columns = {name: covariate(column, name) for name, column in raw.items()}
    for name, column in columns.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            if len(column.cat.categories) < 2:
                raise ModelError(
                    f"Every sample has the same {name!r} ({column.cat.categories[0]!r}), so its effect cannot be told "
                    "from the intercept; drop it from the design."
                )
        else:
            check_finite(column.to_numpy(), f"Column {name!r}", np.arange(table.n))
    terms, X = learn_terms(side, columns, table.n)
    return _checked(X, terms.columns, f"~ {formula.population}", names, where)


def _by_array(design: Any) -> SampleDesign:
    try:
        X = np.array(design, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "A design given as an array must hold numbers; for categories give a formula and a table: "
            "design='~ 0 + group', data={'group': [...]}."
        ) from None
    X = X[:, None] if X.ndim == 1 else X
    if X.ndim != 2 or 0 in X.shape:
        raise DataError(f"The design has shape {X.shape}; a row for each sample and a column for each coefficient.")
    columns = tuple("Intercept" if j == 0 and np.all(X[:, j] == 1.0) else f"x{j + 1}" for j in range(X.shape[1]))
    return _checked(X, columns, None, None, "")


def _by_frame(design: Any, samples: str | None, candidates: Sequence[str] | None) -> SampleDesign:
    table = read(design)
    names, where = _names(table, design, samples, candidates)
    chosen = [name for name in table.names if where != f"the column {name!r}"]
    X = np.empty((table.n, len(chosen)))
    for j, name in enumerate(chosen):
        column = table.column(name)
        if kind_of(column) not in ("number", "integer", "boolean", "decimal"):
            raise DataError(
                f"The column {name!r} of the design holds no numbers; give a formula and the table apart, such as "
                f"design='~ 0 + {name}', data=table. (A table alone is taken as the design matrix itself.)"
            )
        X[:, j] = covariate(column.astype(float), name).to_numpy()
    return _checked(X, tuple(chosen), None, names, where)


def _checked(
    X: np.ndarray, columns: tuple[str, ...], formula: str | None, names: tuple[str, ...] | None, where: str
) -> SampleDesign:
    if not columns:
        raise ModelError("The design has no coefficient; write '~ 1' to estimate the mean of every gene.")
    for j, label in enumerate(columns):
        check_finite(X[:, j], f"The design column {label!r}", np.arange(len(X)))
        check_magnitude(X[:, j], f"The design column {label!r}")
    if len(X) - len(columns) < 2:
        raise ModelError(
            f"{len(X)} samples leave {max(len(X) - len(columns), 0)} residual degrees of freedom after "
            f"{len(columns)} coefficients ({', '.join(map(repr, columns[:6]))}{', ...' if len(columns) > 6 else ''}); "
            "at least 2 are needed to estimate a variance. Use fewer coefficients, or more samples."
        )
    check_rank(X, columns)
    return SampleDesign(np.ascontiguousarray(X), columns, formula, names, where)


def _names(
    table: Table, data: Any, samples: str | None, candidates: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, str]:
    """Names of the samples, and where they were found."""
    if samples is not None:
        if candidates is None:
            raise DataError(f"samples={samples!r} names the samples of the design, but the matrix has no names.")
        names, where = tuple(str(v) for v in table.column(samples).tolist()), f"the column {samples!r}"
    elif isinstance(data, pd.DataFrame) and kind_of(data.index.to_series()) == "text":
        names, where = tuple(map(str, data.index)), "its index"
    else:
        if candidates is None:
            return None, ""
        known = set(candidates)
        for name in table.names:
            column = table.column(name)
            if kind_of(column) in ("text", "category"):
                values = [str(v) for v in column.tolist()]
                # names that are mostly known are names with a slip: matching by position would hide it
                if 2 * len(set(values) & known) > len(values) == len(set(values)):
                    return tuple(values), f"the column {name!r}"
        return None, ""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"Names of samples must differ, but {where} of the design has {twice[0]!r} more than once.")
    return names, where
