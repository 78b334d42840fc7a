"""The drawing of hyperparameters: a panel each, the posterior density against the prior's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetti.errors import FinettiError
from finetti.inference.weights import weighted_quantiles
from finetti.show import style as st
from finetti.show.nodes import Hyperparameter, hyperparameters
from finetti.show.numbers import plural, shared_decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panels", "draw", "panels", "size"]

Floats = npt.NDArray[np.float64]

MOST_PANELS = 24  # a 6 x 6 correlation matrix and its sds fit; more is a table, not a figure
LINE = 11.0  # points of a line of text over a panel
MOST_PRIOR = 1.4  # times the posterior's height, up to which a prior's curve is shown
NARROWED = 0.8  # a posterior interval wider than this share of the prior's was hardly narrowed by the data


@dataclass(frozen=True)
class Panels:
    """What the figure shows: the hyperparameters, and their rows of `summary` (q5, q50, q95)."""

    shown: list[Hyperparameter]
    left_out: int
    table: Any

    @property
    def title(self) -> str:
        """How far the data narrowed the priors, in words."""
        free = [h for h in self.shown if not h.held]
        if not free:
            return "The hyperparameters have one value each: nothing to compare with the priors"
        ratios = [r for h in free if (r := self.narrowing(h)) is not None]
        if not ratios:
            whose = st.shortened(free[0].label, 60) if len(free) == 1 else plural(len(free), "hyperparameter")
            return f"Posterior of {whose}, with improper priors" if len(free) > 1 else f"Posterior of {whose}"
        low, high = 100 * min(ratios), 100 * max(ratios)
        share = f"{low:.0f} %" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f} %"
        k, narrowed = len(ratios), sum(r < NARROWED for r in ratios)
        intervals = "posterior interval" if k == 1 else "posterior intervals"
        if narrowed == k:
            whose = "the prior" if k == 1 else f"{k} priors"
        elif narrowed == 0:
            whose = "the prior hardly" if k == 1 else f"none of {k} priors"
        else:
            whose = f"{narrowed} of {k} priors"
        return f"The data narrow {whose}: {intervals} {share} as wide"

    def narrowing(self, h: Hyperparameter) -> float | None:
        """Width of the posterior's 90 % interval over the prior's; None without a proper prior."""
        if h.prior is None or h.held or not h.prior.proper:
            return None
        width = _prior_width(h)
        return float(self.table.loc[h.label, "q95"] - self.table.loc[h.label, "q5"]) / width if width else None

    @property
    def subtitle(self) -> str:
        """How to read it."""
        words = "Blue: posterior with median and 90 % interval, as in the numbers. Dashed: prior."
        if any(not h.held and h.prior is not None and not h.prior.proper for h in self.shown):
            words += " An improper prior has a shape but no height."
        if self.left_out:
            words += f" {self.left_out} more {'is' if self.left_out == 1 else 'are'} left out."
        return words


def panels(fit: Any) -> Panels:
    """Collect what the figure shows."""
    found = hyperparameters(fit)
    return Panels(found[:MOST_PANELS], max(0, len(found) - MOST_PANELS), fit.summary((0.05, 0.5, 0.95)))


def size(p: Panels) -> tuple[int, int, float]:
    """Rows, columns and height in inches, header apart."""
    n = len(p.shown)
    columns = 1 if n == 1 else 2
    rows = -(-n // columns)
    return rows, columns, 2.6 if n == 1 else 2.15 * rows


def draw(axes: Sequence[Axes], p: Panels) -> None:
    """Draw a panel in each of `axes`; those left over are hidden."""
    if len(axes) < len(p.shown):
        raise FinettiError(
            f"plot.hyper needs {plural(len(p.shown), 'panel')} ({', '.join(h.label for h in p.shown)}), but ax= has "
            f"{len(axes)}. Give as many Axes, or none"
        )
    for ax, h in zip(axes, p.shown, strict=False):
        _panel(ax, h, p.table.loc[h.label])
    for ax in axes[len(p.shown) :]:
        ax.set_axis_off()


def _prior_width(h: Hyperparameter) -> float | None:
    """Width of the prior's central 90 %, from its density on a grid in the quantile of a wide proposal."""
    if h.is_correlation:
        x = np.linspace(-1.0, 1.0, 4001)
    else:
        low, high = h.ends
        scale = float(weighted_quantiles(h.x, h.weights, [0.5])[0]) or 1.0
        x = low + np.geomspace(1e-6, 1e6, 6001) * scale
        x = x[x < high]
    density = h.prior_density(x)
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x))])
    if not (np.isfinite(mass[-1]) and mass[-1] > 0.5):
        return None
    at = np.interp([0.05, 0.95], mass / mass[-1], x)
    return float(at[1] - at[0])


def _window(h: Hyperparameter) -> tuple[float, float]:
    """Horizontal limits: nearly all of the posterior, and 0 where it is near."""
    if h.is_correlation:
        return -1.0, 1.0
    low, high = (float(v) for v in weighted_quantiles(h.x, h.weights, [0.001, 0.99]))
    start, end = h.ends
    room = high - low
    left = start if low - start < 0.6 * room else low - 0.25 * room
    return left, min(high + 0.25 * room, end)


def _panel(ax: Axes, h: Hyperparameter, row: Any) -> None:
    ax.set_xlabel("\n".join(st.wrapped(h.meaning, 8.5, st.points(ax)[0])), fontsize=8.5)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", labelsize=8.5)
    if h.is_correlation:
        ax.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0], ["−1", "−0.5", "0", "0.5", "1"])
    else:
        ax.locator_params(axis="x", nbins=5)
    if h.held:
        _one_value(ax, h, float(row["q50"]))
        st.plain(ax)
        return
    left, right = _window(h)
    grid = np.linspace(left, right, 601)
    density = h.density(grid)
    top = float(density.max())
    low, middle, high = (float(row[q]) for q in ("q5", "q50", "q95"))
    inside = (grid >= low) & (grid <= high)
    ax.fill_between(grid[inside], 0.0, density[inside], color=st.POOLED_PALE, alpha=0.6, lw=0, zorder=2)
    ax.plot(grid, density, color=st.POOLED, lw=1.8, zorder=3, label="posterior")
    ax.plot([low, high], [0.0, 0.0], color=st.POOLED, lw=4.0, solid_capstyle="butt", zorder=4, clip_on=False)
    ax.plot([middle], [0.0], "o", color=st.POOLED, ms=6, mec="white", mew=1.0, zorder=5, clip_on=False)
    top = _prior(ax, h, left, right, top)
    ax.set_xlim(left, right)
    places = shared_decimals([(high - low) / 3.29], digits=2)
    said = "no prior" if h.prior is None else f"prior {h.prior}"
    ax.set_ylim(0.0, 1.04 * top)
    _words(ax, h, f"{st.signed(middle, places)}  [{st.signed(low, places)}, {st.signed(high, places)}]", said)
    st.plain(ax)


def _words(ax: Axes, h: Hyperparameter, first: str, second: str) -> None:
    """Over the panel: the label, the posterior's numbers in blue, the prior in grey. The title makes the room."""
    room = st.points(ax)[0]
    lines = st.wrapped(second, 8.5, room)
    kind: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "bottom"}
    kind |= {"annotation_clip": False, "fontsize": 8.5, "linespacing": 1.15}
    at = 3.0
    ax.annotate("\n".join(lines), (0, 1), (0, at), color=st.PRIOR, **kind)
    at += LINE * len(lines)
    ax.annotate(first, (0, 1), (0, at), color=st.POOLED, **kind)
    name = "\n".join(h.lines(9.0, room, bold=True))
    ax.set_title(name, loc="left", fontsize=9.0, fontweight="bold", color=st.INK, pad=at + LINE + 2.0)


def _prior(ax: Axes, h: Hyperparameter, left: float, right: float, top: float) -> float:
    """Draw the prior's density, on the scale of the posterior's; of an improper one the shape at half height.

    Returns the height of both: a prior with a pole, or one far narrower than the posterior, is cut off above it.
    """
    if h.prior is None:
        return top
    x = np.linspace(left, right, 801)[1:-1]
    density = h.prior_density(x)
    if not h.prior.proper:
        finite = density[np.isfinite(density)]
        density = density * (0.5 * top / float(np.median(finite)))
    ceiling = max(top, min(float(np.max(density, initial=0.0, where=np.isfinite(density))), MOST_PRIOR * top))
    seen = np.where(density <= ceiling, density, np.nan)
    ax.plot(x, seen, color=st.PRIOR, lw=1.3, ls=(0, (4, 2.5)), zorder=2.5, label="prior")
    return ceiling


def _one_value(ax: Axes, h: Hyperparameter, value: float) -> None:
    """A hyperparameter that has one value: where it is, and why."""
    unit = abs(value) if np.isfinite(value) and value else 1.0
    ax.set_xlim(*((-1.0, 1.0) if h.is_correlation else (0.0, 2.0 * unit)))
    if np.isfinite(value):
        ax.plot([value, value], [0.0, 1.0], color=st.POOLED, lw=1.8, clip_on=False)
        ax.plot([value], [0.0], "o", color=st.POOLED, ms=6, mec="white", mew=1.0, zorder=5, clip_on=False)
    ax.set_ylim(0.0, 1.04)
    _words(ax, h, st.signed(value), h.held)
