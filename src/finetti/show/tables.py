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

__all__ = [
    "Column", "Table", "factors_table", "groups_table", "meta_table", "priors_table", "studies_table", "summary_table",
    "variables_table",
]  # fmt: skip


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
        Column("label", "parameter", right=False),
        Column("mean", "mean"),
        Column("sd", "sd"),
        *(Column(q, _quantile_title(q)) for q in quantiles),
        Column("ess", "ess", spare=1),
        Column("mcse", "mcse", spare=2),
    )
    rows = []
    for label, row in frame.iterrows():
        rows.append((str(label), *_moments(row, quantiles), count(row["ess"]), significant(row["mcse"], 2)))
    return Table(columns, tuple(rows))


def _moments(row: pd.Series, quantiles: Sequence[str]) -> list[str]:
    """Mean, sd and quantiles with the decimals that the sd supports; without uncertainty with 4 digits."""
    values = row[list(quantiles)].to_numpy(float)
    places = decimals(_scale(float(row["sd"]), values))
    if places is None:
        return [significant(v, 4) for v in (row["mean"], row["sd"], *values)]
    return [number(v, places) for v in (row["mean"], row["sd"], *values)]


def meta_table(frame: pd.DataFrame, title: str) -> Table:
    """Return `overall()` or `heterogeneity()` of a meta-analysis as text."""
    quantiles = _quantiles(frame)
    columns = (
        Column("name", title, right=False),
        Column("mean", "mean"),
        Column("sd", "sd"),
        *(Column(q, _quantile_title(q)) for q in quantiles),
    )
    return Table(columns, tuple((str(name), *_moments(row, quantiles)) for name, row in frame.iterrows()))


def studies_table(fit: Any, most: int | None = None, probs: Sequence[float] = (0.05, 0.5, 0.95)) -> Table:
    """Return `studies()` of a meta-analysis as text; decimals are shared by all studies."""
    frame = fit.studies(probs=tuple(probs))
    quantiles = _quantiles(frame)
    clustered = "cluster" in frame.columns
    columns = (
        Column("study", "study", right=False),
        *([Column("cluster", "cluster", right=False, spare=5)] if clustered else []),
        Column("effect", "effect"),
        Column("se", "se"),
        Column("share", "share", spare=1),
        Column("weight", "weight", spare=2),
        Column("mean", "pooled"),
        Column("sd", "sd", spare=3),
        *(Column(q, _quantile_title(q), spare=4 if q == "q50" else 0) for q in quantiles),
    )
    places = shared_decimals([_scale(row[0], row[1:]) for row in frame[["sd", *quantiles]].to_numpy(float)])
    rows = []
    omitted, gap = 0, None
    if most is not None and len(frame) > most:
        omitted, gap = len(frame) - most, (most + 1) // 2
        frame = frame.iloc[[*range(gap), *range(len(frame) - most // 2, len(frame))]]
    for row in frame.to_dict("records"):
        cells = {name: number(row[name], places) for name in ("effect", "se", "mean", "sd", *quantiles)}
        cells |= {name: str(row[name]) for name in ("study", "cluster") if name in row}
        cells |= {name: number(row[name], 2) for name in ("share", "weight")}
        rows.append(tuple(cells[c.name] for c in columns))
    return Table(columns, tuple(rows), omitted, gap)


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


def factors_table(fit: Any) -> Table:
    """Return the grouping factors as text: how many levels, of how many rows, what varies, how it was pooled."""
    columns = (
        Column("factor", "groups", right=False),
        Column("levels", "levels"),
        Column("fewest", "rows, least"),
        Column("median", "median", spare=1),
        Column("most", "most"),
        Column("varies", "what varies", right=False),
        Column("pooling", "pooling", right=False, spare=2),
    )
    rows = []
    for factor in fit.model.design.factors:
        n = fit.groups(factor.name).drop_duplicates("level")["n"].to_numpy(float)
        varies = [str(c) for c in factor.coefficients]
        what = ", ".join(varies if len(varies) <= 4 else [*varies[:3], f"{len(varies) - 3} more"])
        sizes = (count(n.min()), number(float(np.median(n)), 0), count(n.max()))
        rows.append((str(factor.name), count(len(n)), *sizes, what, pooling_of(fit, factor.name)))
    return Table(columns, tuple(rows))


def variables_table(fit: Any) -> Table:
    """Return the response and the predictors as text: mean, spread and range, in the units of the data."""
    design, response = fit.model.design, fit.model.model.formula.response
    columns = (
        Column("column", "column", right=False),
        Column("role", "role", right=False),
        Column("average", "mean"),
        Column("sd", "sd"),
        Column("lowest", "lowest"),
        Column("highest", "highest"),
    )
    known = [(response.expression, "response", design.y), (response.se, "standard error", getattr(design, "se", None)),
             (response.weights, "weight", getattr(design, "weights", None))]  # fmt: skip
    known += [(c, "predictor", design.X[:, k]) for k, c in enumerate(design.columns) if c != "Intercept"]
    rows = []
    for name, role, given in known:
        if given is None:
            continue
        values = np.asarray(given, float)
        sd = float(values.std(ddof=1)) if values.size > 1 else float("nan")
        places = decimals(sd)
        written = [number(v, places) for v in (values.mean(), sd, values.min(), values.max())]
        rows.append((str(name), role, *written))
    return Table(columns, tuple(rows))
