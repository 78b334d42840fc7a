"""The volcano of a screen: posterior mean of every effect against its local false sign rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.show import style as st
from finetti.show.numbers import plural, significant
from finetti.show.screen_facts import expected, finish, some_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from finetti.studies.screen import Screen

__all__ = ["FDR", "HEIGHT", "draw", "lowest_rate", "power_of_ten"]

Floats = npt.NDArray[np.float64]

HEIGHT = 5.2  # inches
FDR = 0.05
MOST_POINTS = 20_000  # of those that are no discovery
# smaller rates lie at the upper edge; the second where more than a tenth of the discoveries would
FLOOR, LOWEST = 1e-6, 1e-16
MOST_NAMED, NAME_SIZE, NAME_ROOM = 10, 8.0, 96.0
HEAD = 90.0  # points of message and legend over the axes
BESIDE = 3.0  # points between a name and the middle of another discovery
# an effect so many times as large as nearly all discoveries, where there are enough of these, lies at the side
FEW, FAR = 10, 4.0
QUIET = "#8f8f8f"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """Write 10^exponent.

    >>> power_of_ten(-6), power_of_ten(-2), power_of_ten(0)
    ('10⁻⁶', '0.01', '1')
    """
    return f"{10.0**exponent:g}" if exponent >= -3 else f"10{str(exponent).translate(_RAISED)}"


def draw(ax: Axes, screen: Screen, table: pd.DataFrame) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D

    x, rate = table["mean"].to_numpy(float), table["lfsr"].to_numpy(float)
    found = table["qvalue"].to_numpy(float) <= FDR
    floor = lowest_rate(rate, found)
    clipped = rate < floor
    y = np.maximum(rate, floor)
    lowest = floor if clipped.any() else min(float(y.min()), 0.3)
    shown = some_of(rate.size, MOST_POINTS, found)
    left, right = _sides(x, found)
    aside = (x < left) | (x > right)
    x = np.clip(x, left, right)
    width = (right - left) or abs(right) or 1.0
    ax.set_xlim(left - 0.06 * width, right + 0.06 * width)
    ax.set_yscale("log")
    span = float(np.log10(1.0 / lowest))
    # names of tests at the upper edge stand over it
    ax.set_ylim(10.0 ** (0.03 * span), lowest * 10.0 ** (-(0.09 if clipped.any() else 0.05) * span))
    ticks = _ticks(span)
    ax.set_yticks(list(ticks.values()), list(ticks))
    ax.minorticks_off()
    ax.yaxis.grid(True)
    ax.axvline(0.0, color=st.LINK, lw=0.9, zorder=1)

    others = shown[~found[shown] & ~aside[shown]]
    alpha = float(np.clip(30.0 / np.sqrt(max(others.size, 1)), 0.12, 0.6))
    ax.scatter(
        x[others], y[others], s=14 if others.size <= 500 else 6, color=QUIET, alpha=alpha, linewidths=0, zorder=2,
        rasterized=others.size > 2000, clip_on=False,
    )  # fmt: skip
    inside, above = np.flatnonzero(found & ~clipped & ~aside), np.flatnonzero(clipped & ~aside)
    size = 20 if inside.size <= 200 else (10 if inside.size <= 5_000 else 4)
    many = found.sum() > 2000
    kind: dict[str, Any] = {"color": st.POOLED, "linewidths": 0, "zorder": 3, "rasterized": many, "clip_on": False}
    ax.scatter(x[inside], y[inside], s=size, alpha=0.85 if not many else 0.4, **kind)
    if above.size:
        ax.scatter(x[above], np.full(above.size, floor), s=26 if above.size <= 200 else 14, marker="^",
                   alpha=0.85 if above.size <= 200 else 0.5, **kind)  # fmt: skip
    for marker, edge in (("<", left), (">", right)):
        there = np.flatnonzero(aside & (x == edge))
        ax.scatter(x[there], y[there], s=26, marker=marker, alpha=0.85, **kind)
    name = st.shortened(screen.screened.effect_name)
    ax.set_xlabel("\n".join(st.wrapped(f"posterior mean of {name}", 9.5, max(120.0, st.points(ax)[0]))))
    ax.set_ylabel("local false sign rate")
    _name(ax, table, x, y, found, shown)
    handles: list[Any] = []
    if found.any():
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mew=0, color=st.POOLED, label="discovery"))
    if above.size:
        label = f"{plural(above.size, 'test')} below {power_of_ten(round(np.log10(floor)))}, at the upper edge"
        handles.append(Line2D([], [], ls="", marker="^", ms=5.5, mew=0, color=st.POOLED, label=label))
    if aside.any():
        label = f"{plural(int(aside.sum()), 'effect')} beyond the sides"
        handles.append(Line2D([], [], ls="", marker=">", ms=5.5, mew=0, color=st.POOLED, label=label))
    left_out = int((~found & ~aside).sum()) - others.size
    label = "no discovery" if not left_out else f"no discovery, {others.size:,} of {others.size + left_out:,} shown"
    if others.size:
        handles.append(Line2D([], [], ls="", marker="o", ms=4, mew=0, color=QUIET, label=label))
    title, subtitle = message(table, found)
    finish(ax, screen, title, subtitle, tuple(handles))


def message(table: pd.DataFrame, found: npt.NDArray[np.bool_]) -> tuple[str, str]:
    """How many discoveries there are, and how many of them are expected to be false."""
    n, at = int(found.sum()), f"an FDR of {100 * FDR:g}\u00a0%"
    how = "The local false sign rate is the probability that an effect has not the sign it seems to have."
    if not n:
        best = float(table["prob_null"].min())
        return (
            f"No discovery among {plural(len(table), 'test')} at {at}",
            f"The test least likely to be null is so with probability {significant(best, 2)}. {how}",
        )
    false = float(table["prob_null"].to_numpy()[found].sum())
    verb = "is a discovery" if n == 1 else "are discoveries"
    up = int((table["mean"].to_numpy()[found] > 0).sum())
    title = f"{n:,} of {plural(len(table), 'test')} {verb} at {at}"
    return title, f"{up:,} up, {n - up:,} down; expected number of nulls among them: {expected(false)}. {how}"


def _sides(x: Floats, found: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Horizontal limits: all effects, but for a few that are so large that all others would be one line."""
    pool, ends = x[found], []
    for sign in (-1.0, 1.0):
        most, away = float((sign * x).max()), sign * pool
        k = max(1, pool.size // 100)
        nearly = float(np.partition(away, -k - 1)[-k - 1]) if pool.size >= FEW else most
        ends.append(sign * (1.3 * nearly if most > FAR * nearly > 0.0 else most))
    return ends[0], ends[1]


def _ticks(span: float) -> dict[str, float]:
    """Powers of ten, every one or every second, ...; where there are but few of them 2 and 5 as well."""
    if span < 2.0:
        values = [v for v in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if np.log10(v) >= -1.05 * span]
        return {f"{v:g}": v for v in values}
    step = 1 if span <= 7 else (2 if span <= 12 else 4)
    return {power_of_ten(p): 10.0**p for p in range(0, -int(span + 0.3) - 1, -step)}


def lowest_rate(rate: Floats, found: npt.NDArray[np.bool_]) -> float:
    """Return the lowest rate that is shown; smaller ones would squeeze all others."""
    if not found.any():
        return FLOOR
    usual = float(np.quantile(rate[found], 0.1))
    return float(np.clip(10.0 ** np.floor(np.log10(max(usual, LOWEST))), LOWEST, FLOOR))


def _name(
    ax: Axes, table: pd.DataFrame, x: Floats, y: Floats, found: npt.NDArray[np.bool_], shown: npt.NDArray[np.int64]
) -> None:
    """Name the most convincing discoveries, each where its name covers no other name and no other of them."""
    width, height = st.points(ax)
    height = max(height - HEAD, 0.45 * height)  # the layout will make room for the message
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()

    def spots(i: Any) -> Floats:
        up = np.log(y[i] / y0) / np.log(y1 / y0)
        return np.column_stack([width * (x[i] - x0) / (x1 - x0), height * up])

    rate, size = table["lfsr"].to_numpy(float), np.abs(x)
    candidates = np.flatnonzero(found)
    if candidates.size > 400:  # the most convincing are among those of the smallest rates, or of the largest effects
        few = candidates[np.argpartition(rate[candidates], 200)[:200]]
        candidates = np.union1d(few, candidates[np.argpartition(-size[candidates], 200)[:200]])
    # of those at the upper edge, which cannot be told apart there, the largest effects
    first = candidates[np.lexsort((-size[candidates], y[candidates]))][: 4 * MOST_NAMED]
    # where those are too close together for names, the largest of all effects
    order = dict.fromkeys([*first, *candidates[np.argsort(-size[candidates], kind="stable")][: 6 * MOST_NAMED]])
    crowd = spots(np.flatnonzero(found)) if found.sum() <= 5_000 else spots(candidates)
    taken: list[tuple[float, float, float, float]] = []
    for i in order:
        name = st.fitted(st.shortened(str(table.index[i]), 60), NAME_SIZE, NAME_ROOM)
        wide, high = st.text_width(name, NAME_SIZE), 1.15 * NAME_SIZE
        px, py = spots(np.array([i]))[0]
        outward = 1 if x[i] >= 0 else -1
        places = [(outward, 0.0), (-outward, 0.0), (outward, 8.0), (outward, -8.0), (-outward, 8.0), (-outward, -8.0)]
        if rate[i] < y[i]:  # in a row at the upper edge, where a name beside a mark would be taken for its neighbour's
            places = [(outward, 0.0), (0, 9.5)]
        for side, dy in places:
            left = px + 5.5 * side - (0.0 if side > 0 else (wide if side < 0 else 0.5 * wide))
            box = (left, py + dy - 0.5 * high, left + wide, py + dy + 0.5 * high)
            inside = box[0] >= 1 and box[2] <= width - 1 and box[1] >= 1 and box[3] <= height + 6
            free = all(box[2] + 4 < b[0] or b[2] + 4 < box[0] or box[3] < b[1] or b[3] < box[1] for b in taken)
            near = (crowd > np.array(box[:2]) - BESIDE) & (crowd < np.array(box[2:]) + BESIDE)
            clear = not np.any(np.all(near, axis=1))
            if inside and free and clear:
                ax.annotate(
                    name, (x[i], y[i]), (5.5 * side, dy), textcoords="offset points",
                    ha={1: "left", -1: "right", 0: "center"}[side], va="center", fontsize=NAME_SIZE, color=st.INK,
                    zorder=5, annotation_clip=False,
                )  # fmt: skip
                taken.append(box)
                break
        if len(taken) == MOST_NAMED:
            break
