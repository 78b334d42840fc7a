"""Contrasts: combinations of coefficients, written as text ("b - a"), as weights, or as a matrix.

A coefficient may be called by its label ("group[b]"), and a category of a design without intercept by itself ("b"), as
long as that means one thing only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from finetti.errors import ModelError, available

__all__ = ["is_intercept", "read_contrasts"]

_CATEGORY = re.compile(r"^[^\[\]]+\[(?!T\.)([^\[\]]+)\]$")
_INTERCEPT = ("Intercept", "(Intercept)")


def is_intercept(name: str, column: np.ndarray) -> bool:
    """Whether a column of the design is the constant 1."""
    return name in _INTERCEPT or bool(np.all(column == 1.0))


def read_contrasts(contrasts: Any, columns: Sequence[str], X: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the weights (p, C) of contrasts of the coefficients `columns` (p) of the design X.

    Parameters
    ----------
    contrasts : None, str, sequence of str, mapping of names to text or to weights by coefficient, or a matrix (p, C)
        None means every coefficient but the intercept.

    Examples
    --------
    >>> names, weights = read_contrasts("(b + c) / 2 - a", ("g[a]", "g[b]", "g[c]"), np.eye(3))
    >>> names, weights[:, 0].tolist()
    (('(b + c) / 2 - a',), [-1.0, 0.5, 0.5])
    """
    p = len(columns)
    if contrasts is None:
        chosen = [k for k in range(p) if not is_intercept(columns[k], X[:, k])] or list(range(p))
        return tuple(columns[k] for k in chosen), np.eye(p)[:, chosen]
    if isinstance(contrasts, str):
        contrasts = {contrasts: contrasts}
    elif not isinstance(contrasts, Mapping) and _all_text(contrasts):
        if len(set(contrasts)) < len(contrasts):
            raise ModelError(f"Contrasts must differ; given {', '.join(map(repr, contrasts))}.")
        contrasts = {text: text for text in contrasts}
    if isinstance(contrasts, Mapping):
        names = tuple(str(name) for name in contrasts)
        made = [_combination(value, str(name), columns) for name, value in contrasts.items()]
        weights = np.stack(made, axis=1) if made else np.empty((p, 0))
    else:
        names, weights = _matrix(contrasts, columns)
    if not names:
        raise ModelError("contrasts is empty; leave it out to have every coefficient but the intercept.")
    if len(set(names)) < len(names):
        raise ModelError(f"Names of contrasts must differ; given {', '.join(map(repr, names))}.")
    for name, column in zip(names, weights.T, strict=True):
        if not np.all(np.isfinite(column)) or not column.any():
            raise ModelError(
                f"The contrast {name!r} has weights {np.round(column, 6).tolist()}; they must be finite, and one at "
                "least must not be zero."
            )
    return names, weights


def _all_text(contrasts: Any) -> bool:
    return isinstance(contrasts, (list, tuple)) and len(contrasts) > 0 and all(isinstance(c, str) for c in contrasts)


def _matrix(contrasts: Any, columns: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    if isinstance(contrasts, pd.DataFrame):
        if not isinstance(contrasts.index, pd.RangeIndex):
            aliases = _aliases(columns)
            rows = [_position(str(name), columns, aliases, "contrasts") for name in contrasts.index]
            weights = np.zeros((len(columns), contrasts.shape[1]))
            weights[rows] = contrasts.to_numpy(dtype=float)
            return tuple(map(str, contrasts.columns)), weights
        names: Sequence[str] | None = [str(c) for c in contrasts.columns]
    else:
        names = None
    try:
        weights = np.asarray(contrasts, dtype=float)
    except (TypeError, ValueError):
        raise ModelError(
            f"contrasts of type {type(contrasts).__name__} cannot be read; give text such as 'b - a', a dict of names "
            "to text or to weights by coefficient, or a matrix with a row for each coefficient."
        ) from None
    weights = weights[:, None] if weights.ndim == 1 else weights
    if weights.ndim != 2 or weights.shape[0] != len(columns):
        raise ModelError(
            f"A matrix of contrasts needs {len(columns)} rows, one for each coefficient ({_listed(columns)}), but it "
            f"has shape {weights.shape}."
        )
    return tuple(names or [f"contrast{i + 1}" for i in range(weights.shape[1])]), weights


def _combination(value: Any, name: str, columns: Sequence[str]) -> np.ndarray:
    aliases = _aliases(columns)
    if isinstance(value, str):
        return _read_text(value, columns, aliases)
    if isinstance(value, Mapping):
        out = np.zeros(len(columns))
        for coefficient, weight in value.items():
            k = _position(str(coefficient), columns, aliases, name)
            try:
                out[k] += float(weight)
            except (TypeError, ValueError):
                raise ModelError(
                    f"The contrast {name!r} gives {coefficient!r} the weight {weight!r}, which is not a number."
                ) from None
        return out
    weights = np.asarray(value)
    if weights.shape == (len(columns),) and weights.dtype.kind in "iuf":
        return weights.astype(float)
    raise ModelError(
        f"The contrast {name!r} is {value!r}; expected text such as 'b - a', weights by coefficient such as "
        f"{{{columns[0]!r}: 1}}, or {len(columns)} numbers."
    )


def _aliases(columns: Sequence[str]) -> dict[str, int]:
    """Categories that stand for one column only: "b" for "group[b]"."""
    short = [match.group(1) if (match := _CATEGORY.match(name)) else None for name in columns]
    return {s: k for k, s in enumerate(short) if s is not None and short.count(s) == 1 and s not in columns}


def _position(name: str, columns: Sequence[str], aliases: Mapping[str, int], where: str) -> int:
    if name in columns:
        return list(columns).index(name)
    if name in aliases:
        return aliases[name]
    raise ModelError(
        f"The contrast {where!r} names {name!r}, which is not a coefficient of the design; "
        f"{available(name, [*columns, *aliases])}."
    )


def _read_text(text: str, columns: Sequence[str], aliases: Mapping[str, int]) -> np.ndarray:
    """A linear expression of coefficients; names are no Python names, so they are replaced, the longest first."""
    names = sorted([*columns, *aliases], key=len, reverse=True)
    pattern = "|".join([r"`([^`]+)`", *(rf"(?<![\w.\[]){re.escape(n)}(?![\w.\[])" for n in names)])
    places: list[str] = []

    def put(match: re.Match[str]) -> str:
        places.append(match.group(1) or match.group(0))
        return f" _{len(places) - 1}_ "

    replaced = re.sub(pattern, put, text)
    try:
        tree = ast.parse(replaced.strip(), mode="eval").body
    except SyntaxError:
        unknown = re.findall(r"[^\W\d][\w.]*(?:\[[^\]]*\])?", re.sub(r" _\d+_ ", " ", replaced))
        if unknown:
            _position(unknown[0], columns, aliases, text)
        raise _unreadable(text, columns) from None

    def read(node: ast.expr) -> tuple[np.ndarray, float]:
        """Weights and constant of a part of the expression."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value is not True:
            return np.zeros(len(columns)), float(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            w, c = read(node.operand)
            return (-w, -c) if isinstance(node.op, ast.USub) else (w, c)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            (w, c), (v, d) = read(node.left), read(node.right)
            sign = 1.0 if isinstance(node.op, ast.Add) else -1.0
            return w + sign * v, c + sign * d
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
            (w, c), (v, d) = read(node.left), read(node.right)
            if isinstance(node.op, ast.Div) and not v.any() and d != 0.0:
                return w / d, c / d
            if isinstance(node.op, ast.Mult) and not (w.any() and v.any()):
                return w * d + v * c, c * d
        elif isinstance(node, ast.Name) and (place := re.fullmatch(r"_(\d+)_", node.id)):
            out = np.zeros(len(columns))
            out[_position(places[int(place.group(1))], columns, aliases, text)] = 1.0
            return out, 0.0
        elif isinstance(node, (ast.Name, ast.Subscript, ast.Attribute)):
            _position(ast.unparse(node), columns, aliases, text)
        raise _unreadable(text, columns)

    weights, constant = read(tree)
    if constant != 0.0:
        raise ModelError(f"The contrast {text!r} adds the number {constant:g}; only coefficients can be combined.")
    return weights


def _unreadable(text: str, columns: Sequence[str]) -> ModelError:
    return ModelError(
        f"The contrast {text!r} cannot be read; write sums of coefficients with numbers as weights, such as 'b - a' or "
        f"'(b + c) / 2 - a'. Coefficients: {_listed(columns)}."
    )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns[:12])) + (f", ... ({len(columns)} in all)" if len(columns) > 12 else "")
