"""The figure of groups left out: how well each is predicted from all others, the worst of them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiError
from finetti.show import style as st
from finetti.show.forest import text_columns
from finetti.show.numbers import count, number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["left_out_figure"]

MOST_ROWS = 25
NAME_SIZE, NAME_ROOM = 9.0, 150.0
ROW, HEAD = 0.24, 1.9  # inches


def left_out_figure(found: Any) -> Figure:
    """Draw the average log predictive density of a row of each group, all its rows left out at once.

    Parameters
    ----------
    found : Logo
        What `Fit.logo` returned.

    Raises
    ------
    FinettiError
        If no group has a finite score.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> left_out_figure(fit.logo()).axes[0].get_xlabel()
    'log predictive density of a row, given all other levels of school'
    """
    each = found.table["elpd"].to_numpy(float) / found.table["n"].to_numpy(float)
    known = np.flatnonzero(np.isfinite(each))
    if not known.size:
        raise FinettiError(f"no level of {found.group!r} has a score: the others say nothing of it")
    worst = known[np.argsort(each[known], kind="stable")][:MOST_ROWS]
    fig, ax = st.figure(HEAD + ROW * max(worst.size, 3), interactive=False)
    with st.style():
        _draw(ax, found, each, worst, known)
    return fig


def _draw(ax: Axes, found: Any, each: np.ndarray, worst: np.ndarray, known: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    table = found.table
    n, k = table["n"].to_numpy(float), table["pareto_k"].to_numpy(float)
    names = [st.shortened(str(level), 60) for level in table["level"]]
    y = np.arange(worst.size, dtype=float)
    average = float(table["elpd"].to_numpy(float)[known].sum() / n[known].sum())
    refitted = table["refitted"].to_numpy(bool)[worst]
    failed = np.isin(table["level"].to_numpy(), found.failed)[worst]
    ax.axvline(average, color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
    ax.hlines(y, np.minimum(each[worst], average), np.maximum(each[worst], average), color=st.POOLED_PALE, lw=1.6,
              zorder=2)  # fmt: skip
    handles: list[Any] = []
    kinds: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (~refitted & ~failed, "one group", {"color": st.POOLED, "marker": "o"}),
        (refitted, "refitted without it", {"mfc": "white", "mec": st.POOLED, "marker": "o", "mew": 1.3}),
        (failed, "not to be trusted", {"color": st.RAW, "marker": "X"}),
    )
    for mine, words, kind in kinds:
        if mine.any():
            ax.plot(each[worst][mine], y[mine], ls="", ms=6, zorder=3, **kind)
            handles.append(Line2D([], [], ls="", ms=6, label=words, **kind))
    line = f"all {plural(known.size, 'group')}: {st.signed(average, 2)}"
    handles.append(Line2D([], [], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), label=line))
    ax.set_ylim(worst.size - 0.4, -0.6)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(y, [st.fitted(names[j], NAME_SIZE, NAME_ROOM) for j in worst], fontsize=NAME_SIZE)
    beside = {"rows": [count(n[j]) for j in worst]}
    if np.isfinite(k[worst]).any():
        beside["k"] = [number(k[j], 2).replace("-", "−") if np.isfinite(k[j]) else "" for j in worst]
    text_columns(ax, beside, y)
    label = f"log predictive density of a row, given all other levels of {st.shortened(found.group)}"
    ax.set_xlabel("\n".join(st.wrapped(label, 9.5, max(120.0, st.points(ax)[0]))))
    first = worst[0]
    title = f"From all others, {st.shortened(names[first], 40)} is predicted worst: {st.signed(each[first], 2)} a row"
    subtitle = f"All {plural(known.size, 'group')} together: {st.signed(average, 2)}."
    if known.size > worst.size:
        subtitle += f" The {worst.size} worst are shown."
    if len(table) > known.size:
        subtitle += f" {plural(len(table) - known.size, 'group')} cannot be predicted from the others."
    st.finish(ax, title, subtitle, handles)
