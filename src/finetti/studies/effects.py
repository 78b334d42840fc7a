"""What a meta-analysis is given, as one table: an effect, a standard error and a label in every row.

    effect[i] | se(se[i]) ~ 1 + moderators[i] + u_cluster[c[i]] + u_study[i]

Columns are taken by name from a table, or given as arrays. Names inside the model are always `effect`, `se`, `study`
and `cluster`, so that labels of parameters do not depend on how a data set happens to call its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.checks import as_floats, check_finite, observed_rows
from finetti.data.columns import factorise, missing_mask, numbers
from finetti.data.covariance import Covariance
from finetti.data.frames import Table, read
from finetti.data.matrices import learn_expression
from finetti.errors import DataError, FinettiError, FormulaError, ModelError
from finetti.model.formula import Formula, parse
from finetti.model.whitelist import check_expression
from finetti.studies.covariance import read_covariance

__all__ = ["Effects", "read_effects"]

_ROUNDING = 1e-6  # a standard error written with seven digits still agrees with the diagonal of V


@dataclass(frozen=True)
class Effects:
    """The table that the model meets, the formula, and the covariance of the errors where V was given.

    Attributes
    ----------
    columns : `effect`, `se`, `study`, perhaps `cluster`, and the columns of the moderators, k values each
    formula : with the internal names
    covariance : blocks of V that couple several effects, or None
    effect_name, se_name : what the user calls the effect and its standard error, for axes and messages
    """

    columns: dict[str, pd.Series]
    formula: Formula
    covariance: Covariance | None
    effect_name: str
    se_name: str

    def with_other_columns(self, data: Any) -> pd.DataFrame:
        """The table with the user's other columns, for later questions about the studies, if they hold values."""
        frame = pd.DataFrame(self.columns)
        table = None if data is None else read(data)
        for name in () if table is None else table.names:
            if name not in frame:
                try:
                    frame[name] = table.column(name)  # type: ignore[union-attr]
                except (FinettiError, TypeError, ValueError):
                    continue
        return frame


def read_effects(
    effect: Any, se: Any, data: Any = None, *, labels: Any = None, moderators: str | None = None, cluster: Any = None,
    V: Any = None, missing: str = "error",
) -> Effects:  # fmt: skip
    """Collect and check the input of `finetti.meta`; see there for the parameters.

    Raises
    ------
    DataError, FormulaError, ModelError

    Examples
    --------
    >>> found = read_effects([0.1, 0.3], [0.2, 0.2], labels=["A", "B"])
    >>> print(found.formula)
    effect | se(se) ~ 1 + (1 | study)
    >>> found.columns["study"].tolist()
    ['A', 'B']
    """
    table = None if data is None else read(data)
    if se is None and V is None:
        raise DataError(
            "meta needs the standard errors of the effects: give se= (a column name or an array; for a column of "
            "variances write se='sqrt(vi)'), or their covariance matrix V="
        )
    y, effect_name = _numbers(effect, table, "effect")
    k = len(y)
    columns: dict[str, pd.Series] = {"effect": y}
    blocks, covariance = None, None
    if V is not None:
        blocks = read_covariance(V, k)
        covariance = tuple(b for b in blocks if len(b[0]) > 1)
    se_name = "se"
    if se is not None:
        columns["se"], se_name = _numbers(se, table, "se")
    elif blocks is not None:
        columns["se"] = pd.Series(np.sqrt(_diagonal(blocks, k)), name="se")
    _same_length(columns, k, table)
    given = columns["se"].to_numpy()
    _check_positive(given, se_name)
    if blocks is not None and se is not None:
        _check_agrees(given, _diagonal(blocks, k))
    columns["study"] = _labels(labels, table, k)
    if cluster is not None:
        columns["cluster"] = _labels_of(cluster, table, "cluster")
    _same_length(columns, k, table)
    _check_unique(columns["study"], labels, cluster is not None)
    given_names = {"effect": effect, "se": se, "study": labels, "cluster": cluster}
    formula, extra = _formula(moderators, table, {name: given_names[name] for name in columns})
    columns |= extra
    _same_length(columns, k, table)
    # complain of gaps here, where the user's own names of the columns are known
    theirs = {"study": "labels"} | {name: v for name, v in given_names.items() if isinstance(v, str)}
    observed_rows({theirs.get(name, name): column for name, column in columns.items()}, k, missing)
    return Effects(columns, formula, covariance or None, effect_name, se_name)


# ---- columns ---------------------------------------------------------------------------------------------------------


def _numbers(value: Any, table: Table | None, role: str) -> tuple[pd.Series, str]:
    """A numeric column by name, by an expression of columns such as "sqrt(vi)", or from an array."""
    what = {"effect": "effect", "se": "standard error"}[role]
    series, name = _column(value, table, role)
    if series is None:
        assert table is not None
        return _expression(value, table, role), value
    if not len(series):
        raise DataError(f"There are no studies: {name!r} is empty; a meta-analysis needs at least one.")
    values = numbers(series, name, what)
    seen = values[~np.isnan(values)]
    check_finite(np.where(np.isnan(values), 0.0, values), f"The {what} {name!r}", np.arange(len(values)))
    if not seen.size:
        raise DataError(f"The {what} {name!r} is missing in every row; a meta-analysis needs at least one study.")
    return pd.Series(values, name=role), name


def _column(value: Any, table: Table | None, role: str) -> tuple[pd.Series | None, str]:
    """The column or the array; None for a text that is no column (perhaps an expression)."""
    if isinstance(value, str):
        if table is None:
            raise DataError(
                f"{role}={value!r} names a column, but no table was given; add data= (a table, or the path of a file), "
                f"or give the values of {role} themselves."
            )
        if value in table.names or role not in ("effect", "se"):
            return table.column(value), value
        return None, value
    array = np.asarray(value, dtype=object) if isinstance(value, (list, tuple)) else value
    if np.ndim(array) != 1:
        shape = "a single value" if np.ndim(array) == 0 else f"of shape {np.shape(array)}"
        raise DataError(f"{role} must be a column name or one value per study, but it is {shape}.")
    if isinstance(value, pd.Series):
        return value.reset_index(drop=True), role
    # through a table, so that lists, polars and arrow columns all become what `read` makes of them
    kept = [None if _is_nan(v) else v for v in value] if isinstance(value, (list, tuple)) else value
    plain = pd.Series(kept) if isinstance(kept, (list, np.ndarray)) else read(_as_frame(kept)).column("value")
    return plain, role


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _as_frame(value: Any) -> Any:
    """A one-column table of a polars or arrow column, or of anything else that can be iterated."""
    import pyarrow as pa

    if isinstance(value, pa.Array | pa.ChunkedArray):
        return pa.table({"value": value})
    return value.to_frame("value") if hasattr(value, "to_frame") else {"value": list(value)}


def _expression(text: str, table: Table, role: str) -> pd.Series:
    """Evaluate such as "sqrt(vi)" on the columns, or say that there is no such column."""
    try:
        names = check_expression(text, where=f"{role}=")
    except FormulaError as error:
        if text.isidentifier() or "(" not in text:
            table.column(text)  # raises, listing the columns
        raise error
    for name in names:
        table.column(name)
    if not names or text in names:
        table.column(text)
    frame = {name: pd.Series(numbers(table.column(name), name, "column")) for name in names}
    with np.errstate(all="ignore"):
        _, value = learn_expression(text, frame)
    values = as_floats(value, table.n)
    gaps = np.logical_or.reduce([missing_mask(column) for column in frame.values()])
    check_finite(np.where(gaps, 0.0, values), f"{role}={text!r}", np.arange(table.n))
    return pd.Series(np.where(gaps, np.nan, values), name=role)


def _labels(labels: Any, table: Table | None, k: int) -> pd.Series:
    """Names of the studies as ordered categories, so that tables keep the order of the data."""
    if labels is None:
        return _in_order([str(i + 1) for i in range(k)])
    return _labels_of(labels, table, "labels")


def _labels_of(value: Any, table: Table | None, role: str) -> pd.Series:
    series, name = _column(value, table, role)
    assert series is not None
    gaps = missing_mask(series)
    index, levels = factorise(series[~gaps].reset_index(drop=True), name)
    text: list[str | None] = [None] * len(series)
    for row, level in zip(np.flatnonzero(~gaps), index, strict=True):
        text[row] = levels[level]
    return _in_order(text)


def _in_order(text: Sequence[str | None]) -> pd.Series:
    categories = list(dict.fromkeys(t for t in text if t is not None))
    place: dict[str | None, int] = {name: i for i, name in enumerate(categories)} | {None: -1}
    codes = np.array([place[t] for t in text], dtype=np.int64)
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype=object)))


# ---- checks ----------------------------------------------------------------------------------------------------------


def _same_length(columns: dict[str, pd.Series], k: int, table: Table | None) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        hint = "" if table is None else f" (the table has {table.n} rows)"
        raise DataError(f"One value per study is expected, but the numbers of values differ: {shown}{hint}.")


def _check_positive(se: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(se <= 0.0)
    if bad.size:
        raise DataError(
            f"A standard error must be above zero, but {name!r} is {se[bad[0]]:g} in row {bad[0]} (counting from 0; "
            f"{bad.size} such rows in all). It would make a study exact: correct it, or leave out those rows."
        )


def _check_agrees(se: np.ndarray, variance: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        off = np.flatnonzero(np.abs(se**2 - variance) > 2.0 * _ROUNDING * variance)
    if off.size:
        i = int(off[0])
        raise DataError(
            f"se and V contradict each other: in row {i} (counting from 0) se² is {se[i] ** 2:.6g}, but V has "
            f"{variance[i]:.6g} on its diagonal. Leave se out (se=None: it is then the square root of the diagonal), "
            "or correct one of them."
        )


def _diagonal(blocks: Covariance, k: int) -> np.ndarray:
    out = np.empty(k)
    for rows, cov in blocks:
        out[rows] = np.diag(cov)
    return out


def _check_unique(study: pd.Series, labels: Any, clustered: bool) -> None:
    counts = study.value_counts()
    twice = counts[counts > 1]
    if labels is None or not len(twice):
        return
    name = f"labels={labels!r}" if isinstance(labels, str) else "labels"
    rest = f" ({len(twice) - 1} other labels repeat, too)" if len(twice) > 1 else ""
    way = (
        "give labels that differ within a cluster (such as author and outcome together), or leave labels out"
        if clustered
        else f"if a study has several effects, give cluster={labels!r} and leave labels out"
        if isinstance(labels, str)
        else "if a study has several effects, give these labels as cluster= and leave labels out"
    )
    raise DataError(
        f"{name}: {twice.index[0]!r} names {int(twice.iloc[0])} rows{rest}; every row is one effect and needs a "
        f"label of its own: {way}. Otherwise rename the duplicates."
    )


# ---- the formula -----------------------------------------------------------------------------------------------------


def _formula(moderators: Any, table: Table | None, own: dict[str, Any]) -> tuple[Formula, dict[str, pd.Series]]:
    """The model's formula, and the columns of the moderators under their own names."""
    groups = "".join(f" + (1 | {name})" for name in ("cluster", "study") if name in own)
    if moderators is None:
        return parse(f"effect | se(se) ~ 1{groups}"), {}
    if not isinstance(moderators, str) or not moderators.strip(" ~"):
        raise FormulaError(
            f"moderators={moderators!r} must be the right side of a formula, such as 'year + C(design)', or None"
        )
    right = moderators.strip().removeprefix("~").strip()
    if "~" in right:
        raise FormulaError(f"moderators={moderators!r}: give the right side alone, such as 'year + C(design)'")
    alone = parse(f"effect ~ {right}")
    if alone.groups or alone.offsets:
        what = "group terms; give the clusters of effects as cluster=" if alone.groups else "offset()"
        raise FormulaError(f"moderators={moderators!r} cannot hold {what}")
    extra: dict[str, pd.Series] = {}
    for name in sorted(parse(f"effect_ ~ {right}").columns - {"effect_"}):
        if table is None:
            raise DataError(f"moderators={moderators!r} names the column {name!r}, but no table was given; add data=.")
        column = table.column(name)
        if name not in own:
            extra[name] = column
        elif own[name] != name:
            raise ModelError(
                f"The moderator {name!r} has the name that the model gives to the "
                f"{'labels' if name == 'study' else name} of the studies; rename the column, for example "
                f"data.rename(columns={{{name!r}: {name + '_'!r}}})."
            )
    return parse(f"effect | se(se) ~ {right}{groups}"), extra
