"""The drawing of a coverage study: what intervals hold against what they promise, over the number of groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finetti.errors import FinettiError, available
from finetti.posterior.coverage_runs import EMPIRICAL, FULL
from finetti.posterior.coverage_table import falls_short
from finetti.show import style as st
from finetti.show.axes import figure_of
from finetti.show.numbers import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["coverage", "coverage_figure"]

COLOUR = {EMPIRICAL: st.RAW, FULL: st.POOLED}
FACE = {EMPIRICAL: "white", FULL: st.POOLED}
LINE = {EMPIRICAL: (0, (4, 2)), FULL: "-"}
MOST_COLUMNS = 3
PANEL = 2.3  # inches high


def coverage(result: Any, quantity: str | None = None, ax: Any = None) -> Figure:
    """Draw how often intervals contain the truth: empirical Bayes hollow, full Bayes filled, the promise dashed.

    Of the one-way model a panel for each number of rows per group, coverage against the number of groups. Of a fit's
    design a row for each quantity. Bars are two simulation errors to either side.

    Parameters
    ----------
    result : Coverage
        What `finetti.coverage` returned.
    quantity : str, optional
        One of `result.table["quantity"]`. Default: the groups' effects; of a fit, everything.
    ax : Axes or sequence of Axes, optional
        Where to draw: one for each panel. Default: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    FinettiError
        If there is no such quantity, or `ax` has too few Axes.

    Examples
    --------
    >>> import finetti as fi
    >>> found = fi.coverage(groups=[5, 50], rows_per_group=[3], n_sims=10, n_jobs=1)
    >>> found.plot.coverage().axes[0].get_xlabel()
    'number of groups'
    """
    return _coverage(result, quantity, ax, interactive=True)


def coverage_figure(result: Any, quantity: str | None = None) -> Figure:
    """Draw the figure of `coverage` outside pyplot."""
    return _coverage(result, quantity, None, interactive=False)


def _coverage(result: Any, quantity: str | None, ax: Any, *, interactive: bool) -> Figure:
    table = result.table
    names = list(dict.fromkeys(table["quantity"]))
    if quantity is not None and quantity not in names:
        raise FinettiError(f"quantity={quantity!r} was not studied; {available(str(quantity), names)}")
    by_groups = "groups" in table
    chosen = names[0] if by_groups and quantity is None else quantity
    rows = table if chosen is None else table[table["quantity"] == chosen]
    title, subtitle = _message(rows, result.prob, chosen)
    handles = _handles([m for m in COLOUR if (rows["method"] == m).any()], result.prob)
    parts = [part for _, part in rows.groupby("rows_per_group", sort=True)] if by_groups else [rows]
    if ax is not None:
        axes = _given(ax, len(parts))
        with st.style():
            _draw(axes, parts, result.prob, by_groups)
        return figure_of(axes[0])
    columns = min(len(parts), MOST_COLUMNS)
    lines = -(-len(parts) // columns)
    body = lines * PANEL if by_groups else 0.9 + 0.32 * rows["quantity"].nunique()
    head = st.header_height(title, subtitle, 1)
    fig, grid = st.panels(lines, columns, body + head, interactive=interactive, sharey=by_groups)
    with st.style():
        _draw(list(grid.flat), parts, result.prob, by_groups)
        st.header(fig, title, subtitle, handles)
    return fig


def _given(ax: Any, needed: int) -> list[Axes]:
    axes = [ax] if not isinstance(ax, Iterable) else list(getattr(ax, "flat", ax))
    if not axes or not all(hasattr(a, "transAxes") for a in axes):
        raise FinettiError(f"plot.coverage: ax={ax!r} is neither matplotlib Axes nor a sequence of them")
    if len(axes) < needed:
        raise FinettiError(
            f"plot.coverage needs {plural(needed, 'panel')}, but ax= has {len(axes)}; give more, or none"
        )
    return axes


def _handles(methods: Sequence[str], prob: float) -> list[Any]:
    from matplotlib.lines import Line2D

    out = [
        Line2D([], [], color=COLOUR[m], ls=LINE[m], lw=1.6, marker="o", ms=6, mfc=FACE[m], mew=1.4, label=m)
        for m in methods
    ]
    return [*out, Line2D([], [], color=st.INK, lw=1.1, ls=(0, (1, 1.5)), label=f"promised: {100 * prob:g} %")]


def _draw(axes: Sequence[Axes], parts: Sequence[pd.DataFrame], prob: float, by_groups: bool) -> None:
    everything = pd.concat(parts)
    low = 100 * float((everything["coverage"] - 2 * everything["se"]).min())
    bottom = max(0.0, min(low, 100 * prob) - 3.0)
    for k, (ax, part) in enumerate(zip(axes, parts, strict=False)):
        if by_groups:
            _panel(ax, part, prob, bottom, first=k % MOST_COLUMNS == 0)
        else:
            _rows(ax, part, prob, bottom)
        st.plain(ax)
    for ax in axes[len(parts) :]:
        ax.set_axis_off()


def _panel(ax: Axes, part: pd.DataFrame, prob: float, bottom: float, *, first: bool) -> None:
    """Coverage against the number of groups, on a log axis."""
    sizes = sorted(part["groups"].unique())
    for shift, method in zip((0.97, 1.03), COLOUR, strict=True):
        mine = part[part["method"] == method].sort_values("groups")
        if mine.empty:
            continue
        x, y, bar = shift * mine["groups"], 100 * mine["coverage"], 200 * mine["se"]
        ax.vlines(x, y - bar, np.minimum(y + bar, 100.0), color=COLOUR[method], lw=1.4, zorder=2.5)
        ax.plot(
            x, y, color=COLOUR[method], ls=LINE[method], lw=1.6, marker="o", ms=6, mfc=FACE[method], mew=1.4, zorder=3
        )
    ax.axhline(100 * prob, color=st.INK, lw=1.1, ls=(0, (1, 1.5)), zorder=1.5)
    ax.set_xscale("log")
    ax.set_xlim(sizes[0] / 1.35, sizes[-1] * 1.35)
    ax.set_xticks(sizes, [f"{int(s):,}" for s in sizes])
    ax.set_xticks([], minor=True)
    ax.set_ylim(bottom, 101.0)
    ax.yaxis.grid(True)
    ax.set_xlabel("number of groups")
    if first:
        ax.set_ylabel("coverage, %")
    n = int(part["rows_per_group"].iloc[0])
    ax.set_title(f"{plural(n, 'row')} per group", loc="left", fontsize=9.5, fontweight="bold", color=st.INK)


def _rows(ax: Axes, part: pd.DataFrame, prob: float, bottom: float) -> None:
    """A row for each quantity of one design."""
    names = list(dict.fromkeys(part["quantity"]))
    for shift, method in zip((-0.13, 0.13), COLOUR, strict=True):
        mine = part[part["method"] == method]
        y = np.array([names.index(q) for q in mine["quantity"]]) + shift
        x, bar = 100 * mine["coverage"].to_numpy(), 200 * mine["se"].to_numpy()
        ax.hlines(y, np.maximum(x - bar, 0.0), np.minimum(x + bar, 100.0), color=COLOUR[method], lw=1.4, zorder=2.5)
        ax.plot(x, y, ls="", marker="o", color=COLOUR[method], ms=6, mfc=FACE[method], mew=1.4, zorder=3)
    ax.axvline(100 * prob, color=st.INK, lw=1.1, ls=(0, (1, 1.5)), zorder=1.5)
    ax.set_yticks(range(len(names)), [st.fitted(st.shortened(q, 60), 9.5, 165.0) for q in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(bottom, 101.0)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("coverage, %")


def _message(rows: pd.DataFrame, prob: float, chosen: str | None) -> tuple[str, str]:
    """What the figure shows, in words from its numbers, and how to read it."""
    keys = ["quantity", *(c for c in ("groups", "rows_per_group") if c in rows)]
    pair = rows[rows["method"] == EMPIRICAL].merge(rows[rows["method"] == FULL], on=keys, suffixes=("", "_full"))
    n = int(rows["n_sims"].max())
    what = "" if chosen is None else f" for {chosen}"
    subtitle = f"Share of intervals{what} that hold the truth, {plural(n, 'simulation')}"
    subtitle += " per design" if "groups" in rows else " of this design"
    subtitle += "; bars: two simulation errors either side."
    promise = f"{100 * prob:g}\u00a0%"  # a no-break space
    if pair.empty:
        held = rows["coverage"]
        return f"Full Bayes promises {promise} and holds {_range(held)}", subtitle
    short = pair[falls_short(pair)]
    if short.empty:
        ends = _range(pd.concat([pair["coverage"], pair["coverage_full"]]))
        return (
            f"Empirical and full Bayes both hold the {promise} they promise, within simulation error ({ends})",
            subtitle,
        )
    worst = short.iloc[int(np.argmax(short["coverage_full"] - short["coverage"]))]
    where = f"of {worst['quantity']}"
    if "groups" in rows:
        where = f"with {plural(int(worst['groups']), 'group')} of {plural(int(worst['rows_per_group']), 'row')}"
    return (
        f"Empirical Bayes promises {promise} and holds {100 * worst['coverage']:.0f}\u00a0% {where}; "
        f"full Bayes holds {100 * worst['coverage_full']:.0f}\u00a0%",
        subtitle,
    )


def _range(values: pd.Series) -> str:
    low, high = f"{100 * values.min():.0f}", f"{100 * values.max():.0f}"
    return f"{low}\u00a0%" if low == high else f"{low} to {high}\u00a0%"
