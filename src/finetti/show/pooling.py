"""The drawing of pooling: every group alone, under empirical and full Bayes, complete pooling behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.errors import FinettiError, available
from finetti.posterior.pooling import Pooling
from finetti.show import style as st
from finetti.show.axes import figure_of, one
from finetti.show.estimates import GroupRows, shortened
from finetti.show.numbers import number, percent, plural, shared_decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["pooling", "pooling_figure"]

EMPIRICAL = "#009E73"  # bluish green of the same palette; a square where full Bayes has a filled dot
BAND = "#d9d9d9"
# more groups than this are represented by some of them, evenly spread over the estimates
MOST_ROWS, SHOWN_ROWS = 40, 24
NAME_ROOM, NAME_SIZE = 150.0, 9.0
# an interval without pooling that reaches further out than this many widths of the others ends at the edge
REACH = 1.0


@dataclass(frozen=True)
class _Drawn:
    """The rows of one coefficient that are drawn, from the largest estimate down, and how many there are in all."""

    table: Pooling
    n_all: int
    everything: Pooling  # of this coefficient
    coefficient: str

    def of(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy(float)


def pooling(fit: Any, group: str | None = None, coefficient: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw what four analyses say of every group: no pooling, complete pooling, empirical Bayes, full Bayes.

    A row per group: hollow dot (no pooling), square (empirical Bayes), filled dot (full Bayes), each with its
    interval; complete pooling is one value for all, a dashed line in the band of its interval. Of more than 40 groups
    24 are shown, evenly spread over the estimates.

    Parameters
    ----------
    fit : Fit or Pooling
        What `finetti.fit` or `fit.pooling(...)` returned.
    group, coefficient : str, optional
        As in `finetti.show.plots.shrinkage`. Of a `Pooling` the group is known.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure of a fitting height.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    FinettiError
        If the model has no such group or coefficient; the message lists those it has.

    Examples
    --------
    >>> import finetti as fi
    >>> fit = fi.fit("effect | se(se) ~ 1 + (1 | school)", fi.datasets.load("eight_schools"))
    >>> fit.plot.pooling().get_xlabel()
    'effect, by school'
    """
    return _pooling(fit, group, coefficient, ax, interactive=True)


def pooling_figure(fit: Any, group: str | None = None, coefficient: str | None = None) -> Figure:
    """Draw the figure of `pooling` outside pyplot."""
    return figure_of(_pooling(fit, group, coefficient, None, interactive=False))


def _pooling(fit: Any, group: str | None, coefficient: str | None, ax: Axes | None, *, interactive: bool) -> Axes:
    rows = _select(fit, group, coefficient)
    return one(lambda a: _draw(a, rows), _size(rows), ax, interactive)


def _select(fit: Any, group: str | None, coefficient: str | None) -> _Drawn:
    if isinstance(fit, Pooling):
        table = fit
        if group is not None and group != table.about.group:
            raise FinettiError(f"this table is about {table.about.group!r}, not {group!r}; give the fit, or no group")
    else:
        names = [str(g) for g in fit.group_names]
        if group is None and names:
            group = names[0]
        table = fit.pooling(group)
    options = [str(c) for c in dict.fromkeys(table["coefficient"])]
    coefficient = options[0] if coefficient is None else coefficient
    if coefficient not in options:
        raise FinettiError(
            f"{coefficient!r} does not vary by {table.about.group!r}: {available(str(coefficient), options)}"
        )
    mine = table[table["coefficient"] == coefficient]
    middle = mine["full_bayes"].where(np.isfinite(mine["full_bayes"]), mine["empirical_bayes"])
    mine = mine.iloc[np.argsort(-middle.to_numpy(float), kind="stable")]
    n = len(mine)
    at = np.unique(np.linspace(0, n - 1, SHOWN_ROWS if n > MOST_ROWS else n).round().astype(int))
    return _Drawn(mine.iloc[at], n, mine, coefficient)


def _names(rows: _Drawn) -> list[str]:
    return [st.fitted(shortened(str(name), 60), NAME_SIZE, NAME_ROOM) for name in rows.table["level"]]


def _size(rows: _Drawn) -> tuple[float, float]:
    """Height and width in inches."""
    n = len(rows.table)
    widest = max(st.text_width(name, NAME_SIZE) for name in _names(rows))
    return 2.3 + (0.42 if n <= 12 else 0.31) * max(n, 3), st.WIDTH + max(0.0, widest - 80.0) / 72


def _limits(rows: _Drawn) -> tuple[float, float]:
    """All that is pooled, and of the rest what does not dwarf it."""
    pooled = [rows.of(f"{a}_{end}") for a in ("complete_pooling", "empirical_bayes", "full_bayes") for end in _ENDS]
    inner = np.concatenate(pooled)
    inner = inner[np.isfinite(inner)]
    low, high = (float(inner.min()), float(inner.max())) if inner.size else (0.0, 1.0)
    width = (high - low) or max(abs(high), 1.0)
    alone = np.concatenate([rows.of(f"no_pooling_{end}") for end in _ENDS])
    alone = alone[np.isfinite(alone)]
    if alone.size:
        low = min(low, max(float(alone.min()), low - REACH * width))
        high = max(high, min(float(alone.max()), high + REACH * width))
    margin = 0.03 * (high - low or 1.0)
    return low - margin, high + margin


_ENDS = ("low", "high")


def _draw(ax: Axes, rows: _Drawn) -> None:
    from matplotlib.lines import Line2D

    k = len(rows.table)
    y = np.arange(k, dtype=float)
    left, right = _limits(rows)
    ax.set_xlim(left, right)
    ax.set_ylim(k - 0.45, -0.55)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    for edge in np.arange(k - 1) + 0.5:  # three marks per row: a faint line tells whose they are
        ax.axhline(edge, color="#efefef", lw=0.8, zorder=0.5)

    share = percent(rows.table.about.share)
    handles: list[Any] = []
    apart, line = 0.25, 2.0 if k <= 12 else 1.5
    size = 30 if k <= 12 else 20
    alone, beyond = rows.of("no_pooling"), 0
    if np.isfinite(alone).any():
        at = y - apart
        ends = [np.clip(rows.of(f"no_pooling_{end}"), left, right) for end in _ENDS]
        ax.hlines(at, *ends, color=st.RAW, lw=0.6 * line, alpha=0.6, zorder=2)
        inside = (alone >= left) & (alone <= right)
        ax.scatter(alone[inside], at[inside], s=size, facecolors="white", edgecolors=st.RAW, linewidths=1.2, zorder=3)
        for out, marker, edge in ((alone < left, "<", left), (alone > right, ">", right)):
            beyond += int(out.sum())
            ax.scatter(np.full(out.sum(), edge), at[out], marker=marker, s=24, color=st.RAW, zorder=5, clip_on=False)
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": st.RAW, "markeredgewidth": 1.2}
        words = "no pooling: each group alone" + ("; arrows point beyond the edge" if beyond else "")
        handles.append(Line2D([], [], color="#eab08a", lw=1.2, marker="o", markersize=5.5, label=words, **hollow))
    for name, colour, marker, place, words in (
        ("empirical_bayes", EMPIRICAL, "s", y, "empirical Bayes: hyperparameters taken as known"),
        ("full_bayes", st.POOLED, "o", y + apart, f"full Bayes, {share} interval (as all)"),
    ):
        if not np.isfinite(rows.of(name)).any():
            continue
        ax.hlines(place, rows.of(f"{name}_low"), rows.of(f"{name}_high"), color=colour, lw=line, alpha=0.5, zorder=2.5)
        ax.scatter(rows.of(name), place, s=size, marker=marker, color=colour, linewidths=0, zorder=4)
        handles.append(Line2D([], [], color=colour, lw=line, marker=marker, markersize=5, label=words))
    handles += _complete(ax, rows, Line2D)

    step = 1 if k <= MOST_ROWS else -(-k // MOST_ROWS)
    ax.set_yticks(y[::step], _names(rows)[::step], fontsize=NAME_SIZE)
    ax.set_xlabel("\n".join(st.wrapped(_axis(rows), 9.5, max(120.0, st.points(ax)[0]))))
    title, subtitle = _message(rows)
    st.finish(ax, title, subtitle, handles)


def _complete(ax: Axes, rows: _Drawn, line: Any) -> list[Any]:
    """Draw complete pooling: one line and band where all groups share a value, else a tick per row."""
    value = rows.of("complete_pooling")
    if not np.isfinite(value).any():
        return []
    low, high = rows.of("complete_pooling_low"), rows.of("complete_pooling_high")
    centre, ends = float(np.nanmean(value)), (float(np.nanmean(low)), float(np.nanmean(high)))
    if ends[1] > ends[0]:
        ax.axvspan(*ends, color=BAND, alpha=0.6, lw=0, zorder=0.7)
    ax.axvline(centre, color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
    places = shared_decimals(rows.of("full_bayes_length") / 3.29, digits=2)
    label = f"complete pooling: all groups alike, {st.signed(centre, places)}"
    return [line([], [], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), label=label)]


def _axis(rows: _Drawn) -> str:
    about, none = rows.table.about, np.zeros(0)
    return GroupRows(about.group, rows.coefficient, about.response, about.predictors, "partial", [], *([none] * 8)).axis


def _message(rows: _Drawn) -> tuple[str, str]:
    """The figure's message in words, from the numbers of all groups."""
    table, about = rows.everything, rows.table.about
    group = shortened(about.group)
    alone, empirical, full = (
        table[f"{a}_length"].to_numpy(float) for a in ("no_pooling", "empirical_bayes", "full_bayes")
    )
    what = f"of {rows.n_all:,} {group} estimates"
    if rows.coefficient != "Intercept":
        what = f"of {shortened(rows.coefficient)} in {rows.n_all:,} {group} groups"
    both = np.isfinite(alone) & np.isfinite(full)
    places = shared_decimals(full, digits=2)
    if both.any():
        before, after = float(np.median(alone[both])), float(np.median(full[both]))
        verb = "narrows" if after < 0.98 * before else "hardly changes" if after < 1.02 * before else "widens"
        if verb != "hardly changes" and number(before, places) == number(after, places):
            places = None if places is None else places + 1
        lengths = f"{number(before, places)} to {number(after, places)}"
        title = f"Partial pooling {verb} the intervals {what}: median length {lengths}"
    elif np.isfinite(full).any():
        title = f"Partially pooled intervals {what}: median length {number(float(np.nanmedian(full)), places)}"
    else:
        title = f"Four kinds of pooling {what}"
    said = []
    if np.isfinite(empirical).any() and np.isfinite(full).any():
        ratio = float(np.nanmedian(empirical / full))
        said.append(
            f"Empirical Bayes, which takes the hyperparameters as known, has intervals {number(ratio, 2)} times as "
            "long as full Bayes (median)."
        )
    missing = int((~np.isfinite(alone)).sum())
    if missing:
        said.append(
            "No pooling cannot be computed."
            if missing == rows.n_all
            else f"{plural(missing, 'group')} alone cannot be estimated."
        )
    if len(rows.table) < rows.n_all:
        said.append(f"{len(rows.table)} of the {rows.n_all:,} groups are shown, evenly spread over the estimates.")
    return title, " ".join(said)
