"""The forest plot of a meta-analysis: every study as observed and after partial pooling.

Below the studies stand the overall effect, a diamond from its 5 to its 95 % quantile, and a bar over the 90 % in
which the true effect of a new study is expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.show import style as st
from finetti.show.forest import MOST_NAMED, Z90, limits, named_in, own_handle, own_rows, text_columns
from finetti.show.numbers import percent, plural
from finetti.show.studies import Studies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "size"]

TEXT = 8.0  # points; the columns of a forest plot are many
NAME_ROOM = 112.0
WIDTH = st.WIDTH + 0.4


def size(s: Studies) -> tuple[float, float]:
    """Height and width in inches."""
    k = len(s.names)
    if k > MOST_NAMED:
        return 6.4, st.WIDTH
    row = max(0.18, 0.30 - 0.004 * max(0, k - 12))
    return 2.3 + row * (k + 3), WIDTH


def message(s: Studies) -> tuple[str, str]:
    """The overall effect and how much studies differ, in words."""
    at = " at mean covariates" if s.moderated else ""
    title = f"Overall {st.shortened(s.effect_name)}{at} {s.interval(*s.overall)}; "
    title += f"a new study {s.text(s.new[1])}\u00a0to\u00a0{s.text(s.new[2])}"
    i2 = f", {100 * s.I2:.0f} % of a typical study's variance (I²)" if np.isfinite(s.I2) else ""
    both = " between clusters and within them" if s.cluster else ""
    words = f"{plural(len(s.names), 'study')}; true effects differ{both} with an sd (tau) of {s.text(s.tau[0])}{i2}; "
    return title, words + f"posterior median{'s' if i2 else ''}. All intervals are 90 %."


def draw(ax: Axes, s: Studies) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    k = len(s.names)
    named = k <= MOST_NAMED
    order = np.arange(k) if named else np.argsort(-s.mean, kind="stable")
    effect, mean, low, high = s.effect[order], s.mean[order], s.low[order], s.high[order]
    y = np.arange(k, dtype=float)
    gap = 0.9 if named else 0.02 * k
    foot = max(1.0, 0.035 * k)  # height of a row below the studies
    y_overall, y_new = k - 1 + gap + foot * 0.6, k - 1 + gap + foot * 1.7
    raw_low, raw_high = effect - Z90 * s.se[order], effect + Z90 * s.se[order]
    inner = np.concatenate([low, high, mean, s.overall, s.new])
    left, right = limits(inner, effect, raw_low, raw_high)
    ax.set_xlim(left, right)
    ax.set_ylim(y_new + 0.7 * foot, -0.7)
    row_points = st.points(ax)[1] / (y_new + 0.7 * foot + 0.7)
    ax.xaxis.grid(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    thin = not named or row_points < 11
    shift = 0.16 if named else 0.0

    if left < 0.0 < right:
        ax.axvline(0.0, color="#8a8a8a", lw=0.9, zorder=1.4)
    ax.plot([s.overall[0]] * 2, [-0.7, y_overall], color=st.POPULATION, lw=1.1, ls=(0, (4, 2.5)), zorder=1.5)
    own_rows(ax, y - shift, effect, raw_low, raw_high, thin=thin, dense=k > 400)
    width = 2.4 if not thin else max(0.3, min(1.0, 0.9 * row_points))
    ax.hlines(y + shift, low, high, color=st.POOLED_PALE, lw=width, zorder=3)
    ax.scatter(mean, y + shift, s=26 if not thin else 4, color=st.POOLED, zorder=4, linewidths=0)

    ax.axhline(k - 1 + 0.5 + 0.5 * (gap - 0.4), color="#bbbbbb", lw=0.8, zorder=1)
    middle, a, b = s.overall
    half = 0.32 * foot
    ax.fill([a, middle, b, middle], [y_overall, y_overall - half, y_overall, y_overall + half], color=st.POPULATION,
            zorder=4, lw=0)  # fmt: skip
    thick = 0.16 * foot
    ax.fill([s.new[1], s.new[2], s.new[2], s.new[1]], [y_new - thick, y_new - thick, y_new + thick, y_new + thick],
            color="#8f8f8f", zorder=4, lw=0)  # fmt: skip

    handles: list[Any] = [
        own_handle("effect as observed, 90 % interval"),
        Line2D([], [], color=st.POOLED_PALE, lw=2.4, marker="o", ms=5.5, mfc=st.POOLED, mew=0,
               label="true effect after partial pooling, 90 % interval"),
        Patch(facecolor=st.POPULATION, label="overall effect (diamond)"),
    ]  # fmt: skip
    size_ = float(np.clip(0.7 * row_points, 5.5, 8.5))
    room = min(NAME_ROOM, 0.33 * st.points(ax)[0])
    feet, feet_at = ["Overall", "New study"], [y_overall, y_new]
    if named:
        two = row_points >= 2.3 * size_
        step = max(1, int(np.ceil(6.2 / max(row_points, 0.1))))
        names = [named_in(v, size_, room, two) for v in s.names][::step]
        ax.set_yticks([*y[::step], *feet_at], [*names, *feet], fontsize=size_, linespacing=1.0)
        if row_points >= 9.0:
            told = [s.interval(*v) for v in zip(effect, raw_low, raw_high, strict=True)]
            told += [s.interval(*s.overall), f"{s.text(s.new[1])} to {s.text(s.new[2])}"]
            share = [percent(v).replace("-", "−") for v in s.share]
            text_columns(ax, {"observed\n[90 %]": told, "share": [*share, "", ""]}, np.array([*y, *feet_at]), TEXT)
    else:
        ax.set_yticks(feet_at, feet, fontsize=8.5)
        ax.set_ylabel(f"{k:,} studies, largest first")
    for label in ax.get_yticklabels()[-2:]:
        label.set_fontweight("bold")
    ax.set_xlabel("\n".join(st.wrapped(st.shortened(s.effect_name), 9.5, max(120.0, st.points(ax)[0]))))
    title, subtitle = message(s)
    beyond = int(np.sum((raw_low < left) | (raw_high > right)))
    if beyond:
        subtitle += f" {beyond:,} observed {'interval reaches' if beyond == 1 else 'intervals reach'} beyond the edges."
    st.finish(ax, title, subtitle, handles)
