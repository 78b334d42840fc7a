"""The columns of the data that a formula uses, as variables of a NetCDF group, and back.

Numbers are stored as they are, in their own type. Everything else (text, categories, dates) reaches a model only
as ordered levels, and is stored as such: an integer code per row, and the levels as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from finetti.data.columns import factorise, kind_of
from finetti.data.groups import Coded
from finetti.errors import FinettiError
from finetti.posterior.store_codec import write_array

__all__ = ["POSITION", "read_columns", "read_text", "write_columns", "write_text"]

# a variable of ours beside the columns: where each row stood in the original table
POSITION = "position"


def write_columns(group: Any, columns: Mapping[str, pd.Series], coded: Mapping[str, Coded]) -> None:
    """Write every column; the attribute `columns` lists the variables in order, each variable tells its kind.

    `coded` holds the codes and levels of the columns that are grouping factors, so as not to find them again.
    """
    levels = group.create_group("levels")
    taken = {"row", "levels", POSITION}
    listed = []
    for name, series in columns.items():
        variable = _variable_name(name, taken)
        kind = kind_of(series)
        values = _plain_numbers(series) if kind in ("number", "integer", "boolean") else None
        if values is not None:
            stored = write_array(group, variable, values, ("row",))
        elif kind in ("integer", "number", "decimal"):  # beyond 64 bits, or mixed: each distinct value as text
            codes, unique = pd.factorize(series)
            stored = write_array(group, variable, _narrow(codes, len(unique)), ("row",))
            write_text(levels.create_group(variable), "name", [_token(v) for v in unique], "level")
            kind = "decimal"
        else:
            index, labels = coded[name] if name in coded else factorise(series, name)
            stored = write_array(group, variable, _narrow(index, len(labels)), ("row",))
            write_text(levels.create_group(variable), "name", labels, "level")
        stored.attrs["kind"] = kind
        stored.attrs["column"] = name
        if values is None:
            stored.attrs["levels"] = f"levels/{variable}/name"
        listed.append(variable)
    group.attrs["columns"] = "\n".join(listed)


def read_columns(group: Any) -> dict[str, pd.Series]:
    """Return the columns in the order they were written, ready to be bound again."""
    out = {}
    for variable in group.attrs["columns"].split("\n"):
        stored = group[variable]
        kind, name = str(stored.attrs["kind"]), str(stored.attrs["column"])
        values = np.array(stored[...])
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if "levels" not in stored.attrs:
            out[name] = pd.Series(values.astype(bool) if kind == "boolean" else values)
            continue
        texts = read_text(group["levels"][variable], "name")
        if values.size and not (values.min() >= 0 and values.max() < len(texts)):
            raise ValueError(f"column {name!r} has codes without a level")
        if kind == "decimal":
            exact = np.empty(len(texts), dtype=object)
            exact[:] = [_value(text) for text in texts]
            out[name] = pd.Series(exact[values], dtype=object)
        else:
            out[name] = pd.Series(pd.Categorical.from_codes(values, categories=pd.Index(texts, dtype=object)))
    return out


def write_text(group: Any, name: str, texts: Any, dim: str) -> None:
    """Write text as UTF-8 characters, which compress well and which every NetCDF reader shows as text.

    A text with a zero byte at its end, or one that is not UTF-8 (a lone surrogate), is escaped as in JSON.
    """
    escaped = any("\0" in t or not _encodable(t) for t in texts)
    plain = [_escape(t) if escaped else t for t in texts]
    encoded = np.array([t.encode("utf-8") for t in plain] or [b""], dtype=bytes)
    width = max(encoded.dtype.itemsize, 1)
    characters = encoded.astype(f"S{width}").view("S1").reshape(-1, width)[: len(plain)]
    stored = write_array(group, name, characters, (dim, f"{dim}_length"))
    stored.attrs["_Encoding"] = "utf-8"
    if escaped:
        stored.attrs["escaped"] = "json"


def read_text(group: Any, name: str) -> list[str]:
    """Inverse of `write_text`."""
    stored = group[name]
    characters = np.ascontiguousarray(stored[...])
    if characters.dtype != np.dtype("S1") or characters.ndim != 2:
        raise ValueError(f"{name!r} does not hold text")
    raw = characters.view(f"S{characters.shape[1]}").ravel() if characters.size else np.zeros(len(characters), "S1")
    texts = [t.decode("utf-8") for t in raw.tolist()]
    return [_unescape(t) for t in texts] if "escaped" in stored.attrs else texts


def _variable_name(name: str, taken: set[str]) -> str:
    """Return a free name that NetCDF allows, the column's own where possible."""
    plain = name.strip()
    usable = plain == name and name and len(name) < 200 and _encodable(name) and name.isprintable()
    if not usable or "/" in name or not (name[0].isalnum() or name[0] == "_" or ord(name[0]) > 127) or "\n" in name:
        plain = "column"
    while plain in taken:
        plain += "_"
    taken.add(plain)
    return plain


def _plain_numbers(series: pd.Series) -> np.ndarray | None:
    """Values in a plain numeric dtype, or None where that would lose something (Python objects of any size)."""
    dtype: Any = series.dtype
    dtype = getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", None) or dtype
    if dtype != np.dtype(object):
        return np.asarray(series.to_numpy(dtype=dtype))
    values = list(series)
    if all(isinstance(v, bool | np.bool_) for v in values):
        return np.array(values, dtype=bool)
    if all(isinstance(v, int | np.integer) and -(2**63) <= v < 2**63 for v in values):
        return np.array(values, dtype=np.int64)
    return None


def _narrow(codes: np.ndarray, n: int) -> np.ndarray:
    return codes.astype(np.int8 if n < 2**7 else np.int16 if n < 2**15 else np.int32)


def _token(value: Any) -> str:
    """Write a number as text that gives it back: its kind in a letter, then its digits."""
    if isinstance(value, Decimal):
        return f"d{value}"
    if isinstance(value, int | np.integer):
        return f"i{int(value)}"
    if isinstance(value, float | np.floating):
        return f"f{float(value)!r}"
    raise FinettiError(f"a value of type {type(value).__name__} in the data cannot be stored; convert it to a number")


def _value(token: str) -> Any:
    return {"d": Decimal, "i": int, "f": float}[token[0]](token[1:])


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escape(text: str) -> str:
    import json

    return json.dumps(text)


def _unescape(text: str) -> str:
    import json

    return str(json.loads(text))
