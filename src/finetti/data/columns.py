"""One column: what kind of values it holds, which are missing, as numbers, as levels.

Integers stay integers until the last moment, because an identifier above 2**53 would collide with its neighbour as
a float. Levels are text, but only each level is ever turned into text, never each row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd

from finetti.errors import DataError

__all__ = ["Kind", "categorical", "covariate", "factorise", "kind_of", "missing_mask", "numbers"]

Kind = Literal["number", "integer", "boolean", "category", "text", "date", "decimal", "empty", "other"]

_INFERRED: dict[str, Kind] = {
    "string": "text", "boolean": "boolean", "integer": "integer", "floating": "number", "mixed-integer-float": "number",
    "decimal": "decimal", "empty": "empty", "date": "date", "datetime": "date", "datetime64": "date", "time": "date",
    "timedelta": "date", "timedelta64": "date", "period": "date",
}  # fmt: skip


def kind_of(series: pd.Series) -> Kind:
    """Return what a column holds, whatever its dtype calls it.

    >>> kind_of(pd.Series([True, None], dtype=object)), kind_of(pd.Series([1, 2], dtype="Int64"))
    ('boolean', 'integer')
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(dtype, pd.StringDtype):
        return "text"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if (
        pd.api.types.is_datetime64_any_dtype(dtype)
        or pd.api.types.is_timedelta64_dtype(dtype)
        or isinstance(dtype, pd.PeriodDtype)
    ):
        return "date"
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _INFERRED.get(pd.api.types.infer_dtype(series, skipna=True), "other")
    return "other"


def missing_mask(series: pd.Series) -> np.ndarray:
    """Return which values are null or NaN (a nullable float column may hold either).

    >>> missing_mask(pd.Series([1.0, np.nan])).tolist()
    [False, True]
    """
    if pd.api.types.is_float_dtype(series.dtype):
        return np.isnan(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return series.isna().to_numpy(dtype=bool)


def numbers(series: pd.Series, name: str, role: str) -> np.ndarray:
    """Return a numeric column as a fresh float64 array; booleans are refused, text and dates too.

    >>> numbers(pd.Series([1, 2]), "y", "response").tolist()
    [1.0, 2.0]
    """
    kind = kind_of(series)
    if kind in ("number", "integer", "decimal"):
        return _floats(series)
    held = {"category": "categories", "boolean": "True/False values", "other": "values of mixed type"}.get(kind, kind)
    advice = {
        "boolean": f"a Gaussian model needs numbers: convert it with data[{name!r}].astype(float) if 0 and 1 are meant",
        "text": "convert it to numbers first (a stray word in a column of numbers makes all of it text)",
        "category": "convert it to numbers first, if its categories stand for numbers",
        "date": "convert it first, for example to days since the first date",
    }.get(kind, "convert it to numbers first")
    raise DataError(f"The {role} {name!r} must be numeric, but it holds {held}; {advice}.")


def covariate(series: pd.Series, name: str) -> pd.Series:
    """Return a column without missing values as float64, or as a pandas Categorical with text categories.

    Booleans become 0 and 1. Categories keep their order, text is sorted, and categories without a row are dropped.

    >>> covariate(pd.Series(["b", "a"]), "x").cat.categories.tolist()
    ['a', 'b']
    """
    kind = kind_of(series)
    if kind in ("number", "integer", "boolean", "decimal"):
        return pd.Series(_floats(series), copy=False, name=name)
    if kind in ("category", "text"):
        return categorical(*factorise(series, name), name)
    if kind == "date":
        raise DataError(
            f"Column {name!r} holds dates or times, which cannot enter a linear predictor; convert them to numbers, "
            f"for example (data[{name!r}] - data[{name!r}].min()).dt.days, or to text if each date is a category."
        )
    raise DataError(
        f"Column {name!r} holds values of {series.dtype} type that are neither all numbers nor all text; "
        "convert it to one of them."
    )


def factorise(series: pd.Series, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the level of each row (int64) and the sorted levels as text, for a column without missing values.

    Numbers and dates are sorted as such, text by code point, categories by their own order; unused categories are
    dropped. A float that is a whole number prints as one.

    >>> index, levels = factorise(pd.Series([10, 9, 10]), "g")
    >>> index.tolist(), levels
    ([1, 0, 1], ('9', '10'))
    """
    kind = kind_of(series)
    if kind == "category":
        codes = series.cat.codes.to_numpy(dtype=np.int64)
        used = np.flatnonzero(np.bincount(codes, minlength=len(series.cat.categories)))
        rank = np.full(len(series.cat.categories), -1, dtype=np.int64)
        rank[used] = np.arange(len(used))
        return rank[codes], _distinct(_labels(series.cat.categories.take(used)), name)
    if kind in ("other", "empty"):
        raise DataError(
            f"Column {name!r} holds values of mixed or unsupported type ({series.dtype}), so its groups cannot be "
            "sorted; convert it to text or to numbers."
        )
    values: Any
    if kind in ("integer", "boolean", "number") and series.dtype != object:
        codes, unique = pd.factorize(_plain(series))
        if kind == "number" and not np.isfinite(unique).all():
            raise DataError(
                f"Column {name!r} groups the rows, but it holds infinite values; correct or leave out those rows."
            )
        order = np.argsort(unique, kind="stable")
        values = unique[order]
    else:
        codes, objects = pd.factorize(series)
        values = list(objects)
        try:
            order = np.array(sorted(range(len(values)), key=values.__getitem__), dtype=np.int64)
        except TypeError as error:
            raise DataError(f"The values of column {name!r} cannot be sorted ({error}); convert it to text.") from None
        values = [values[i] for i in order]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], _distinct(_labels(values), name)


def categorical(index: np.ndarray, levels: tuple[str, ...], name: str) -> pd.Series:
    """Return a pandas Categorical of these codes, every level a category whether it occurs or not."""
    return pd.Series(pd.Categorical.from_codes(index, categories=pd.Index(list(levels))), copy=False, name=name)


def _floats(series: pd.Series) -> np.ndarray:
    # A copy: pandas hands out read-only views, for which a numba kernel would be compiled a second time.
    return np.array(series.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64, order="C", copy=True)


def _plain(series: pd.Series) -> np.ndarray:
    """Values of a nullable or sparse column without missing values, in its plain numpy dtype."""
    dtype: Any = getattr(series.dtype, "numpy_dtype", None) or getattr(series.dtype, "subtype", None) or series.dtype
    return series.to_numpy(dtype=dtype)


def _labels(values: Iterable[Any]) -> list[str]:
    """Text of each level: whole floats as integers, midnights as dates."""
    items = values.tolist() if isinstance(values, (np.ndarray, pd.Index)) else list(values)
    stamps = [v for v in items if isinstance(v, dt.datetime)]
    whole_days = all(v.time() == dt.time(0) and v.tzinfo is None for v in stamps)

    def label(value: Any) -> str:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        if isinstance(value, dt.datetime):
            return str(value.date()) if whole_days else value.isoformat(sep=" ")
        return str(value)

    return [label(value) for value in items]


def _distinct(labels: list[str], name: str) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        twice = sorted({v for v in labels if labels.count(v) > 1}) if len(labels) < 10_000 else []
        raise DataError(
            f"Different values of column {name!r} read the same as text{f' ({twice[0]!r})' if twice else ''}; "
            "rename them, so that every level has a name of its own."
        )
    return tuple(labels)
