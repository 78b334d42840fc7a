"""The figure of exchangeability: surprises of all groups against what chance gives, effects against known columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from finetti.posterior.exchangeability import Exchangeability
from finetti.posterior.group_columns import ERROR, ORDER, SIZE
from finetti.posterior.parent_check import pit_limits
from finetti.show import style as st
from finetti.show.axes import checked
from finetti.show.numbers import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["exchangeability", "exchangeability_figure"]

Floats = npt.NDArray[np.float64]

MOST_QQ, MOST_COLUMNS = 4, 3  # panels
MOST_NAMED = 4  # flagged groups named in a panel
MOST_TICKS = 6  # categories named under a panel
PANEL = 2.75  # inches
BAND = "#e3e3e3"


def exchangeability(fit: Any, group: str | None = None, by: Any = None, ax: Axes | None = None) -> Figure | Axes:
    """Draw how surprising each group is given all others, and the effects against columns known of the groups.

    A panel for each coefficient has a dot per group: its surprise as a normal score, in order, against the score that
    its rank would have by chance. Exchangeable groups keep inside the grey band, all of them in 95 % of data sets.
    Flagged groups are filled and named. Beside it stand the groups' own estimates minus what the others predict,
    against the columns that tell most of them, with the posterior slope and its 90 % interval.

    Parameters
    ----------
    fit : Fit or Exchangeability
        What `finetti.fit` or `Fit.exchangeability` returned.
    group : str, optional
        The grouping term. Default: the only one of the model.
    by : optional
        Columns known of the groups, as in `Fit.exchangeability`.
    ax : matplotlib.axes.Axes, optional
        Where to draw the first panel alone. Default: a new figure of all panels.

    Returns
    -------
    matplotlib.figure.Figure, or matplotlib.axes.Axes if `ax` was given

    Raises
    ------
    FinettiError
        As `Fit.exchangeability`.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> len(fit.plot.exchangeability().axes)
    2
    """
    found = fit if isinstance(fit, Exchangeability) else fit.exchangeability(group, by)
    if ax is None:
        return _figure(found, interactive=True)
    checked(ax)
    with st.style():
        _quantiles(ax, found, found.coefficients[0])
        st.finish(ax, *_message(found, alone=True))
    return ax


def exchangeability_figure(fit: Any, group: str | None = None, by: Any = None) -> Figure:
    """Draw the figure of `exchangeability` outside pyplot."""
    return _figure(fit if isinstance(fit, Exchangeability) else fit.exchangeability(group, by), interactive=False)


def _figure(found: Exchangeability, *, interactive: bool) -> Figure:
    shown, columns = found.coefficients[:MOST_QQ], _strongest(found)
    n = len(shown) + len(columns)
    rows = -(-n // 2)
    title, subtitle = _message(found)
    height = PANEL * rows + st.header_height(title, subtitle)
    fig, grid = st.panels(rows, min(n, 2), height, interactive=interactive)
    axes = list(grid.flat)
    with st.style():
        for ax, c in zip(axes, shown, strict=False):
            _quantiles(ax, found, c)
            _head(ax, "surprise given all others" if len(found.coefficients) == 1 else f"surprise, {c}")
        for ax, column in zip(axes[len(shown) :], columns, strict=False):
            _against(ax, found, column)
        for ax in axes[n:]:
            ax.set_axis_off()
        for ax in axes[:n]:
            st.plain(ax)
        st.header(fig, title, subtitle)
    return fig


def _message(found: Exchangeability, alone: bool = False) -> tuple[str, str]:
    group, J = st.shortened(found.group), len(found.levels)
    flagged, told = found.flagged, found.informative
    parts = []
    if flagged:
        names = ", ".join(st.shortened(level, 24) for level in flagged[:3])
        more = f" and {len(flagged) - 3} more" if len(flagged) > 3 else ""
        parts.append(f"Surprising given all other levels of {group}: {names}{more}")
    if told:
        names = " and ".join(st.shortened(name, 24) for name in told[:3])
        parts.append(f"{names} {'tell' if len(told) > 1 else 'tells'} the effects of {group}: its labels inform")
    if not parts and (found.calibration["p_value"] <= found.level).any():
        parts.append(f"Together the {J} levels of {group} do not look like draws from one normal parent")
    title = ". ".join(parts) or f"Nothing speaks against exchangeable levels of {group}"
    words = f"Dots: {plural(J, 'group')}, each against all others."
    if np.isfinite(found.calibration["pointwise_level"].to_numpy(float)).any():  # else too few groups for a band
        words += " Grey: where exchangeable groups are, 95 %."
    if not alone and len(found.columns["p_value"].dropna()):
        words += " Lines: posterior slope with 90 % interval."
    return title, words


def _head(ax: Axes, text: str) -> None:
    lines = st.wrapped(text, 9.0, st.points(ax)[0], bold=True)
    ax.set_title("\n".join(lines), loc="left", fontsize=9.0, fontweight="bold", color=st.INK, pad=4)


# --- surprises -----------------------------------------------------------------------------------


def _quantiles(ax: Axes, found: Exchangeability, coefficient: str) -> None:
    table = found.table[(found.table["coefficient"] == coefficient) & found.table["pit"].notna()]
    table = table.sort_values("z", kind="stable")
    n = len(table)
    ax.set_xlabel("score expected by chance", fontsize=8.5)
    ax.set_ylabel("score of each group", fontsize=8.5)
    ax.tick_params(labelsize=8.5)
    if n == 0:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no group determines\nthis coefficient by itself", ha="center", va="center", color=st.MUTED)
        return
    at = ndtri((np.arange(1, n + 1) - 0.5) / n)
    z, flag = np.clip(table["z"].to_numpy(float), -9.0, 9.0), table["flag"].to_numpy(bool)
    calibration = found.calibration
    level = float(calibration.loc[calibration["coefficient"] == coefficient, "pointwise_level"].iloc[0])
    reach = max(2.2, float(np.abs(z).max()) * 1.12, float(np.abs(at).max()) * 1.12)
    if np.isfinite(level):
        low, high = (ndtri(u) for u in pit_limits(n, level))
        x = np.concatenate([[at[0] - 0.25], at, [at[-1] + 0.25]])
        below, above = (np.pad(v, 1, mode="edge") for v in (low, high))
        ax.fill_between(x, below, above, color=BAND, lw=0, zorder=1)
        reach = max(reach, float(np.max(np.abs([low[1:], high[:-1]]), initial=0.0)))
    ax.plot([-9, 9], [-9, 9], color=st.LINK, lw=1.0, ls=(0, (4, 2.5)), zorder=2)
    size = 26.0 if n <= 30 else 14.0 if n <= 200 else 6.0
    ax.scatter(at[~flag], z[~flag], s=size, facecolor="white", edgecolor=st.POOLED, linewidths=1.1, zorder=3)
    ax.scatter(at[flag], z[flag], s=size + 10, color=st.RAW, linewidths=0, zorder=4)
    wide = max(float(np.abs(at).max()) + 0.5, 1.5)
    ax.set_xlim(-wide, wide)
    ax.set_ylim(-reach, reach)
    names = table["level"].to_numpy()
    worst = np.flatnonzero(flag)
    for i in worst[np.argsort(-np.abs(z[worst]))][:MOST_NAMED]:
        room = (0.55 + 0.35 * abs(at[i]) / wide) * st.points(ax)[0]
        ax.annotate(
            st.fitted(str(names[i]), 8.5, room), (at[i], z[i]), (-6 if at[i] > 0 else 6, 0),
            textcoords="offset points", ha="right" if at[i] > 0 else "left", va="center", fontsize=8.5, color=st.RAW,
        )  # fmt: skip


# --- columns --------------------------------------------------------------------------------------


def _strongest(found: Exchangeability) -> list[dict[str, Any]]:
    """Rows of `columns` to show: the informative ones, then those asked for, and as many as fill the rows of panels."""
    table = found.columns[found.columns["p_value"].notna()]
    asked = ~table["column"].isin([SIZE, ERROR, ORDER])
    place = np.where(table["informative"], 0, np.where(asked, 1, 2))
    table = table.iloc[np.lexsort((table["p_value"].to_numpy(float), place))]
    want = int(np.clip(np.count_nonzero(place < 2), 1, MOST_COLUMNS))
    if (min(len(found.coefficients), MOST_QQ) + want) % 2:
        want += 1
    records: Any = table.head(want).to_dict("records")
    return list(records)


def _against(ax: Axes, found: Exchangeability, row: dict[str, Any]) -> None:
    """Own minus predicted of every group against one column."""
    table = found.table[found.table["coefficient"] == row["coefficient"]]
    place = {level: j for j, level in enumerate(found.levels)}
    values = found.values[row["column"]][[place[level] for level in table["level"]]]
    y, sd = table["estimate"].to_numpy(float), table["predicted_sd"].to_numpy(float)
    keep = np.isfinite(y)
    values, y, w = values[keep], y[keep], 1.0 / np.maximum(sd[keep], 1e-300) ** 2
    flag = table["flag"].to_numpy(bool)[keep]
    colour = st.POOLED if row["informative"] else st.LINK
    c = row["coefficient"]
    ax.set_ylabel(
        "own minus predicted" + ("" if len(found.coefficients) == 1 else f", {st.shortened(c, 16)}"), fontsize=8.5
    )
    ax.tick_params(labelsize=8.5)
    ax.axhline(0.0, color="#dddddd", lw=0.9, zorder=1)
    size = (24.0 if len(y) <= 30 else 13.0 if len(y) <= 200 else 5.0) * np.clip(w / np.median(w), 0.4, 2.5)
    name = st.shortened(row["column"], 40)
    if row["kind"] == "numeric":
        x = values.astype(float)
        centre, level = np.average(x, weights=w), np.average(y, weights=w)
        ends = np.array([x.min(), x.max()])
        grid = np.linspace(float(ends[0]), float(ends[1]), 41)
        low, high = (level + row[q] * (grid - centre) for q in ("q5", "q95"))
        ax.fill_between(grid, np.minimum(low, high), np.maximum(low, high), color=colour, alpha=0.22, lw=0, zorder=2)
        ax.plot(ends, level + row["effect"] * (ends - centre), color=colour, lw=1.8, zorder=3,
                ls="-" if row["informative"] else (0, (4, 2.5)))  # fmt: skip
        ax.locator_params(axis="x", nbins=5)
        said = f"slope {st.signed(row['effect'])}  [{st.signed(row['q5'])}, {st.signed(row['q95'])}]"
    else:
        names = list(dict.fromkeys(sorted(values)))
        at = {c: i for i, c in enumerate(names)}
        jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(y))
        x = np.array([at[v] for v in values]) + jitter
        for category, i in at.items():
            own = values == category
            ax.plot([i - 0.32, i + 0.32], [np.average(y[own], weights=w[own])] * 2, color=colour, lw=2.2, zorder=3)
        some = range(len(names)) if len(names) <= MOST_TICKS else np.linspace(0, len(names) - 1, MOST_TICKS).astype(int)
        room = 0.95 * st.points(ax)[0] / min(len(names), MOST_TICKS)
        ax.set_xticks(list(some), [st.fitted(str(names[i]), 8.5, room) for i in some])
        said = f"{st.shortened(row['contrast'], 34)}: {st.signed(row['effect'])}"
    ax.scatter(x[~flag], y[~flag], s=size[~flag], facecolor="white", edgecolor=st.POOLED, linewidths=1.0, zorder=4)
    ax.scatter(x[flag], y[flag], s=size[flag] + 8, color=st.RAW, linewidths=0, zorder=5)
    # no-break spaces: these words stay together
    verdict = "p\u00a0<\u00a00.0001" if row["p_adjusted"] < 1e-4 else f"p\u00a0=\u00a0{row['p_adjusted']:.2g}"
    ax.set_xlabel("\n".join(st.wrapped(name, 8.5, st.points(ax)[0])), fontsize=8.5)
    _head(ax, f"{said}, {verdict}")
