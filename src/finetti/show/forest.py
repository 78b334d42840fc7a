"""The drawing of a forest: a row per group, its own estimate over the partially pooled one, both with intervals.

Beyond 60 groups no name can be read, and what is left is the shape of the whole: a caterpillar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.show import style as st
from finetti.show.estimates import GroupRows
from finetti.show.numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_NAMED", "Z90", "draw", "intervals", "limits", "size"]

Floats = npt.NDArray[np.float64]

MOST_NAMED = 60
Z90 = 1.6448536269514722  # a normal estimate's 90 % interval is the estimate and this many standard errors
NAME_ROOM = 150.0  # points for the names of groups
SMALLEST_ROW = 9.0  # points: text columns need as much
_POOLED = {"complete": "completely pooled", "none": "not pooled"}


def size(rows: GroupRows) -> tuple[float, float]:
    """Height and width in inches."""
    n = len(rows.level)
    if n > MOST_NAMED:
        return 5.8, st.WIDTH
    return 1.95 + max(0.17, 0.32 - 0.004 * max(0, n - 12)) * max(n, 3), st.WIDTH


def message(rows: GroupRows) -> tuple[str, str]:
    """How many groups lie clearly apart from the population, and what that means."""
    k, group = len(rows.level), st.shortened(rows.group)
    what = f"{k:,} {group} estimates"
    if rows.coefficient != "Intercept":
        what += f" of {st.shortened(rows.coefficient)}"
    apart = (rows.low > rows.population) | (rows.high < rows.population)
    weight = rows.weight[np.isfinite(rows.weight)]
    if rows.pooling == "none" or (weight.size and weight.min() > 0.9995):
        return f"{what}, each from its own data alone", "Nothing was pooled: both intervals tell the same."
    if rows.pooling == "complete" or (weight.size and weight.max() < 0.0005 and not apart.any()):
        return f"{what}, completely pooled into one value", "Own data decide nothing by themselves."
    common = rows.common_population
    value = "" if common is None else f", {st.signed(common, rows.places)}"
    if not np.isfinite(rows.population).any():
        return f"{what}, partially pooled", "The model has no population value for them to be compared with."
    count = f"{int(apart.sum()):,} of" if apart.any() else "None of"
    lies = "lies" if int(apart.sum()) <= 1 else "lie"
    title = f"{count} {what} {lies} clearly apart from the population{value}"
    words = "Clearly apart: the 90 % interval of the partially pooled estimate excludes the population value."
    return title, words


def intervals(raw: Floats, se: Floats) -> tuple[Floats, Floats]:
    """Normal 90 % intervals of estimates; NaN without a standard error."""
    se = np.where(np.isfinite(se), se, np.nan)
    return raw - Z90 * se, raw + Z90 * se


def limits(inner: Floats, raw: Floats, raw_low: Floats, raw_high: Floats) -> tuple[float, float]:
    """Horizontal limits: all of `inner`; raw intervals as far as most of them reach, the others get an arrow."""
    inner = inner[np.isfinite(inner)]
    low, high = (float(inner.min()), float(inner.max())) if inner.size else (0.0, 0.0)
    width = (high - low) or max(abs(high), 1.0)
    for ends, sign in ((raw_low, -1.0), (raw_high, 1.0)):
        ends = np.where(np.isfinite(ends), ends, raw)
        ends = ends[np.isfinite(ends)]
        if not ends.size:
            continue
        edge = low if sign < 0 else high
        out = np.sort(sign * (ends - edge))  # how far each reaches beyond
        typical = float(np.quantile(out, 0.9))
        # an end a little beyond what most need is shown whole; one much further would squeeze all others
        most = min(max(1.0 * width, 1.5 * typical), 8.0 * width)
        reach = max(0.0, min(float(out[-1]), most))
        low, high = (low - reach, high) if sign < 0 else (low, high + reach)
    margin = 0.03 * ((high - low) or width)
    return low - margin, high + margin


def draw(ax: Axes, rows: GroupRows) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D

    k = len(rows.level)
    named = k <= MOST_NAMED
    y = np.arange(k, dtype=float)
    raw_low, raw_high = intervals(rows.raw, rows.raw_se)
    inner = np.concatenate([rows.low, rows.high, rows.mean, rows.population])
    left, right = limits(inner, rows.raw, raw_low, raw_high)
    row_points = st.points(ax)[1] / max(k, 3)
    ax.set_xlim(left, right)
    ax.set_ylim(k - 0.4, -0.6)
    ax.xaxis.grid(True)
    handles: list[Any] = []
    shift = 0.16 if named else 0.0
    thin = not named or row_points < 11

    common = rows.common_population
    if common is not None:
        dash: dict[str, Any] = {"color": st.POPULATION, "lw": 1.1, "ls": (0, (4, 2.5))}
        ax.axvline(common, zorder=4.5 if not named else 1.5, **dash)
        handles.append(Line2D([], [], label=f"population, {st.signed(common, rows.places)}", **dash))
    elif np.isfinite(rows.population).any():
        ax.scatter(rows.population, y + shift, marker="|", s=60 if named else 6, color=st.POPULATION, lw=1.2, zorder=5)
        handles.append(Line2D([], [], color=st.POPULATION, marker="|", ls="", label="population value for the group"))

    own_rows(ax, y - shift, rows.raw, raw_low, raw_high, thin=thin, dense=k > 400)
    width, dot = (1.0, 5.0) if thin else (2.4, 32.0)
    if k > 400:
        width, dot = max(0.25, 0.9 * row_points), 1.5
    ax.hlines(y + shift, rows.low, rows.high, color=st.POOLED_PALE, lw=width, zorder=3)
    ax.scatter(rows.mean, y + shift, s=dot, color=st.POOLED, zorder=4, linewidths=0)

    pooled = _POOLED.get(rows.pooling, "partially pooled")
    handles.insert(
        0, Line2D([], [], color=st.POOLED_PALE, lw=2.4, marker="o", ms=5.5, mfc=st.POOLED, mew=0,
                  label=f"{pooled}, 90 % interval"),
    )  # fmt: skip
    if np.isfinite(rows.raw).any():
        handles.insert(0, own_handle("own data alone (raw estimate), 90 % interval"))
    title, subtitle = message(rows)
    subtitle += _lost(rows, left, right, raw_low, raw_high)
    if named:
        _names(ax, rows, row_points)
        if row_points >= SMALLEST_ROW:
            _columns(ax, rows)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{k:,} {st.shortened(rows.group)} groups, largest first")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("\n".join(st.wrapped(rows.axis, 9.5, max(120.0, st.points(ax)[0]))))
    st.finish(ax, title, subtitle, handles)


def own_rows(
    ax: Axes, y: Floats, raw: Floats, low: Floats, high: Floats, *, thin: bool = False, dense: bool = False
) -> None:
    """Raw estimates, hollow, with thin intervals; what lies beyond the limits ends in an arrow at the edge."""
    left, right = ax.get_xlim()
    seen = np.isfinite(raw)
    whole = seen & np.isfinite(low)
    crossing = whole & (high > left) & (low < right)
    color = st.RAW if not dense else "#e9b48e"
    width = 0.5 if dense else (0.7 if thin else 1.1)
    a, b = np.clip(low, left, right), np.clip(high, left, right)
    ax.hlines(y[crossing], a[crossing], b[crossing], color=color, lw=width, zorder=2)
    inside = seen & (raw >= left) & (raw <= right)
    if dense:
        ax.scatter(raw[inside], y[inside], s=1.5, color=st.RAW, zorder=2.5, linewidths=0)
    else:
        ax.scatter(
            raw[inside], y[inside], s=9 if thin else 26, facecolors="white", edgecolors=st.RAW,
            linewidths=0.8 if thin else 1.3, zorder=3.5,
        )  # fmt: skip
    for beyond, marker, x in ((seen & ((low < left) | (raw < left)), "<", left),
                              (seen & ((high > right) | (raw > right)), ">", right)):  # fmt: skip
        if not dense:
            ax.scatter(
                np.full(int(beyond.sum()), x), y[beyond], marker=marker, s=7 if thin else 16, color=st.RAW, zorder=5,
                clip_on=False, linewidths=0,
            )  # fmt: skip


def own_handle(label: str) -> Any:
    """Legend entry of a raw estimate with its interval."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=st.RAW, lw=1.1, marker="o", ms=5.5, mfc="white", mec=st.RAW, mew=1.3, label=label)


def _lost(rows: GroupRows, left: float, right: float, low: Floats, high: Floats) -> str:
    """What the figure does not show, in words."""
    words = ""
    out = (low < left) | (high > right) | (rows.raw < left) | (rows.raw > right)
    beyond = int(np.sum(np.isfinite(rows.raw) & out))
    if beyond:
        words += f" {beyond:,} raw {'interval reaches' if beyond == 1 else 'intervals reach'} beyond the edges."
    lost = int((~np.isfinite(rows.raw)).sum())
    if lost:
        have = "group has" if lost == 1 else "groups have"
        words += f" {lost:,} {have} no raw estimate (no information of their own)."
    return words


def _names(ax: Axes, rows: GroupRows, row_points: float) -> None:
    """Write the names: all of them where they fit at 5.5 points, else every second, third, ..."""
    size = float(np.clip(0.62 * row_points, 5.5, 9.0))
    step = max(1, int(np.ceil(6.2 / max(row_points, 0.1))))
    room = min(NAME_ROOM, 0.4 * st.points(ax)[0])
    two = row_points >= 2.3 * size
    names = [named_in(v, size, room, two) for v in rows.level]
    ax.set_yticks(np.arange(0, len(names), step), names[::step], fontsize=size, linespacing=1.0)


def named_in(name: str, size: float, room: float, two: bool = False) -> str:
    """A name in at most `room` points, on two lines if there is height for them, else shortened in the middle."""
    name = st.shortened(name, 80)
    lines = st.wrapped(name, size, room)
    if two and len(lines) <= 2:
        return "\n".join(lines)
    return st.fitted(name, size, room)


def _columns(ax: Axes, rows: GroupRows) -> None:
    """Write the number of rows and the weight of each group's own data beside its row."""
    weights = [percent(w) for w in rows.weight]
    text_columns(ax, {"n": [f"{n:,.0f}" for n in rows.n], "own\nweight": weights}, np.arange(len(weights)))


def text_columns(ax: Axes, columns: dict[str, list[str]], y: Floats | npt.NDArray[np.int_], size: float = 8.5) -> None:
    """Write columns of text to the right of the axes, right-aligned, a heading over each."""
    at = 8.0
    for heading, values in columns.items():
        lines = [*values, *heading.split("\n")]
        at += max(st.text_width(v, size) for v in lines)
        kind: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        kind |= {"fontsize": size, "color": st.MUTED, "annotation_clip": False}
        for value, height in zip(values, y, strict=True):
            ax.annotate(value, (1.0, float(height)), (at, 0), va="center", **kind)
        ax.annotate(heading, (1.0, -0.6), (at, 3), va="bottom", linespacing=1.0, **kind)
        at += 9.0
