"""The tables of a screen as text cells, once, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from finetti.show.numbers import MISSING, count, decimals, number, shared_decimals, significant
from finetti.show.screen_reading import ScreenReading
from finetti.show.tables import Column, Table

__all__ = [
    "DIGITS",
    "TITLES",
    "counts_table",
    "frame_table",
    "groups_table",
    "hyper_table",
    "label_of",
    "places_of",
    "rows_table",
]

DIGITS = 3  # of probabilities
TITLES = {
    "effect": "effect", "se": "se", "mean": "shrunk", "sd": "sd", "q5": "5 %", "q95": "95 %", "prob_null": "P(null)",
    "lfsr": "lfsr", "qvalue": "q",
}  # fmt: skip
_WORDS = {
    "pi0": "share without effect", "slab_sd": "sd of the effects", "null_mean": "mean of the null, in se",
    "null_sd": "sd of the null, in se", "sd_pi0": "of groups, logit pi0", "sd_slab_sd": "of groups, log slab_sd",
}  # fmt: skip
_GROUPS = {
    "n": "tests", "low": "from", "high": "to", "pi0_mean": "without effect", "pi0_q5": "5 %", "pi0_q95": "95 %",
    "slab_sd_mean": "sd of effects", "slab_sd_q5": "5 %", "slab_sd_q95": "95 %", "expected_nonnull": "effects expected",
}  # fmt: skip
_SPARE = {"se": 2, "q5": 1, "q95": 1, "lfsr": 3}


def label_of(value: Any) -> str:
    """Return a label as text; a missing one as a dash.

    >>> label_of("TP53"), label_of(610), label_of(float("nan"))
    ('TP53', '610', '–')
    """
    if isinstance(value, tuple):
        return ", ".join(map(label_of, value))
    missing = value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value))
    return MISSING if missing else str(value)


def places_of(found: ScreenReading) -> int | None:
    """Decimals of effects: three digits of a typical standard error, in which all of them are measured."""
    return shared_decimals(found.screened.se, 3)


def rows_table(found: ScreenReading, rows: Iterable[int]) -> Table:
    """Return some rows of `Screen.table` as text."""
    frame = found.table()
    effects = ("effect", *(() if found.screened.z_values else ("se",)), "mean", "q5", "q95")
    names = (*effects, "prob_null", "lfsr", "qvalue")
    columns = (
        Column("label", str(frame.index.name or "test"), right=False),
        *(Column(name, TITLES[name], spare=_SPARE.get(name, 0)) for name in names),
    )
    places, made = places_of(found), []
    for i in rows:
        row = frame.iloc[int(i)]
        cells = [number(row[n], places) if n in effects else significant(row[n], DIGITS) for n in names]
        made.append((label_of(frame.index[int(i)]), *cells))
    return Table(columns, tuple(made))


def hyper_table(found: ScreenReading, *, words: bool = True) -> Table:
    """Return `Screen.hyper` as text, each row with what it means."""
    frame = found.hyper()
    columns = (
        Column("label", "parameter", right=False),
        Column("mean", "mean"),
        Column("sd", "sd"),
        *(Column(q, f"{q[1:]} %") for q in ("q5", "q50", "q95")),
        Column("ess", "ess", spare=1),
        Column("mcse", "mcse", spare=2),
        *([Column("words", "what it is", right=False, spare=3)] if words else []),
    )
    rows = []
    for name, row in frame.iterrows():
        moments = row[["mean", "sd", "q5", "q50", "q95"]].to_numpy(float)
        rows.append(
            (str(name), *_written(moments), count(row["ess"]), significant(row["mcse"], 2),
             *([_WORDS.get(str(name), "")] if words else []))
        )  # fmt: skip
    return Table(columns, tuple(rows))


def _written(moments: np.ndarray) -> list[str]:
    """Mean, sd and quantiles with the decimals that the sd supports; without uncertainty with 4 digits."""
    sd = moments[1]
    places = decimals(float(sd)) if np.isfinite(sd) else None
    return [significant(v, 4) if places is None else number(v, places) for v in moments]


def groups_table(found: ScreenReading, most: int | None = None) -> Table:
    """Return `Screen.groups` as text; the sds and medians, which the file has, are left out."""
    frame = found.groups()
    assert frame is not None
    shown = frame[[name for name in _GROUPS if name in frame.columns]].rename(columns={"pi0_mean": "mean"})
    made = frame_table(shown, str(frame.index.name or "group"), most)
    titles = {**_GROUPS, "mean": _GROUPS["pi0_mean"]}
    return replace(made, columns=tuple(replace(c, title=titles.get(c.name, c.title)) for c in made.columns))


def frame_table(frame: pd.DataFrame, first: str, most: int | None = None) -> Table:
    """Return any frame of numbers, such as `Screen.groups`, as text: three digits of each number, counts as counts."""
    rows = []
    columns = [Column("label", first, right=False)]
    for name in frame.columns:
        columns.append(Column(str(name), _title(str(name)), right=pd.api.types.is_numeric_dtype(frame[name])))
    for label, values in zip(frame.index, frame.itertuples(index=False), strict=True):
        first_cell = significant(label, 4) if isinstance(label, float) and np.isfinite(label) else label_of(label)
        cells = (count(v) if name == "ess" else _cell(v) for name, v in zip(frame.columns, values, strict=True))
        rows.append((first_cell, *cells))
    return Table(tuple(columns), tuple(rows[:most]))


def _title(name: str) -> str:
    if name[:1] == "q" and name[1:].replace(".", "").isdigit():
        return f"{name[1:]} %"
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if 1000 <= value < 1e7 else significant(float(value), DIGITS)
    return label_of(value)


def counts_table(counts: Sequence[tuple[str, int]]) -> Table:
    """Return what was counted on the way from the data to the tests."""
    columns = (Column("what", "counted", right=False), Column("n", "number"))
    return Table(columns, tuple((what, f"{n:,}") for what, n in counts))
