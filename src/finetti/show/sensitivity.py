"""The drawing of prior sensitivity: how far each parameter moves, and what other hyperpriors would have said.

Above, a row per parameter: a mark for the sensitivity to the prior, coloured and shaped by the verdict, and a hollow
one for the likelihood. Below, a panel for each of the parameters that move most: median and 90 % interval under every
alternative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finetti.errors import FinettiError
from finetti.posterior.alternatives import AS_FITTED
from finetti.posterior.sensitivity import BOTH, CONFLICT, DATA, PRIOR, THRESHOLD, Sensitivity
from finetti.show import style as st
from finetti.show.axes import figure_of, several
from finetti.show.numbers import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["sensitivity", "sensitivity_figure"]

MOST_ROWS, MOST_PANELS = 20, 3
NAME_SIZE, NAME_ROOM = 9.0, 165.0
# sensitivities beyond this are at the edge: twice as much is no news
FURTHEST = 0.6

_MARKS = {DATA: (st.POOLED, "o"), BOTH: ("#CC79A7", "D"), PRIOR: ("#E69F00", "s"), CONFLICT: (st.RAW, "X")}


def sensitivity(fit: Any, ax: Axes | Iterable[Axes] | None = None) -> Figure:
    """Draw how far each parameter moves with prior and likelihood, and the main ones under other hyperpriors.

    Parameters
    ----------
    fit : Fit or Sensitivity
        What `finetti.fit` or `Fit.sensitivity` returned.
    ax : Axes or sequence of Axes, optional
        Where to draw: one for the sensitivities, and up to three more for parameters under the alternatives. Default:
        a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    FinettiError
        If no parameter has a sensitivity, or `ax` holds no Axes.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> fit.plot.sensitivity().axes[0].get_xlabel()
    'sensitivity per doubling of its weight'
    """
    return _sensitivity(fit, ax, interactive=True)


def sensitivity_figure(fit: Any) -> Figure:
    """Draw the figure of `sensitivity` outside pyplot."""
    return _sensitivity(fit, None, interactive=False)


def _sensitivity(fit: Any, ax: Any, *, interactive: bool) -> Figure:
    found = fit if isinstance(fit, Sensitivity) else fit.sensitivity()
    table = found.table[found.table["prior"].notna()]
    if not len(table):
        raise FinettiError("plot.sensitivity has nothing to draw: every parameter of this fit is held at one value")
    shown = table.loc[table["prior"].sort_values(ascending=False).index[:MOST_ROWS]]
    shown = shown.loc[[label for label in table.index if label in shown.index]]  # in the order of `summary`
    names = _main(found.alternatives)
    if ax is not None:
        axes = several(ax, "sensitivity")
        with st.style():
            _draw_sensitivities(axes[0], shown)
            for a, name, first in zip(axes[1:], names, [True] + [False] * len(names), strict=False):
                _draw_alternatives(a, found.alternatives, name, first, 0.85 * st.points(a)[0])
            for a in axes:
                st.plain(a)
        return figure_of(axes[0])
    n_alternatives = found.alternatives["alternative"].ne(AS_FITTED).sum() // max(
        found.alternatives["parameter"].nunique(), 1
    )
    heights = [0.72 + 0.24 * max(len(shown), 2)] + ([0.75 + 0.21 * (n_alternatives + 1)] if names else [])
    title, subtitle, handles = _title(table), _subtitle(table, shown), _handles(shown)
    head = st.header_height(title, subtitle, -(-len(handles) // 2))
    fig, axes = _grid(heights, len(names), head, interactive)
    with st.style():
        _draw_sensitivities(axes[0], shown)
        # the layout leaves what the widest name does not take
        widest = max(st.text_width(t.get_text(), NAME_SIZE) for t in axes[0].get_yticklabels())
        room = (72 * st.WIDTH - max(widest, 110.0)) / max(len(names), 1) - 14.0
        for a, name in zip(axes[1:], names, strict=True):
            _draw_alternatives(a, found.alternatives, name, a is axes[1], room)
        st.header(fig, title, subtitle, handles, ncols=2)
        for a in axes:
            st.plain(a)
    return fig


def _grid(heights: Sequence[float], below: int, head: float, interactive: bool) -> tuple[Figure, list[Axes]]:
    """A wide panel and, where there are alternatives, a row of narrow ones under it."""
    fig, grid = st.panels(1, 1, sum(heights) + head, interactive=interactive)
    if not below:
        return fig, list(grid.flat)
    with st.style():
        grid[0, 0].remove()
        rows = fig.add_gridspec(2, below, height_ratios=heights)
        return fig, [fig.add_subplot(rows[0, :])] + [fig.add_subplot(rows[1, j]) for j in range(below)]


# --- words ------------------------------------------------------------------------------------------


def _title(table: pd.DataFrame) -> str:
    """The verdicts in a sentence."""
    n, count = len(table), table["verdict"].value_counts()
    counts = n - int(count.get(DATA, 0))
    if not counts:
        return "The data decide: no parameter depends much on its prior"
    whose = f"{counts} of {plural(n, 'parameter')}" if n > 1 else "the one parameter"
    words = f"The prior counts for {whose}"
    against = int(count.get(CONFLICT, 0))
    if against == counts:
        return f"{words}, against the data"
    return f"{words}, for {against} of them against the data" if against else words


def _subtitle(table: pd.DataFrame, shown: pd.DataFrame) -> str:
    words = f"Move of the posterior as the prior or the likelihood gains weight; over {THRESHOLD:g} (dashed) it counts."
    left_out = len(table) - len(shown)
    return words + (f" {left_out} less sensitive parameters are left out." if left_out else "")


def _handles(shown: pd.DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    kind: dict[str, Any] = {"ls": "", "markersize": 6.5}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"to the prior: {verdict}", **kind)
        for verdict, (colour, marker) in _MARKS.items()
        if verdict in set(shown["verdict"])
    ]
    return [*handles, Line2D([], [], marker="o", mfc="white", mec=st.MUTED, mew=1.2, label="to the likelihood", **kind)]


# --- panels -----------------------------------------------------------------------------------------


def _draw_sensitivities(ax: Axes, shown: pd.DataFrame) -> None:
    y = np.arange(len(shown), dtype=float)
    prior, likelihood = shown["prior"].to_numpy(), shown["likelihood"].to_numpy()
    edge = min(max(1.12 * float(np.nanmax([prior, likelihood])), 3.0 * THRESHOLD), FURTHEST)
    ax.set_xlim(-0.02 * edge, edge)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.axvline(THRESHOLD, color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
    ax.hlines(y, 0.0, edge, color="#ececec", lw=0.8, zorder=1)
    ends = np.minimum(likelihood, 0.985 * edge)
    ax.scatter(ends, y, s=42, facecolors="white", edgecolors=st.MUTED, linewidths=1.2, zorder=3)
    for j, verdict in enumerate(shown["verdict"]):
        colour, marker = _MARKS[verdict]
        ax.scatter(min(prior[j], 0.985 * edge), y[j], s=46, color=colour, marker=marker, linewidths=0, zorder=4)
    for i in np.flatnonzero(np.maximum(prior, likelihood) > edge):
        words = f"{max(prior[i], likelihood[i]):.2g} →"
        ax.annotate(words, (edge, y[i]), (-12, 0), textcoords="offset points", ha="right", va="center", fontsize=8.0)
    ax.set_yticks(y, [st.fitted(str(label), NAME_SIZE, NAME_ROOM) for label in shown.index], fontsize=NAME_SIZE)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8.5)
    ax.locator_params(axis="x", nbins=6)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("sensitivity per doubling of its weight", fontsize=8.5)


def _main(alternatives: pd.DataFrame) -> list[str]:
    """The parameters that move most under the alternatives, in the order of `summary`."""
    others = alternatives[alternatives["alternative"] != AS_FITTED]
    if not len(others):
        return []
    most = others.assign(size=others["shift"].abs()).groupby("parameter", sort=False)["size"].max()
    chosen = set(most.sort_values(ascending=False).index[:MOST_PANELS])
    return [name for name in most.index if name in chosen]


def _short(alternative: str, changed: str) -> str:
    """A name that fits beside a panel: the family, or what becomes of the scale."""
    if changed == "sd":
        name = alternative.split("(")[0]
        return "half_t(3)" if name == "half_t" else name
    if changed == "cor":
        return alternative
    return changed.replace(", ", " ").replace("sd scale", "scale") or AS_FITTED


def _draw_alternatives(ax: Axes, alternatives: pd.DataFrame, name: str, named: bool, room: float) -> None:
    rows = alternatives[alternatives["parameter"] == name]
    y = np.arange(len(rows), dtype=float)
    low, middle, high = (rows[q].to_numpy() for q in ("q5", "q50", "q95"))
    fitted = rows["alternative"].eq(AS_FITTED).to_numpy()
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.axvline(float(middle[fitted][0]), color=st.POPULATION, lw=0.9, ls=(0, (4, 2.5)), zorder=1.5)
    for mine, colour in ((fitted, st.POPULATION), (~fitted, st.POOLED)):
        ax.hlines(y[mine], low[mine], high[mine], color=colour, lw=1.8, alpha=0.45, zorder=2)
        ax.scatter(middle[mine], y[mine], s=24, color=colour, linewidths=0, zorder=3)
    names = [_short(a, c) for a, c in zip(rows["alternative"], rows["changed"], strict=True)]
    ax.set_yticks(y, names if named else [""] * len(rows), fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8.0)
    ax.locator_params(axis="x", nbins=4)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.set_title("\n".join(_lines(name, room)), loc="left", fontsize=8.5, fontweight="bold")


def _lines(name: str, room: float) -> list[str]:
    """A label over a panel, broken before its bracket where it does not fit on one line."""
    first, bracket, rest = name.partition("[")
    whole = st.text_width(name, 8.5, bold=True) <= room or not bracket
    # bold letters are a seventh wider than those that `fitted` measures
    return [st.fitted(part, 8.5, max(0.86 * room, 60.0)) for part in ([name] if whole else [first, bracket + rest])]
