"""The tables of a fit as text cells, once, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.show.numbers import MISSING, count, decimals, number, shared_decimals, significant
from finetti.show.reading import pooling_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "Table", "groups_table", "priors_table", "summary_table"]


@dataclass(frozen=True)
class Column:
    """One column: its name in the frame, its heading, and how dispensable it is where space is short.

    Attributes
    ----------
    name, title : str
        Name in the frame that `fit` returns, and heading in words.
    right : bool
        Whether the cells are numbers, aligned at the right.
    spare : int
        0 for a column that is always shown; the highest number is left out first.
    """

    name: str
    title: str
    right: bool = True
    spare: int = 0


@dataclass(frozen=True)
class Table:
    """Cells of text under headings, with the numbers behind them where a reader may want to sort or draw.

    Attributes
    ----------
    columns : tuple of Column
    rows : tuple of tuple of str
        Cells, as many per row as there are columns.
    omitted : int
        Levels left out in the middle.
    gap : int or None
        Index of the first row after the omitted ones.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    omitted: int = 0
    gap: int | None = None

    def without(self, name: str) -> Table:
        """Return the table without the column `name`."""
        keep = [i for i, c in enumerate(self.columns) if c.name != name]
        rows = tuple(tuple(row[i] for i in keep) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in keep), rows=rows)


def _quantile_title(name: str) -> str:
    return f"{name[1:]} %"


def _quantiles(frame: pd.DataFrame) -> list[str]:
    return [str(c) for c in frame.columns if str(c)[:1] == "q" and str(c)[1:2].isdigit()]


def _scale(sd: float, quantiles: np.ndarray) -> float:
    """The sd, or where it does not exist, the spread of the quantiles (3.29 sd between 5 and 95 % of a normal)."""
    if np.isfinite(sd) and sd > 0:
        return float(sd)
    finite = quantiles[np.isfinite(quantiles)]
    return float(np.ptp(finite)) / 3.29 if finite.size > 1 else float("nan")


def summary_table(fit: Any, probs: Sequence[float] = (0.05, 0.5, 0.95)) -> Table:
    """Return `fit.summary(probs)` as text: each row with the decimals that its own sd supports.

    A value without uncertainty (a fixed hyperparameter, an empirical estimate) is written with 4 digits.
    """
    frame = fit.summary(probs=tuple(probs))
    quantiles = _quantiles(frame)
    columns = (
        Column("label", "", right=False),
        Column("mean", "mean"),
        Column("sd", "sd"),
        *(Column(q, _quantile_title(q)) for q in quantiles),
        Column("ess", "ess", spare=1),
        Column("mcse", "mcse", spare=2),
    )
    rows = []
    for label, row in frame.iterrows():
        values = row[quantiles].to_numpy(float)
        places = decimals(_scale(float(row["sd"]), values))
        middle = (
            [number(v, places) for v in (row["mean"], row["sd"], *values)]
            if places is not None
            else [significant(v, 4) for v in (row["mean"], row["sd"], *values)]
        )
        rows.append((str(label), *middle, count(row["ess"]), significant(row["mcse"], 2)))
    return Table(columns, tuple(rows))


def groups_table(fit: Any, group: str, most: int | None = None, probs: Sequence[float] = (0.05, 0.5, 0.95)) -> Table:
    """Return `fit.groups(group)` as text; decimals are shared by all levels of one coefficient.

    Parameters
    ----------
    fit : Fit
    group : str
        The grouping factor.
    most : int, optional
        Show at most this many levels, the first and the last ones. Default: all.
    probs : sequence of float
        Quantiles.
    """
    frame = fit.groups(group, probs=tuple(probs))
    quantiles = _quantiles(frame)
    names = list(dict.fromkeys(frame["coefficient"]))
    levels = list(dict.fromkeys(frame["level"]))
    omitted, gap = 0, None
    places = {}
    for name, part in frame.groupby("coefficient", sort=False):
        sds = [_scale(row[0], row[1:]) for row in part[["sd", *quantiles]].to_numpy(float)]
        places[name] = shared_decimals(sds)
    if most is not None and len(levels) > most:
        head = levels[: (most + 1) // 2]
        tail = levels[len(levels) - most // 2 :]
        omitted = len(levels) - len(head) - len(tail)
        gap = int(frame["level"].isin(head).sum())
        frame = frame[frame["level"].isin([*head, *tail])]
    columns = (
        Column("level", group, right=False),
        *([Column("coefficient", "coefficient", right=False)] if names != ["Intercept"] else []),
        Column("n", "n"),
        Column("raw", "raw"),
        Column("raw_se", "raw se", spare=2),
        Column("weight", "weight"),
        Column("population", "population", spare=3),
        Column("mean", "estimate" if pooling_of(fit, group) == "none" else "pooled"),
        Column("sd", "sd", spare=1),
        *(Column(q, _quantile_title(q), spare=4 if q == "q50" else 0) for q in quantiles),
    )
    rows = []
    for row in frame.to_dict("records"):
        digits = places[row["coefficient"]]
        cells = {name: number(row[name], digits) for name in ("population", "mean", "sd", *quantiles)}
        cells["level"], cells["coefficient"] = str(row["level"]), str(row["coefficient"])
        cells["n"], cells["weight"] = count(row["n"]), number(row["weight"], 2)
        # An ill-determined raw estimate can be thousands of pooled sds away: no decimals are known there.
        known = digits if not row["raw_se"] > 1e4 * (row["sd"] or np.nan) else None
        cells["raw"], cells["raw_se"] = number(row["raw"], known), number(row["raw_se"], known)
        rows.append(tuple(cells[c.name] for c in columns))
    return Table(columns, tuple(rows), omitted, gap)


def priors_table(fit: Any) -> Table:
    """Return `fit.priors` as text: the prior of every parameter and where it came from."""
    frame = fit.priors
    columns = (
        Column("label", "parameter", right=False),
        Column("prior", "prior", right=False),
        Column("source", "given by", right=False),
    )
    rows = []
    for label, row in frame.iterrows():
        source = str(row["source"])
        rows.append((str(label), str(row["prior"]) or MISSING, source if source == "default" else f"you, as {source}"))
    return Table(columns, tuple(rows))
