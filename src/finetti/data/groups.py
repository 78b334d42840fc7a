"""Grouping factors: identifiers become levels, and the levels of new rows are found again.

A level of a nested factor `a:b` is a pair, and pairs are told apart by the codes of their parts, never by their
text: ("A:1", "2") and ("A", "1:2") are two groups although both would be written "A:1:2".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finetti.data.columns import factorise
from finetti.errors import DataError

__all__ = ["Coded", "Grouping", "code_columns", "learn_grouping"]

Coded = tuple[np.ndarray, tuple[str, ...]]  # level of each row, and the sorted levels as text


@dataclass(frozen=True, eq=False)
class Grouping:
    """What identifies a level of a factor, learned from the training rows.

    Attributes
    ----------
    columns : the data columns, one for `g`, two for `a:b`, ...
    parts : the levels of each column
    keys : for the second and each later column, the sorted codes `prefix * len(part) + code` that were observed
    levels : the text of each level, in the order of the codes
    """

    columns: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    keys: tuple[np.ndarray, ...]
    levels: tuple[str, ...]

    def encode(self, coded: Mapping[str, Coded]) -> np.ndarray:
        """Return the level of each row of new data, -1 where it was not seen in training.

        >>> grouping, _ = learn_grouping(("g",), {"g": (np.array([0, 1]), ("a", "b"))})
        >>> grouping.encode({"g": (np.array([1, 0]), ("b", "c"))}).tolist()
        [-1, 1]
        """
        index = _translate(coded[self.columns[0]], self.parts[0])
        for column, part, keys in zip(self.columns[1:], self.parts[1:], self.keys, strict=True):
            code = _translate(coded[column], part)
            pair = np.where((index < 0) | (code < 0), -1, index * len(part) + code)
            found = np.minimum(np.searchsorted(keys, pair), len(keys) - 1)
            index = np.where(keys[found] == pair, found, -1)
        return index


def code_columns(series: Mapping[str, pd.Series]) -> dict[str, Coded]:
    """Factorise each grouping column once, however many factors use it."""
    return {name: factorise(column, name) for name, column in series.items()}


def learn_grouping(columns: tuple[str, ...], coded: Mapping[str, Coded]) -> tuple[Grouping, np.ndarray]:
    """Return the observed levels of a factor and the level of each row.

    Levels of `a:b` are the observed pairs only, ordered by the levels of `a`, then of `b`.

    >>> coded = {"a": (np.array([1, 0, 1]), ("A", "B")), "b": (np.array([0, 0, 0]), ("1",))}
    >>> grouping, index = learn_grouping(("a", "b"), coded)
    >>> grouping.levels, index.tolist()
    (('A:1', 'B:1'), [1, 0, 1])
    """
    index, levels = coded[columns[0]]
    parts, keys = [levels], []
    labels = list(levels)
    for column in columns[1:]:
        code, part = coded[column]
        index, observed = _ranked(index * len(part) + code)
        labels = [f"{labels[prefix]}:{part[last]}" for prefix, last in zip(*divmod(observed, len(part)), strict=True)]
        parts.append(part)
        keys.append(observed)
    if len(columns) > 1 and len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(
            f"Two different groups of {':'.join(columns)!r} would both be called {twice!r}, because the levels "
            "contain colons; rename the levels of one of the columns."
        )
    return Grouping(columns, tuple(parts), tuple(keys), tuple(labels)), np.ascontiguousarray(index, dtype=np.int64)


def _ranked(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct codes and the rank of each row: np.unique, with a hash table instead of a sort of all rows."""
    first, unique = pd.factorize(codes)
    order = np.argsort(unique)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[first], unique[order]


def _translate(coded: Coded, known: tuple[str, ...]) -> np.ndarray:
    """Codes of new rows in terms of the known levels, matched by text, so that 308 finds "308"."""
    index, levels = coded
    if levels == known:
        return index
    position = {level: i for i, level in enumerate(known)}
    return np.array([position.get(level, -1) for level in levels], dtype=np.int64)[index]
