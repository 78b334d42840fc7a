"""The drawing of shrinkage: a row per group while a page holds them, a cloud of raw against pooled beyond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.show import style as st
from finetti.show.estimates import GroupRows, shortened
from finetti.show.numbers import number, percent, plural, shared_decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "size"]

MOST_ROWS = 120  # more groups than fit one page legibly are shown as a cloud
NAME_ROOM = 165.0  # points; wider level names are shortened in the middle
NAME_SIZE = 9.5
MOST_WEIGHTS = 40  # up to here each row also carries its weight as a number
# Raw estimates further out than this many widths of the pooled range sit at the edge of the figure, unless most are
_REACH, _FAR_REACH = 1.5, 4.0

_POOLED = {"partial": "partially pooled", "empirical": "partially pooled", "complete": "completely pooled",
           "none": "posterior mean"}  # fmt: skip


def size(rows: GroupRows) -> tuple[float, float]:
    """Height and width in inches: generous rows for few groups, one page for a hundred, wider for long names."""
    n = len(rows.level)
    if n > MOST_ROWS:
        return 5.6, st.WIDTH
    row = 0.30 if n <= 30 else max(0.115, 9.0 / n)
    widest = max(st.text_width(name, NAME_SIZE) for name in _names(rows))
    return 1.75 + row * max(n, 3), st.WIDTH + (max(0.0, widest - 90.0) / 72 if n <= MOST_WEIGHTS else 0.0)


def _names(rows: GroupRows) -> list[str]:
    return [st.fitted(shortened(name, 60), NAME_SIZE, NAME_ROOM) for name in rows.level]


def draw(ax: Axes, rows: GroupRows) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    few = len(rows.level) <= MOST_ROWS
    (_draw_rows if few else _draw_cloud)(ax, rows)
    meaning = rows.axis if few else f"raw estimate ({rows.axis})"
    ax.set_xlabel("\n".join(st.wrapped(meaning, 9.5, max(120.0, st.points(ax)[0] if few else st.room_over(ax)))))
    st.plain(ax)


def _message(rows: GroupRows) -> tuple[str, str]:
    """The figure's message in words, from the numbers it shows."""
    k, group = len(rows.level), shortened(rows.group)
    known = np.isfinite(rows.raw)
    weight = rows.weight[np.isfinite(rows.weight)]
    if weight.size and weight.min() > 0.9995:
        return f"Not pooled: {k:,} {group} estimates stand alone", "Own data decide all of a group's estimate."
    if weight.size and weight.max() < 0.0005 and np.ptp(rows.mean) < 1e-9 * np.max(np.abs(rows.mean)):
        return f"Completely pooled: one value for {k:,} {group} groups", "Own data decide nothing by themselves."
    if known.sum() >= 2:
        before, after = float(np.std(rows.raw[known], ddof=1)), float(np.std(rows.mean[known], ddof=1))
        verb = "narrows" if after < before else "changes"
        what = f"of {k:,} {group} estimates"
        if rows.coefficient != "Intercept":
            what = f"of {shortened(rows.coefficient)} across {k:,} {group} groups"
        places = shared_decimals([min(before, after)], digits=2)
        title = f"Partial pooling {verb} the spread {what} from {number(before, places)} to {number(after, places)}"
    else:
        title = f"Partially pooled estimates by {group}"
    if not weight.size:
        return title, "Spread: standard deviation between groups."
    low, mid, high = (percent(v) for v in (weight.min(), np.median(weight), weight.max()))
    share = mid if low == high else f"{low.removesuffix(' %')} to {high} (median {mid})"
    return title, f"Own data decide {share} of a group's estimate, the population the rest."


def _sizes(rows: GroupRows, smallest: float, largest: float) -> tuple[np.ndarray, str]:
    """Dot areas in points², growing with the root of n, or of the precision where every n is the same."""
    n = rows.n
    if np.ptp(n) > 0:
        measure, words = n, f", larger with more rows ({n.min():,.0f} to {n.max():,.0f})"
    else:
        with np.errstate(divide="ignore"):
            measure = np.where(np.isfinite(rows.raw_se) & (rows.raw_se > 0), rows.raw_se**-2.0, np.nan)
        if not np.isfinite(measure).any() or np.nanmax(measure) < 1.02 * np.nanmin(measure):
            return np.full(n.shape, 0.5 * (smallest + largest)), ""
        words = ", larger where more precise"
    share = np.sqrt(np.nan_to_num(measure, nan=0.0) / np.nanmax(measure))
    return smallest + (largest - smallest) * share, words


def _limits(rows: GroupRows) -> tuple[float, float]:
    """Horizontal limits: all that is pooled, and raw estimates where they are not so far out that it would vanish."""
    inner = np.concatenate([rows.low, rows.high, rows.mean, rows.population])
    inner = inner[np.isfinite(inner)] if np.isfinite(inner).any() else np.zeros(1)
    low, high = float(inner.min()), float(inner.max())
    width = (high - low) or max(abs(high), 1.0)
    raw = rows.raw[np.isfinite(rows.raw)]
    if raw.size:
        first, third = np.quantile(raw, [0.25, 0.75])
        fence = 3.0 * (third - first)  # what lies within is the bulk, not an outlier
        left = max(min(low - _REACH * width, first - fence), low - _FAR_REACH * width)
        right = min(max(high + _REACH * width, third + fence), high + _FAR_REACH * width)
        low, high = min(low, max(float(raw.min()), left)), max(high, min(float(raw.max()), right))
    margin = 0.04 * ((high - low) or width)
    return low - margin, high + margin


def _draw_rows(ax: Axes, rows: GroupRows) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    k = len(rows.level)
    y = np.arange(k, dtype=float)
    left, right = _limits(rows)
    row_points = st.points(ax)[1] / max(k, 3)
    small = row_points < 12
    raw_y, pooled_y = y - 0.17, y + 0.13  # apart, so that the segment does not hide the interval
    sizes, size_words = _sizes(rows, 7 if small else 14, 34 if small else 90)

    ax.set_xlim(left, right)
    ax.set_ylim(k - 0.4, -0.6)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)

    handles = []
    common = rows.common_population
    if common is not None:
        ax.axvline(common, color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
        value = st.signed(common, rows.places)
        handles.append(Line2D([], [], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), label=f"population, {value}"))
    elif np.isfinite(rows.population).any():
        ax.scatter(rows.population, pooled_y, marker="|", s=60, color=st.POPULATION, lw=1.2, zorder=1.5)
        handles.append(Line2D([], [], color=st.POPULATION, marker="|", ls="", label="population value for the group"))

    seen = np.isfinite(rows.raw)
    shown = np.clip(rows.raw, left, right)
    ends = [[(shown[i], raw_y[i]), (rows.mean[i], pooled_y[i])] for i in np.flatnonzero(seen)]
    ax.add_collection(LineCollection(ends, colors=st.LINK, linewidths=0.8 if small else 1.1, zorder=2), autolim=False)
    ax.hlines(pooled_y, rows.low, rows.high, color=st.POOLED, lw=1.0 if small else 2.0, alpha=0.45, zorder=2.5)
    ax.scatter(rows.mean, pooled_y, s=11 if small else 34, color=st.POOLED, zorder=4, linewidths=0)
    inside = seen & (rows.raw >= left) & (rows.raw <= right)
    ax.scatter(
        rows.raw[inside], raw_y[inside], s=sizes[inside], facecolors="white", edgecolors=st.RAW,
        linewidths=0.9 if small else 1.4, zorder=3,
    )  # fmt: skip
    for beyond, marker, edge in ((seen & (rows.raw < left), "<", left), (seen & (rows.raw > right), ">", right)):
        x = np.full(beyond.sum(), edge)
        ax.scatter(x, raw_y[beyond], marker=marker, s=26, color=st.RAW, zorder=5, clip_on=False)

    mark: dict[str, Any] = {"color": "none", "markerfacecolor": "white", "markeredgecolor": st.RAW}
    mark |= {"marker": "o", "markersize": 6.5, "markeredgewidth": 1.3}
    handles.insert(
        0, Line2D([], [], color="#7fb8d8", lw=2, marker="o", markersize=5.5, markerfacecolor=st.POOLED,
                  markeredgewidth=0, label=f"{_POOLED[rows.pooling]}, 90 % interval"),
    )  # fmt: skip
    if seen.any():
        handles.insert(0, Line2D([], [], label=f"raw estimate{size_words}", **mark))
    outside = int((seen & ~inside).sum())
    if outside:
        ends_words = "raw estimate beyond the edge" if outside == 1 else f"{outside} raw estimates beyond the edges"
        handles.append(Line2D([], [], color=st.RAW, marker=">", ls="", markersize=5, label=ends_words))

    _label_levels(ax, rows, row_points)
    if k <= MOST_WEIGHTS and row_points >= 9:
        _write_weights(ax, rows)
    _finish(ax, rows, handles)


def _label_levels(ax: Axes, rows: GroupRows, row_points: float) -> None:
    """Write the levels' names: all of them where they fit at 5.5 points, else every second, third, ..."""
    k = len(rows.level)
    size = float(np.clip(0.78 * row_points, 5.5, 9.5))
    step = max(1, int(np.ceil(6.2 / max(row_points, 0.1))))
    ax.set_yticks(np.arange(0, k, step), _names(rows)[::step], fontsize=size)


def _write_weights(ax: Axes, rows: GroupRows) -> None:
    """Write the weight of each group's own data beside its row."""
    where = ax.get_yaxis_transform()
    kind: dict[str, Any] = {"transform": where, "ha": "right", "fontsize": 8.5, "color": st.MUTED, "clip_on": False}
    for i, w in enumerate(rows.weight):
        ax.text(1.115, i, percent(w), va="center", **kind)
    ax.text(1.115, -0.72, "own\nweight", va="bottom", linespacing=1.0, **kind)


def _draw_cloud(ax: Axes, rows: GroupRows) -> None:
    from matplotlib.lines import Line2D

    seen = np.isfinite(rows.raw) & np.isfinite(rows.mean)
    sizes, size_words = _sizes(rows, 3, 36)
    left, right = _limits(rows)
    low, high = float(np.nanmin(rows.mean)), float(np.nanmax(rows.mean))
    common = rows.common_population
    if common is not None:
        low, high = min(low, common), max(high, common)
    margin = 0.06 * ((high - low) or 1.0)
    ax.set_xlim(left, right)
    ax.set_ylim(low - margin, high + margin)
    ax.grid(True)
    ax.axline((low, low), slope=1, color=st.LINK, lw=1.2, zorder=2)
    handles = [Line2D([], [], color=st.LINK, lw=1.2, label="no shrinkage (raw = pooled)")]
    if common is not None:
        ax.axhline(common, color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=2)
        label = f"population, {st.signed(common, rows.places)}"
        handles.append(Line2D([], [], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), label=label))
    inside = seen & (rows.raw >= left) & (rows.raw <= right)
    alpha = float(np.clip(40 / np.sqrt(max(len(rows.level), 1)), 0.08, 0.7))
    ax.scatter(
        rows.raw[inside], rows.mean[inside], s=sizes[inside], color=st.POOLED, alpha=alpha, linewidths=0,
        zorder=3, rasterized=True,
    )  # fmt: skip
    for beyond, marker, edge in ((seen & (rows.raw < left), "<", left), (seen & (rows.raw > right), ">", right)):
        ax.scatter(
            np.full(beyond.sum(), edge), rows.mean[beyond], marker=marker, s=12, color=st.RAW, zorder=4,
            clip_on=False, linewidths=0,
        )  # fmt: skip
    outside = int((seen & ~inside).sum())
    if outside:
        words = f"{plural(outside, 'raw estimate')} beyond the edges"
        handles.append(Line2D([], [], color=st.RAW, marker=">", ls="", markersize=4, label=words))
    label = f"one {shortened(rows.group)}{size_words}"
    handles.insert(0, Line2D([], [], color=st.POOLED, marker="o", ls="", markersize=5, label=label))
    ax.set_ylabel(f"{_POOLED[rows.pooling]}{'' if rows.pooling == 'none' else ' estimate'}")
    _finish(ax, rows, handles)


def _finish(ax: Axes, rows: GroupRows, handles: list[Any]) -> None:
    title, subtitle = _message(rows)
    lost = int((~np.isfinite(rows.raw)).sum())
    if lost:
        whose = "its" if lost == 1 else "their"
        subtitle += f" {plural(lost, 'group')} without a raw estimate (no information of {whose} own)."
    st.finish(ax, title, subtitle, handles)
