"""The number of discoveries against the false discovery rate, and how many of them are expected to be false."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finetti.show import style as st
from finetti.show.numbers import plural, significant
from finetti.show.screen_facts import expected, finish
from finetti.show.screen_volcano import FDR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from finetti.studies.screen import Screen

__all__ = ["HEIGHT", "RATES", "draw"]

HEIGHT = 4.4  # inches
LABEL = 9.0  # points
# the rates drawn: the usual one among them, so that its numbers are not between two
RATES = np.union1d(np.geomspace(0.001, 0.3, 56), FDR)
# more discoveries than that are shown on a root scale, on which the false ones among them are seen, too
FEW = 20
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def draw(ax: Axes, screen: Screen, curve: pd.DataFrame) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    curve = curve.sort_values("rate")
    rate, n, false, low, high = (
        curve[c].to_numpy(float) for c in ("rate", "n", "expected_false", "false_low", "false_high")
    )
    most = max(float(n.max()), float(high.max()), 4.0)
    rooted = most > FEW
    if rooted:
        ax.set_yscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0.0)), np.square))
    ax.set_xscale("log")
    ax.set_xlim(float(rate[0]), float(rate[-1]))
    ax.set_ylim(0.0, (1.2 if rooted else 1.12) * most)
    ticks = [t for t in TICKS if rate[0] <= t * (1 + 1e-9) and t <= rate[-1] * (1 + 1e-9)]
    ax.set_xticks(ticks, [f"{100 * t:g}" for t in ticks])
    ax.set_xticks([], minor=True)
    if rooted:
        counts = _ticks(1.2 * most)
        ax.set_yticks(counts, [f"{v:,.0f}" for v in counts])
        ax.set_yticks([], minor=True)
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    ax.yaxis.grid(True)
    step: dict[str, Any] = {} if rooted else {"drawstyle": "steps-post"}
    ax.fill_between(rate, low, high, color=st.RAW, alpha=0.22, lw=0, zorder=2, step=None if rooted else "post")
    ax.plot(rate, false, color=st.RAW, lw=1.3, ls=(0, (4, 2)), zorder=3, **step)
    ax.plot(rate, n, color=st.POOLED, lw=1.8, zorder=3, **step)
    here = int(np.argmin(np.abs(np.log(rate / FDR))))
    ax.vlines(rate[here], 0.0, n[here], color=st.LINK, lw=0.9, ls=(0, (1, 1.5)), zorder=1.5)
    ax.scatter([rate[here]], [n[here]], s=32, color=st.POOLED, linewidths=0, zorder=4, clip_on=False)
    if n[here]:
        ax.annotate(
            f"{n[here]:,.0f}", (rate[here], n[here]), (-5, 4), textcoords="offset points", ha="right", va="bottom",
            fontsize=LABEL, fontweight="bold", color=st.POOLED, zorder=5,
        )  # fmt: skip
    ax.set_xlabel("nominal false discovery rate (FDR), %")
    ax.set_ylabel("number of tests" + (" (root scale)" if rooted else ""))
    handles: list[Any] = [
        Line2D([], [], color=st.POOLED, lw=1.8, label="discoveries"),
        Line2D([], [], color=st.RAW, lw=1.3, ls=(0, (4, 2)), label="false ones among them, expected"),
        Patch(facecolor=st.RAW, alpha=0.22, label="90 % interval of the false ones"),
    ]
    title, subtitle = message(screen, curve.iloc[here])
    finish(ax, screen, title, subtitle, tuple(handles))


def message(screen: Screen, row: pd.Series) -> tuple[str, str]:
    """Discoveries at the usual rate, and what is known of the false ones among them."""
    n, at = int(row["n"]), f"an FDR of {float(significant(100 * row['rate'], 2)):g}\u00a0%"
    tests = plural(screen.n_tests, "test")
    if not n:
        return f"No discovery among {tests} at {at}", "A higher rate allows more of them, and more false ones."
    title = f"{plural(n, 'discovery')} among {tests} at {at}"
    low, high = f"{row['false_low']:,.0f}", f"{row['false_high']:,.0f}"
    ends = low if low == high else f"{low} to {high}"
    words = f"Expected number of false ones among them: {expected(float(row['expected_false']))}"
    if n == 1:
        return title, f"It is false with probability {significant(float(row['expected_false']), 2)}."
    return title, f"{words} (90\u00a0% interval {ends})."


def _ticks(top: float) -> list[float]:
    """1, 2, 5, 10, ... apart enough to be read on the root scale."""
    out, last = [0.0], np.inf
    for value in (s * 10.0**d for d in range(int(np.log10(top)), -1, -1) for s in (5, 2, 1)):
        at = (value / top) ** 0.5
        if value <= top and last - at >= 0.085 and at >= 0.085:
            out.append(value)
            last = at
    return out
