"""The tables of honest uncertainty as text cells: at most 25 rows of each, the rest said to be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.posterior.alternatives import AS_FITTED
from finetti.posterior.pooling_scores import IN_WORDS
from finetti.show.numbers import count, number, shared_decimals, significant
from finetti.show.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MOST_ROWS", "exchangeability", "logo", "loo_frame", "pooling", "scores", "sensitivity", "uncertainty", "weights",
]  # fmt: skip

MOST_ROWS = 25
MOST_ALTERNATIVES = 6  # columns of parameters in the table of hyperpriors

Shown = tuple[Table, str, str]
Cell = Callable[[Any], str]


def _fixed(places: int | None) -> Cell:
    return lambda value: number(float(value), places)


def _digits(value: Any) -> str:
    return significant(float(value), 3)


def _count(value: Any) -> str:
    return count(float(value))


def _made(frame: pd.DataFrame, columns: Sequence[tuple[Column, Cell]]) -> Table:
    rows = [tuple(cell(row[c.name]) for c, cell in columns) for row in frame.to_dict("records")]
    return Table(tuple(c for c, _ in columns), tuple(rows))


def _cut(frame: pd.DataFrame, by: np.ndarray | None, what: str, call: str) -> tuple[pd.DataFrame, str]:
    """The rows with the largest `by` first, NaN last; a caption that says how many are left out."""
    if by is not None:
        frame = frame.iloc[np.argsort(-np.where(np.isfinite(by), by, -np.inf), kind="stable")]
    if len(frame) <= MOST_ROWS:
        return frame, what
    left_out = len(frame) - MOST_ROWS
    return frame.head(MOST_ROWS), f"{what}; the first {MOST_ROWS}, {left_out:,} more are in {call}"


def _level(group: str) -> tuple[Column, Cell]:
    return Column("level", group, right=False), str


def weights(table: pd.DataFrame, group: str, c: str) -> Shown:
    """Weights of one coefficient, least first: who is pulled furthest."""
    mine = table[table["coefficient"] == c]
    mine, caption = _cut(
        mine, -mine["weight"].to_numpy(float), _of("Weights of own data, smallest first", c), f"fit.weights({group!r})"
    )
    matrix = [str(name) for name in table.columns if str(name).startswith("weight[")]
    columns = [_level(group), (Column("n", "n"), _count), (Column("weight", "weight"), _fixed(2))]
    if 1 < len(matrix) <= 4:  # the rest of the row of W: what is taken over from the other coefficients
        columns += [
            (Column(name, f"from its own {name[7:-1]}", spare=1), _fixed(3))
            for name in matrix
            if name != f"weight[{c}]"
        ]
    return _made(mine, columns), caption, "levels"


def _of(what: str, c: str) -> str:
    return what if c in ("", "Intercept") else f"{what} ({c})"


def pooling(table: Any, group: str, c: str) -> Shown:
    """Means of the four analyses, and lengths of their intervals, those first that pooling moves most."""
    mine = table[table["coefficient"] == c]
    moved = np.abs(mine["no_pooling"].to_numpy(float) - mine["full_bayes"].to_numpy(float))
    what = _of("Estimates under the four, and lengths of 90 % intervals; most moved by pooling first", c)
    mine, caption = _cut(mine, moved, what, f"fit.pooling({group!r})")
    places = shared_decimals(mine["full_bayes_sd"])
    columns: list[tuple[Column, Cell]] = [_level(group), (Column("n", "n"), _count)]
    names = {"no_pooling": "alone", "complete_pooling": "complete", "empirical_bayes": "EB", "full_bayes": "full"}
    columns += [(Column(key, title), _fixed(places)) for key, title in names.items()]
    columns += [
        (Column(f"{key}_length", f"length {title}", spare=1), _fixed(places))
        for key, title in names.items()
        if key != "complete_pooling"
    ]
    return _made(mine, columns), caption, "levels"


def scores(table: pd.DataFrame) -> Shown:
    """Predictive scores of the four analyses."""
    frame = table.assign(analysis=[IN_WORDS[key] for key in table.index])
    columns: list[tuple[Column, Cell]] = [(Column("analysis", "analysis", right=False), str)]
    for kind, words in (("loo", "rows"), ("logo", "groups")):
        columns += [
            (Column(kind, f"{words} left out"), _fixed(1)),
            (Column(f"{kind}_diff", "behind best"), _fixed(1)),
            (Column(f"{kind}_dse", "se of that", spare=1), _fixed(1)),
        ]
        if kind == "loo" and frame["loo_shared"].notna().any() and not np.isfinite(frame["loo"]).all():
            columns.append((Column("loo_shared", "rows all can predict", spare=1), _fixed(1)))
    return _made(frame, columns), "Log predictive density of what was left out; higher is better", "analyses"


def uncertainty(table: pd.DataFrame, group: str, c: str) -> Shown:
    """The two parts of the variance, largest share of the hyperparameters first; the population's come last."""
    term, own = table["term"].to_numpy() == group, table["coefficient"].to_numpy() == c
    mine = table[term & own] if group else table[table["term"].to_numpy() == "beta"].assign(
        level=lambda t: t["coefficient"]
    )  # fmt: skip
    call = f"fit.uncertainty({group!r})" if group else "fit.uncertainty()"
    what = _of("Posterior variance in two parts; largest share of the hyperparameters first", c)
    mine, caption = _cut(mine, mine["share"].to_numpy(float), what, call)
    columns: list[tuple[Column, Cell]] = [
        _level(group or "coefficient"),
        (Column("n", "n", spare=1), _count),
        (Column("given_hyperparameters", "hyperparameters known"), _digits),
        (Column("from_hyperparameters", "from not knowing them"), _digits),
        (Column("share", "share"), _fixed(2)),
        (Column("eb_interval_ratio", "EB interval / full"), _fixed(2)),
    ]
    return _made(mine, columns), caption, "coefficients"


def exchangeability(found: Any) -> tuple[Shown, ...]:
    """Each level against the others, most surprising first; the columns known of the groups."""
    table = found.table
    several = len(found.coefficients) > 1
    call = f"fit.exchangeability({found.group!r}).table"
    part, caption = _cut(table, -table["p_joint"].to_numpy(float), "Most surprising first, each given all others", call)
    columns: list[tuple[Column, Cell]] = [_level(found.group)]
    columns += [(Column("coefficient", "coefficient", right=False), str)] if several else []
    columns += [
        (Column("n", "n", spare=1), _count),
        (Column("estimate", "own − predicted"), _digits),
        (Column("predicted_sd", "sd of that", spare=1), _digits),
        (Column("z", "z"), _fixed(2)),
        (Column("p", "p"), _p),
        (Column("p_adjusted", "p adjusted"), _p),
    ]
    shown: list[Shown] = [(_made(part, columns), caption, "levels")]
    if len(found.columns):
        part, caption = _cut(
            found.columns, None, "Do columns known of the groups predict their effects?",
            f"fit.exchangeability({found.group!r}).columns",
        )  # fmt: skip
        columns = [(Column("column", "column", right=False), str)]
        columns += [(Column("coefficient", "coefficient", right=False), str)] if several else []
        columns += [(Column("contrast", "contrast", right=False), str)] if (part["contrast"] != "").any() else []
        columns += [
            (Column("effect", "effect"), _digits),
            (Column("q5", "5 %", spare=1), _digits),
            (Column("q95", "95 %", spare=1), _digits),
            (Column("p_adjusted", "p adjusted"), _p),
        ]
        shown.append((_made(part, columns), caption, "columns"))
    return tuple(shown)


def _p(value: Any) -> str:
    return significant(float(value), 2)


def logo(found: Any) -> Shown:
    """Score of every group, worst row by row first."""
    frame = found.table.assign(each=found.table["elpd"] / found.table["n"])
    rank = -np.where(np.isnan(frame["each"]), np.inf, frame["each"])
    call = f"fit.logo({found.group!r}).table"
    frame, caption = _cut(frame, np.minimum(rank, 1e300), "Log predictive density, worst a row first", call)
    columns: list[tuple[Column, Cell]] = [
        _level(found.group),
        (Column("n", "n"), _count),
        (Column("elpd", "of the group"), _fixed(2)),
        (Column("each", "a row"), _fixed(2)),
    ]
    if np.isfinite(found.pareto_k).any():  # of a single value of the hyperparameters there are no weights
        columns.append((Column("pareto_k", "Pareto k", spare=1), _fixed(2)))
        columns.append((Column("refitted", "refitted", right=False, spare=1), lambda v: "yes" if v else "no"))
    return _made(frame, columns), caption, "levels"


def loo_frame(fit: Any, found: Any) -> pd.DataFrame:
    """Scores of all rows, for a file."""
    import pandas as pd

    k = found.pareto_k
    refitted = np.isin(np.arange(found.n_data_points), found.refitted)
    return pd.DataFrame({"row": fit.model.design.rows, "elpd": found.loo_i, "pareto_k": k, "refitted": refitted})


def sensitivity(found: Any) -> tuple[Shown, ...]:
    """Sensitivities and verdicts; shifts of medians under other hyperpriors."""
    table = found.table.assign(parameter=[str(label) for label in found.table.index])
    part, caption = _cut(
        table, table["prior"].to_numpy(float), "Sensitivity per doubling of the weight; 0.05 and more counts",
        "fit.sensitivity().table",
    )  # fmt: skip
    columns: list[tuple[Column, Cell]] = [
        (Column("parameter", "parameter", right=False), str),
        (Column("prior", "to the prior"), _fixed(3)),
        (Column("likelihood", "to the data"), _fixed(3)),
        (Column("verdict", "verdict", right=False), str),
    ]
    shown: list[Shown] = [(_made(part, columns), caption, "parameters")]
    others = found.alternatives[found.alternatives["alternative"] != AS_FITTED]
    if not len(others):
        return tuple(shown)
    name = others["alternative"] + np.where(others["changed"] == "sd", "", "  (" + others["changed"] + ")")
    wide = others.assign(name=name).pivot_table("shift", "name", "parameter", sort=False, dropna=False)
    most = wide.abs().max().sort_values(ascending=False, kind="stable")
    chosen = [c for c in wide.columns if c in set(most.index[:MOST_ALTERNATIVES])]
    what = "Shift of the median under other hyperpriors, in posterior sds"
    if len(wide.columns) > len(chosen):
        what += f"; the {len(chosen)} parameters that move most of {len(wide.columns)}"
    part, caption = _cut(wide.reset_index(), None, what, "fit.sensitivity().alternatives")
    columns = [(Column("name", "hyperprior", right=False), str)]
    columns += [(Column(str(c), str(c)), _fixed(2)) for c in chosen]
    return (*shown, (_made(part, columns), caption, "hyperpriors"))
