"""The shrinkage curve of a screen: an estimated effect, and the posterior mean that is left of it.

Given the prior, a test's posterior mean is a function of its effect, its standard error and its degrees of freedom.
Under a spike at zero it is flat around zero and bends to the diagonal where an effect cannot be null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetti.inference.spike_slab import Observed
from finetti.inference.spike_slab_posterior import COLUMNS, effects
from finetti.show import style as st
from finetti.show.numbers import number, percent, plural
from finetti.show.screen_facts import finish, known, reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from finetti.studies.screen import Screen

__all__ = ["Law", "draw", "laws", "size"]

Floats = npt.NDArray[np.float64]

HEIGHT, HEIGHT_OF_SEVERAL = 5.2, 5.8  # inches
GRID = 241
MOST_POINTS, STRIPS = 5_000, 50
# standard errors within this ratio of one another have one curve
ALIKE = 1.1
# in standard errors: of smaller effects a null that is not at 0 decides the ratio
SMALL = 0.25
DASHES: tuple[Any, ...] = ((0, (5, 1.6)), "-", (0, (1.2, 1.2)))
PROBS = np.array([0.05, 0.95])


@dataclass(frozen=True, eq=False)
class Law:
    """Posterior mean, and 5 and 95 % quantiles, of a test like test `at`, in its standard errors, at `z`."""

    at: int
    z: Floats
    mean: Floats
    low: Floats
    high: Floats
    label: str

    @property
    def half(self) -> float:
        """Where more than half of a positive effect begins to be kept: 0 if it always is, infinite if it never is.

        NaN if it is of small effects, but not of all: t errors take even the largest back to 0 under a normal slab.
        """
        up = self.z >= SMALL
        z, kept = self.z[up], self.mean[up] > 0.5 * self.z[up]
        if kept[0]:
            return 0.0 if kept.all() else float("nan")
        return float(z[np.argmax(kept)]) if kept.any() else float("inf")


def law(screen: Screen, at: int, z: Floats, label: str = "") -> Law:
    """What becomes of estimates z of a test with the standard error, df and group of test `at`."""
    tests = screen.tests.take(np.full(z.size, at))
    tests = Observed(z, tests.se, tests.df, tests.group, tests.count, tests.sets)
    nodes, weights = screen.nodes
    found = effects(tests, screen.slab, nodes, weights, PROBS) / tests.se[:, None]
    k = len(COLUMNS)
    return Law(at, z, found[:, COLUMNS.index("mean")], found[:, k], found[:, k + 1], label)


def laws(screen: Screen, z: Floats) -> list[Law]:
    """One law where all tests are alike; else of three typical tests, from the smallest value to the largest."""
    tests = screen.tests
    se = screen.screened.se
    nodes, weights = screen.nodes
    if nodes.n_groups > 1:
        w = nodes.by_group(weights)
        pi0 = (w * nodes.pi0).sum(axis=0) / w.sum(axis=0)
        picked = _typical(pi0[tests.group], se)
        return [law(screen, i, z, f"a test with π0 = {percent(float(pi0[tests.group[i]]))}") for i in picked]
    low, middle, high = np.quantile(se, [0.1, 0.5, 0.9])
    if high < ALIKE * low:
        return [law(screen, int(np.argmin(np.abs(se - middle))), z)]
    picked = _typical(se, screen.tests.df)
    named = zip(picked, ("10 % quantile", "median", "90 % quantile"), strict=False)
    return [law(screen, i, z, f"standard error {number(se[i])} ({what})") for i, what in named]


def _typical(value: Floats, second: Floats) -> list[int]:
    """Tests at the 10, 50 and 90 % quantiles of a value; among ties the one of median `second`."""
    out = []
    for q in np.quantile(value, [0.1, 0.5, 0.9], method="nearest"):
        ties = np.flatnonzero(value == q)
        out.append(int(ties[np.argsort(second[ties], kind="stable")[ties.size // 2]]))
    return list(dict.fromkeys(out))


def size(screen: Screen) -> tuple[float, float]:
    """Height and width in inches."""
    one = screen.nodes[0].n_groups == 1 and not np.ptp(screen.screened.se)
    return HEIGHT if one else HEIGHT_OF_SEVERAL, st.WIDTH


def middle(found: list[Law]) -> Law:
    """The law of the median test."""
    return found[len(found) // 2]


def draw(ax: Axes, screen: Screen, table: pd.DataFrame) -> None:
    """Draw the figure in `ax`; the style is the caller's to set."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    s = screen.screened
    alike = bool(np.all(s.se == s.se[0]))
    unit = float(s.se[0]) if alike else 1.0  # the axes are in units of the effect where all errors are alike
    z = s.effect / s.se
    sd = known(screen, "null_sd").mean
    low, high, beyond = reach(z, 4.2 * max(sd, 1.0))
    found = laws(screen, np.union1d(np.linspace(low, high, GRID), 0.0))
    x, y = unit * z, unit * table["mean"].to_numpy(float) / s.se
    inside = (z >= low) & (z <= high)
    shown = _shown(np.abs(z))
    shown = shown[inside[shown]]
    bottom = min(float(y[inside].min(initial=0.0)), *(float(unit * f.mean.min()) for f in found))
    top = max(float(y[inside].max(initial=0.0)), *(float(unit * f.mean.max()) for f in found))
    typical = middle(found)
    bottom, top = min(bottom, unit * float(typical.low.min())), max(top, unit * float(typical.high.max()))
    margin = 0.04 * ((top - bottom) or 1.0)
    ax.set_xlim(unit * low, unit * high)
    ax.set_ylim(bottom - margin, top + margin)
    ax.grid(True)
    ax.axhline(0.0, color=st.INK, lw=0.8, zorder=1.5)
    ax.axline((0.0, 0.0), slope=1.0, color=st.LINK, lw=1.2, zorder=1.5)
    ax.fill_between(unit * typical.z, unit * typical.low, unit * typical.high, color=st.POOLED_PALE, alpha=0.4, lw=0,
                    zorder=1)  # fmt: skip
    alpha = float(np.clip(14.0 / np.sqrt(max(shown.size, 1)), 0.2, 0.8))
    ax.scatter(x[shown], y[shown], s=16 if shown.size <= 500 else 7, color=st.RAW, alpha=alpha, linewidths=0, zorder=4,
               rasterized=shown.size > 2000)  # fmt: skip
    dashes = DASHES if len(found) > 1 else DASHES[1:]
    for f, dash in zip(found, dashes, strict=False):
        ax.plot(unit * f.z, unit * f.mean, color=st.POOLED, lw=1.6, ls=dash, zorder=3)
    name = st.shortened(s.effect_name)
    label = f"{name} as observed" if alike else f"{name} as observed / standard error"
    ax.set_xlabel("\n".join(st.wrapped(label, 9.5, max(120.0, st.points(ax)[0]))))
    ax.set_ylabel("posterior mean" if alike else "posterior mean / se")
    handles: list[Any] = [
        Line2D([], [], ls="", marker="o", ms=4.5, mew=0, color=st.RAW, label=_points_label(shown.size, z.size))
    ]
    handles += [
        Line2D([], [], color=st.POOLED, lw=1.6, ls=dash, label=f.label or "posterior mean of an effect")
        for f, dash in zip(found, dashes, strict=False)
    ]
    band = "90 % interval of the effect" + (", middle curve" if len(found) > 1 else "")
    handles.append(Patch(facecolor=st.POOLED_PALE, alpha=0.4, label=band))
    handles.append(Line2D([], [], color=st.LINK, lw=1.2, label="no shrinkage"))
    title, subtitle = message(screen, found, beyond)
    finish(ax, screen, title, subtitle, tuple(handles))


def message(screen: Screen, found: list[Law], beyond: int) -> tuple[str, str]:
    """From where on most of an effect is kept, and what is left of typical ones."""
    typical = middle(found)
    half, last = typical.half, float(typical.z[-1])
    if half == 0.0:
        title = "Every effect keeps more than half of its size"
    elif np.isnan(half):
        title = "What is left of an estimated effect"
    elif np.isinf(half):
        title = "Every effect shown here shrinks by more than half"
    else:
        title = f"Effects under {number(half, 1)} standard errors shrink by more than half"
    at = [v for v in (2.0, 4.0, 6.0) if v <= last]
    left = [st.signed(float(np.interp(v, typical.z, typical.mean)), 1) for v in at]
    shrink = [f"{v:g} to {m}" for v, m in zip(at[1:], left[1:], strict=True)]
    words = ", ".join([f"2 standard errors shrink to {left[0]}", *shrink]) + "."
    if len(found) > 1:
        words = f"{'Of a typical test' if screen.nodes[0].n_groups > 1 else 'At the median error'}, {words}"
    if beyond:
        words += f" {plural(beyond, 'test')} {'lies' if beyond == 1 else 'lie'} beyond the edges."
    return title, words


def _points_label(shown: int, n: int) -> str:
    return "one test" if shown == n else f"one test, {shown:,} of {n:,} shown"


def _shown(away: Floats) -> npt.NDArray[np.int64]:
    """At most `MOST_POINTS` tests: all, or as many at random from each strip of |z|, so that the tails are seen."""
    if away.size <= MOST_POINTS:
        return np.arange(away.size)
    strip = np.minimum(away / (away.max() or 1.0) * STRIPS, STRIPS - 1.0).astype(np.int16)
    shuffled = np.random.default_rng(5).permutation(away.size)
    order = shuffled[np.argsort(strip[shuffled], kind="stable")]
    first = np.searchsorted(strip[order], np.arange(STRIPS))
    rank = np.arange(away.size) - first[strip[order]]
    # the strips' quota: what is left of the narrow ones goes to the full ones
    size = np.bincount(strip, minlength=STRIPS)
    quota = MOST_POINTS // STRIPS
    while np.minimum(size, quota + 1).sum() <= MOST_POINTS:
        quota += 1
    return np.sort(order[rank < quota])
