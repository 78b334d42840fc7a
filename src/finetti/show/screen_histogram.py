"""The histogram of z with the fitted null, the fitted slab and their sum.

Heights are on a root scale: the square root shows a slab of one test in a hundred beside its null, and makes the
sampling error of all bars alike (Tukey's rootogram; Tukey 1977, Exploratory Data Analysis). A slab of one in ten
thousand takes the fourth root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.show import style as st
from finetti.show.numbers import plural
from finetti.show.screen_facts import Curves, finish, known, mixture_curves, not_null, percent_range, reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from finetti.studies.screen import Screen

__all__ = ["HEIGHT", "draw"]

Floats = npt.NDArray[np.float64]

HEIGHT = 4.7  # inches
BARS = "#dcdcdc"
MOST_BARS = 120
FEW = 100
MOST_PLACES = 3
# the slab's top at least so high on the figure, else a higher root is taken
VISIBLE = 0.10
LABEL = 8.5  # points
ROOTS = {2: "root scale", 4: "fourth-root scale"}


def bins(z: Floats, low: float, high: float, kappa: float) -> Floats:
    """Edges between `low` and `high`: Freedman and Diaconis' width where that is neither too fine nor too coarse."""
    first, third = np.quantile(z, [0.25, 0.75])
    width = 2.0 * (third - first) * z.size ** (-1.0 / 3.0)
    width = float(np.clip(width, (high - low) / MOST_BARS, 0.5 * kappa))
    # at most twice the bars: where the null is narrow within a wide range, its shape matters more
    n = int(np.clip(np.ceil((high - low) / width), 1, 2 * MOST_BARS))
    return np.linspace(low, high, n + 1)


def draw(ax: Axes, screen: Screen) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    z = screen.screened.effect / screen.screened.se
    mean, sd = known(screen, "null_mean"), known(screen, "null_sd")
    free = screen.null == "free"
    low, high, beyond = reach(z, 4.2 * max(sd.mean, 1.0), mean.mean)
    grid = np.union1d(np.linspace(low, high, 161), mean.mean + sd.mean * np.linspace(-4.0, 4.0, 81))
    grid = grid[(grid >= low) & (grid <= high)]
    curves = mixture_curves(screen, grid)
    edges = bins(z, low, high, sd.mean)
    height = np.histogram(z, edges)[0] / (z.size * np.diff(edges))  # of all tests, those beyond the limits too
    drawn = [height, curves.both, *([curves.theoretical] if free else [])]
    top = float(max(v.max() for v in drawn))
    root = 2 if np.sqrt(curves.slab.max() / top) >= VISIBLE else 4
    ax.set_yscale("function", functions=(lambda y: np.maximum(y, 0.0) ** (1.0 / root), lambda v: v**root))
    top *= 1.06**root
    ax.set_xlim(low, high)
    ax.set_ylim(0.0, top)
    ticks = _ticks(top, root)
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([], minor=True)

    ax.stairs(height, edges, fill=True, color=BARS, lw=0, zorder=1)
    if curves.null_band is not None and curves.slab_band is not None:
        ax.fill_between(grid, *curves.slab_band, color=st.POOLED_PALE, alpha=0.6, lw=0, zorder=2)
        ax.fill_between(grid, *curves.null_band, color="#a8a8a8", alpha=0.6, lw=0, zorder=2)
    if free:
        ax.plot(grid, curves.theoretical, color=st.PRIOR, lw=0.9, ls=(0, (1, 1.4)), zorder=3)
    ax.plot(grid, curves.both, color=st.RAW, lw=1.2, ls=(0, (5, 2)), zorder=3.5)
    ax.plot(grid, curves.null, color=st.INK, lw=1.4, zorder=4)
    ax.plot(grid, curves.slab, color=st.POOLED, lw=1.8, zorder=4)
    name = "z" if screen.screened.z_values else f"z = {st.shortened(screen.screened.effect_name)} / standard error"
    ax.set_xlabel("\n".join(st.wrapped(name, 9.5, max(120.0, st.points(ax)[0]))))
    ax.set_ylabel(f"density ({ROOTS[root]})")
    _label(ax, screen, curves, edges, height, root)
    title, subtitle = message(screen, beyond)
    finish(ax, screen, title, subtitle)


def message(screen: Screen, beyond: int) -> tuple[str, str]:
    """How many tests are not null, and what the null is."""
    share, ends = percent_range(not_null(screen))
    sure = f" ({ends})" if ends else ""
    title = f"{share} of {plural(screen.n_tests, 'test')} are not null{sure}".replace(" %", "\u00a0%")
    mean, sd = known(screen, "null_mean"), known(screen, "null_sd")
    null = "normal" if screen.tests.normal else "t"
    if mean.sure and sd.sure and screen.method == "full":
        words = f"The null is held: {null}, mean {st.signed(mean.mean)}, sd {st.signed(sd.mean)}."
        if (mean.mean, sd.mean) == (0.0, 1.0):
            words = "The null is the theoretical one." if null == "t" else "The null is the theoretical one, N(0, 1)."
    elif mean.sure and sd.sure:
        words = f"The null has mean {st.signed(mean.mean, 2)} and sd {st.signed(sd.mean, 2)}, "
        words += "the values of largest likelihood." if screen.null == "free" else "as in theory."
    else:
        what = "The null, learned from the bulk, has "
        at, width = (min(k.places or 0, MOST_PLACES) for k in (mean, sd))
        words = f"{what}mean {st.signed(mean.mean, at)} and sd {st.signed(sd.mean, width)} "
        words += f"({st.signed(sd.low, width)} to {st.signed(sd.high, width)})."
    if screen.nodes[0].n > 1:
        words += " Brackets and bands hold 90\u00a0%."
    if beyond:
        words += f" {plural(beyond, 'test')} {'lies' if beyond == 1 else 'lie'} beyond the edges."
    return title, words


def _ticks(top: float, root: int) -> list[float]:
    """1, 2, 5, 10, ... apart enough to be read on the root scale."""
    decades = range(int(np.floor(np.log10(top))), int(np.floor(np.log10(top))) - 9, -1)
    out = [0.0]
    last = np.inf
    for value in (s * 10.0**d for d in decades for s in (5, 2, 1)):
        at = (value / top) ** (1.0 / root)
        if value <= top and last - at >= 0.085 and at >= 0.085:
            out.append(value)
            last = at
    return out


def _label(ax: Axes, screen: Screen, c: Curves, edges: Floats, height: Floats, root: int) -> None:
    """Name the curves beside them: the null and what it is compared with above, slab and sum below."""
    wide, _ = st.points(ax)
    (low, high), top = ax.get_xlim(), ax.get_ylim()[1]
    span, peak = high - low, int(np.argmax(c.both))

    def up(v: Floats) -> Floats:
        return np.asarray((v / top) ** (1.0 / root))

    # all that is drawn, which names keep clear of; the tall bars of a few tests leave no place that is
    bars = height[np.clip(np.searchsorted(edges, c.z, side="right") - 1, 0, height.size - 1)]
    bars = bars if screen.n_tests >= FEW else np.zeros(c.z.size)
    outline = up(np.maximum.reduce([c.both, c.theoretical if screen.null == "free" else c.both, bars]))

    def write(text: str, curve: Floats, side: int, level: float, colour: str, *, down: bool = False) -> None:
        """A name at `level` of the axes' height, as near the peak as what is drawn allows, and a line to its curve."""
        busy = np.flatnonzero(outline >= level - (0.08 if down else 0.03))
        inner = float(c.z[busy[-1] if side > 0 else busy[0]]) if busy.size else float(c.z[peak])
        at = inner + side * (0.05 if down else 0.04) * span
        room = max(abs((high if side > 0 else low) - at) / span * wide - 2.0, 40.0)
        if down:
            here = min(int(np.searchsorted(c.z, at + 0.03 * span)), c.z.size - 1)
        else:
            way = np.arange(peak, c.z.size) if side > 0 else np.arange(peak, -1, -1)
            # where the curve has fallen to that height; of a lower curve, a little below its own top
            below = np.flatnonzero(up(curve[way]) <= min(level, 0.93 * float(up(curve.max(keepdims=True))[0])))
            here = int(way[below[0]]) if below.size else int(way[-1])
        line: dict[str, Any] = {"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 1.5, "shrinkB": 0.0}
        if down:
            line["relpos"] = (0.1, 0.0)
        ax.annotate(
            "\n".join(st.wrapped(text, LABEL, room, bold=down)), (float(c.z[here]), float(curve[here])),
            (at, top * level**root), textcoords="data", ha="left" if side > 0 else "right", va="center",
            fontsize=LABEL, fontweight="bold" if down else "normal", color=colour, linespacing=1.15, zorder=6,
            arrowprops=line,
        )  # fmt: skip
        ax.plot(c.z[here], curve[here], marker="o", ms=3.0, color=colour, mew=0, zorder=6, clip_on=False)

    write("the null's part", c.null, -1, 0.82, st.INK)
    if screen.null == "free":
        words = "N(0, 1) in its place" if screen.tests.normal else "the theoretical null in its place"
        write(words, c.theoretical, 1, 0.82, st.MUTED)
    write("null and slab together", c.both, -1, 0.52, st.RAW)
    share = percent_range(not_null(screen))[0].replace(" ", "\u00a0")
    write(f"the slab's part, {share} of the tests", c.slab, 1, 0.5, st.POOLED, down=True)
