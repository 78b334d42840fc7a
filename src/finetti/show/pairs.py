"""The drawing of hyperparameters in pairs: the nodes at which coefficients were integrated out, and their weights."""

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Pairs", "draw", "pairs"]

Floats = npt.NDArray[np.float64]

MOST = 6  # hyperparameters: more panels than 6 x 6 cannot be read on one page
MOST_DOTS = 2500
TAIL = 0.002  # weight beyond each end of an axis
WEAK = 0.1  # correlations below it are called none
DARKEST = 3.0  # times the typical weight, from where on dots grow no darker


@dataclass(frozen=True)
class Pairs:
    """Free hyperparameters at their nodes.

    Attributes
    ----------
    shown : those drawn, at the nodes; `smooth` the same for their densities; `left_out` the labels of the others
    relative : (S,) weight of each node over the typical one, sum w^2, which is the mean weight if all are equal
    correlation : (k, k) of the weighted nodes
    """

    shown: list[Hyperparameter]
    smooth: list[Hyperparameter]
    left_out: list[str]
    relative: Floats
    correlation: Floats

    @property
    def equal(self) -> bool:
        """Whether all nodes weigh the same, as draws do."""
        return bool(np.ptp(self.relative) < 1e-9)

    @property
    def title(self) -> str:
        """The strongest dependence, in words."""
        k = len(self.shown)
        if k == 1:
            return f"Posterior of {st.shortened(self.shown[0].label, 60)}"
        i, j = max(((i, j) for i in range(k) for j in range(i)), key=lambda at: abs(self.correlation[at]))
        r = self.correlation[i, j]
        if abs(r) < WEAK:
            return f"The {k} hyperparameters hardly depend on each other in the posterior"
        names = " and ".join(st.shortened(self.shown[a].label, 44) for a in (j, i))
        return f"{names} depend most on each other: posterior correlation {_two(r)}"

    @property
    def subtitle(self) -> str:
        """How to read it, and what is not shown."""
        if len(self.shown) == 1:
            return "The only hyperparameter that was integrated over: there is no pair to show."
        n = int(np.sum(self.relative > 0))
        kind = "draws" if self.equal else "nodes, larger and darker with more posterior weight"
        words = f"Dots: {n:,} {kind}."
        if n > MOST_DOTS:
            words += f" {MOST_DOTS:,} of them, at random, are shown."
        words += " Diagonal: posterior density. Upper right: correlations."
        if self.left_out:
            names = ", ".join(st.shortened(v) for v in self.left_out[:3])
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            words += f" Left out: {names}{more}."
        return words

    @property
    def handles(self) -> list[Any]:
        """Legend: three weights."""
        from matplotlib.lines import Line2D

        if self.equal or len(self.shown) == 1:
            return []
        shades = np.array([0.3, 1.0, DARKEST])
        return [
            Line2D([], [], ls="", marker="o", ms=float(np.sqrt(a)), mfc=c, mew=0, label=f"weight {w:g} × typical")
            for w, a, c in zip(shades, _areas(shades), _colors(shades), strict=True)
        ]


def _two(r: float) -> str:
    return f"{r:.2f}".replace("-", "−")


def pairs(fit: Any) -> Pairs:
    """Collect what the figure shows.

    Raises
    ------
    FinettiError
        If no hyperparameter was integrated over.
    """
    free = [h for h in hyperparameters(fit, smooth=False) if not h.held]
    if not free:
        raise FinettiError(
            "plot.pairs needs a hyperparameter that was integrated over, but here each has one value (fixed priors, or "
            "pooling='empirical'). Fit with pooling='partial' and without fi.fixed(...), or see plot.hyper"
        )
    shown = free[:MOST]
    weights = shown[0].weights
    values = np.array([h.x for h in shown])
    mean = values @ weights
    scaled = (values - mean[:, None]) * np.sqrt(weights)
    cov = scaled @ scaled.T
    sd = np.sqrt(np.diag(cov))
    smooth = [h for h in hyperparameters(fit) if not h.held][:MOST]
    return Pairs(
        shown, smooth, [h.label for h in free[MOST:]], weights / float(weights @ weights), cov / np.outer(sd, sd)
    )


def _areas(relative: Floats) -> Floats:
    """Dot areas in points squared."""
    return 1.5 + 6.0 * np.minimum(relative, DARKEST)


def _colors(relative: Floats) -> Floats:
    """From pale to dark blue with the weight."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("weight", ["#dcebf4", "#56a3cf", "#0072B2", "#00304d"])
    return np.asarray(shades(np.minimum(relative, DARKEST) / DARKEST))


def draw(axes: Sequence[Sequence[Axes]], p: Pairs) -> None:
    """Draw in a square of axes, row by row; the style is the caller's to set."""
    k = len(p.shown)
    if len(axes) < k or any(len(row) < k for row in axes):
        raise FinettiError(
            f"plot.pairs needs {k} x {k} panels ({', '.join(h.label for h in p.shown)}), but ax= has fewer. "
            "Give a square array of Axes, as plt.subplots makes it, or none"
        )
    limits = [_limits(h) for h in p.shown]
    order = _order(p.relative)
    small = 7.0 if k > 4 else 8.0
    for i in range(k):
        for j in range(k):
            ax = axes[i][j]
            if j > i:
                _number(ax, p.correlation[i, j], small)
                continue
            ax.set_xlim(limits[j])
            (_diagonal if i == j else _dots)(ax, p, i, j, limits, order)
            _axes_of(ax, p, i, j, k, small)
            st.plain(ax)


def _order(relative: Floats) -> npt.NDArray[np.int_]:
    """The nodes to draw, the heaviest last so that they lie on top."""
    alive = np.flatnonzero(relative > 0)
    if alive.size > MOST_DOTS:
        alive = np.random.default_rng(0).choice(alive, MOST_DOTS, replace=False)
    return alive[np.argsort(relative[alive], kind="stable")]


def _limits(h: Hyperparameter) -> tuple[float, float]:
    low, high = (float(v) for v in weighted_quantiles(h.x, h.weights, [TAIL, 1.0 - TAIL]))
    margin = 0.08 * (high - low)
    start, end = h.ends
    return max(low - margin, start), min(high + margin, end)


def _diagonal(ax: Axes, p: Pairs, i: int, j: int, limits: list[tuple[float, float]], order: Any) -> None:
    grid = np.linspace(*limits[i], 301)
    density = p.smooth[i].density(grid)
    ax.fill_between(grid, 0.0, density, color=st.POOLED_PALE, alpha=0.6, lw=0)
    ax.plot(grid, density, color=st.POOLED, lw=1.5)
    ax.set_ylim(0.0, 1.1 * float(density.max()))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)


def _dots(ax: Axes, p: Pairs, i: int, j: int, limits: list[tuple[float, float]], order: Any) -> None:
    x, y, w = p.shown[j].x[order], p.shown[i].x[order], p.relative[order]
    inside = (x >= limits[j][0]) & (x <= limits[j][1]) & (y >= limits[i][0]) & (y <= limits[i][1])
    shrink = 1.0 if len(p.shown) <= 3 else 0.5
    x, y, w = x[inside], y[inside], w[inside]
    ax.scatter(x, y, s=shrink * _areas(w), c=_colors(w), linewidths=0, rasterized=True, zorder=2)
    ax.set_ylim(limits[i])


def _axes_of(ax: Axes, p: Pairs, i: int, j: int, k: int, small: float) -> None:
    """Ticks and names at the left and at the bottom of the square only."""
    width, height = st.points(ax)
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(labelsize=small, length=2.5, labelbottom=i == k - 1, labelleft=j == 0 and i > 0)
    if i != j:
        ax.locator_params(axis="y", nbins=3)
    if i == k - 1:
        ax.set_xlabel(_name(p.shown[j], small, 0.95 * width), fontsize=small)
    if j == 0:
        ax.set_ylabel(_name(p.shown[i], small, 0.95 * height), fontsize=small)


def _name(h: Hyperparameter, size: float, room: float) -> str:
    """A label on at most three lines."""
    lines = h.lines(size, room)
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], st.fitted("".join(lines[2:]), size, room)])


def _number(ax: Axes, r: float, small: float) -> None:
    ax.set_axis_off()
    strong = abs(r) >= WEAK
    ax.text(
        0.5, 0.5, _two(r), transform=ax.transAxes, ha="center", va="center", fontsize=small + 2.5,
        color=st.INK if strong else st.MUTED,
    )  # fmt: skip
